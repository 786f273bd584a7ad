"""`make demo`: what it prints, what it leaves, and that it does not call a wrong answer right."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from melodies import melody, write
from patience import PATIENCE

from benchmarks.demo.show import CLIPS, HEADER, Clip, judge
from fingerprint.encoder import SHIPPED

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run with two files of the user's own, one of them no audio."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "own").mkdir()
    write(folder / "own" / "my tune.flac", melody(1))
    (folder / "own" / "text.mp3").write_text("This is a letter, not music.\n" * 20)
    # What an earlier run, broken off, left behind.
    (folder / "output" / "clips").mkdir(parents=True)
    (folder / "output" / "library").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.demo"),
            *("--audio", str(folder / "own"), "--output", str(folder / "output")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return folder / "output", done.stdout


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the encoder's weights are not there")
class TestRun:
    """One run, looked at from several sides."""

    def test_there_is_a_row_for_every_clip_and_each_is_right(self, demo: tuple[Path, str]) -> None:
        lines = demo[1].splitlines()
        first = next(i for i, line in enumerate(lines) if line.strip().startswith(HEADER[0])) + 1
        rows = lines[first : first + len(CLIPS) + 1]
        for (title, damage), row in zip(CLIPS[:-1], rows, strict=False):
            assert row.strip().startswith(damage.words)
            assert title in row
            assert "unrelated clips came this close" in row
        assert "nothing known in here" in rows[len(CLIPS) - 1]
        assert "my tune.flac" in rows[-1]
        assert all(row.endswith("right") for row in rows)
        assert f"{len(rows)} of {len(rows)} answers are right" in demo[1]

    def test_it_shows_the_commands_that_it_ran_and_what_to_do_next(
        self, demo: tuple[Path, str]
    ) -> None:
        output, said = demo
        for words in (f"ingest {output}/works --rightsholder", "--json", "serve"):
            assert f"earmark --library {output}/library" in said
            assert words in said
        assert "open http://127.0.0.1:8000/ and" in said
        assert "11 added, 0 already there, 0 failed" in said

    def test_a_file_that_cannot_be_read_is_told_and_the_rest_goes_on(
        self, demo: tuple[Path, str]
    ) -> None:
        assert "1 of 2 files added" in demo[1]
        assert any("failed:" in line and "text.mp3" in line for line in demo[1].splitlines())

    def test_it_leaves_works_clips_and_a_library(self, demo: tuple[Path, str]) -> None:
        output, _ = demo
        assert len(list((output / "works").iterdir())) == 11
        assert len(list((output / "clips").iterdir())) == len(CLIPS) + 1
        assert (output / "library" / "catalogue.sqlite").is_file()


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--audio", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no such folder" in done.stderr


def answer(**fields: Any) -> dict[str, Any]:
    """An answer of one match: a.flac from 10 s on, but for `fields`."""
    match = {
        "source": "a.flac",
        "title": "A",
        "tier": "match",
        "e_value": 1e-9,
        "query_start": 1.0,
        "reference_start": 11.0,
        "tempo": 1.0,
        "pitch_semitones": 0.0,
    }
    return {"error": None, "matches": [match | fields]}


KNOWN = Clip(Path("clip.mp3"), "MP3", Path("works/a.flac"), 10.0)
UNKNOWN = Clip(Path("clip.mp3"), "unknown", None, 10.0)
NOTHING: dict[str, Any] = {"error": None, "matches": []}


@pytest.mark.parametrize(
    ("clip", "given", "right"),
    [
        (KNOWN, answer(), True),
        (KNOWN, answer(reference_start=11.4), True),
        (KNOWN, answer(reference_start=12.0), False),
        (KNOWN, answer(source="b.flac", title="B"), False),
        (KNOWN, NOTHING, False),
        (UNKNOWN, NOTHING, True),
        (UNKNOWN, answer(), False),
        (KNOWN, {"error": {"type": "undecodable", "detail": "broken"}, "matches": []}, False),
    ],
)
def test_a_verdict_is_right_only_for_the_right_work_and_place(
    clip: Clip, given: dict[str, Any], right: bool
) -> None:
    verdict = judge(clip, given)
    assert verdict.right is right
    assert verdict.row[-1] == ("right" if right else "WRONG")


def test_a_verdict_tells_where_the_clip_begins_and_how_it_was_changed() -> None:
    verdict = judge(
        KNOWN,
        answer(
            tempo=1.03,
            tempo_low=1.025,
            tempo_high=1.035,
            changed=True,
            reference_start=10.0 + 1.03,
            tested_clips=1500,
            tested_closer=0,
        ),
    )
    assert verdict.place == "0:10.0"
    assert "3.0 % faster" in verdict.said
    assert verdict.odds == "none of 1,500 unrelated clips came this close"
