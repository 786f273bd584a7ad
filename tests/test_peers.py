"""Systems beside Earmark: what they answer, and what the benchmark says when they cannot."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from melodies import RATE, melody, write

from benchmarks.corpora import cache_folder
from benchmarks.peers import PEERS, worker
from benchmarks.peers.base import Answer, PeerError
from benchmarks.peers.chromaprint import KEY_BITS, SILENCE, Chromaprint, Items
from benchmarks.peers.earmark import Earmark
from benchmarks.peers.linear import Linear
from benchmarks.peers.worker import WorkerPeer
from benchmarks.peers.zvukodel import Zvukodel

CLIP_START = 7.3  # s into song 1

# Systems that can be run here: those of a registry only where a benchmark has installed them.
HERE = ["earmark"]
HERE += ["chromaprint"] if shutil.which("fpcalc") else []
HERE += [name for name in ("audfprint", "panako", "olaf") if shutil.which(name)]
HERE += [n for n in ("zvukodel", "audiolocate") if (cache_folder() / "peers" / n).is_dir()]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("songs")
    return [(f"s{n}", write(folder / f"{n}.flac", melody(n, 30.0))) for n in range(4)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 s of the second song, with some noise."""
    start = round(CLIP_START * RATE)
    samples = melody(1, 30.0)[start : start + 5 * RATE]
    noise = np.random.default_rng(1).standard_normal(len(samples)).astype(np.float32)
    return write(tmp_path_factory.mktemp("clips") / "clip.wav", samples + 0.005 * noise)


@pytest.mark.parametrize("name", HERE)
def test_a_clip_is_found_where_it_was_cut(
    name: str, songs: list[tuple[str, Path]], clip: Path, tmp_path: Path
) -> None:
    peer = PEERS[name]()
    assert peer.missing() is None
    peer.ingest(songs, tmp_path / "index")
    silence = write(tmp_path / "silence.wav", np.zeros(5 * RATE, np.float32))
    found, nothing = peer.query([clip, silence])
    peer.close()
    assert (found.recording, found.error) == ("s1", None)
    assert found.reference_start == pytest.approx(CLIP_START, abs=0.25)
    assert found.score > 0
    assert found.seconds > 0
    assert not nothing.accepted
    assert peer.version and peer.licence and peer.gate
    assert peer.index_bytes() > 0
    assert peer.ingest_seconds > 0
    assert peer.refused == {}


@pytest.mark.parametrize("name", [name for name in HERE if name in ("earmark", "chromaprint")])
def test_an_index_that_is_there_is_taken_up_again(
    name: str, songs: list[tuple[str, Path]], clip: Path, tmp_path: Path
) -> None:
    first, second = PEERS[name](), PEERS[name]()
    first.ingest(songs[:3], tmp_path / "index")
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "index").rglob("*.safetensors")}
    [before] = first.query([clip])
    first.close()
    second.ingest(songs[:3], tmp_path / "index")
    [after] = second.query([clip])
    assert second.ingest_seconds == first.ingest_seconds
    assert all(file.stat().st_mtime_ns == when for file, when in made.items())
    assert (after.recording, after.score) == (before.recording, before.score)
    second.ingest(songs[2:], tmp_path / "index")  # other works: a new index
    assert second.query([clip])[0].recording in (None, "s2", "s3")
    second.close()


def test_clips_are_refused_before_anything_is_taken_in(clip: Path) -> None:
    for make in PEERS.values():
        with pytest.raises(PeerError, match="has not taken in any works yet"):
            [answer] = make().query([clip])
            raise PeerError(answer.error or "")  # where every clip has an answer of its own


# --- a system that misbehaves ----------------------------------------------------------------------------

ENGINE = """
import os, signal, threading

class Engine:
    def __init__(self, folder):
        self.file = folder / "names"
        self.names = self.file.read_text().split() if self.file.exists() else []

    def add(self, recording, path):
        print("taking in", recording)  # on standard output, which carries the answers
        if "deadly" in path:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "odd" in path:
            raise ValueError("no such format")
        self.names.append(recording)

    def save(self):
        return self.file.write_text(" ".join(self.names))

    def best(self, path):
        if "deadly" in path:
            os._exit(3)
        if "endless" in path:
            threading.Event().wait()
        if "odd" in path:
            raise ValueError("no such format")
        return {"recording": self.names[0], "reference_start": 1.5, "score": 2.0, "accepted": True}
"""


class Fake(WorkerPeer):
    """Runs ENGINE in this interpreter."""

    name = "fake"
    licence = "none"
    gate = "none"
    engine = "fake"

    def missing(self) -> str | None:
        return None

    def python(self) -> Path:
        return Path(sys.executable)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "fake.py").write_text(ENGINE)
    monkeypatch.setattr(worker, "ENGINES", tmp_path)
    monkeypatch.setattr(worker, "QUERY_LIMIT", 3.0)
    return Fake()


