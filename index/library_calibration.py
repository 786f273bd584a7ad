"""A library's own calibration: how much more, or less, its music is alike than that of the encoder's fit.

Its recordings are looked for in it, each batch of them among the others: what is found is chance, or
related. No audio is kept, so the queries are made from stored codes, whose scores have a tail of their own;
the encoder comes with one of such queries too (`Calibration.stored`). What differs between that one and the
library's is the library's: the score that chance reaches once a query, and how fast chance falls from there.
Both are carried over, as ratios, to the tails of real queries, as they are and under the ladder.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY
from index.library import Library
from index.query_context import Question
from index.recording import Recording
from index.significance import Calibration, Tail
from index.snapshot import Snapshot
from index.stored_query import as_query
from index.tail_fit import Fit, Look, fit, peaks

LEAST_RECORDINGS = 100  # of which a library's tail can be told: a few works set it
LEAST_EMBEDDINGS = 20_000  # about three hours
RECORDINGS = 400  # that are looked for, at most
BATCHES = 8  # of them, each left out of the library while it is looked for
CLIPS = 400  # of each length, at most…
CLIPS_EACH = 2  # …and of each recording on average: more say little that is new


class TooSmall(Exception):
    """A library that says too little of how alike its music is."""


@dataclass(frozen=True)
class Refit:
    """A library's own calibration.

    Attributes
    ----------
    calibration : what chance is to be stated by
    fit : of the queries made from stored codes
    library : the library's id
    encoder : id of the encoder
    recordings, clips : that were looked for
    """

    calibration: Calibration
    fit: Fit
    library: str
    encoder: str
    recordings: int
    clips: int

    def entry(self) -> dict[str, Any]:
        """What the library keeps of it, and its audit log tells."""
        return asdict(self.calibration) | {
            "encoder": self.encoder,
            "library": self.library,
            "recordings": self.recordings,
            "clips": self.clips,
            "related": len(self.fit.related),
        }


def refit(library: Library, seed: int = 0, on_look: Callable[[], None] = lambda: None) -> Refit:
    """Fit the chance of scores to a library's own music.

    on_look : called after each of `looks_ahead` queries

    Raises TooSmall if the library, or the encoder's calibration, does not allow it.
    """
    shipped = Calibration.of(library.encoder.id)
    if shipped.stored is None:
        raise TooSmall(
            f"encoder {library.encoder.id} was never fitted to stored codes; "
            "python -m benchmarks.calibration.calibrate --write does"
        )
    snapshot = library.refresh()
    looks = []
    for look in _looks(library, snapshot, shipped.stored, seed):
        looks.append(look)
        on_look()
    fitted = fit(looks)
    unaltered = _carried(shipped.unaltered, shipped.stored, fitted.tail)
    altered = shipped.altered and _carried(shipped.altered, shipped.stored, fitted.tail)
    return Refit(
        Calibration(unaltered, altered, fitted.tail, shipped.likeness),
        fitted,
        library.id(),
        library.encoder.id,
        len({look.work for look in looks}),
        len(looks),
    )


def looks_ahead(library: Library) -> int:
    """How many queries a refit takes, at most."""
    stored = Calibration.of(library.encoder.id).stored
    recordings = len(library.refresh().recordings)
    return _clips(min(recordings, RECORDINGS)) * len(stored.lengths) if stored else 0


def _clips(recordings: int) -> int:
    """Queries of each length, for so many recordings that are looked for."""
    return min(CLIPS, CLIPS_EACH * recordings)


def look_at(
    work: str,
    stored: NDArray[np.float32],
    query_embeddings: int,
    snapshot: Snapshot,
    encoder: Encoder,
    rng: np.random.Generator,
) -> Look:
    """A random stretch of stored embeddings, of so many at the query's step, looked for.

    The recordings found are named by their numbers.
    """
    count = min(len(stored), math.ceil(query_embeddings * QUERY_EVERY / REFERENCE_EVERY) + 1)
    first = int(rng.integers(len(stored) - count + 1))
    made = as_query(stored[first : first + count], encoder)
    made = replace(made, embeddings=made.embeddings[:query_embeddings])
    question = Question(made, snapshot, encoder)
    step = encoder.step * REFERENCE_EVERY
    numbers = snapshot.recordings.numbers
    return Look(
        work,
        first * step,
        (first + count) * step,
        float(query_embeddings),
        len(made.embeddings),
        len(snapshot),
        {str(numbers[place]): score for place, score in peaks(question).unaltered.items()},
    )


def _looks(library: Library, snapshot: Snapshot, stored: Tail, seed: int) -> Iterator[Look]:
    """What stretches of the library's recordings find among the others."""
    lengths = [round(length) for length in stored.lengths]
    longest = math.ceil(lengths[-1] * QUERY_EVERY / REFERENCE_EVERY) + 1
    places = np.flatnonzero(snapshot.lengths >= longest)
    if len(places) < LEAST_RECORDINGS or len(snapshot) < LEAST_EMBEDDINGS:
        raise TooSmall(
            f"{len(places)} recordings of half a minute and more, {len(snapshot)} embeddings in all: at "
            f"least {LEAST_RECORDINGS} and {LEAST_EMBEDDINGS} are needed for a fit"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(places)[:RECORDINGS]
    place_of = {str(number): place for place, number in enumerate(snapshot.recordings.numbers)}

    @cache
    def recording(number: str) -> Recording:
        return snapshot.recordings[place_of[number]]

    for batch in np.array_split(chosen, BATCHES):
        others = snapshot.leaving_out(batch)
        for length in lengths:
            for _ in range(_clips(len(chosen)) // BATCHES):
                place = int(rng.choice(batch))
                number = str(snapshot.recordings.numbers[place])
                whole = snapshot.embeddings(place, 0, snapshot.length(place))
                look = look_at(number, whole, length, others, library.encoder, rng)
                yield replace(
                    look,
                    peaks={
                        other: score
                        for other, score in look.peaks.items()
                        if not _akin(recording(number), recording(other))
                    },
                )


def _akin(one: Recording, other: Recording) -> bool:
    """Whether two recordings are said to be of one work or by one artist."""
    return any(
        getattr(one, field) is not None and getattr(one, field) == getattr(other, field)
        for field in ("work", "artist", "title", "isrc")
    )


def _carried(tail: Tail, stored: Tail, own: Tail) -> Tail:
    """A tail of real queries, changed as the library's own differs from that of stored codes."""
    decay, least, density = [], [], []
    for n, its_decay, its_least, its_density in zip(
        tail.lengths, tail.decay, tail.least_decay, tail.log_density, strict=True
    ):
        # λ and the score that is reached once a query, for queries of this length in a library as large
        before, now = (which.at(n, own.library) for which in (stored, own))
        faster = now.decay / before.decay
        space = math.log(n * own.library)
        once = (its_density + space) / its_decay * now.once / before.once
        decay.append(round(its_decay * faster, 4))
        least.append(round(decay[-1] * min(its_least / its_decay, now.least_decay / now.decay), 4))
        density.append(round(decay[-1] * once - space, 4))
    return Tail(tail.lengths, tuple(decay), tuple(density), tuple(least), own.library)
