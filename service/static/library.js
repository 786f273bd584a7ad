import { complaint, nodes, request, tell } from "./earmark.js";

const rows = document.getElementById("rows");
const search = document.getElementById("search");
const add = document.getElementById("add");
const said = document.getElementById("said");
const edit = document.getElementById("edit");
const change = document.getElementById("change");
let before = null; // the recording that is being edited

async function show(url, more) {
  try {
    const html = nodes(await (await request(url)).text());
    if (more) {
      const next = html.querySelectorAll("tbody tr");
      document.querySelector("#rows tbody").append(...next);
      document.getElementById("more")?.remove();
      const button = html.getElementById("more");
      if (button) rows.append(button);
      next[0]?.querySelector("button, th")?.focus();
    } else {
      tell(rows, html);
    }
  } catch (error) {
    tell(rows, complaint(error));
  }
}

const list = () => show(`/parts/library?q=${encodeURIComponent(search.elements.q.value)}`);

search.addEventListener("submit", (event) => {
  event.preventDefault();
  list();
});

rows.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "more") {
    show(button.dataset.url, true);
  } else if (button.dataset.edit) {
    open(button.dataset.edit);
  } else if (confirm(`Remove ${button.dataset.name}? It is not found again from then on.`)) {
    try {
      await request(`/v1/recordings/${encodeURIComponent(button.dataset.id)}`, { method: "DELETE" });
      tell(said, `${button.dataset.name} is removed.`);
      await list();
    } catch (error) {
      tell(said, complaint(error));
    }
  }
});

async function open(id) {
  try {
    before = await (await request(`/v1/recordings/${encodeURIComponent(id)}`)).json();
  } catch (error) {
    tell(said, complaint(error));
    return;
  }
  document.getElementById("editing").textContent = `Edit ${before.title || before.source}`;
  for (const field of change.elements) if (field.name) field.value = before[field.name] ?? "";
  tell(document.getElementById("edit-said"));
  edit.showModal();
}

document.getElementById("cancel").addEventListener("click", () => edit.close());

change.addEventListener("submit", async (event) => {
  event.preventDefault();
  const json = {};
  for (const [name, text] of new FormData(change)) {
    const value = name === "private" ? text === "true" : text.trim() || null;
    if (value !== before[name]) json[name] = value;
  }
  try {
    const url = `/v1/recordings/${encodeURIComponent(before.id)}`;
    const now = await (await request(url, { method: "PATCH", json })).json();
    edit.close();
    tell(said, `${now.title || now.source} is changed.`);
    await list();
  } catch (error) {
    tell(document.getElementById("edit-said"), complaint(error));
  }
});

add.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(add);
  for (const [name, value] of [...form]) if (value === "") form.delete(name);
  const button = add.querySelector("button");
  button.disabled = true;
  tell(said, "Adding …");
  try {
    const recording = await (await request("/v1/recordings", { method: "POST", body: form })).json();
    tell(said, `${recording.title || recording.source} is added, as ${recording.id}.`);
    add.reset();
    await list();
  } catch (error) {
    tell(said, complaint(error));
  } finally {
    button.disabled = false;
  }
});

list();
