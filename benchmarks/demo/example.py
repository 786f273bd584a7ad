"""The example that the page `/` offers: a work, and a clip of it that was played faster, under noise.

    python -m benchmarks.demo.example [--folder service/web/static]

The work is one of `benchmarks.demo.works`. Run it again when that changes.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import codecs
from benchmarks.degrade import Chain, Noise, Sources, Speed, degrade, rng_for
from benchmarks.demo import works
from benchmarks.demo.instruments import RATE

TITLE = "Fingers and Wire"
OFFSET = 15.0  # s
SECONDS = 8.0
CHAIN = Chain((Speed(1.06), Noise("pink", 6.0)))


@click.command(help="Write the example that the page offers.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("service/web/static"),
    show_default=True,
)
def main(folder: Path) -> None:
    """Write the work and the clip."""
    (work,) = [work for work in works.WORKS if work.title == TITLE]
    sound = works.compose(work)
    first = round(OFFSET * RATE)
    cut = sound[first : first + round(SECONDS * CHAIN.tempo * RATE)]
    clip = degrade(cut, RATE, CHAIN, rng_for("example"), Sources())
    codecs.write(folder / "example-work.opus", sound, RATE, "opus-32")
    codecs.write(folder / "example.mp3", clip.samples, clip.rate, "mp3-64")


if __name__ == "__main__":
    main()
