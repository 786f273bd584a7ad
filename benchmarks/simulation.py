"""Recordings that never were, for libraries larger than the music at hand.

A simulated recording is a mixture of two stretches a, b of real ones around the mean m of all embeddings,
x(t) = m + cos θ (a(t) - m) + sin θ (b(t) - m), scaled to length 1: it moves through time as music does, and
has the mean and covariance of real embeddings whatever θ is. θ is chosen so that a library that grows by
simulated recordings gets as crowded as one that grows by real ones: mixtures of a quarter of the real
recordings, as many as all of them, are as near to embeddings of still other real recordings as all of the
real ones are, by the median of the similarity to the 10th nearest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index.recording import Metadata
from index.segment import Codes, concatenate
from index.snapshot import Snapshot

SECONDS = 210.0  # of a simulated recording
ANGLES = range(5, 50, 5)  # degrees
ANGLE = 30.0  # degrees, where none is fitted
NEIGHBOUR = 10  # the one whose similarity tells how crowded a place is
ASKING = 1000  # embeddings that look for neighbours
SHARES = (
    0.25,
    0.5,
    1.0,
)  # of the real recordings; mixtures of the first are compared with all of them
Embeddings = NDArray[np.float32]


class Simulation:
    """Recordings mixed from real ones at an angle (degrees)."""

    def __init__(self, real: Sequence[Embeddings], angle: float, encoder: Encoder) -> None:
        self.angle = angle
        long_enough = [x for x in real if len(x) >= 20]
        self._mean = np.concatenate(long_enough).mean(axis=0)
        self._real = [x - self._mean for x in long_enough]
        self._encoder = encoder
        self._steps = round(SECONDS / (encoder.step * REFERENCE_EVERY))

    def embeddings(self, number: int) -> Embeddings:
        """Of the recording of that number [shape=(n, dimension)]; always the same."""
        rng = np.random.default_rng([number, round(self.angle)])
        a, b = (self._stretch(rng) for _ in range(2))
        angle = np.radians(self.angle)
        a *= np.float32(np.cos(angle))
        b *= np.float32(np.sin(angle))
        a += b
        a += self._mean
        a /= np.sqrt(np.einsum("nd,nd->n", a, a))[:, None]
        return a

    def recording(self, number: int) -> Fingerprint:
        """What ingest would make of it."""
        return stored(self.embeddings(number), self._encoder, number)

    def _stretch(self, rng: np.random.Generator) -> Embeddings:
        """A stretch of a real recording, less the mean."""
        x = self._real[rng.integers(len(self._real))]
        return x[(np.arange(self._steps) + rng.integers(len(x))) % len(x)]


def stored(embeddings: Embeddings, encoder: Encoder, number: int) -> Fingerprint:
    """A reference of these embeddings, from a file of that number."""
    step = encoder.step * REFERENCE_EVERY
    return Fingerprint(
        encoder=encoder.id,
        source=f"{number}.flac",
        sha256=f"{number:064x}",
        duration=len(embeddings) * step,
        every=REFERENCE_EVERY,
        start=step,
        step=step,
        reach=step,
        embeddings=embeddings,
    )


def metadata(number: int) -> Metadata:
    """As much as is usually known of a recording."""
    return Metadata(
        source=f"catalogue/{number:07}.flac",
        rightsholder=f"Rightsholder {number % 97}",
        rights="owned",
        id=identifier(number),
        title=f"A title as long as titles are {number}",
        artist=f"An artist {number % 4999}",
        isrc=f"DEXX1{number:07}",
        label=f"Label {number % 499}",
    )


def identifier(number: int) -> str:
    """Id of the recording of that number."""
    return f"recording-{number:07}"


def crowding(
    asking: Embeddings, works: Sequence[Embeddings], encoder: Encoder
) -> NDArray[np.float64]:
    """Quartiles [shape=(3,)] of embeddings' similarity to the 10th nearest among these works' codes."""
    codec = encoder.codec
    codes = concatenate([Codes(*codec.encode(x)) for x in works], codec.code_size)
    similarity, _ = Snapshot.of([codes], codec).nearest(
        asking, NEIGHBOUR, len(codec.coarse), len(codes)
    )
    return np.quantile(similarity[:, -1].astype(float), [0.25, 0.5, 0.75])


def fit(
    mixed: Sequence[Embeddings], others: Sequence[Embeddings], encoder: Encoder
) -> tuple[Simulation, dict[str, Any]]:
    """The simulation, mixed of these, that goes on as real music does; others ask how crowded it is.

    With it come the figures that show it, quartiles of the similarity to the 10th nearest.
    """
    rng = np.random.default_rng(1)
    asking = np.concatenate(list(others))
    asking = asking[rng.permutation(len(asking))[:ASKING]]
    total = sum(map(len, mixed))

    def real(share: float) -> NDArray[np.float64]:
        return crowding(asking, mixed[: round(share * len(mixed))], encoder)

    def simulated(simulation: Simulation, share: float) -> NDArray[np.float64]:
        count = round(share * total / len(simulation.embeddings(0)))
        works = [simulation.embeddings(number) for number in range(count)]
        return crowding(asking, works, encoder)

    part = mixed[: round(SHARES[0] * len(mixed))]
    wanted = real(1.0)
    of_part = min(
        (Simulation(part, angle, encoder) for angle in ANGLES),
        key=lambda it: abs(simulated(it, 1.0)[1] - wanted[1]),
    )
    simulation = Simulation(mixed, of_part.angle, encoder)
    figures = {
        "angle": simulation.angle,
        "embeddings": total,
        "shares": SHARES,
        "real": [real(share).round(4).tolist() for share in SHARES],
        "mixed_of_the_first_share": [
            simulated(of_part, share).round(4).tolist() for share in SHARES
        ],
        "mixed_of_all": simulated(simulation, 1.0).round(4).tolist(),
        "mixed_of_all_at_8_times_the_size": simulated(simulation, 8.0).round(4).tolist(),
    }
    return simulation, figures
