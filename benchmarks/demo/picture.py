"""`docs/picture.svg`: how Earmark answers, drawn from a real work, a real clip of it and a real answer.

    python -m benchmarks.demo.picture [--output docs/picture.svg]

A work of `benchmarks.demo.works`, above; 6 s of it under noise, at the left; between them the similarity of
every embedding of the clip (one per 0.1 s) with every one of the work (one per 0.5 s); at the right what
a library of all works answers. Run it again when the encoder changes. Plain shapes with colours that a
light and a dark page can both carry.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from benchmarks import codecs
from benchmarks.degrade import Chain, Noise, Sources, degrade, rng_for
from benchmarks.demo import works
from benchmarks.demo.instruments import RATE
from fingerprint.audio import read_audio
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from fingerprint.spectrogram import BANDS, FRAME_RATE, spectrogram
from index.library import Library
from index.recording import Metadata
from index.search import Match
from service.presentation.formatting import chance, clock
from service.query.answer import match_of

TITLE = "Waltz for a Rainy Tuesday"
OFFSET = 17.4  # s
SECONDS = 6.0
NOISE = 0.0  # dB

WIDTH, HEIGHT = 960, 436
LEFT, TOP = 112, 64  # of the work's spectrogram
BREADTH = 540  # of the work
STRIP = 98  # height of the work's spectrogram, breadth of the clip's
GAP = 10
DEPTH = 208  # of the clip
LEVELS = 7  # shades
BANDS_SHOWN = 48

STYLE = """
text { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 12.5px; fill: #57606a }
.work { stroke: #2563c9 } .clip { stroke: #c2570c } .alike { stroke: #0f8a6a }
.frame { fill: none; stroke: #8c959f; stroke-opacity: .55 }
.found { fill: none; stroke: #c2570c; stroke-width: 2 }
.guide { stroke: #c2570c; stroke-opacity: .8; stroke-dasharray: 2 4 }
.card { fill: #8c959f; fill-opacity: .09; stroke: #8c959f; stroke-opacity: .55 }
.answer { font-size: 16.5px; font-weight: 600 }
.sure { font-size: 16.5px; font-weight: 600; fill: #0f8a6a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9da7b1 } .sure { fill: #45c9a3 }
  .work { stroke: #74a8ff } .clip { stroke: #ff9a52 } .alike { stroke: #45c9a3 }
  .found, .guide { stroke: #ff9a52 }
}
"""


def heat(
    values: NDArray[np.float32], x: float, y: float, width: float, height: float, kind: str
) -> str:
    """Values from 0 to 1 [shape=(rows, columns)], the first row at the top, as shades of a class's colour.

    Each shade is one path of the runs of cells that have it.
    """
    rows, columns = values.shape
    shades = np.round(values.clip(0, 1) * LEVELS).astype(int)
    paths = []
    for shade in range(1, LEVELS + 1):
        edges = np.diff((shades == shade).astype(np.int8), axis=1, prepend=0, append=0)
        starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
        runs = "".join(
            f"M{start} {row}h{end - start}"
            for (row, start), (_, end) in zip(starts, ends, strict=True)
        )
        if runs:
            paths.append(f'<path d="{runs}" stroke-opacity="{shade / LEVELS:.2f}"/>')
    scale_x, scale_y = width / columns, height / rows
    move = f"translate({x} {y + scale_y / 2:.3f}) scale({scale_x:.5f} {scale_y:.5f})"
    return f'<g class="{kind}" transform="{move}" shape-rendering="crispEdges">{"".join(paths)}</g>'


def shown(samples: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """The encoder's spectrogram as shades [shape=(BANDS_SHOWN, columns)], high bands first."""
    frames = spectrogram(samples)
    bands = frames.reshape(len(frames), BANDS_SHOWN, BANDS // BANDS_SHOWN).mean(axis=2)
    edges = np.linspace(0, len(bands), columns + 1).astype(int)
    picture = np.stack([bands[a : max(b, a + 1)].mean(axis=0) for a, b in pairwise(edges)])
    picture -= 0.6 * np.median(
        picture, axis=0
    )  # steady noise and the slope of all music say little
    low, high = np.quantile(picture, (0.4, 0.995))
    return ((picture - low) / (high - low)).clip(0, 1).T[::-1]


def alike(clip: Fingerprint, work: Fingerprint) -> NDArray[np.float32]:
    """Shades of the similarities [shape=(steps of the clip, steps of the work)]; only what stands out."""
    similarity = clip.embeddings @ work.embeddings.T
    low, high = np.quantile(similarity, (0.6, 0.9985))
    return ((similarity - low) / (high - low)).clip(0, 1) ** 1.5


def find(folder: Path, encoder: Encoder) -> tuple[Path, Path, Match]:
    """Files of the work and of its clip, and what a library of all works says of the clip."""
    paths = {work.title: works.write(work, folder) for work in works.WORKS}
    samples, rate = codecs.cut(paths[TITLE], OFFSET, SECONDS)
    rng = rng_for("picture", TITLE)
    noisy = degrade(samples, rate, Chain((Noise("pink", NOISE),)), rng, Sources())
    clip = codecs.write(folder / "clip.wav", noisy.samples, RATE, "wav")
    library = Library.open(folder / "library", encoder, create=True)
    with library.writer() as writer:
        for title, path in paths.items():
            metadata = Metadata(
                source=path.name,
                rightsholder=works.ARTIST,
                rights="public-domain",
                title=title,
                artist=works.ARTIST,
            )
            writer.add(fingerprint(path, encoder, REFERENCE_EVERY), metadata)
    matches, _ = library.search(fingerprint(clip, encoder, QUERY_EVERY))
    library.close()
    if not matches or matches[0].title != TITLE:
        raise SystemExit("the encoder does not find the clip: nothing to draw")
    return paths[TITLE], clip, matches[0]


def draw(folder: Path, encoder: Encoder) -> str:
    """The picture as SVG."""
    path, clip_path, match = find(folder, encoder)
    work = fingerprint(path, encoder, REFERENCE_EVERY)
    clip = fingerprint(clip_path, encoder, QUERY_EVERY)
    across, down = BREADTH / work.duration, DEPTH / SECONDS  # pixels a second
    left, top = LEFT, TOP + STRIP + GAP  # of the similarities
    begin = match.reference_start - match.tempo * match.query_start

    def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
        return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'

    def box(x: float, y: float, width: float, height: float, kind: str, round_: int = 3) -> str:
        return (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_}" '
            f'class="{kind}"/>'
        )

    # The clip's own spectrogram stands upright: its time runs down, as in the similarities.
    upright = shown(read_audio(clip_path), round(SECONDS * FRAME_RATE / 2)).T[:, ::-1]
    similarities = alike(clip, work)
    similarity_x = left + (work.start - work.step / 2) * across
    similarity_y = top + (clip.start - clip.step / 2) * down
    card = left + BREADTH + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="t"><title id="t">A noisy clip, found in a work: the similarities of their '
        f"embeddings form a line that says where.</title><style>{STYLE}</style>",
        f'<defs><clipPath id="c"><rect x="{left}" y="{top}" width="{BREADTH}" height="{DEPTH}"/>'
        "</clipPath></defs>",
        text(LEFT, 22, "1 · A work in the library", "title"),
        text(
            LEFT,
            42,
            "its spectrogram; what is kept of it is one embedding every 0.5 s, and no audio",
            "note",
        ),
        heat(shown(read_audio(path), 280), LEFT, TOP, BREADTH, STRIP, "work"),
        box(LEFT, TOP, BREADTH, STRIP, "frame"),
        text(LEFT - GAP - STRIP, 108, "2 · A clip", "title"),
        text(LEFT - GAP - STRIP, 128, f"{SECONDS:.0f} s, noise", "note"),
        text(LEFT - GAP - STRIP, 145, "as loud as it", "note"),
        heat(upright, LEFT - GAP - STRIP, top, STRIP, DEPTH, "clip"),
        box(LEFT - GAP - STRIP, top, STRIP, DEPTH, "frame"),
        '<g clip-path="url(#c)">',
        heat(
            similarities,
            similarity_x,
            similarity_y,
            len(work.embeddings) * work.step * across,
            len(clip.embeddings) * clip.step * down,
            "alike",
        ),
        "</g>",
        box(left, top, BREADTH, DEPTH, "frame"),
        *(
            f'<path class="guide" d="M{x:.1f} {TOP + STRIP + 3}V{top + DEPTH}"/>'
            for x in (left + begin * across, left + (begin + SECONDS * match.tempo) * across)
        ),
        box(left + begin * across, TOP - 3, SECONDS * match.tempo * across, STRIP + 6, "found"),
        text(
            left,
            top + DEPTH + 24,
            "3 · Every moment of the clip against every moment of the work",
            "title",
        ),
        text(
            left,
            top + DEPTH + 43,
            "how alike their embeddings are: chance makes dots, the same recording makes a line",
            "note",
        ),
        box(card, TOP - 3, WIDTH - card - 4, STRIP + GAP + DEPTH + 6, "card", 8),
        text(card + 16, TOP + 28, "4 · The answer", "title"),
    ]
    y = TOP + 72
    for label, words, kind in (
        ("what it is", match.title or match.source, "answer"),
        ("the clip begins at", f"{clock(begin)} of the work", "answer"),
        ("where it truly was cut", clock(OFFSET), "answer"),
        ("tested", chance(match_of(match)), "sure"),
    ):
        parts += [text(card + 16, y, label, "note"), text(card + 16, y + 22, words, kind)]
        y += 64
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.demo.picture", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--output", type=Path, default=Path("docs/picture.svg"), metavar="FILE.svg")
    output = parser.parse_args(arguments).output
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        output.write_text(draw(Path(folder), Encoder.load()))
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
