"""From a real music package to right answers, through the real command."""

import os

import pytest

from benchmarks import corpora
from benchmarks.plain import measure


def test_clips_of_real_music_are_found_and_unknown_music_is_not(tmp_path):
    try:
        fetched = corpora.fetch("smoke")
        problem = "; ".join(fetched.failed.values())
    except corpora.CorpusError as error:
        problem = str(error)
    if problem:
        assert not os.environ.get("CI"), f"CI must fetch the smoke package: {problem}"
        pytest.skip(f"the smoke package cannot be fetched here: {problem}")
    works = corpora.items("smoke")
    assert len(works) >= 6
    library, others = works[:-2], works[-2:]
    outcome = measure(library, others, clips=24, absent=8, seed=7, folder=tmp_path)
    assert outcome.works == len(library)
    assert outcome.recording_right >= 23
    assert outcome.place_right >= 22
    assert outcome.absent_matches == 0
