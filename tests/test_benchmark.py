"""The benchmark: what it draws, that it goes on after a kill, and what it says of peers that fail."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from melodies import melody, write

from benchmarks import accuracy, report
from benchmarks.accuracy import PeerRun, Task, ask, score
from benchmarks.clips import MadeClip, Material, audible_start, clips_digest, find_truth, make_clips
from benchmarks.corpora import Item
from benchmarks.degrade import DEGRADATIONS, Sources, rng_for
from benchmarks.journal import Journal
from benchmarks.peers.base import Answer
from benchmarks.plan import (
    FOCUS,
    LENGTHS,
    SEVERITIES,
    SIZES,
    Plan,
    Size,
    Work,
    components,
    hold_out,
    make_plan,
)
from benchmarks.run import Corpus, chosen, measure
from benchmarks.truth import Place

SECONDS = 20.0  # of each work
TINY = Size(
    "tiny",
    ("clean", "speed-20%", "leading-silence", "two-works"),
    per_cell=1,
    per_chain=1,
    absent=5,
    references=3,
)


def works(count: int, per_package: int = 3) -> list[Work]:
    return [Work(f"w{i:03d}", f"package-{i // per_package}", 180.0) for i in range(count)]


# --- what is drawn ---------------------------------------------------------------------------------------


def test_a_full_plan_has_what_a_report_must_show() -> None:
    plan = make_plan(SIZES["full"], 1, works(346), works(0), {})
    present = [clip for clip in plan.clips if not clip.absent]
    absent = [clip for clip in plan.clips if clip.absent]
    cells = Counter((clip.degradation, clip.seconds) for clip in present)
    assert set(cells) == {(name, seconds) for name in DEGRADATIONS for seconds in LENGTHS}
    assert min(cells.values()) >= 20
    assert all(cells[severity, 5] >= 300 for severity in SEVERITIES)
    assert all(cells[focus] >= 100 for focus in FOCUS)
    assert len(absent) >= 2000
    assert len({(c.degradation, c.seconds) for c in absent}) == len(cells)
    assert len(plan.works("reference")) >= 200
    assert len(plan.works("absent")) > 100
    assert len({clip.id for clip in plan.clips}) == len(plan.clips)


def test_every_work_is_used_about_as_often() -> None:
    plan = make_plan(SIZES["full"], 1, works(346), works(0), {})
    used = Counter(clip.work for clip in plan.clips if not clip.absent)
    assert set(used) == set(plan.works("reference"))
    assert max(used.values()) - min(used.values()) <= 1


def test_the_seed_and_nothing_else_decides() -> None:
    def plan(seed: int, **inputs: str) -> Plan:
        return make_plan(TINY, seed, works(20), works(0), inputs)

    assert plan(1) == plan(1)
    assert plan(1).clips != plan(2).clips
    assert plan(1).digest != plan(2).digest
    assert plan(1).digest != plan(1, package="2.0").digest


def test_what_is_absent_shares_nothing_with_the_library() -> None:
    some = [
        Work(f"w{i:02d}", f"package-{i // 4}", 60.0, artist=f"artist {i % 13}", group=f"g{i // 2}")
        for i in range(24)
    ] + [Work(f"x{i:02d}", f"more-{i}", 60.0, artist="<Unknown>") for i in range(30)]
    out = hold_out(some, 36, rng_for(1))
    ties = [
        {tie for work in some if (work.id in out) == side for tie in work.ties} for side in (0, 1)
    ]
    assert out
    assert len(some) - len(out) >= 36
    assert not ties[0] & ties[1]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_components_part_the_works(pairs: list[tuple[int, int]]) -> None:
    some = [Work(f"{i}", f"p{p}", 60.0, artist=f"a{a}") for i, (p, a) in enumerate(pairs)]
    parts = components(some)
    assert sorted(id for part in parts for id in part) == sorted(work.id for work in some)
    for part in parts:
        inside = {tie for work in some if work.id in part for tie in work.ties}
        outside = {tie for work in some if work.id not in part for tie in work.ties}
        assert not inside & outside


def test_one_package_alone_cannot_be_parted() -> None:
    with pytest.raises(ValueError, match="fetch more packages"):
        make_plan(TINY, 1, works(5, per_package=5), works(0), {})


def test_clips_begin_where_something_is_heard() -> None:
    rate = 8_000
    samples = np.zeros((60 * rate, 2), np.float32)
    samples[20 * rate : 40 * rate] = 0.1
    for number in range(50):
        start = audible_start(samples, rate, 5 * rate, rng_for("audible", number))
        assert 17.4 * rate <= start <= 37.6 * rate
    assert 0 <= audible_start(np.zeros((rate, 1), np.float32), rate, 2 * rate, rng_for(1)) <= rate


# --- what outlives a kill --------------------------------------------------------------------------------


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append([{"id": 1}, {"id": 2}])
    with path.open("ab") as file:
        file.write(b'{"id": 3, "ti')
    journal = Journal(path)
    assert journal.entries == [{"id": 1}, {"id": 2}]
    journal.append([{"id": 4}])
    assert Journal(path).entries == [{"id": 1}, {"id": 2}, {"id": 4}]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Six works in three packages, as files, and what is drawn from them."""
    folder = tmp_path_factory.mktemp("works")
    some = [Work(f"w{i}", f"package-{i // 2}", SECONDS) for i in range(6)]
    audio = {
        work.id: write(folder / f"{work.id}.wav", melody(i, SECONDS)) for i, work in enumerate(some)
    }
    plan = make_plan(TINY, 7, some, [], {})

    def sources(role: Any) -> Sources:
        return Sources(music=tuple(audio[work] for work in plan.works(role)))

    return Material(plan, audio, sources("reference"), sources("absent"))


