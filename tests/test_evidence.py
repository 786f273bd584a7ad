"""`earmark query --evidence` and `earmark verify-evidence`: what was found can be computed again."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from command import Earmark
from melodies import RATE, melody, write


@pytest.fixture
def evidence(earmark: Earmark, tmp_path: Path) -> dict[str, Any]:
    """The evidence for clip.wav, which is song-1; its file is evidence/*.json."""
    earmark("query", "clip.wav", "--evidence", tmp_path / "evidence")
    (file,) = (tmp_path / "evidence").glob("*.json")
    return json.loads(file.read_text())


def file_of(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "evidence").glob("*.json")
    return file


def checks(earmark: Earmark, *arguments: object, **options: Any) -> dict[str, bool | None]:
    lines = earmark.lines("verify-evidence", *arguments, **options)
    return {line["what"]: line["holds"] for line in lines}


def test_evidence_holds_with_its_clip_and_its_library(
    earmark: Earmark, evidence: dict[str, Any], music: Path, tmp_path: Path
) -> None:
    file = file_of(tmp_path)
    assert checks(earmark, file, "--clip", music / "clip.wav") == {
        "score": True,
        "answer": True,
        "clip": True,
        "library": True,
    }
    (answer,) = earmark.lines("query", "clip.wav")
    assert evidence["match"] == answer["matches"][0]
    assert evidence["score"] == pytest.approx(answer["matches"][0]["score"], rel=0.05)


def test_evidence_needs_neither_library_nor_clip(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = {"EARMARK_LIBRARY": str(tmp_path / "none")}
    assert checks(earmark, file_of(tmp_path), environment=elsewhere) == {
        "score": True,
        "answer": True,
        "clip": None,
        "library": None,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", lambda score: score + 5),
        ("e_value", lambda e_value: e_value / 1000),
        ("query_embeddings", lambda count: max(1, count // 50)),
        ("library_embeddings", lambda count: count * 1000),
        ("codes", lambda codes: base64.b64encode(base64.b64decode(codes)[::-1]).decode()),
    ],
)
def test_what_was_changed_afterwards_does_not_hold(
    field: str, value: Any, earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    evidence[field] = value(evidence[field])
    file = file_of(tmp_path)
    file.write_text(json.dumps(evidence))
    held = checks(earmark, file, status=1)
    assert False in (held["score"], held["library"])


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("title", "Another Song", "library"),
        ("rightsholder", "Red Label", "library"),
        ("score", 9999.0, "answer"),
        ("e_value", 1e-300, "answer"),
    ],
)
def test_what_an_answer_never_said_is_not_said_to_hold(
    field: str,
    value: object,
    what: str,
    earmark: Earmark,
    evidence: dict[str, Any],
    tmp_path: Path,
) -> None:
    evidence["match"][field] = value
    file = file_of(tmp_path)
    file.write_text(json.dumps(evidence))
    status = 1 if what == "library" else 0
    held = checks(earmark, file, status=status)
    assert held["score"] is True
    assert held[what] is (False if what == "library" else None)


def test_a_library_that_was_never_of_that_size_does_not_hold(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    evidence["library_embeddings"] += 1  # too little to change the E-value
    file = file_of(tmp_path)
    file.write_text(json.dumps(evidence))
    held = checks(earmark, file, status=1)
    assert (held["score"], held["library"]) == (True, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tempo", 0), ("query_end", 1e308), ("reference_start", -1e308)],
)
def test_hostile_evidence_is_one_line(
    field: str, value: float, earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    evidence["match"] |= {field: value, "pitch_semitones": 1.0}
    file = file_of(tmp_path)
    file.write_text(json.dumps(evidence))
    done = earmark("verify-evidence", file, status=1)
    assert str(file) in done.stderr and done.stderr.count("\n") == 1


def test_clips_of_one_content_have_evidence_each(
    earmark: Earmark, music: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes((music / "clip.wav").read_bytes())
    earmark("query", "clip.wav", copy, "--evidence", tmp_path / "evidence")
    files = sorted((tmp_path / "evidence").glob("*.json"))
    assert [Path(json.loads(file.read_text())["clip"]).name for file in files] == [
        "clip.wav",
        "copy.wav",
    ]


def test_where_evidence_cannot_be_written_answers_are_still_given(
    earmark: Earmark, tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    folder.write_text("a file")
    done = earmark("query", "clip.wav", "unknown.wav", "--json", "--evidence", folder, status=1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(answer["matches"]) for answer in answers] == [1, 0]
    assert "evidence cannot be written" in done.stderr


def test_another_place_than_the_one_found_does_not_hold(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    for end in ("reference_start", "reference_end"):
        evidence["match"][end] += 2.7
    file = file_of(tmp_path)
    file.write_text(json.dumps(evidence))
    assert checks(earmark, file, status=1)["score"] is False


def test_another_clip_does_not_hold(
    earmark: Earmark, evidence: dict[str, Any], music: Path, tmp_path: Path
) -> None:
    held = checks(earmark, file_of(tmp_path), "--clip", music / "unknown.wav", status=1)
    assert (held["score"], held["clip"]) == (True, False)


def test_an_altered_copy_has_evidence_that_holds(earmark: Earmark, tmp_path: Path) -> None:
    song = melody(2)[4 * RATE : 14 * RATE]
    # played a sixth faster: the same samples at a higher rate
    import soundfile

    soundfile.write(tmp_path / "fast.wav", song, round(RATE * 7 / 6))
    (answer,) = earmark.lines("query", tmp_path / "fast.wav", "--evidence", tmp_path / "evidence")
    assert answer["matches"][0]["tempo"] == pytest.approx(7 / 6, rel=0.01)
    file = next((tmp_path / "evidence").glob("*-1.json"))
    assert checks(earmark, file)["score"] is True
    assert json.loads(file.read_text())["e_value"] < 1e-4


def test_the_page_shows_pictures_and_loads_nothing(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    page = file_of(tmp_path).with_suffix(".html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert evidence["sha256"] in page and "song-1.flac" in page and "<line" in page
    assert "http" not in page and "<script" not in page


def test_a_scan_links_its_evidence(earmark: Earmark, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    write(tmp_path / "dump" / "a.flac", melody(3)[2 * RATE : 9 * RATE])
    earmark("scan", tmp_path / "dump", "--report", tmp_path / "report", "--evidence")
    (page,) = (tmp_path / "report" / "evidence").glob("*.html")
    assert f'href="evidence/{page.name}"' in (tmp_path / "report" / "report.html").read_text()
    assert checks(earmark, page.with_suffix(".json"))["score"] is True


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "[1]", "\0"])
def test_what_is_no_evidence_is_one_line(text: str, earmark: Earmark, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    done = earmark("verify-evidence", tmp_path / "x.json", status=1)
    assert "no evidence" in done.stderr and len(done.stderr.splitlines()) == 1
    done = earmark("verify-evidence", tmp_path / "gone.json", status=1)
    assert "cannot be read" in done.stderr
