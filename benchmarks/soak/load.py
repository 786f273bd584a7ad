"""How a server bears many clients: latency, throughput and memory, overload, and workers that are killed.

    python -m benchmarks.soak.load --folder FOLDER [--seconds 300] [--clients 1 4 16 64] [--out FILE.json]

The library holds real recordings of the fetched packages and, up to --recordings, simulated ones (see
`benchmarks.scale`). Clips of 5 s, as MP3 of 64 kbit/s, are asked about over HTTP by locust: most are of the
real recordings, one in eight is of music that is not in the library, for which all hypotheses are tried. Each
client asks again as soon as it is answered.

One after the other: so many clients at once, the last of these counts for --seconds, the others for a
fifth of it; then clients beyond what may wait, who are to be refused with Retry-After; then a worker
process is killed (SIGKILL) every few seconds, each of which may cost one request. Speeds are also given as
ratios to one client's. FOLDER is kept: another run takes the library and the clips from there.
"""

import argparse
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import corpora
from benchmarks.codecs import write_clip
from benchmarks.scale import Music, grow
from benchmarks.simulation import ANGLE, Simulation
from fingerprint.cores import available_cores
from fingerprint.encoder import Encoder
from index.library import Library

CLIP = 5.0  # seconds
CLIPS, UNKNOWN = 128, 16  # clips, and how many of them are not in the library
OVERLOAD = 64  # clients beyond those that are taken
CLIENTS_THAT_LOSE_WORKERS = 16
KILL_EVERY = 8.0  # seconds; a worker takes some to start


def prepare(folder: Path, recordings: int, real: int) -> None:
    """Make the library and the clips, where they are not there yet."""
    encoder = Encoder.load()
    library = Library.open(folder / "library", encoder, create=True)
    if library.info()["recordings"] < recordings:
        music = Music.of(folder / "real", encoder, real)
        simulation = Simulation([it.embeddings for it in music.mixed], ANGLE, encoder)
        for _ in grow(library, music.known, simulation, recordings, math.inf):
            pass
        _make_clips([Path(it.source) for it in music.known], folder / "clips")
    library.close()


def _make_clips(real: Sequence[Path], folder: Path) -> None:
    """Clips named by their recording, or as unknown."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    known = [(f"recording-{i:07}", real[i]) for i in rng.integers(len(real), size=CLIPS - UNKNOWN)]
    others = [item.path for item in corpora.items("report", ("music",))]
    unknown = [("unknown", others[i]) for i in rng.choice(len(others), UNKNOWN, replace=False)]
    for number, (name, source) in enumerate(known + unknown):
        write_clip(source, rng.uniform(0, 20), CLIP, folder / f"{name}-{number}.mp3")


@contextmanager
def server(
    library: Path, folder: Path, jobs: int, **settings: str
) -> Iterator[tuple[str, psutil.Process]]:
    """A server of a library, ready: its address and process. It logs to a file in the folder.

    settings : others, by the names of their environment variables
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", "earmark", "--library", str(library), "serve"]
    log = folder / f"server-{port}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--jobs", str(jobs)],
            stderr=file,
            cwd=folder,
            env=os.environ | settings,
        )
        try:
            while not _is_ready(address):
                if process.poll() is not None:
                    sys.exit(f"the server ended: {log}")
                time.sleep(0.2)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def workers(process: psutil.Process) -> list[psutil.Process]:
    """The server's worker processes."""
    found = []
    for child in process.children():
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


