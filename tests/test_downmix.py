"""The down-mix: the plain mean, unless a channel is the negative of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fingerprint.downmix import INVERTED, LOUDEST, MEMORY, Downmix, block_length

RATE = 8000


def oracle(signal: NDArray[np.float32], block: int) -> NDArray[np.float64]:
    """The definition, in NumPy and double precision."""
    x = np.where(np.abs(signal) <= LOUDEST, signal, 0).astype(np.float64)
    signs, covariance = np.ones(len(x)), np.zeros((len(x), len(x)))
    mixed = np.zeros(x.shape[1])
    for start in range(0, x.shape[1], block):
        piece = x[:, start : start + block]
        old = np.where(np.diag(covariance) > 0, signs, np.nan)
        covariance = MEMORY * covariance + piece @ piece.T
        loudest = np.argmax(np.diag(covariance))
        scale = np.sqrt(np.diag(covariance) * covariance[loudest, loudest])
        relation = np.where(covariance[loudest] < INVERTED * scale, -1, 1)
        signs = np.where(scale > 0, signs[loudest] * relation, signs)
        old = np.where(np.isnan(old), signs, old)[:, None]
        ramp = np.arange(1, piece.shape[1] + 1) / piece.shape[1]
        gains = old + (signs[:, None] - old) * ramp
        mixed[start : start + block] = (gains * piece).mean(axis=0)
    return mixed


def noise(channels: int, n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((channels, n)).astype(np.float32)


def mix(signal: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float32]:
    return Downmix(rate, len(signal)).mix(np.array(signal, order="C"))


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 16, 17, 64])
def test_uncorrelated_channels_are_averaged(channels: int) -> None:
    x = noise(channels, 3 * RATE + 17)
    np.testing.assert_allclose(mix(x), x.mean(axis=0), atol=1e-6)


def test_mono_and_ordinary_stereo_are_exactly_the_mean() -> None:
    mono = noise(1, 2 * RATE)
    np.testing.assert_array_equal(mix(mono), mono[0])
    wide = np.stack([mono[0], 0.7 * mono[0] + 0.3 * noise(1, 2 * RATE, 1)[0]])
    np.testing.assert_array_equal(mix(wide), wide.mean(axis=0))


def test_inverted_channel_does_not_cancel_the_music() -> None:
    x = noise(1, 2 * RATE)[0]
    np.testing.assert_allclose(np.abs(mix(np.stack([x, -x]))), np.abs(x))
    np.testing.assert_allclose(np.abs(mix(np.stack([0.5 * x, -x]))), 0.75 * np.abs(x), rtol=1e-5)


def test_inverted_channels_that_take_turns_at_being_the_loudest() -> None:
    x = noise(1, 8 * RATE)[0]
    balance = np.repeat(np.tile([1.0, 0.8], 4), RATE).astype(np.float32)
    mixed = mix(np.stack([balance * x, (balance - 1.8) * x]))
    np.testing.assert_allclose(np.abs(mixed), 0.9 * np.abs(x), rtol=1e-5)


def test_inverted_centre_of_six_channels_is_kept() -> None:
    x = noise(6, 2 * RATE) * 0.1
    x[2] = x[0] * 5
    x[0] *= -1
    mixed = mix(x)
    assert np.corrcoef(mixed, x[2])[0, 1] > 0.9
    assert mixed.std() > 1.3 * x.mean(axis=0).std()


def test_inversion_half_way_is_found_out_within_a_second_without_a_click() -> None:
    t = np.arange(8 * RATE) / RATE
    x = np.sin(2 * np.pi * 100 * t).astype(np.float32)
    flip = np.where(t < 4, 1, -1).astype(np.float32)
    mixed = mix(np.stack([x, flip * x]))
    late = mixed[int(5.25 * RATE) :]
    np.testing.assert_allclose(np.abs(late), np.abs(x[-len(late) :]), atol=1e-5)
    after = mixed[4 * RATE :]
    assert np.abs(np.diff(after)).max() <= 1.01 * np.abs(np.diff(x)).max() + 2e-3


def test_leading_silence_costs_nothing() -> None:
    x = noise(1, 2 * RATE)[0]
    x[:RATE] = 0
    np.testing.assert_allclose(np.abs(mix(np.stack([x, -x]))), np.abs(x))


def test_what_is_not_a_usable_number_counts_as_silence() -> None:
    x = noise(2, RATE)
    clean = x.copy()
    for i, bad in enumerate([np.nan, np.inf, -np.inf, 3e38, -1e30]):
        x[i % 2, 100 * i] = bad
        clean[i % 2, 100 * i] = 0
    np.testing.assert_array_equal(mix(x), clean.mean(axis=0))


@given(
    channels=st.integers(1, 5),
    blocks=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    rest=st.integers(0, 400),
    inverted=st.lists(st.booleans(), min_size=20, max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_pieces_make_no_difference_and_the_oracle_agrees(
    channels: int, blocks: list[int], rest: int, inverted: list[bool], seed: int
) -> None:
    rate = 1600
    block = block_length(rate, channels)
    n = sum(blocks) * block + rest
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(n) + 0.2 * rng.standard_normal((channels, n))).astype(np.float32)
    signs = np.repeat(np.where(inverted, -1, 1), block)[:n]
    x[-1, : len(signs)] *= signs

    whole = mix(x, rate)
    downmix = Downmix(rate, channels)
    cuts = np.cumsum([b * block for b in blocks])[:-1]
    pieces = [downmix.mix(np.array(p, order="C")) for p in np.split(x, cuts, axis=1)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_allclose(whole, oracle(x, block), atol=1e-5)


def test_blocks_stay_small_whatever_a_header_claims() -> None:
    assert block_length(44100, 2) == 11025
    assert block_length(800_000, 1024) * 1024 <= 1 << 20
    assert block_length(1, 5000) == 1