def test_a_crash_or_a_hang_costs_one_answer(fake: Fake, tmp_path: Path) -> None:
    fake.ingest([("a", tmp_path / "good")], tmp_path / "index")
    names = ("good", "deadly", "good", "endless", "odd", "good")
    answers = fake.query([tmp_path / name for name in names])
    fake.close()
    assert [answer.recording for answer in answers] == ["a", None, "a", None, None, "a"]
    assert answers[0].reference_start == 1.5
    reasons = [answer.error for answer in answers if answer.error]
    assert reasons == [
        "crashed: ended with status 3",
        "no answer within 3 s",
        "ValueError: no such format",
    ]


def test_a_system_that_keeps_dying_is_not_asked_for_ever(fake: Fake, tmp_path: Path) -> None:
    fake.ingest([("a", tmp_path / "good")], tmp_path / "index")
    answers = fake.query([tmp_path / "deadly"] * (worker.DEATHS + 2))
    assert all(answer.error for answer in answers)
    assert "not asked" in (answers[-1].error or "")


def test_works_that_cannot_be_taken_in_are_named(fake: Fake, tmp_path: Path) -> None:
    works = [("a", tmp_path / "deadly"), ("b", tmp_path / "odd"), ("c", tmp_path / "good")]
    fake.ingest(works, tmp_path / "index")
    assert fake.refused == {
        "a": "crashed: killed by signal 11",
        "b": "ValueError: no such format",
    }
    assert fake.query([tmp_path / "good"])[0].recording == "c"
    fake.close()
    with pytest.raises(PeerError, match="took in none of 1 works: ValueError"):
        fake.ingest([("b", tmp_path / "odd")], tmp_path / "index")


def test_a_file_that_a_system_cannot_open_is_handed_to_it_as_wav(
    songs: list[tuple[str, Path]], fake: Fake, tmp_path: Path
) -> None:
    odd = Path(shutil.copy(songs[0][1], tmp_path / "odd.flac"))
    fake.ingest([("a", odd)], tmp_path / "index")
    fake.close()
    assert fake.refused == {}


# --- absent systems --------------------------------------------------------------------------------------


def test_a_system_whose_program_is_absent_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install libchromaprint-tools" in (Chromaprint().missing() or "")
    with pytest.raises(PeerError, match="chromaprint cannot be measured"):
        Chromaprint().ingest([], tmp_path)


def test_a_package_that_cannot_be_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert "cannot be installed" in (Zvukodel().missing() or "")


def test_the_baseline_needs_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path))
    monkeypatch.setattr("benchmarks.peers.linear.ROOT", tmp_path)
    assert "fingerprint.training.linear" in (Linear().missing() or "")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "linear.safetensors").write_bytes(b"no weights")
    assert "not an encoder's weights file" in (Linear().missing() or "")


def test_earmark_states_its_encoder() -> None:
    peer = Earmark()
    assert peer.missing() is None
    assert len(peer.version) == 16


# --- Chromaprint's matching ------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 40), st.integers(0, 6))
def test_fewest_bit_errors_as_counted_one_by_one(seed: int, length: int, flips: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 2**32, n, np.uint32) for n in (150, 90, 200)]
    number = int(rng.integers(3))
    offset = int(rng.integers(len(rows[number]) - length))
    clip = rows[number][offset : offset + length].copy()
    for bit in rng.choice(32 - KEY_BITS, flips, replace=False):  # damage spares the keys
        clip ^= np.uint32(1 << int(bit))
    found = Items(np.concatenate(rows), np.array([150, 90, 200])).nearest(clip)
    assert found is not None
    original = rows[number][offset : offset + length].tolist()
    errors = [(a ^ b).bit_count() for a, b in zip(clip.tolist(), original, strict=True)]
    assert found == (number, offset, sum(errors) / length)


def test_a_clip_that_hangs_over_an_end_is_placed() -> None:
    rng = np.random.default_rng(3)
    row, strange = rng.integers(0, 2**32, (2, 100), np.uint32)
    items = Items(row, np.array([100]))
    assert items.nearest(np.concatenate([strange[:8], row[:12]])) == (0, -8, 0.0)
    assert items.nearest(np.concatenate([row[-12:], strange[:8]])) == (0, 88, 0.0)
    assert items.nearest(np.concatenate([strange[:16], row[:4]])) is None  # too little of it


def test_silence_and_nothing_have_no_place() -> None:
    items = Items(np.full(50, SILENCE, np.uint32), np.array([50]))
    assert items.nearest(np.full(10, SILENCE, np.uint32)) is None
    assert items.nearest(np.empty(0, np.uint32)) is None
    assert (
        Items(np.empty(0, np.uint32), np.empty(0, np.int64)).nearest(np.ones(5, np.uint32)) is None
    )


def test_an_answer_says_nothing_unless_told() -> None:
    assert Answer() == Answer(None, None, 0.0, False, 0.0, None)
