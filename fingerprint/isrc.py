"""ISRCs (ISO 3901): read as people write them, checked, and stored as twelve characters.

An ISRC is a country (two letters), a registrant (three letters or digits), a year (two digits) and a
designation (five digits): GBAYE0000001, often written GB-AYE-00-00001.
"""

import re
import unicodedata

# Between the parts: hyphens and dashes of every kind, a space, a point, an underscore.
_BETWEEN = "[-\u2010-\u2015\u2212\\s._]?"
_PARTS = rf"[A-Z]{{2}}{_BETWEEN}[A-Z0-9]{{3}}{_BETWEEN}[0-9]{{2}}{_BETWEEN}[0-9]{{5}}"
_IN_TEXT = re.compile(rf"(?<![A-Z0-9])(?:ISRC[\s:=#]*)?({_PARTS})(?![A-Z0-9])")
# The same for DuckDB, whose expressions have no look-ahead; its group is the ISRC as it is written.
SQL_IN_TEXT = rf"\b(?:ISRC[\s:=#]*)?({_PARTS})\b"
_AROUND = " \t\r\n\f\v\ufeff\u200b\u200e\u200f\"'`"  # blanks, marks and quotes at its ends
_WHOLE = re.compile(rf"(?:(?:URN:)?ISRC[\s:=#]*)?({_PARTS})")
EXAMPLE = "GBAYE0000001"


def isrcs_in(text: str) -> list[str]:
    """The ISRCs in a text, each once, in their order and in the form in which they are stored."""
    upper = unicodedata.normalize("NFKC", text).upper()
    return list(dict.fromkeys(map(_joined, _IN_TEXT.findall(upper))))


def normalised(text: str) -> str:
    """An ISRC in the form in which it is stored. Raises ValueError, one line, for anything else."""
    upper = unicodedata.normalize("NFKC", text).upper().strip(_AROUND)
    if found := _WHOLE.fullmatch(upper):
        return _joined(found[1])
    if len(isrcs_in(text)) > 1:
        raise ValueError(f"isrc {text!r} has several ISRCs; a recording has one")
    raise ValueError(f"isrc {text!r} is no ISRC, which looks like {EXAMPLE} or GB-AYE-00-00001")


def _joined(code: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", code)
