"""Decoys: sounds that no recording is, and that are otherwise like unrelated music.

What a batch finds of its decoys is chance, so it tells how much of what it finds of its sounds is (as in
proteomics: Elias and Gygi 2007, "Target-decoy search strategy"). Which kind of decoy has the scores of
unrelated music was tried: docs/decisions/decoys.md.
"""

import math
from dataclasses import replace

import numpy as np

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import Fingerprint
from fingerprint.hypotheses import UNALTERED
from fingerprint.view import under

CONFIDENCE = 0.95


def mirrored(made: Fingerprint, encoder: Encoder) -> Fingerprint:
    """A sound whose low bands are its high ones and the reverse: time goes on as it does in music.

    Raises ValueError for a fingerprint that keeps no levels.
    """
    if made.levels is None:
        raise ValueError(f"{made.source}: this fingerprint keeps no levels")
    turned = replace(made, levels=np.ascontiguousarray(made.levels[:, ::-1]))
    return replace(turned, embeddings=under(UNALTERED, turned, encoder).embeddings)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); from 0 to 1 of no trials."""
    if not trials:
        return 0.0, 1.0
    z = 1.96
    mean = successes / trials
    centre = mean + z * z / (2 * trials)
    spread = z * math.sqrt(mean * (1 - mean) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return max(0.0, (centre - spread) / whole), min(1.0, (centre + spread) / whole)


def false_discovery_rate(
    sounds: int, matched: int, decoys: int, matched_decoys: int, stated: float
) -> tuple[float, float, float]:
    """Share of a batch's matched sounds that are chance, as estimated, and its 95 % interval.

    sounds, matched : different sounds that were searched for, and those with a match
    decoys, matched_decoys : the same of decoys
    stated : matches that one unrelated sound has by chance, by its E-value

    Chance brings the matches that the E-value states, or the share of the decoys that have one, whichever is
    more. All of the sounds are taken for unrelated, so the rate is rather too high than too low. All of it is
    0 where nothing was matched.
    """
    if not matched:
        return 0.0, 0.0, 0.0
    low, high = wilson(matched_decoys, decoys)
    expected = max(stated, matched_decoys / decoys if decoys else 0.0)
    rates = [min(1.0, chance * sounds / matched) for chance in (expected, min(low, expected), high)]
    return rates[0], rates[1], max(rates[0], rates[2])


def most_wrong(sounds: int, matched: int, decoys: int, matched_decoys: int) -> int:
    """With 95 % confidence at most so many of a batch's matched sounds are chance.

    A sound that is in no recording is matched by chance as often as its decoy would be, so that of all
    matches by chance, those of decoys are a random share: given their number, that of the decoys is
    hypergeometric. The bound is the largest number of wrong matches under which so few matched decoys, or
    fewer, are not yet improbable (as TDC-UB, Ebadi, Luo, Keich and Noble 2023, "Bounding the FDP in
    competition-based control of the FDR", takes the negative binomial where decoys compete with their
    targets). It speaks of chance: of kin decoys know nothing.

    sounds, matched, decoys, matched_decoys : as `false_discovery_rate` takes them
    """
    bound = 0
    while bound < matched and (
        _few_decoys(bound + 1, sounds, decoys, matched_decoys) > 1 - CONFIDENCE
    ):
        bound += 1
    return bound


def bound_in_words(matched: int, bound: int) -> str:
    """What a batch says of its matches; where there are too few to say anything, that."""
    if not matched:
        return "Nothing was matched, so nothing is wrong."
    if bound >= matched:
        return (
            f"{matched:,} matched sounds and their decoys are too few to state how many of them may be "
            "wrong; each match stands for itself."
        )
    return f"With 95 % confidence at most {bound:,} of these {matched:,} matched sounds are there by chance."


def _few_decoys(wrong: int, sounds: int, decoys: int, matched_decoys: int) -> float:
    """The chance that of wrong + matched_decoys chance matches so few, or fewer, are of decoys."""
    drawn = wrong + matched_decoys
    if drawn > sounds + decoys:
        return 0.0
    lowest = max(0, drawn - sounds)
    return sum(
        math.exp(
            _log_choose(decoys, of_decoys)
            + _log_choose(sounds, drawn - of_decoys)
            - _log_choose(sounds + decoys, drawn)
        )
        for of_decoys in range(lowest, min(matched_decoys, decoys) + 1)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
