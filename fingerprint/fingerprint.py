"""From a sound file to its fingerprint, and the `.emk` file that a fingerprint travels in.

A reference keeps one embedding per 0.5 s; a query is embedded every 0.1 s, so that some of its
embeddings always fall on the reference's grid. A query also keeps its band levels, from which it can be
embedded again under a hypothesis of altered tempo or pitch. The file is read, analysed and embedded piece
by piece: memory grows with the fingerprint, not with the audio, and the pieces leave no trace in the result.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits, open_audio
from fingerprint.emk import heard_as, value_of
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.spectrogram import (
    BANDS,
    CONTEXT,
    FFT,
    FRAME_RATE,
    HOP,
    SILENCE,
    band_levels,
    normalise,
)
from fingerprint.tracks import heard_tracks, without_name

REFERENCE_EVERY = 5  # a reference keeps every fifth embedding: one per 0.5 s
QUERY_EVERY = 1
SHORTEST = 0.5  # s of sound
AUDIBLE = -80.0  # dB re full scale: a frame whose loudest band is below it is silent
# A query gets this many unknown frames at either end, so that a clip of one second has embeddings
# at every phase of the reference's grid; the encoder is trained to do without as many.
PADDING = 12
_PIECE = 2400  # frames analysed at once (60 s)


@dataclass(frozen=True)
class Fingerprint:
    """What Earmark keeps of a sound.

    Attributes
    ----------
    encoder : id of the encoder that made it
    source : name of the file it was made from
    sha256 : of that file's content
    duration : seconds of audio
    every : encoder steps from one embedding to the next (REFERENCE_EVERY or QUERY_EVERY)
    start : seconds from the file's start to the centre of the first embedding's window
    step : seconds from one embedding to the next
    reach : seconds from the centre of a window to its ends
    embeddings : [shape=(n, dimension)], each of length 1
    levels : band levels of a query [shape=(frames, BANDS)] as bytes, see `decibels`; None if it keeps
        none: then it is found only as it is
    tags : title, artist, isrc, label, release_date, where the file carries them
    track : number of the sound track, counted from 1, of a file with several; else None
    undecoded : seconds that the file states and that could not be decoded
    damage : what keeps the file from being all that it states to be, or None
    notes : what else was not heard or is odd, one sentence each
    others : of a query, those of the file's other sound tracks
    """

    encoder: str
    source: str
    sha256: str
    duration: float
    every: int
    start: float
    step: float
    reach: float
    embeddings: NDArray[np.float32]
    levels: NDArray[np.uint8] | None = None
    tags: dict[str, str] = field(default_factory=dict)
    track: int | None = None
    undecoded: float = 0.0
    damage: str | None = None
    notes: tuple[str, ...] = ()
    others: tuple["Fingerprint", ...] = ()

    @property
    def tracks(self) -> tuple["Fingerprint", ...]:
        """Those of all sound tracks, each without the others."""
        return (replace(self, others=()), *self.others)

    def of_track(self, track: int | None) -> "Fingerprint":
        """That of one sound track, without the others. Raises KeyError without that track."""
        for made in self.tracks:
            if made.track == track:
                return made
        raise KeyError(track)

    def save(self, path: str | Path) -> None:
        """Write an `.emk` file."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """An `.emk` file's content: embeddings as signed bytes, levels, the rest as JSON metadata."""
        metadata = {
            name: json.dumps(getattr(self, name))
            for name in (
                "encoder",
                "source",
                "sha256",
                "duration",
                "every",
                "start",
                "step",
                "reach",
            )
        }
        metadata["heard"] = json.dumps(
            {name: getattr(self, name) for name in ("track", "undecoded", "damage", "notes")}
        )
        codes = np.round(self.embeddings * _EMK_SCALE).clip(-127, 127).astype(np.int8)
        tensors = {"embeddings": codes} | ({} if self.levels is None else {"levels": self.levels})
        for other in self.others:
            tensors[f"track-{other.track}"] = np.frombuffer(other.to_bytes(), np.uint8)
        return save_tensors(tensors, {"earmark": "1", **metadata})

    @classmethod
    def load(cls, data: bytes, name: str) -> "Fingerprint":
        """Read an `.emk` file's content; name is what errors call it.

        Raises AudioError("undecodable") for anything that is not a whole, sane fingerprint.
        """
        try:
            tensors = load_tensors(data)
            codes, levels = tensors["embeddings"], tensors.get("levels")
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            text = header["__metadata__"]
            if text["earmark"] != "1":
                raise ValueError(f"version {text['earmark']} is not known here")
            if codes.dtype != np.int8 or codes.ndim != 2:
                raise ValueError("embeddings of another type")
            if levels is not None and (levels.dtype != np.uint8 or levels.shape[1:] != (BANDS,)):
                raise ValueError("levels of another type")
            embeddings = codes.astype(np.float32)
            embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-6)
            made = cls(
                encoder=value_of(text, "encoder", str),
                source=value_of(text, "source", str),
                sha256=value_of(text, "sha256", str),
                duration=float(value_of(text, "duration", float)),
                every=value_of(text, "every", int),
                start=float(value_of(text, "start", float)),
                step=float(value_of(text, "step", float)),
                reach=float(value_of(text, "reach", float)),
                embeddings=embeddings,
                levels=levels,
                others=tuple(
                    cls.load(tensor.tobytes(), name)
                    for key, tensor in sorted(tensors.items())
                    if key.startswith("track-")
                ),
                **heard_as(text),
            )
            if any(other.others for other in made.others):
                raise ValueError("tracks within tracks")
            times = (made.duration, made.start, made.step, made.reach)
            if not all(map(np.isfinite, times)) or made.every < 1 or made.step <= 0:
                raise ValueError("impossible times")
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise AudioError(
                "undecodable", f"{name}: not an Earmark fingerprint ({error})"
            ) from None
        return made


