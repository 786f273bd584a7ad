"""The pictures of evidence: grey PNG images with the times and frequencies along their sides."""

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from fingerprint.spectrogram import BANDS, BANDS_PER_OCTAVE, FRAME_RATE, LOWEST
from index.library import Library
from index.rescoring import Statement, Weighed, weigh
from service.evidence.statement import Evidence, code_step, excerpts
from service.presentation.formatting import clock
from service.query.answer import Match

# Seconds from one mark of an axis to the next; the first with which at most MARKS are needed.
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
MARKS = 12
FREQUENCIES = (250, 500, 1000, 2000, 3500)  # Hz


@dataclass(frozen=True)
class Mark:
    """A mark of an axis: where it is, in per cent from the left or from the top, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture with axes: `x` along its lower side, `y` along its left.

    `line` is what was found: x1, y1, x2, y2 in per cent from the top left.
    """

    name: str
    png: bytes
    title: str
    x: list[Mark]
    y: list[Mark]
    x_title: str
    y_title: str
    line: tuple[float, float, float, float] | None = None
    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """As a data URL."""
        return as_url(self.png)


def pictures(
    evidence: Evidence, weighed: Weighed, part: Fingerprint, reference: Fingerprint | None
) -> list[Picture]:
    """The likeness of every moment of clip and recording, and their spectrograms, as far as they are there.

    reference : query fingerprint of the file that was ingested, where its owner gives it again
    """
    begins, match = evidence.excerpt_start, evidence.match
    offset = evidence.codes_start * REFERENCE_EVERY * part.step
    ours, theirs = begins + weighed.query_times, offset + weighed.reference_times
    drawn = [
        Picture(
            "likeness",
            png(shades(weighed.similarity, 0.0)),
            "Likeness of every moment of the clip with every moment of the recording",
            times(theirs[0], theirs[-1]),
            times(ours[0], ours[-1]),
            "time in the recording",
            "time in the clip",
            line_of(weighed),
        )
    ]
    if part.levels is None:
        return drawn
    end = begins + len(part.levels) / FRAME_RATE
    drawn.append(
        spectrogram(
            "clip", "The clip", part.levels, begins, end, match.query_start, match.query_end
        )
    )
    if reference is not None and reference.levels is not None:
        # the same moments under each other: what the recording has at the clip's first and last
        first, last = (
            match.reference_start + (at - match.query_start) * match.tempo for at in (begins, end)
        )
        frames = np.round(np.linspace(first, last, len(part.levels)) * FRAME_RATE).astype(int)
        inside = (frames >= 0) & (frames < len(reference.levels))
        levels = np.zeros_like(part.levels)
        levels[inside] = reference.levels[frames[inside]]
        drawn.append(
            spectrogram(
                "recording",
                "The recording, from the file that was ingested",
                levels,
                first,
                last,
                match.reference_start,
                match.reference_end,
            )
        )
    return drawn


def likeness(
    made: Fingerprint, match: Match, library: Library
) -> tuple[str, tuple[float, float, float, float] | None]:
    """A clip's likeness to a match's stored codes, as a data URL, and the line's ends in per cent.

    Raises KeyError if the recording is not there any more.
    """
    part, start, codes, first = excerpts(made, match, library)
    begins = first * code_step(library.encoder)
    said = Statement(
        match.query_start - start,
        match.query_end - start,
        match.reference_start - begins,
        match.reference_end - begins,
        match.tempo,
        match.pitch_semitones,
    )
    weighed = weigh(
        part,
        codes,
        said,
        library.encoder,
        library.calibration,
        query_embeddings=len(made.embeddings),
        library_embeddings=len(library.refresh()),
    )
    return as_url(png(shades(weighed.similarity, 0.0))), line_of(weighed)


def spectrogram(
    name: str,
    title: str,
    levels: NDArray[np.uint8],
    first: float,
    last: float,
    start: float,
    end: float,
) -> Picture:
    """Band levels [shape=(frames, BANDS)] from second `first` to `last`; start to end is the match."""
    breadth = max(last - first, 1e-9)
    return Picture(
        name,
        png(shades(levels.T[::-1])),
        title,
        times(first, last),
        frequencies(),
        f"time in the {name}",
        "frequency",
        spans=[(100 * (start - first) / breadth, 100 * (end - first) / breadth)],
    )


def times(first: float, last: float) -> list[Mark]:
    """Marks of an axis from second `first` to `last`."""
    breadth = max(last - first, 1e-9)
    step = next((it for it in STEPS if breadth / it <= MARKS), STEPS[-1])
    at = np.arange(np.ceil(max(first, 0.0) / step), np.floor(last / step) + 1) * step
    return [Mark(float(100 * (it - first) / breadth), clock(float(it))) for it in at]


def frequencies() -> list[Mark]:
    """Marks of a spectrogram's vertical axis, the lowest band at the bottom."""
    bands = [BANDS_PER_OCTAVE * np.log2(it / LOWEST) + 0.5 for it in FREQUENCIES]
    texts = [f"{it} Hz" if it < 1000 else f"{it / 1000:g} kHz" for it in FREQUENCIES]
    return [
        Mark(float(100 * (1 - band / BANDS)), text) for band, text in zip(bands, texts, strict=True)
    ]


def line_of(weighed: Weighed) -> tuple[float, float, float, float] | None:
    """The aligned line's ends in per cent of the picture: x1, y1, x2, y2."""
    if weighed.line is None:
        return None

    def share(value: float, times: NDArray[np.floating]) -> float:
        breadth = max(times[-1] - times[0], 1e-9)
        return float(100 * (value - times[0]) / breadth)

    (q1, r1), (q2, r2) = weighed.line
    ours, theirs = weighed.query_times, weighed.reference_times
    return share(r1, theirs), share(q1, ours), share(r2, theirs), share(q2, ours)


def shades(values: NDArray[Any], low: float | None = None) -> NDArray[np.uint8]:
    """Grey from white for the lowest to black for the highest."""
    values = values.astype(np.float32)
    low = float(values.min()) if low is None else low
    share = (values - low) / max(float(values.max()) - low, 1e-9)
    return np.round(255 * (1 - share.clip(0, 1))).astype(np.uint8)


def as_url(image: bytes) -> str:
    """A PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def png(grey: NDArray[np.uint8]) -> bytes:
    """A picture [shape=(rows, columns)] as a PNG file."""
    import av

    grey = np.ascontiguousarray(grey)
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = grey.shape
        stream.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(grey, format="gray")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
