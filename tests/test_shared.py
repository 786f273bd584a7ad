"""What several recordings have in common is for review; what one of them alone has is a match."""

import numpy as np
import pytest
from embeddings import noisy, query, reference, track

from fingerprint.encoder import Encoder
from index.library import Library
from index.recording import Metadata

ENCODER = Encoder.load()
LOOP = slice(200, 280)  # 8 s of embeddings, which recording 1 has at the same place


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    """Recordings 0 and 1 share a loop; 2 is an excerpt of 3, and 4 another encoding of 3; 5 is alone."""
    tracks = [track(ENCODER, seed, 60).copy() for seed in range(6)]
    tracks[1][LOOP] = tracks[0][LOOP]
    tracks[2] = tracks[3][100:300]
    tracks[4] = noisy(tracks[3], 1, 0.2)
    library = Library.open(tmp_path_factory.mktemp("works") / "library", ENCODER, create=True)
    with library.writer() as writer:
        for number, x in enumerate(tracks):
            writer.add(reference(ENCODER, x), Metadata(f"{number}", "Me", "owned", id=str(number)))
    return library


def found(library: Library, x: np.ndarray) -> dict:
    matches, _ = library.search(query(ENCODER, np.ascontiguousarray(x)))
    return {match.recording: match for match in matches}


def test_a_clip_of_the_loop_alone_is_for_review_and_the_loop_is_marked(library):
    matches = found(library, track(ENCODER, 0, 60)[210:270])
    assert {id: match.tier for id, match in matches.items()} == {"0": "review", "1": "review"}
    for match in matches.values():
        assert match.e_value < 1e-6
        assert match.shared_start == pytest.approx(0, abs=0.6)
        assert match.shared_end == pytest.approx(7.1, abs=0.6)


def test_a_clip_that_goes_on_beyond_the_loop_is_a_match_with_the_one_that_goes_on_so(library):
    matches = found(library, track(ENCODER, 0, 60)[220:400])
    assert matches["0"].tier == "match"
    assert matches["0"].shared_start is None
    assert matches["1"].tier == "review"
    assert matches["1"].shared_end == pytest.approx(7.1, abs=1.5)


@pytest.mark.parametrize("first", [0, 120, 200, 250, 450])
def test_an_excerpt_and_another_encoding_are_the_same_recording(library, first):
    matches = found(library, track(ENCODER, 3, 60)[first : first + 60])
    assert {"3", "4"} <= set(matches)
    assert {match.tier for match in matches.values()} == {"match"}
    assert {match.shared_start for match in matches.values()} == {None}


def test_what_one_recording_alone_has_is_a_match(library):
    (match,) = found(library, track(ENCODER, 5, 60)[210:270]).values()
    assert (match.tier, match.shared_start, match.shared_end) == ("match", None, None)
