import { complaint, nodes, request, tell } from "./earmark.js";

const rows = document.getElementById("rows");
const search = document.getElementById("search");
const add = document.getElementById("add");
const said = document.getElementById("said");
const edit = document.getElementById("edit");
const change = document.getElementById("change");
const many = document.getElementById("many");
const manySaid = document.getElementById("many-said");
const ingests = document.getElementById("ingests");
const EVERY = 2000; // ms between looks at archives that are not finished
let shown = "";
let next = null;
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

// What is filled in; a file that was not chosen is sent by browsers as an empty one.
function filled(of) {
  const form = new FormData(of);
  for (const [name, value] of [...form]) {
    if (value === "" || (value instanceof File && !value.name)) form.delete(name);
  }
  return form;
}

add.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = filled(add);
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

async function showIngests() {
  clearTimeout(next);
  let html;
  try {
    html = await (await request("/parts/ingests")).text();
  } catch {
    ingests.hidden = true; // this key is not one for adding
    return;
  }
  // what has not changed is not drawn anew: the focus stays where it is
  if (html !== shown) tell(ingests, nodes(html));
  ingests.hidden = !ingests.querySelector("table");
  const working = ingests.querySelector("[data-state=queued], [data-state=running]");
  if (shown && html !== shown) list();
  shown = html;
  if (working) next = setTimeout(showIngests, EVERY);
}

ingests.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  try {
    await request(button.dataset.remove, { method: "DELETE" });
    await showIngests();
  } catch (error) {
    tell(manySaid, complaint(error));
  }
});

many.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = many.querySelector("button");
  button.disabled = true;
  tell(manySaid, "Sending …");
  try {
    const body = filled(many);
    const ingest = await (await request("/v1/ingests", { method: "POST", body })).json();
    tell(manySaid, `${ingest.name} is in the queue.`);
    many.reset();
    await showIngests();
  } catch (error) {
    tell(manySaid, complaint(error));
  } finally {
    button.disabled = false;
  }
});

list().then(showIngests); // one after the other: either may have to ask for a key
