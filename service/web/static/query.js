import { complaint, nodes, request, tell } from "./earmark.js";

const LONGEST = 12_000; // ms of a recording
const POINTS = 600; // of the waveform

const drop = document.getElementById("drop");
const file = document.getElementById("clip");
const record = document.getElementById("record");
const answer = document.getElementById("answer");
let asked = 0;

// The outline of a sound as the path of an SVG of POINTS by 100; empty if the browser cannot decode it.
async function outline(blob) {
  const context = new OfflineAudioContext(1, 1, 8000);
  let samples;
  try {
    samples = (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
  } catch {
    return "";
  }
  const step = samples.length / POINTS;
  let path = "";
  for (let i = 0; i < POINTS; i++) {
    let peak = 0;
    for (let j = Math.floor(i * step); j < (i + 1) * step; j++) peak = Math.max(peak, Math.abs(samples[j]));
    const height = 49 * Math.min(1, peak);
    path += `M${i} ${50 - height}V${50 + height}`;
  }
  return path;
}

function ask(blob, name) {
  const form = new FormData();
  form.append("clip", blob, name);
  return show(name, blob.size < 100e6 ? outline(blob) : "", "/parts/answer", { method: "POST", body: form });
}

// Show what a request about a clip is answered, over the clip's outline.
async function show(name, waveform, url, options) {
  const mine = ++asked;
  tell(answer, `Listening to ${name} …`);
  try {
    const html = await (await request(url, options)).text();
    if (mine !== asked) return;
    tell(answer, nodes(html));
    answer.querySelector("h2").focus();
    answer.querySelector(".timeline path")?.setAttribute("d", await waveform);
  } catch (error) {
    if (mine === asked) tell(answer, complaint(error));
  }
}

file.addEventListener("change", () => {
  if (file.files.length) ask(file.files[0], file.files[0].name);
});
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  drop.addEventListener(kind, () => drop.classList.remove("over"));
}
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  const dropped = event.dataTransfer.files[0];
  if (dropped) ask(dropped, dropped.name);
});

document.getElementById("example").addEventListener("click", () => {
  const clip = fetch("/static/example.mp3").then((response) => response.blob());
  show("the example", clip.then(outline, () => ""), "/parts/example");
});

let recorder = null;
record.addEventListener("click", async () => {
  if (recorder) {
    recorder.stop();
    return;
  }
  let stream;
  try {
    // What a telephone does to speech would spoil music.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch {
    tell(answer, complaint(new Error("No microphone can be used: allow it in the browser, or name a file.")));
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    for (const track of stream.getTracks()) track.stop();
    record.textContent = "Record";
    const type = recorder.mimeType;
    recorder = null;
    ask(new Blob(parts, { type }), type.includes("mp4") ? "recording.mp4" : "recording.webm");
  });
  recorder.start();
  record.textContent = "Stop and ask";
  tell(answer, "Recording … Stop after some seconds of music.");
  const started = recorder;
  setTimeout(() => started.state === "recording" && started.stop(), LONGEST);
});

// A file that was chosen before this script was there.
if (file.files.length) file.dispatchEvent(new Event("change"));
