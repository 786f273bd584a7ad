"""How results are put to people: times, tempo and pitch, odds, names, reasons, aligned tables."""

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.query.answer import Match

_POWERS = (
    (1e12, "trillion"),
    (1e9, "billion"),
    (1e6, "million"),
    (1e3, "thousand"),
)
# Smaller than this, the tail of the score's distribution is not known well enough to name a figure.
_LEAST = 1e-15
# What Python makes of bytes in a file's name that are no UTF-8.
_SURROGATES = re.compile("[\ud800-\udfff]")


def clock(seconds: float) -> str:
    """`61.23` as `1:01.2`, `3725` as `1:02:05.0`."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{tenths / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def span(start: float, end: float) -> str:
    """Two times in seconds as `0:00.4 to 0:12.1`."""
    return f"{clock(start)} to {clock(end)}"


def chance(e_value: float) -> str:
    """The chance that a match this strong is an accident, as odds: `1 in 3 million`.

    E matches are expected by chance, so at least one comes up with probability 1 - exp(-E).
    """
    if e_value < _LEAST:
        return "less than 1 in 1000 trillion"
    odds = 1 / -math.expm1(-e_value)
    for power, name in _POWERS:
        if odds >= power:
            return f"1 in {_two_digits(odds / power)} {name}"
    return f"1 in {_two_digits(odds)}"


def doubt(match: "Match") -> str:
    """Why a match is for review that chance does not explain; empty for others."""
    if match.other_version:
        return "less alike than a copy would be, so most likely another version"
    if match.shared_start is None or match.shared_end is None:
        return ""
    return f"{span(match.shared_start, match.shared_end)} is in other recordings too"


def in_words(match: "Match") -> dict[str, str]:
    """A match in words: where in the clip, of what of the recording, how changed, its chance, its doubt."""
    return {
        "where": span(match.query_start, match.query_end),
        "of": span(match.reference_start, match.reference_end),
        "changed": change(match.tempo, match.pitch_semitones),
        "chance": chance(match.e_value),
        "doubt": doubt(match),
    }


def percent(share: float) -> str:
    """A share as `2.5 %`; what is hardly any is `less than 0.01 %`."""
    if share < 1e-4:
        return "less than 0.01 %"
    return f"{_two_digits(100 * share)} %"


def _two_digits(value: float) -> str:
    """Two significant digits: 3.14 → 3.1, 87.3 → 87, 312 → 310; no trailing zeros."""
    return f"{float(f'{value:.2g}'):.15g}"


def change(tempo: float, pitch_semitones: float) -> str:
    """How the clip was altered: `6 % faster, 1.0 semitones up`, or `none`."""
    parts = []
    percent = (tempo - 1) * 100
    if abs(percent) >= 0.5:
        parts.append(f"{abs(percent):.0f} % {'faster' if percent > 0 else 'slower'}")
    if abs(pitch_semitones) >= 0.1:
        direction = "up" if pitch_semitones > 0 else "down"
        parts.append(f"{abs(pitch_semitones):.1f} semitones {direction}")
    return ", ".join(parts) or "none"


def printable(text: str) -> str:
    """Text from a file's tags or name without what could drive a terminal."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def as_text(name: str | Path) -> str:
    """A name as text that can be printed and stored: what was no UTF-8 in it becomes U+FFFD."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", str(name))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Left-aligned columns, as wide as their widest cell; wide (CJK) characters count double."""
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        indent
        + "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
