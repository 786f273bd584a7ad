"""What scans and libraries of any size take, worked out of what was measured.

    python -m benchmarks.estimate [--decode 402 --scan 200 --probe 900 …]

Prints the tables of `docs/explanation/scale.md`. Each figure that goes in is an option; its default is what
the command named beside it measured.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import click

from index.search import QUICK
from index.segment import DIVIDED
from index.votes import Effort
from service.scan.worker import PROBING

LISTS = 1024  # of an index…
CELLS = 16  # …and of each of them, in a segment of so many embeddings
STEP = 0.1  # s from one of a query's embeddings to the next
PER_SECOND = 2  # embeddings of a recording
CODECS = {"Ogg Vorbis, 160 kbit/s": 160_000, "Opus, 75 kbit/s": 75_000}


@dataclass(frozen=True)
class Measured:
    """What one core does, in times real time where nothing else is said.

    Attributes
    ----------
    decode : Ogg Vorbis of 160 kbit/s to 8 kHz (`benchmarks.throughput --library`)
    opus : how many times as long Opus takes (`benchmarks.throughput --decoders`)
    fingerprint : spectrogram and encoder for a query (`benchmarks.throughput --library`)
    reference : spectrogram and encoder for a recording (`benchmarks.throughput`)
    compare : nanoseconds for one stored embedding, with the alignments that follow
        (`benchmarks.throughput --library`, 100,000 recordings)
    file : milliseconds that the reading process takes for a file (`benchmarks.soak.memory`)
    probed : share of a sound that a probe decodes (`service/scan/worker.py`)
    bytes : of a library for a second of audio (`benchmarks.scale`)
    catalogue : bytes for a recording (`benchmarks.scale`)
    opening : seconds for a million recordings (`benchmarks.scale`)
    worker : MB of a worker beside the library (`benchmarks.soak.memory`)
    note : bytes of journal and report for a file (`benchmarks.soak.dump`)
    rows : metadata rows in a second of CPU (`benchmarks.metadata`)
    """

    decode: float = 403.0
    opus: float = 1.33
    fingerprint: float = 960.0
    reference: float = 1412.0
    compare: float = 35.8
    file: float = 2.1
    probed: float = 3 / 27
    bytes: float = 39.0
    catalogue: float = 1359.0
    opening: float = 2.8
    worker: float = 280.0
    note: float = 2500.0
    rows: float = 775_000.0

    def search(self, recordings: float, seconds: float, effort: Effort) -> float:
        """CPU seconds in which a second of sound is searched for in so many recordings of that length."""
        embeddings = recordings * seconds * PER_SECOND
        share = min(effort.probes / LISTS, effort.compared / embeddings)
        parts = LISTS * (CELLS if embeddings >= DIVIDED else 1)
        compared = math.ceil(share * parts) * embeddings / parts
        return compared * self.compare * 1e-9 / (STEP * effort.every)

    def hear(self, codec: str) -> float:
        """CPU seconds in which a second of a file of that codec becomes a fingerprint."""
        return (self.opus if codec.startswith("Opus") else 1.0) / self.decode + 1 / self.fingerprint


def row(*cells: Any) -> str:
    """Of a table in Markdown."""
    return "| " + " | ".join(map(str, cells)) + " |"


def size(count: float) -> str:
    """Bytes as people say them."""
    power = min(4, int(math.log10(max(count, 1)) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def time(hours: float) -> str:
    """Hours as people say them."""
    if hours < 2:
        return f"{60 * hours:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def scans(
    it: Measured, files: float, seconds: float, libraries: Sequence[float], cores: Sequence[int]
) -> Iterator[str]:
    """Scanning so many files of that length, against libraries of these numbers of recordings."""
    hours = files * seconds / 3600
    names = [f"{count:,} cores" for count in cores]
    yield row("files", "library", "", "of it search", "core hours", *names, "to read")
    yield row("---", "---:", "---", "---:", "---:", *(["---:"] * len(cores)), "---:")
    for codec, rate in CODECS.items():
        for recordings in libraries:
            for name, share, effort in (("full", 1.0, QUICK), ("probe", it.probed, PROBING)):
                search = it.search(recordings, seconds, effort)
                heard = it.hear(codec) + search
                busy = hours * share * heard + files * it.file / 1000 / 3600
                yield row(
                    codec,
                    f"{recordings:,.0f}",
                    name,
                    f"{search / heard:.0%}",
                    f"{busy:,.0f}",
                    *(time(busy / count) for count in cores),
                    size(hours * 3600 * rate / 8 * share),
                )


def libraries(it: Measured, seconds: float, sizes: Sequence[float]) -> Iterator[str]:
    """Keeping so many recordings of that length."""
    yield row(
        "recordings", "hours", "core hours to add", "segments", "catalogue", "opening", "a cell"
    )
    yield row(*["---:"] * 7)
    for count in sizes:
        hours = count * seconds / 3600
        adding = hours * (1 / it.decode + 1 / it.reference)
        yield row(
            f"{count:,.0f}",
            f"{hours:,.0f}",
            f"{adding:,.0f}",
            size(count * seconds * it.bytes),
            size(count * it.catalogue),
            f"{count / 1e6 * it.opening:.0f} s",
            f"{count * seconds * PER_SECOND / (LISTS * CELLS):,.0f} embeddings",
        )


def rest(it: Measured, files: float, rows: float) -> Iterator[str]:
    """What is not told by hours of audio."""
    yield row("", "")
    yield row("---", "---:")
    yield row(f"{rows:,.0f} rows of metadata, one core", time(rows / it.rows / 3600))
    yield row("files a second that one scan can tell apart", f"{1000 / it.file:,.0f}")
    yield row(f"so {files:,.0f} files take at least", time(files * it.file / 1000 / 3600))
    yield row("their journal and tables", size(files * it.note))
    yield row("memory of 16, 64 workers", f"{size(16e6 * it.worker)}, {size(64e6 * it.worker)}")


def _options(command: Any) -> Any:
    for field in reversed(fields(Measured)):
        command = click.option(f"--{field.name}", default=field.default, show_default=True)(command)
    return command


@click.command(help="Work out what scans and libraries of any size take.")
@click.option("--files", default=86e6, show_default=True)
@click.option("--seconds", default=210.0, show_default=True, help="Of a file and of a recording.")
@click.option("--metadata", default=256e6, show_default=True, help="Rows.")
@_options
def main(files: float, seconds: float, metadata: float, **measured: float) -> None:
    """Three tables in Markdown."""
    it = Measured(**measured)
    cores = (16, 64, 256, 1024)
    click.echo("\n".join(scans(it, files, seconds, (1e4, 1e5, 1e6), cores)) + "\n")
    click.echo("\n".join(libraries(it, seconds, (1e6, 1e7, 86e6))) + "\n")
    click.echo("\n".join(rest(it, files, metadata)))


if __name__ == "__main__":
    main()
