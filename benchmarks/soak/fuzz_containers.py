"""Archives, tables and manifests made to do harm, through the process that reads them for scans and ingests.

    python -m benchmarks.soak.fuzz_containers [--files 20000] [--seed 1] [--folder fuzz-containers]

A small container of every kind that is looked into is damaged at random, as `benchmarks.soak.fuzz` damages
sounds: bytes flipped, overwritten, removed, repeated, cut off; the content of a compressed one also before
it is compressed. Each has to end in members and, at most, in one of them that says what is wrong, or in a
DatasetError. What ended otherwise, or took the reader past its limits, is kept in the folder.
"""

import argparse
import gzip
import io
import json
import sys
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks.soak.fuzz import MUTATIONS, seeds
from service.datasets.location import DatasetError
from service.datasets.walk import members
from service.runtime.reading import Reader


def containers() -> dict[str, bytes]:
    """A small one of every kind, by its ending; and the tar file that the compressed ones hold."""
    sounds = dict(list(seeds().items())[:3])
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in sounds.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            note = json.dumps({"title": name}).encode()
            info = tarfile.TarInfo(f"folder/{name.partition('.')[0]}.json")
            info.size = len(note)
            archive.addfile(info, io.BytesIO(note))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in sounds.items():
            zipped.writestr(name, data)
    table = io.BytesIO()
    rows = [{"bytes": data, "path": name} for name, data in sounds.items()]
    pq.write_table(pa.table({"audio": rows, "title": list(sounds)}), table, compression="zstd")
    lines = "".join(json.dumps({"file": name, "title": name}) + "\n" for name in sounds).encode()
    comma = ("file,title\n" + "".join(f"{name},{name}\n" for name in sounds)).encode()
    plain = {".tar": tar.getvalue(), ".jsonl": lines, ".csv": comma}
    return plain | {".zip": packed.getvalue(), ".parquet": table.getvalue()}


def compressed(kind: str, data: bytes) -> bytes:
    """The content of a file of that ending."""
    if kind.endswith(".gz"):
        return gzip.compress(data, 1)
    return zstandard.compress(data, 1) if kind.endswith(".zst") else data


def damaged(number: int, seed: int, plain: dict[str, bytes]) -> tuple[str, bytes]:
    """File `number` of a seed: always the same."""
    rng = np.random.default_rng((seed, number))
    kinds = [
        *plain,
        *(f"{kind}{packed}" for kind in (".tar", ".jsonl") for packed in (".gz", ".zst")),
    ]
    kind = kinds[number % len(kinds)]
    data = plain[kind.removesuffix(".gz").removesuffix(".zst")]
    other = list(plain.values())[int(rng.integers(len(plain)))]
    is_inside = kind not in plain and rng.random() < 0.5
    data = data if is_inside else compressed(kind, data)
    for _ in range(int(rng.integers(1, 4))):
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, other, rng)
    return kind, compressed(kind, data) if is_inside else data


def main() -> None:
    """Damage, read, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("fuzz-containers"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    plain, counts, slowest, findings, largest = containers(), Counter[str](), 0.0, 0, 0
    with Reader() as reader:
        for number in range(given.files):
            kind, data = damaged(number, given.seed, plain)
            path = given.folder / f"{number}-{given.seed}{kind}"
            path.write_bytes(data)
            began, is_finding = time.perf_counter(), False
            try:
                found = list(members(path, reader.read))
                problems = [it.problem.detail for it in found if it.problem is not None]
                is_finding = any("reading on" in it for it in problems)
                outcome = "limits" if is_finding else ("damaged" if problems else "read")
            except DatasetError:
                outcome = "refused"
            except Exception as error:
                outcome, is_finding = type(error).__name__, True
            slowest = max(slowest, time.perf_counter() - began)
            counts[f"{kind.lstrip('.')}: {outcome}"] += 1
            findings += is_finding
            if not is_finding:
                path.unlink()
            if number % 50 == 0:
                sizes = [it.memory_info().rss for it in psutil.Process().children(recursive=True)]
                largest = max(largest, *sizes, 0)
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    print(
        f"{given.files} files, {findings} findings, the slowest took {slowest:.1f} s, "
        f"the reader had up to {largest / 2**20:.0f} MiB"
    )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
