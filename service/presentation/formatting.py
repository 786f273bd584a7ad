"""How results are put to people: times, tempo and pitch, odds, names, reasons, aligned tables."""

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.query.answer import Match

# In how many unrelated clips a line of an E-value was seen at most (upper ends of 95 % intervals): the first
# figure that the E-value does not exceed counts. Measured in a library of 1,000 recordings, with 16,279
# clips of music that neither the encoder nor the fit had seen: `python -m benchmarks.reliability
# --libraries 1000 --clips 16300` (docs/decisions/significance.md). No smaller chance is put into words,
# because none was tested.
SEEN = ((1e-6, 500), (1e-3, 90), (1e-2, 30), (0.1, 5))
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


def seen(e_value: float) -> str:
    """In how many unrelated clips a line this strong was seen: `at most 1 in 500`. See SEEN."""
    for limit, clips in SEEN:
        if e_value <= limit:
            return f"at most 1 in {clips}"
    return f"more than 1 in {SEEN[-1][1]}"


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
    of : in the recording, with the other places of the same audio
    changed : how the clip differs in tempo and pitch
    seen : in how many unrelated clips a line this strong was seen
    weight : the likelihood ratio; empty if none applies
    doubt : why it is for review, if chance is not the reason
    """
    repeats = getattr(match, "repeats", None) or ()
    others = " or ".join(span(start, end) for start, end in repeats)
    return {
        "where": span(match.query_start, match.query_end),
        "of": span(match.reference_start, match.reference_end)
        + (f" or {others}" if others else ""),
        "changed": changed(match),
        "seen": seen(match.e_value),
        "weight": weight(getattr(match, "likelihood_ratio", None)),
        "doubt": doubt(match),
    }


def changed(match: "Match") -> str:
    """How the clip differs from the recording: `3 % faster (2.6 to 3.4)`, `none`, `not measured`.

    A change is said only if a 95 % interval excludes that there is none.
    """
    if getattr(match, "same_file", False):
        return "none: the same file"
    limits = [it for name in INTERVALS if (it := getattr(match, name, None)) is not None]
    if len(limits) < len(INTERVALS):
        # without an interval a small difference may be none
        tempo = match.tempo if abs(match.tempo - 1) >= _SURELY_TEMPO else 1.0
        pitch = match.pitch_semitones if abs(match.pitch_semitones) >= _SURELY_PITCH else 0.0
        about = change(tempo, pitch)
        return "not measured" if about == "none" else f"about {about}"
    return (
        change(match.tempo, match.pitch_semitones, *limits)
        if getattr(match, "changed", False)
        else "none"
    )


# Differences (share of the tempo, semitones) that are said of a clip for which no interval can be measured.
_SURELY_TEMPO, _SURELY_PITCH = 0.03, 0.4
# Fields of a match that are ends of 95 % intervals, of tempo and of pitch.
INTERVALS = ("tempo_low", "tempo_high", "pitch_low", "pitch_high")


def weight(likelihood_ratio: float | None) -> str:
    """How much more probable this is if the clip is a copy than if it is not: `at least 1,000 times`.

    Rounded down to a power of ten, which is as much as such a figure is worth.
    """
    if likelihood_ratio is None or likelihood_ratio <= 0 or not math.isfinite(likelihood_ratio):
        return ""
    if likelihood_ratio < 1:
        return "less probable than if it is not"
    power = math.floor(math.log10(likelihood_ratio) + 1e-9)
    return f"at least {10**power:,} times" if power else "hardly more probable than if it is not"


def percent(share: float) -> str:
    """A share as `2.5 %`; what is hardly any is `less than 0.01 %`."""
    if share < 1e-4:
        return "less than 0.01 %"
    return f"{_two_digits(100 * share)} %"


def _two_digits(value: float) -> str:
    """Two significant digits: 3.14 → 3.1, 87.3 → 87, 312 → 310; no trailing zeros."""
    return f"{float(f'{value:.2g}'):.15g}"


def change(
    tempo: float,
    pitch_semitones: float,
    tempo_low: float = math.nan,
    tempo_high: float = math.nan,
    pitch_low: float = math.nan,
    pitch_high: float = math.nan,
) -> str:
    """Tempo and pitch in words, with the intervals that exclude no change: `6 % faster (5.5 to 6.6)`."""
    parts = []
    percent = 100 * (tempo - 1)
    if not tempo_low <= 1 <= tempo_high and abs(percent) >= 0.05:
        ends = sorted(abs(100 * (it - 1)) for it in (tempo_low, tempo_high))
        word = "faster" if percent > 0 else "slower"
        parts.append(f"{_tenths(abs(percent))} % {word}{_interval(*ends)}")
    if not pitch_low <= 0 <= pitch_high and abs(pitch_semitones) >= 0.05:
        ends = sorted(map(abs, (pitch_low, pitch_high)))
        word = "up" if pitch_semitones > 0 else "down"
        parts.append(f"{abs(pitch_semitones):.1f} semitones {word}{_interval(*ends)}")
    return ", ".join(parts) or "none"


def _tenths(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low + high) else f" ({low:.1f} to {high:.1f})"


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
