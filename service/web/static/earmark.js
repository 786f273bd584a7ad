// What the pages share: requests with the key that was given, and the dialog that asks for one.

const KEY = "earmark-key";
const dialog = document.getElementById("key");
const other = document.getElementById("other-key");

other.hidden = !sessionStorage.getItem(KEY);
other.addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});

function askForKey(reason) {
  document.getElementById("key-reason").textContent = reason;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = document.getElementById("key-text").value.trim();
      document.getElementById("key-text").value = "";
      if (dialog.returnValue === "use" && given) {
        sessionStorage.setItem(KEY, given);
        other.hidden = false;
        resolve(true);
      } else {
        resolve(false);
      }
    }, { once: true });
  });
}

// A response; asks for a key, and asks again, where one is needed. `json` is sent as the body.
// Throws Error with the server's detail.
export async function request(url, { json, ...options } = {}) {
  if (json) options.body = JSON.stringify(json);
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (json) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(url, { ...options, headers });
    } catch {
      throw new Error("The server cannot be reached. Is it running?");
    }
    if (response.ok) return response;
    let detail = `The server answered ${response.status}.`;
    if ((response.headers.get("content-type") || "").includes("problem+json")) {
      detail = (await response.json()).detail;
    }
    if (response.status === 401) {
      sessionStorage.removeItem(KEY);
      if (await askForKey(key ? detail : "This library answers those who have a key.")) continue;
    }
    throw new Error(detail);
  }
}

// Show text, or nodes, in a live region.
export function tell(region, ...what) {
  region.replaceChildren(...what);
}

export function complaint(error) {
  const line = document.createElement("p");
  line.className = "wrong";
  line.setAttribute("role", "alert");
  line.textContent = error.message;
  return line;
}

// Server-rendered HTML as nodes.
export function nodes(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}
