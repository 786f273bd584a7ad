"""Durations as people write them: `225`, `3:45`, `00:03:45`, `PT3M45S`, `225 s`, `225000 ms`, `3'45"`."""

import re
import unicodedata

_ISO = re.compile(r"p(?:([\d.,]+)d)?t?(?:([\d.,]+)h)?(?:([\d.,]+)m)?(?:([\d.,]+)s)?")
_CLOCK = re.compile(r"(?:(\d+) days?,? )?(?:(\d+):)?(\d+):(\d{1,2}(?:[.,]\d+)?)(?::\d{1,2})?")
_MARKS = re.compile(r"(\d+) ?(?:'|’|′|´) ?(\d{1,2}(?:[.,]\d+)?) ?(?:\"|''|’’|”|′′|´´)?")
_PART = re.compile(
    r"(\d+(?:[.,]\d+)?) ?"
    r"(h(?:(?:ou)?rs?|rs?)?|std\.?|ms(?:ecs?)?|millis(?:econds?)?|milliseconds?|"
    r"m(?:in(?:ute)?[sn]?)?\.?|s(?:ec(?:ond)?s?|ek(?:unden)?)?\.?)(?: ?(?:,|and|und|et|&))? ?"
)
_SCALES = {"h": 3600.0, "std": 3600.0, "ms": 0.001, "millis": 0.001, "m": 60.0, "s": 1.0}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?(?:e[+-]?\d+)?")
_GROUPED = re.compile(r"\d{1,3}(?:[.,' ]\d{3})+")
# A number with no unit beyond this is in milliseconds: ten hours, longer than any recording. s
_LONGEST = 36_000.0
# A fraction below this with no unit may be minutes as well as seconds: shorter than most recordings. s
_SHORTEST = 30.0


def durations(text: str, unit: float | None = None) -> list[float]:
    """What a duration may mean, in seconds, the likeliest first; none for what is no duration.

    unit : seconds of the column's unit, where its name says that; only for plain numbers
    """
    said = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return [value for value in _readings(said, unit) if 0 < value < 1e9]


def _readings(said: str, unit: float | None) -> list[float]:
    if _NUMBER.fullmatch(said) or _GROUPED.fullmatch(said):
        return _numbers(said, unit)
    if found := _CLOCK.fullmatch(said):
        days, hours, minutes, seconds = (_float(part) for part in found.groups())
        return [86400 * days + 3600 * hours + 60 * minutes + seconds]
    if found := _MARKS.fullmatch(said):
        return [60 * _float(found[1]) + _float(found[2])]
    if (found := _ISO.fullmatch(said)) and any(found.groups()):
        scales = zip((86400.0, 3600.0, 60.0, 1.0), found.groups(), strict=True)
        return [sum(scale * _float(part) for scale, part in scales)]
    parts = _PART.findall(said)
    if parts and not _PART.sub("", said):
        return [sum(_float(value) * _scale(name) for value, name in parts)]
    return []


def _numbers(said: str, unit: float | None) -> list[float]:
    values = []
    if _NUMBER.fullmatch(said):
        values.append(_float(said))
    if _GROUPED.fullmatch(said):  # 225,000 is a thousand times 225 as well as 225 with a fraction
        values.append(float(re.sub(r"\D", "", said)))
    if unit is not None:
        return [unit * value for value in values]
    readings = []
    for value in values:
        if value > 1000 * _LONGEST:
            readings.append(value / 1e6)
        readings.append(value / 1000 if value > _LONGEST else value)
    if values[0] < _SHORTEST and values[0] % 1:
        minutes, fraction = divmod(values[0], 1)
        readings += [60 * minutes + round(100 * fraction), 60 * values[0]]
    return list(dict.fromkeys(readings))


def _scale(name: str) -> float:
    """Seconds of a unit."""
    kind = next(kind for kind in ("millis", "ms", "std", "h", "m", "s") if name.startswith(kind))
    return _SCALES[kind]


def _float(text: str | None) -> float:
    try:
        return float((text or "0").replace(",", "."))
    except ValueError:
        return 0.0
