import { complaint, nodes, request, tell } from "./earmark.js";

const EVERY = 2000; // ms between looks at scans that are not finished

const rows = document.getElementById("rows");
const add = document.getElementById("add");
const said = document.getElementById("said");
let shown = "";
let next = null;

async function show() {
  clearTimeout(next);
  try {
    const html = await (await request("/parts/scans")).text();
    // what has not changed is not drawn anew: the focus stays where it is
    if (html !== shown) tell(rows, nodes(html));
    shown = html;
  } catch (error) {
    tell(rows, complaint(error));
    shown = "";
    return;
  }
  if (rows.querySelector("[data-state=queued], [data-state=running]")) next = setTimeout(show, EVERY);
}

rows.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  try {
    if (button.dataset.open) {
      // opened before it is fetched: later, browsers take it for a pop-up
      const report = window.open("", "_blank");
      const page = await (await request(button.dataset.open)).blob();
      report.location = URL.createObjectURL(new Blob([page], { type: "text/html" }));
    } else {
      await request(button.dataset.remove, { method: "DELETE" });
      await show();
    }
  } catch (error) {
    tell(said, complaint(error));
  }
});

add.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = add.querySelector("button");
  button.disabled = true;
  tell(said, "Sending …");
  try {
    const scan = await (await request("/v1/scans", { method: "POST", body: new FormData(add) })).json();
    tell(said, `${scan.name} is in the queue.`);
    add.reset();
    await show();
  } catch (error) {
    tell(said, complaint(error));
  } finally {
    button.disabled = false;
  }
});

show();
