"""What an ingest will cost, estimated from the files' sizes before anything is decoded."""

import shutil
from collections.abc import Sequence

from pydantic import ByteSize

from index.library import Library
from service.intake.ingest import Candidate
from service.presentation.formatting import clock

# Bytes a second of what files usually hold; the smaller, the longer the audio is taken to be.
_UNCOMPRESSED = 176_400  # 44.1 kHz, 16 bits, stereo
_LOSSLESS = 90_000
_LOSSY = 16_000  # 128 kbit/s
_RATES = {
    **dict.fromkeys((".wav", ".aif", ".aiff", ".aifc", ".au", ".caf"), _UNCOMPRESSED),
    **dict.fromkeys((".flac", ".alac", ".ape", ".tta", ".wv"), _LOSSLESS),
}


def estimate(library: Library, candidates: Sequence[Candidate]) -> tuple[str, bool]:
    """What ingesting the files takes, in one line, and whether the disk has room for it."""
    seconds = sum(
        candidate.size / _RATES.get(candidate.path.suffix.lower(), _LOSSY)
        for candidate in candidates
    )
    cost = library.cost(len(candidates), seconds)
    free = shutil.disk_usage(library.path).free
    line = (
        f"{len(candidates)} files, about {clock(seconds)} of audio: the library takes "
        f"{_size(cost.disk)} more of the disk, which has {_size(free)}, "
        f"and then {_size(cost.memory)} of memory"
    )
    return line, cost.disk <= free


def _size(count: float) -> str:
    return ByteSize(round(count)).human_readable(decimal=True, separator=" ")
