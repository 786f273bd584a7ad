"""How results are put to people: times, tempo and pitch, odds, names, reasons, aligned tables."""

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.query.answer import Match

_PLACES = 4  # other places of a recording that are named in words
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


def chance(match: "Match") -> str:
    """How often unrelated music came as close in a test: `none of 1,500 unrelated clips came this close`.

    Nothing is said that no test has seen; the E-value in JSON is computed, also beyond that.
    """
    if match.same_file:
        return "the same file, byte for byte"
    if match.tested_clips is None:
        return "not tested"
    if match.tested_closer is None:
        return f"many of {match.tested_clips:,} unrelated clips came this close"
    count = f"{match.tested_closer:,}" if match.tested_closer else "none"
    return f"{count} of {match.tested_clips:,} unrelated clips came this close"


def doubt(match: "Match") -> str:
    """Why a match is for review that chance does not explain; empty for others."""
    if match.other_version:
        return "less alike than a copy would be, so most likely another version"
    if match.shared_start is None or match.shared_end is None:
        return ""
    return f"{span(match.shared_start, match.shared_end)} is in other recordings too"


def in_words(match: "Match") -> dict[str, str]:
    """A match in words.

    where : in the clip
    of, repeats : in the recording, and where else in it the same audio is
    changed : how the clip differs in tempo and pitch
    chance : how often unrelated music came as close in a test
    weight : the likelihood ratio; empty if none applies
    doubt : why it is for review, if chance is not the reason
    """
    return {
        "where": span(match.query_start, match.query_end)
        + (f", track {match.track}" if match.track else ""),
        "of": span(match.reference_start, match.reference_end),
        "repeats": repeated(match),
        "changed": change(match),
        "chance": chance(match),
        "weight": weight(match.likelihood_ratio),
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


def change(match: "Match") -> str:
    """How the clip was altered: `3 % faster (2.6 to 3.4), 1.0 semitones up (0.9 to 1.1)`, or `none`.

    Intervals hold 95 %. What an interval does not tell from no change is not said.
    """
    if not match.changed:
        return "none" if match.same_file or match.tempo_low is not None else "not measured"
    parts = []
    low, high = match.tempo_low, match.tempo_high
    if low is not None and high is not None and not low <= 1 <= high:
        ends = sorted(abs(100 * (end - 1)) for end in (low, high))
        digits = _digits(ends[1] - ends[0])
        word = "faster" if match.tempo > 1 else "slower"
        parts.append(
            f"{abs(100 * (match.tempo - 1)):.{digits}f} % {word} "
            f"({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
        )
    low, high = match.pitch_low, match.pitch_high
    if low is not None and high is not None and not low <= 0 <= high:
        ends = sorted((abs(low), abs(high)))
        word = "up" if match.pitch_semitones > 0 else "down"
        parts.append(
            f"{abs(match.pitch_semitones):.1f} semitones {word} ({ends[0]:.1f} to {ends[1]:.1f})"
        )
    return ", ".join(parts) or "none"


def weight(likelihood_ratio: float | None) -> str:
    """How much more probable this is of a copy than of other music: `at least 1,000 times more probable`.

    Rounded down to a power of ten, which is as much as such a figure is worth.
    """
    if likelihood_ratio is None or not 0 < likelihood_ratio < math.inf:
        return ""
    power = math.floor(math.log10(likelihood_ratio) + 1e-9)
    if power < 0:
        return "less probable"
    return f"at least {10**power:,} times more probable" if power else "hardly more probable"


def _digits(width: float) -> int:
    """Decimals of a percentage that an interval of this width is worth."""
    return 0 if width >= 5 else 1 if width >= 0.2 else 2


def repeated(match: "Match") -> str:
    """Where else in the recording the same audio is, if anywhere; the first few places."""
    if not match.repeats:
        return ""
    places = ", ".join(clock(start) for start, _ in match.repeats[:_PLACES])
    more = len(match.repeats) - _PLACES
    return f"also at {places}" + (f" and {more} more places" if more > 0 else "")


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
