"""A clip fingerprinted again, to be compared with the fingerprint that evidence keeps of it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits, open_audio, open_file
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint_samples
from service.evidence.statement import Evidence
from service.presentation.formatting import as_text
from service.query.answer import FINGERPRINT_EXTENSION, fingerprint_clip

# Seconds before and after the kept moments that are fingerprinted with them: more than these depend on.
_CONTEXT = 10.0
# So far apart are two embeddings (of length 1; 0 of silence) of the same moment at most: decoders differ
# in the last bits, and the kept ones are rounded to bytes.
_SAME_MOMENT = 0.2


def again(clip: Path, evidence: Evidence, encoder: Encoder, limits: Limits) -> Fingerprint:
    """The clip's fingerprint around the match, made as it was made; its `start` is in seconds of the clip.

    A long clip was read in stretches, so it is read from the same sample on, and to the same one.

    Raises AudioError for a clip that cannot be read, KeyError if it lacks the sound track of the match.
    """
    if clip.name.lower().endswith(FINGERPRINT_EXTENSION):
        made = fingerprint_clip(clip, clip.name, encoder, limits)
        return made.of_track(evidence.match.track)
    kept = evidence.excerpt()
    # in whole frames and embeddings, so that their places are the same
    step = encoder.step * REFERENCE_EVERY
    before = evidence.excerpt_start - _CONTEXT - evidence.read_from
    first = evidence.read_from + max(0.0, np.floor(before / step) * step)
    last = min(evidence.duration, evidence.excerpt_start + kept.duration + _CONTEXT)
    try:
        with open_file(clip, as_text(clip)) as file:
            sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    except OSError as error:
        raise AudioError("undecodable", f"{clip}: cannot be read ({error.strerror})") from error
    if sha256 != evidence.sha256:  # another file, of which nothing has to be heard
        return replace(kept, sha256=sha256)
    track = evidence.match.track
    with open_audio(clip, limits, clip.name, track) as stream:
        if track is not None and track > stream.tracks:
            raise KeyError(track)
        samples = _cut(stream, round(first * SAMPLE_RATE), round(last * SAMPLE_RATE))
    made = fingerprint_samples(samples, encoder, QUERY_EVERY, clip.name)
    return replace(made, sha256=sha256, start=made.start + first)


def _cut(stream: AudioStream, first: int, last: int) -> NDArray[np.float32]:
    """Samples first to last (excluded) of a sound."""
    kept, at = [np.empty(0, np.float32)], 0
    for block in stream.blocks():
        kept.append(block[max(0, first - at) : max(0, last - at)])
        at += len(block)
    return np.concatenate(kept)


def same_moments(made: Fingerprint, evidence: Evidence) -> float:
    """Share of the moments that evidence keeps of a clip that the clip fingerprinted again has, then."""
    kept = evidence.excerpt()
    if not len(kept.embeddings) or not len(made.embeddings) or made.step != kept.step:
        return 0.0
    first = round((evidence.excerpt_start + kept.start - made.start) / made.step)
    at = first + np.arange(len(kept.embeddings))
    inside = (at >= 0) & (at < len(made.embeddings))
    apart = np.full(len(at), np.inf)
    difference = made.embeddings[at[inside]] - kept.embeddings[inside]
    apart[inside] = np.linalg.norm(difference, axis=1)
    return float(np.mean(apart <= _SAME_MOMENT))