# Components of a unit vector of 128 dimensions seldom exceed 0.5.
_EMK_SCALE = 254.0
_LEVEL_STEP = 0.5  # dB that one unit of a level's byte stands for, from SILENCE up


def as_bytes(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Band levels in dB as bytes: half decibels above SILENCE."""
    return np.round((levels - SILENCE) / _LEVEL_STEP).clip(0, 255).astype(np.uint8)


def decibels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Band levels in dB of what `as_bytes` left of them."""
    return levels.astype(np.float32) * np.float32(_LEVEL_STEP) + np.float32(SILENCE)


def fingerprint(
    source: str | Path | BinaryIO,
    encoder: Encoder,
    every: int,
    *,
    limits: Limits = Limits(),
    name: str | None = None,
) -> Fingerprint:
    """Fingerprint a sound file.

    A query is made of all sound tracks of a file (`Fingerprint.others`), a reference of the first that
    sounds, beginning with the one that a player would play.

    Parameters
    ----------
    source : path or binary file
    encoder : Encoder
    every : REFERENCE_EVERY for what goes into a library, QUERY_EVERY for what is looked up
    limits : Limits
        Of all sound tracks together.
    name : str
        What to call the source if it is not a path.

    Raises
    ------
    AudioError
        Those of `open_audio`, and "too-short" or "silent": less than 0.5 s of sound.
    """
    with open_audio(source, limits, name) as stream:
        return fingerprint_stream(stream, limits, encoder, every)


def fingerprint_stream(
    stream: AudioStream, limits: Limits, encoder: Encoder, every: int
) -> Fingerprint:
    """As `fingerprint`, of a sound that is open and has not been read."""
    sha256, tags = stream.sha256(), stream.tags
    if stream.tracks == 1:
        made = _of_stream(stream, encoder, every)
    else:
        made = _of_tracks(stream, limits, encoder, every)
    others = tuple(replace(other, sha256=sha256, tags=tags) for other in made.others)
    return replace(made, sha256=sha256, tags=tags, others=others)


def _of_stream(stream: AudioStream, encoder: Encoder, every: int) -> Fingerprint:
    made = _made(stream.blocks(), encoder, every, stream.name)
    return replace(
        made, undecoded=stream.undecoded, damage=stream.damage, notes=tuple(stream.notes)
    )


def _of_tracks(stream: AudioStream, limits: Limits, encoder: Encoder, every: int) -> Fingerprint:
    """That of a file with several sound tracks."""
    made: list[Fingerprint] = []
    notes: list[str] = []
    problem: AudioError | None = None
    is_query = every == QUERY_EVERY
    for heard in heard_tracks(stream, limits, in_order=is_query):
        number = heard.number
        if made and not is_query:
            notes.append(f"track {number} is not stored; it can be as a file of its own")
            continue
        try:
            if isinstance(heard.stream, AudioError):
                raise heard.stream
            one = _of_stream(heard.stream, encoder, every)
        except AudioError as error:
            problem = problem or error
            notes.append(f"track {number} is not heard: {without_name(error, stream.name)}")
            continue
        heard.seconds = one.duration
        notes += [f"track {number}: {note}" for note in one.notes]
        damage = one.damage and f"track {number}: {one.damage}"
        made.append(replace(one, track=number, notes=(), damage=damage))
    if not made:
        assert problem is not None  # there are tracks
        raise problem
    return replace(made[0], others=tuple(made[1:]), notes=tuple(notes))


def fingerprint_samples(
    samples: NDArray[np.float32], encoder: Encoder, every: int, name: str
) -> Fingerprint:
    """As `fingerprint`, of decoded samples [shape=(n,)] at SAMPLE_RATE; its sha256 is empty."""
    return _made([samples], encoder, every, name)


def _made(
    blocks: Iterable[NDArray[np.float32]], encoder: Encoder, every: int, name: str
) -> Fingerprint:
    """The fingerprint of blocks of samples, still without what only a file has."""
    heard = _Heard()
    pieces = _levels(blocks, heard, name)
    kept: list[NDArray[np.uint8]] = []
    is_query = every == QUERY_EVERY
    frames = _normalised(_noted(pieces, kept) if is_query else pieces)
    if is_query:
        frames = padded(frames, encoder.window + (REFERENCE_EVERY - 1) * encoder.hop)
    else:  # a recording shorter than a window has one embedding all the same
        frames = filled(frames, encoder.window)
    embeddings = np.concatenate(
        [np.empty((0, encoder.dimension), np.float32), *_embedded(frames, encoder, every)]
    )
    to_centre = (encoder.window - 1) / 2 / FRAME_RATE + FFT / 2 / SAMPLE_RATE
    return Fingerprint(
        encoder=encoder.id,
        source=name,
        sha256="",
        duration=heard.samples / SAMPLE_RATE,
        every=every,
        start=to_centre - (PADDING / FRAME_RATE if is_query else 0),
        step=encoder.step * every,
        reach=to_centre,
        embeddings=embeddings,
        levels=np.concatenate([np.empty((0, BANDS), np.uint8), *kept]) if is_query else None,
    )


class _Heard:
    """How much came in: samples, and frames that are not silent."""

    samples = 0
    audible = 0

    def require_enough(self, name: str) -> None:
        seconds = self.samples / SAMPLE_RATE
        if self.samples < SHORTEST * SAMPLE_RATE:
            raise AudioError(
                "too-short",
                f"{name}: lasts {seconds:.2f} s; at least {SHORTEST} s of sound are needed",
                seconds,
            )
        if not self.audible:
            raise AudioError(
                "silent", f"{name}: {seconds:.1f} s of silence; nothing to recognise", seconds
            )
        if self.audible < (SHORTEST * SAMPLE_RATE - FFT) // HOP + 1:
            raise AudioError(
                "too-short",
                f"{name}: hardly any sound in {seconds:.1f} s; at least {SHORTEST} s are needed",
                seconds,
            )


def _levels(
    blocks: Iterable[NDArray[np.float32]], heard: _Heard, name: str
) -> Iterator[NDArray[np.float32]]:
    """Band levels of blocks of samples, in pieces of at most _PIECE frames.

    Raises AudioError before the last of them if too little is heard in all: of a short sound, before anything
    is made of it.
    """
    waiting: list[NDArray[np.float32]] = []
    have = 0
    needed = FFT + (_PIECE - 1) * HOP

    def analyse() -> NDArray[np.float32]:
        nonlocal have
        samples = np.concatenate(waiting)
        levels = band_levels(samples)
        waiting[:] = [samples[len(levels) * HOP :]]
        have = len(waiting[0])
        heard.audible += int(np.count_nonzero(levels.max(axis=1, initial=-np.inf) > AUDIBLE))
        return levels

    for block in blocks:
        heard.samples += len(block)
        waiting.append(block)
        have += len(block)
        if have >= needed:
            yield analyse()
    last = analyse() if have >= FFT else None
    heard.require_enough(name)
    if last is not None:
        yield last


def _noted(
    pieces: Iterable[NDArray[np.float32]], kept: list[NDArray[np.uint8]]
) -> Iterator[NDArray[np.float32]]:
    """Pieces of band levels as they pass, each kept as bytes."""
    for piece in pieces:
        kept.append(as_bytes(piece))
        yield piece


def _normalised(pieces: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Spectrogram of pieces of band levels: each is held back until its surroundings are known."""
    levels = np.empty((0, BANDS), np.float32)
    done = 0  # frames at the head of `levels` that are there only as surroundings
    for piece in pieces:
        levels = np.concatenate([levels, piece])
        ready = len(levels) - CONTEXT
        if ready > done:
            yield normalise(levels)[done:ready]
            drop = max(0, ready - CONTEXT)
            levels, done = levels[drop:], ready - drop
    if len(levels) > done:
        yield normalise(levels)[done:]


def padded(pieces: Iterable[NDArray[np.float32]], least: int) -> Iterator[NDArray[np.float32]]:
    """Pieces with PADDING unknown (zero) frames before and after, and at least so many in all."""
    unknown = np.zeros((PADDING, BANDS), np.float32)
    yield from filled(chain([unknown], pieces, [unknown]), least)


def filled(pieces: Iterable[NDArray[np.float32]], least: int) -> Iterator[NDArray[np.float32]]:
    """Pieces with unknown (zero) frames after them, if there are fewer than so many in all."""
    frames = 0
    for piece in pieces:
        frames += len(piece)
        yield piece
    if frames < least:
        yield np.zeros((least - frames, BANDS), np.float32)


def _embedded(
    pieces: Iterable[NDArray[np.float32]], encoder: Encoder, every: int
) -> Iterator[NDArray[np.float32]]:
    """Embeddings of a spectrogram in pieces; many at once, as each call embeds an overlap again."""
    frames = np.empty((0, BANDS), np.float32)
    waiting: list[NDArray[np.float32]] = []
    have = 0

    def embed() -> NDArray[np.float32]:
        nonlocal frames, have
        frames = np.concatenate([frames, *waiting])
        embeddings = encoder.embed(frames, every)
        frames = frames[len(embeddings) * encoder.hop * every :]
        waiting.clear()
        have = 0
        return embeddings

    for piece in pieces:
        waiting.append(piece)
        have += len(piece)
        if have >= _PIECE:
            yield embed()
    yield embed()
