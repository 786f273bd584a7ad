"""Recordings of one sound under two ids are found; ones that only share a part are not."""

from pathlib import Path

import numpy as np
import pytest
from command import Earmark
from embeddings import noisy, reference, track
from melodies import melody, write

from fingerprint.encoder import Encoder
from index.duplicates import duplicates
from index.library import Library
from index.recording import Metadata

ENCODER = Encoder.load()


@pytest.fixture
def works(tmp_path) -> Library:
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    tracks = {f"{seed}": track(ENCODER, seed, 40) for seed in range(8)}
    tracks["3 again"] = noisy(tracks["3"], 1, 0.4)
    tracks["5 later"] = np.concatenate([track(ENCODER, 50, 6)[:25], noisy(tracks["5"], 2, 0.3)])
    tracks["a third of 6"] = np.concatenate([tracks["6"][:130], track(ENCODER, 60, 30)])
    tracks["hardly any"] = track(ENCODER, 7, 40)[:1]
    with library.writer() as writer:
        for id, x in tracks.items():
            writer.add(reference(ENCODER, x), Metadata(id, "Me", "owned", id=id))
    return library


def test_the_same_sound_under_two_ids_is_found(works):
    found = {(pair.first.id, pair.second.id): pair.share for pair in duplicates(works)}
    assert set(found) == {("3", "3 again"), ("5", "5 later")}
    assert found["3", "3 again"] > 0.95
    with works.writer() as writer:
        writer.remove("3")
    assert [(pair.first.id, pair.second.id) for pair in duplicates(works)] == [("5", "5 later")]


def test_another_encoding_of_a_file_is_a_duplicate(earmark: Earmark, tmp_path: Path) -> None:
    song = write(tmp_path / "encoded.ogg", melody(1))
    earmark("ingest", song, "--rightsholder", "Me", "--rights", "owned")
    (pair,) = earmark.lines("list", "--duplicates")
    assert {it["source"] for it in pair["recordings"]} == {"song-1.flac", "encoded.ogg"}
    assert "encoded.ogg" in earmark("list", "--duplicates").stdout
    assert "--duplicates goes with" in earmark("list", "--duplicates", "--expired", status=2).stderr
    earmark("remove", pair["recordings"][1]["id"])
    assert earmark.lines("list", "--duplicates") == []