@pytest.fixture(scope="module")
def made(
    material: Material, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[MadeClip], dict[str, list[Place]]]:
    """Their clips: folder, clips, truth."""
    folder = tmp_path_factory.mktemp("run")
    clips = make_clips(material, folder, quiet=True)
    return folder, clips, find_truth(material.plan, clips, material.audio, folder, quiet=True)


Made = tuple[Path, list[MadeClip], dict[str, list[Place]]]


def test_the_same_seed_gives_the_same_clips_bit_for_bit(
    material: Material, made: Made, tmp_path: Path
) -> None:
    folder, clips, _ = made
    again = make_clips(material, tmp_path, workers=2, quiet=True)
    assert again == clips
    for clip in clips:
        name = Path("clips", f"{clip.id}.flac")
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_clips_that_are_there_are_not_made_again(
    material: Material, made: Made, tmp_path: Path
) -> None:
    folder, clips, truth = made
    half = (folder / "clips.jsonl").read_text().splitlines(keepends=True)[: len(clips) // 2]
    (tmp_path / "clips.jsonl").write_text("".join(half))
    assert clips_digest(make_clips(material, tmp_path, quiet=True)) == clips_digest(clips)
    kept = {json.loads(line)["id"] for line in half}
    assert {path.stem for path in (tmp_path / "clips").iterdir()} == {c.id for c in clips} - kept

    lines = (folder / "truth.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "truth.jsonl").write_text("".join(lines[:5]))
    assert find_truth(material.plan, clips, material.audio, tmp_path, quiet=True) == truth


def test_a_damage_that_cannot_be_done_is_named(material: Material, tmp_path: Path) -> None:
    mute = dataclasses.replace(material, present=Sources(), absent=Sources())
    clips = make_clips(mute, tmp_path, quiet=True)
    failed = {clip.degradation for clip in clips if clip.problem}
    assert failed == {"two-works"}
    assert any("there is no music" in (clip.problem or "") for clip in clips)


def test_the_truth_of_a_clip_begins_with_where_it_was_cut(material: Material, made: Made) -> None:
    _, clips, truth = made
    for clip in clips:
        if clip.absent:
            assert truth[clip.id] == []
        else:
            assert truth[clip.id][0] == Place(clip.work, pytest.approx(clip.offset, abs=1e-4))
            assert {place.recording for place in truth[clip.id]} == {
                clip.work,
                *(work for work, _ in clip.mixed),
            }


# --- peers -----------------------------------------------------------------------------------------------


def test_no_run_is_without_the_peers_that_figures_stand_beside() -> None:
    assert chosen(["earmark"]) == ["earmark", "chromaprint", "zvukodel"]
    assert {"earmark", "chromaprint", "zvukodel"} < set(chosen([]))


class Oracle:
    """A peer that knows the answers; what a subclass makes of them is its own."""

    name, version, licence, gate, ingest_seconds = "oracle", "1", "", "knows", 1.0

    def __init__(self, clips: Sequence[MadeClip]) -> None:
        self.clips = {clip.id: clip for clip in clips}
        self.refused: dict[str, str] = {}
        self.asked: list[str] = []

    def missing(self) -> str | None:
        return None

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        assert all(path.is_file() for _, path in works)

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        self.asked += [clip.stem for clip in clips]
        return [self.answer(self.clips[clip.stem]) for clip in clips]

    def answer(self, clip: MadeClip) -> Answer:
        if clip.absent:
            return Answer("w0", 0.0, 0.5, False, 0.01)
        return Answer(clip.work, clip.offset - clip.lead * clip.tempo, 1.0, True, 0.01)

    def index_bytes(self) -> int:
        return 1000

    def close(self) -> None:
        pass


def task_of(material: Material, made: Made) -> Task:
    folder, clips, _ = made
    library = [(work, material.audio[work]) for work in material.plan.works("reference")]
    return Task(library, [(clip.id, folder / "clips" / f"{clip.id}.flac") for clip in clips])


def test_who_knows_everything_scores_everything(
    material: Material, made: Made, tmp_path: Path
) -> None:
    _, clips, truth = made
    run = ask(Oracle(clips), task_of(material, made), tmp_path, quiet=True)
    result = score(run, clips, truth, 100.0)
    total = result["groups"]["single"]["all"]
    count = len(TINY.degradations) * len(LENGTHS)
    assert {total[key] for key in ("clips", "identified", "localised", "near", "accepted")} == {
        count
    }
    assert total["wrong"] == 0
    assert result["absent"]["all"]["accepted"] == 0
    assert result["absent"]["all"]["clips"] == TINY.absent
    assert result["gates"][0]["found"]["single"][0] == 1.0
    assert (result["bytes_per_second"], result["ingest_speed"]) == (10.0, 100.0)
    assert result["missing"] == []


def test_what_a_cell_has_more_of_counts_in_the_cell_alone() -> None:
    cells = [("clean", 5), *[("phone-hard", 5)] * 3, ("chain-hard", 5), ("chain-hard", 5)]
    clips = [
        MadeClip(f"p{number}", "w0", degradation, seconds, absent=False)
        for number, (degradation, seconds) in enumerate(cells)
    ]
    right = Answer("w0", 0.0, 1.0, True, 0.01)
    run = PeerRun("one", answers={clip.id: right for clip in clips})
    groups = score(run, clips, {clip.id: [Place("w0", 0.0)] for clip in clips}, 100.0)["groups"]
    assert groups["cell"]["phone-hard|5"]["clips"] == 3
    assert groups["single"]["all"]["clips"] == groups["length"]["5"]["clips"] == 2
    assert groups["chain"]["all"]["clips"] == 2


def test_who_accepts_everything_raises_false_alarms(
    material: Material, made: Made, tmp_path: Path
) -> None:
    class Gullible(Oracle):
        def answer(self, clip: MadeClip) -> Answer:
            return Answer("w-none", 0.0, 1.0, True, 0.01)

    _, clips, truth = made
    run = ask(Gullible(clips), task_of(material, made), tmp_path, quiet=True)
    result = score(run, clips, truth, 100.0)
    total = result["groups"]["single"]["all"]
    assert (total["identified"], total["accepted"]) == (0, 0)
    assert total["wrong"] == total["clips"]
    assert result["absent"]["all"]["share"][0] == 1.0
    hours = sum(clip.duration for clip in clips if clip.absent) / 3600
    assert result["absent"]["all"]["per_hour"] == pytest.approx(TINY.absent / hours, rel=0.01)


def test_a_run_goes_on_where_it_was_stopped(
    material: Material, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "BATCH", 10)

    class Stopped(Oracle):
        def query(self, clips: Sequence[Path]) -> list[Answer]:
            if len(self.asked) == 20:
                raise KeyboardInterrupt
            return super().query(clips)

    _, clips, _ = made
    task = task_of(material, made)
    with pytest.raises(KeyboardInterrupt):
        ask(Stopped(clips), task, tmp_path, quiet=True)
    second = Oracle(clips)
    run = ask(second, task, tmp_path, quiet=True)
    assert second.asked == [clip.id for clip in clips[20:]]
    assert set(run.answers) == {clip.id for clip in clips}


def test_a_peer_that_fails_is_left_out_and_named(
    material: Material, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "BATCH", 5)

    class Absent(Oracle):
        name = "absent"

        def missing(self) -> str | None:
            return "not installed"

    class Full(Oracle):
        name = "full"

        def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
            raise MemoryError("no room")

    class Dying(Oracle):
        name = "dying"

        def answer(self, clip: MadeClip) -> Answer:
            return Answer(error="crashed: killed by signal 11")

    class Choosy(Oracle):
        name = "choosy"

        def answer(self, clip: MadeClip) -> Answer:
            short = clip.seconds == 1
            return Answer(error="no answer within 60 s") if short else super().answer(clip)

    _, clips, truth = made
    task = task_of(material, made)
    results = {}
    for peer in (Absent, Full, Dying, Choosy):
        run = ask(peer(clips), task, tmp_path, quiet=True)
        results[peer.name] = score(run, clips, truth, 100.0)
    assert results["absent"]["problem"] == "not installed"
    assert "no room" in results["full"]["problem"]
    assert results["dying"]["problem"].startswith("given up")
    assert not any(report.measured(results[name]) for name in ("absent", "full", "dying"))
    assert results["choosy"]["problem"] is None
    assert {each["seconds"] for each in results["choosy"]["missing"]} == {1}
    assert {each["reason"] for each in results["choosy"]["missing"]} == {"no answer within 60 s"}
    assert results["choosy"]["groups"]["length"]["2"]["identified"] == len(TINY.degradations)


# --- the report ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results of Earmark itself on the small works."""
    items = [
        Item(
            id=work,
            split="report",
            kind="music",
            package=f"package-{int(work[1]) // 2}",
            member=f"{work}.wav",
            duration=SECONDS,
            licence="",
            title=work,
            artist="",
            group=work,
            primary=True,
        )
        for work in material.plan.roles
    ]
    corpus = Corpus(
        works=items,
        sources={"noise": [], "speech": [], "impulse-response": []},
        audio=dict(material.audio),
        problems=["a-package is not there"],
    )
    folder, out = tmp_path_factory.mktemp("workdir"), tmp_path_factory.mktemp("results")
    values = measure(material.plan, corpus, folder, out, ["earmark", "audfprint"], 1)
    values["date"] = "2026-11-22"
    (out / "results.json").write_text(json.dumps(values))
    return out


def test_earmark_knows_clean_clips_of_its_library(results: Path) -> None:
    cells = json.loads((results / "results.json").read_text())["peers"]["earmark"]["groups"]["cell"]
    for seconds in (3, 5, 10):
        clean = cells[f"clean|{seconds}"]
        assert clean["identified"] == clean["clips"] == 1


def test_the_report_is_one_page_that_needs_nothing_else(results: Path) -> None:
    report.write(results)
    page = (results / "report.html").read_text()
    assert page.count("<svg") >= 5
    assert "a-package is not there" in page
    assert "What this report cannot show" in page
    for reference in ("<script src", "<link", "src='http", 'src="http'):
        assert reference not in page
    summary = json.loads((results / "summary.json").read_text())
    assert set(summary["peers"]) == {"earmark", "audfprint"}
    assert "identified_by_length" in summary["peers"]["earmark"]


def test_readmes_table_is_put_between_its_comments(results: Path) -> None:
    values = report.load(results)
    readme = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nRest.\n"
    text = report.with_table(readme, values)
    assert text.startswith("# Title\n")
    assert text.endswith("\n\nRest.\n")
    assert "| **earmark** |" in text
    assert "old" not in text
    assert report.with_table(text, values) == text
    with pytest.raises(report.ReportError, match="benchmark:begin"):
        report.with_table("# Title\n", values)


def test_the_newest_full_results_count(tmp_path: Path) -> None:
    assert report.newest(tmp_path) is None
    for name, size in (
        ("2026-11-20-b", "full"),
        ("2026-11-21-a", "full"),
        ("2026-11-22-a", "sample"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"size": size}))
    assert report.newest(tmp_path) == tmp_path / "2026-11-21-a"


def test_a_sample_has_to_do_while_there_are_no_full_results(tmp_path: Path) -> None:
    (tmp_path / "2026-11-22-a").mkdir()
    (tmp_path / "2026-11-22-a" / "results.json").write_text(json.dumps({"size": "sample"}))
    assert report.newest(tmp_path) == tmp_path / "2026-11-22-a"


def test_readme_says_what_the_newest_results_say() -> None:
    folder = report.newest()
    if folder is None:
        pytest.skip("no results yet")
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert report.with_table(readme, report.load(folder)) == readme
