"""How nine keys fare while a tenth is hostile: their latency, and the server's memory, with it and without.

    python -m benchmarks.soak.hostile --folder FOLDER [--seconds 300] [--clients 64] [--jobs N] \
        [--out FILE.json]

A server of the songs that the clips are cut from is asked by the clients of nine keys, each again as soon as
it is answered, for --seconds; then once more for as long while a tenth key does harm: bodies that come byte
by byte, bodies of 256 MB, routes that its scope does not allow, archives and tables that unpack to gigabytes,
storms of PATCHes. All of it is on the loopback interface, and what the hostile key sends is bounded.
"""

import argparse
import asyncio
import io
import json
import statistics
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import zstandard

from benchmarks.soak.load import Watch, server
from fingerprint.cores import available_cores
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, fingerprint
from index.library import Library
from index.recording import Metadata

RATE = 8000  # Hz, of what is asked about
SONGS, SECONDS, CLIP = 40, 40.0, 5.0
KEYS = 10  # of which the last is hostile
TARGET_LATENCY, TARGET_MEMORY = 1.5, 1.3  # times of those without it
AT_ONCE = 8  # attempts of each kind of harm at the same time


def song(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Notes that no other song has in that order."""
    rng = np.random.default_rng(number)
    notes = 220 * 2 ** (rng.integers(0, 36, int(SECONDS * 4)) / 12)
    time_of_note = np.arange(RATE // 4) / RATE
    return np.concatenate(
        [np.sin(2 * np.pi * note * time_of_note) * np.exp(-6 * time_of_note) for note in notes]
    ).astype(np.float32)


def prepare(folder: Path) -> tuple[list[bytes], list[str]]:
    """Make a library of the songs; clips of them, and the texts of its keys."""
    encoder = Encoder.load()
    library = Library.open(folder / "library", encoder, create=True)
    clips = []
    with library.writer() as writer:
        for number in range(SONGS):
            samples = song(number)
            made = fingerprint(_wave(samples), encoder, REFERENCE_EVERY, name=f"song {number}")
            writer.add(made, Metadata(made.source, "benchmark", "owned"))
            at = number * RATE // 4
            clips.append(_wave(samples[at : at + int(CLIP * RATE)]).getvalue())
    keys = [library.add_key(f"owner {number}", "query", None)[1] for number in range(KEYS)]
    library.close()
    return clips, keys


def _wave(samples: Any) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    file.seek(0)
    return file


def bombs() -> dict[str, bytes]:
    """Archives and tables of some kB that unpack to gigabytes."""
    head = tarfile.TarInfo("a.wav")
    head.size = 2**31
    packer = zstandard.ZstdCompressor(3).compressobj()
    parts = [packer.compress(head.tobuf())]
    parts += [packer.compress(bytes(2**24)) for _ in range(2**7)]
    parts.append(packer.flush())
    table = pa.table({"audio": pa.array(100 * [bytes(2**20)], pa.binary())})
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(table)
    return {"a.tar.zst": b"".join(parts), "b.parquet": file.getvalue()}


async def good(
    client: httpx.AsyncClient, clips: list[bytes], first: int, until: float
) -> list[tuple[int, float]]:
    """Ask about one clip after the other; statuses and seconds."""
    answers, number = [], first
    while time.monotonic() < until:
        began = time.perf_counter()
        answer = await client.post("/v1/query", files={"clip": clips[number % len(clips)]})
        answers.append((answer.status_code, time.perf_counter() - began))
        if answer.status_code in (429, 503):
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        number += 1
    return answers


def harm(client: httpx.AsyncClient) -> list[Callable[[], Awaitable[httpx.Response]]]:
    """What the hostile key does, one attempt each."""
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    packed = bombs()

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b"-"
            await asyncio.sleep(1)

    async def largely() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="clip"; filename="a"\r\n\r\n'
        for _ in range(2**8):
            yield bytes(2**20)
        yield b"\r\n--x--\r\n"

    def scan(name: str) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: client.post("/v1/scans", files={"dataset": (name, packed[name])})

    return [
        lambda: client.post("/v1/query", content=slowly(), headers=kind),
        lambda: client.post("/v1/query", content=largely(), headers=kind),
        lambda: client.post("/v1/recordings", content=largely(), headers=kind),
        lambda: client.patch("/v1/recordings/any", json={"title": "x"}),
        *map(scan, packed),
    ]


async def hostile(attempt: Callable[[], Awaitable[httpx.Response]], until: float) -> Counter[str]:
    """Do one kind of harm again and again; what was answered."""
    said: Counter[str] = Counter()
    while time.monotonic() < until:
        try:
            answer = await asyncio.wait_for(attempt(), max(0.1, until - time.monotonic()))
            said[str(answer.status_code)] += 1
        except (httpx.TransportError, TimeoutError) as error:
            said[type(error).__name__] += 1
        await asyncio.sleep(0.05)
    return said


async def run(
    address: str, clips: list[bytes], keys: list[str], clients: int, seconds: float, harmful: bool
) -> dict[str, Any]:
    """What the other keys' clients were answered, and the hostile one."""
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)
    open_ones = [
        httpx.AsyncClient(
            base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=600, limits=limits
        )
        for key in keys
    ]
    others = [
        good(open_ones[number % (KEYS - 1)], clips, number, until) for number in range(clients)
    ]
    harms = (
        [hostile(it, until) for it in harm(open_ones[-1]) for _ in range(AT_ONCE)]
        if harmful
        else []
    )
    answers, told = await asyncio.gather(asyncio.gather(*others), asyncio.gather(*harms))
    for each in open_ones:
        await each.aclose()
    seen = [it for client in answers for it in client]
    took = [taken for status, taken in seen if status == 200]
    return {
        "statuses": dict(Counter(str(status) for status, _ in seen)),
        "median_seconds": round(statistics.median(took), 3),
        "hostile": dict(sum(told, Counter())),
    }


def main() -> None:
    """Ask without the hostile key, then with it, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=available_cores())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    clips, keys = prepare(given.folder)
    result: dict[str, Any] = {}
    settings = {"EARMARK_REQUESTS_PER_MINUTE": "0"}
    for name, harmful in (("without", False), ("with", True)):
        with server(given.folder / "library", given.folder, given.jobs, **settings) as served:
            address, process = served
            asyncio.run(run(address, clips, keys, given.clients, 5.0, False))  # workers start
            watch = Watch(process)
            watch.start()
            asking = run(address, clips, keys, given.clients, given.seconds, harmful)
            result[name] = asyncio.run(asking)
            watch.stop()
            used = max((server_ + workers for _, server_, workers, _ in watch.seen), default=0)
            result[name]["peak_bytes"] = used
    without, beside = result["without"], result["with"]
    result["latency"] = round(beside["median_seconds"] / without["median_seconds"], 2)
    result["memory"] = round(beside["peak_bytes"] / without["peak_bytes"], 2)
    result["targets"] = {"latency": TARGET_LATENCY, "memory": TARGET_MEMORY}
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
