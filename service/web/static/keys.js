import { complaint, nodes, request, tell } from "./earmark.js";

const rows = document.getElementById("rows");
const add = document.getElementById("add");
const said = document.getElementById("said");
const made = document.getElementById("made");
const text = document.getElementById("made-key");

async function list() {
  try {
    tell(rows, nodes(await (await request("/parts/keys")).text()));
  } catch (error) {
    tell(rows, complaint(error));
  }
  add.hidden = !rows.querySelector("table"); // the first one is made at the machine
}

rows.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button || !confirm(`Revoke ${button.dataset.name}? It is worth nothing from then on.`)) return;
  try {
    await request(`/v1/keys/${button.dataset.id}`, { method: "DELETE" });
    tell(said, `Revoked: ${button.dataset.name}.`);
    await list();
  } catch (error) {
    tell(said, complaint(error));
  }
});

add.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = Object.fromEntries([...new FormData(add)].filter(([, value]) => value));
  try {
    const key = await (await request("/v1/keys", { method: "POST", json: wanted })).json();
    tell(said);
    document.getElementById("made-label").textContent =
      `The ${key.scope} key of ${key.owner}. It is not shown again: copy it now.`;
    text.value = key.key;
    made.hidden = false;
    text.focus();
    text.select();
    add.reset();
    await list();
  } catch (error) {
    tell(said, complaint(error));
  }
});

document.getElementById("copy").addEventListener("click", async () => {
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    tell(said, "Copied.");
  } catch {
    tell(said, "It is selected; copy it with the keyboard."); // browsers want TLS for the clipboard
  }
});

list();
