"""A long sound is heard in stretches: what is told of it is what would be told of the whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from melodies import RATE, melody, write

from fingerprint.audio import SAMPLE_RATE, Limits
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, fingerprint
from index.database import BESIDE
from index.library import Library
from index.recording import Metadata
from index.significance import MATCH
from service.datasets.source import OnDisk
from service.evidence import bundle
from service.evidence.evidence_checks import Means, verify
from service.query import chunks as stretch
from service.scan import worker as listen
from service.scan.matched_segment import Segment
from service.scan.worker import EVIDENCE, Heard, Task


def numbers(first: int, last: int) -> np.ndarray:
    """Samples that are their own numbers, as far as these can be told."""
    return (np.arange(first, last) % 2**20).astype(np.float32)


def blocks(seconds: float) -> list[np.ndarray]:
    """A sound of such samples in blocks of a second."""
    samples = numbers(0, round(seconds * SAMPLE_RATE))
    return [samples[first : first + SAMPLE_RATE] for first in range(0, len(samples), SAMPLE_RATE)]


@pytest.mark.parametrize("seconds", [0, 10, 599, 600, 601, 1170, 1171, 4000])
def test_stretches_hold_all_of_a_sound_and_overlap(seconds: int) -> None:
    found = list(stretch.stretches(blocks(seconds)))
    at = 0.0
    for begins, samples in found:
        assert begins == at  # each begins 30 s before the one before it ends
        first = round(begins * SAMPLE_RATE)
        assert np.array_equal(samples, numbers(first, first + len(samples)))
        assert len(samples) <= 600 * SAMPLE_RATE
        at = begins + len(samples) / SAMPLE_RATE - 30
    assert at + 30 == seconds
    assert all(len(samples) > 30 * SAMPLE_RATE for _, samples in found[1:])


@pytest.fixture
def task(ingested: Path, tmp_path: Path) -> Task:
    return Task(
        library=ingested,
        database=BESIDE,
        limits=Limits(),
        max_e_value=0.01,
        gate=MATCH,
        hypotheses=0,
        probe=False,
        thorough=True,
        evidence=tmp_path / "evidence",
    )


@pytest.fixture
def in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "STRETCH", 20.0)
    monkeypatch.setattr(stretch, "OVERLAP", 6.0)


def heard(task: Task, path: Path) -> Heard:
    listen.set_up(task)
    return listen.listen(OnDisk(path), path.name, None)


def test_evidence_for_an_owner_states_the_size_of_what_that_owner_sees(
    task: Task, tmp_path: Path, library: Path
) -> None:
    def stated(owner: str) -> int:
        folder = tmp_path / owner
        found = heard(replace(task, library=library, owner=owner, evidence=folder), clip)
        assert found.matches[0].evidence is not None
        page = folder.parent / found.matches[0].evidence.replace(EVIDENCE, owner, 1)
        files = bundle.read(page.with_suffix(".zip"))
        return json.loads(files[bundle.STATEMENT])["library_embeddings"]

    clip = write(tmp_path / "clip.wav", melody(3)[: 10 * RATE])
    encoder = Encoder.load()
    catalogue = Library.open(library, encoder)
    made = fingerprint(write(tmp_path / "own.flac", melody(80)), encoder, REFERENCE_EVERY)
    with catalogue.writer() as writer:
        about = Metadata("own.flac", "Ada", "owned", id="own", owner="ada", private=True)
        writer.add(made, about)
    seen = {owner: len(catalogue.refresh(owner)) for owner in ("ada", "bo")}
    catalogue.close()
    assert seen["ada"] == seen["bo"] + len(made.embeddings)
    assert {owner: stated(owner) for owner in seen} == seen


def test_a_work_that_goes_on_in_the_next_stretches_is_one_segment_with_evidence_that_holds(
    task: Task, tmp_path: Path, in_stretches: None
) -> None:
    silence = np.zeros(30 * RATE, np.float32)
    parts = [melody(70, 12.0), melody(3), silence, melody(2)[: 10 * RATE]]
    found = heard(task, write(tmp_path / "long.flac", np.concatenate(parts)))
    assert (found.error, found.duration) == (None, pytest.approx(72, abs=0.01))
    assert found.queries >= 4
    first, second = sorted(found.matches, key=lambda it: it.query_start)
    assert (first.source, second.source) == ("song-3.flac", "song-2.flac")
    assert (first.query_start, first.query_end) == pytest.approx((12, 32), abs=0.75)
    assert (first.reference_start, first.reference_end) == pytest.approx((0, 20), abs=0.75)
    assert (second.query_start, second.query_end) == pytest.approx((62, 72), abs=0.75)
    assert (second.reference_start, second.reference_end) == pytest.approx((0, 10), abs=0.75)
    assert task.evidence is not None
    for segment in (first, second):
        assert segment.evidence is not None
        file = (task.evidence.parent / segment.evidence).with_suffix(".zip")
        checks = verify(file, Means(Encoder.load(), clip=tmp_path / "long.flac"))
        held = {check.what: check.holds for check in checks}
        assert {held[what] for what in ("recording", "score", "answer", "clip")} == {True}
        (clip,) = (check for check in checks if check.what == "clip")
        assert "100% of its moments" in clip.detail
        assert held["signature"] is False  # a worker does not have the key
    left = {file.stem for file in task.evidence.iterdir()}  # and nothing that nobody names
    assert left == {Path(it.evidence or "").stem for it in (first, second)}


def segment(start: float, end: float, tier: str, e_value: float, shared: bool) -> Segment:
    """One of a recording that begins with the sound."""
    return Segment(
        recording="1",
        source="1.flac",
        title=None,
        artist=None,
        isrc=None,
        work=None,
        rightsholder="Me",
        rights="owned",
        tier=tier,
        e_value=e_value,
        score=50.0,
        query_start=start,
        query_end=end,
        reference_start=start,
        reference_end=end,
        tempo=1.0,
        pitch_semitones=0.0,
        shared_start=start if shared else None,
        shared_end=end if shared else None,
        reference_duration=900.0,
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_match_that_goes_on_as_shared_material_is_a_match(turned: bool) -> None:
    loop, rest = ("review", 1e-12, True), ("match", 1e-8, False)
    first, second = (rest, loop) if turned else (loop, rest)
    before, new = segment(500, 600, *first), segment(570, 700, *second)
    (whole,) = stretch.joined([before], [new], 570.0)
    assert (whole.tier, whole.e_value) == ("match", 1e-8)
    assert (whole.shared_start, whole.shared_end) == (None, None)
    assert (whole.query_start, whole.query_end) == (500, 700)


def test_a_long_sound_of_nothing_but_silence_is_silent(
    task: Task, tmp_path: Path, in_stretches: None
) -> None:
    found = heard(task, write(tmp_path / "silent.flac", np.zeros(50 * RATE, np.float32)))
    assert found.error is not None and found.error.type == "silent"