class Watch(threading.Thread):
    """Notes the server's memory every second until it is told to stop, and kills workers if asked to.

    Attributes
    ----------
    seen : (seconds since the start, bytes of the server, bytes of all workers, open files of the server)
    killed : how many workers were
    """

    def __init__(self, process: psutil.Process, kill_every: float | None = None) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.kill_every = kill_every
        self.seen: list[tuple[float, int, int, int]] = []
        self.killed = 0
        self._over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(1.0):
            passed = time.monotonic() - began
            now = workers(self.process)
            used = self.process.memory_info().rss
            sizes = [_resident(worker) for worker in now]
            self.seen.append((round(passed, 1), used, sum(sizes), self.process.num_fds()))
            if self.kill_every and now and passed > self.kill_every * (self.killed + 1):
                now[self.killed % len(now)].send_signal(signal.SIGKILL)
                self.killed += 1

    def stop(self) -> None:
        """Wait for its end."""
        self._over.set()
        self.join()


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def ask(address: str, clients: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """What became of each request of so many clients in so many seconds."""
    out = folder / "asked.json"
    environment = os.environ | {
        "EARMARK_LOAD_CLIPS": str(folder / "clips"),
        "EARMARK_LOAD_OUT": str(out),
    }
    command = [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"),
        *("--locustfile", str(Path(__file__).with_name("clients.py")), "--host", address),
        *("--users", str(clients), "--spawn-rate", str(clients)),
        *("--run-time", f"{round(seconds)}s", "--stop-timeout", "120"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"locust failed: {done.stderr}")
    asked: list[dict[str, Any]] = json.loads(out.read_text())
    return asked


def phase(
    address: str,
    process: psutil.Process,
    clients: int,
    seconds: float,
    folder: Path,
    kill_every: float | None = None,
) -> dict[str, Any]:
    """The figures of so many clients at once."""
    watch = Watch(process, kill_every)
    watch.start()
    asked = ask(address, clients, seconds, folder)
    watch.stop()
    answered = [it for it in asked if it["status"] == 200]
    known = [it for it in answered if not it["clip"].startswith("unknown")]
    refused = [it for it in asked if it["status"] in (429, 503)]
    unanswered = Counter(it["error"] for it in asked if it["status"] == 0)
    took = sorted(it["seconds"] for it in answered)
    span = max(it["at"] + it["seconds"] for it in asked) - min(it["at"] for it in asked)
    return {
        "clients": clients,
        "asked": len(asked),
        "statuses": dict(Counter(str(it["status"]) for it in asked)),
        "unanswered": dict(unanswered),
        "per_second": len(answered) / span,
        "seconds": {
            "median": statistics.median(took),
            "p95": float(np.quantile(took, 0.95)),
            "p99": float(np.quantile(took, 0.99)),
            "most": took[-1],
        },
        "found": statistics.mean(it["found"] for it in known) if known else None,
        "refused_without_retry_after": sum(it["again"] is None for it in refused),
        "slowest_refusal": max((it["seconds"] for it in refused), default=None),
        "killed": watch.killed,
        "memory": watch.seen,
    }


def growth(memory: Sequence[tuple[float, int, int, int]]) -> str:
    """Memory in the first and in the last quarter, in MiB: server, workers together; and open files."""
    quarter = max(1, len(memory) // 4)
    early, late = (
        [statistics.median(column) for column in zip(*part, strict=True)]
        for part in (memory[:quarter], memory[-quarter:])
    )
    return (
        f"server {early[1] / 2**20:.0f} -> {late[1] / 2**20:.0f} MiB, "
        f"workers {early[2] / 2**20:.0f} -> {late[2] / 2**20:.0f} MiB, "
        f"open files {early[3]:.0f} -> {late[3]:.0f}"
    )


def table(phases: Sequence[dict[str, Any]]) -> str:
    """For people."""
    one = phases[0]
    lines = [f"{'clients':>26}  answers/s (ratio)  median s (ratio)   p95 s  p99 s  statuses"]
    for it in phases:
        rate, took = it["per_second"], it["seconds"]
        statuses = ", ".join(f"{status}: {count}" for status, count in it["statuses"].items())
        lines.append(
            f"{it['name']:>20}{it['clients']:>6}  {rate:9.2f} ({rate / one['per_second']:5.2f})"
            f"  {took['median']:8.2f} ({took['median'] / one['seconds']['median']:5.1f})"
            f"  {took['p95']:6.2f} {took['p99']:6.2f}  {statuses}"
        )
        lines.append(f"{'':28}{growth(it['memory'])}")
        if it["killed"]:
            lines.append(f"{'':28}{it['killed']} workers killed")
        if it["slowest_refusal"] is not None:
            lines.append(
                f"{'':28}slowest refusal {it['slowest_refusal']:.2f} s, "
                f"{it['refused_without_retry_after']} without Retry-After"
            )
    return "\n".join(lines)


def faults(phases: Sequence[dict[str, Any]]) -> list[str]:
    """What a server may not do."""
    found = []
    for it in phases:
        allowed = {"overload": ("200", "429", "503"), "killed workers": ("200", "422", "503")}
        wrong = set(it["statuses"]) - set(allowed.get(it["name"], ("200",)))
        lost = it["asked"] - it["statuses"].get("200", 0)
        if wrong or (it["killed"] and lost > it["killed"]):
            found.append(f"{it['name']} {it['clients']}: {it['statuses']} {it['unanswered']}")
        if it["refused_without_retry_after"]:
            found.append(f"{it['name']} {it['clients']}: refusals without Retry-After")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--real", type=int, default=100, help="recordings that are not simulated")
    parser.add_argument("--jobs", type=int, default=available_cores())
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, args.recordings, args.real)
    short = max(10.0, args.seconds / 5)
    waiting = int(os.environ.get("EARMARK_WAITING", 64))
    phases: list[dict[str, Any]] = []

    def note(name: str, clients: int, seconds: float, kill_every: float | None = None) -> None:
        made = phase(address, process, clients, seconds, folder, kill_every)
        phases.append({"name": name, **made})
        print(json.dumps({k: v for k, v in phases[-1].items() if k != "memory"}), file=sys.stderr)

    with server(folder / "library", folder, args.jobs) as (address, process):
        ask(address, 2 * args.jobs, 10, folder)  # workers start, kernels are loaded
        for clients in args.clients:
            note("load", clients, args.seconds if clients == args.clients[-1] else short)
        note("overload", args.jobs + waiting + OVERLOAD, short)
        note("killed workers", CLIENTS_THAT_LOSE_WORKERS, max(short, 30.0), KILL_EVERY)
    print(table(phases))
    if args.out:
        args.out.write_text(json.dumps({"jobs": args.jobs, "phases": phases}, indent=1) + "\n")
    if found := faults(phases):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
