"""What the benchmark of readers beside a writer takes for a wrong answer, and the music it adds."""

import numpy as np
from embeddings import track

from benchmarks.simulation import SECONDS, Simulation, identifier, metadata
from benchmarks.soak.readers import Asked, History, wrong
from fingerprint.encoder import Encoder

ENCODER = Encoder.load()
ONE, TWO = identifier(1), identifier(2)
FIRST = metadata(1).title


def answer(revision: int, *named: tuple[str, str | None]) -> Asked:
    """To a clip of the first recording."""
    return Asked(revision, 0, frozenset(named), 0.0, 0.0, 0.0)


def test_answers_are_held_against_the_state_that_they_state() -> None:
    told = History()
    told.note(5, ONE, "new")
    told.note(7, ONE, None)
    right = [answer(4, (ONE, FIRST)), answer(5, (ONE, "new")), answer(6, (ONE, "new")), answer(7)]
    assert wrong(right, [ONE], told) == []
    for bad, why in (
        (answer(4, (ONE, "new")), "was not 'new' then"),
        (answer(6, (ONE, FIRST)), f"was not {FIRST!r} then"),
        (answer(7, (ONE, "new")), "was not 'new' then"),
        (answer(6), "it is not named"),
    ):
        assert any(why in problem for problem in wrong([bad], [ONE], told)), why
    both = [answer(4, (ONE, FIRST)), answer(4, (ONE, FIRST), (TWO, metadata(2).title))]
    (problem,) = wrong(both, [ONE], told)
    assert "different things" in problem


def test_a_simulated_recording_is_always_the_same_mixture_of_two_real_ones() -> None:
    real = [track(ENCODER, seed, 60)[::5] for seed in range(4)]
    simulation = Simulation(real, 30.0, ENCODER)
    made = simulation.recording(7)
    assert len(made.embeddings) == SECONDS / 0.5
    assert made.duration == SECONDS
    assert np.allclose(np.linalg.norm(made.embeddings, axis=1), 1, atol=1e-5)
    assert (made.embeddings == simulation.embeddings(7)).all()
    assert not np.allclose(made.embeddings, simulation.embeddings(8))
    alone = Simulation(real, 0.0, ENCODER).embeddings(7)  # nothing of the second
    assert np.allclose((alone @ np.concatenate(real).T).max(axis=1), 1, atol=1e-5)
