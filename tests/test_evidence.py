"""`earmark query --evidence` and `earmark verify-evidence`: what was found can be computed again."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command import Earmark
from melodies import RATE, melody, played, write

from benchmarks.demo.instruments import chip, piano


@pytest.fixture
def evidence(earmark: Earmark, tmp_path: Path) -> dict[str, Any]:
    """What the evidence for clip.wav, which is song-1, states; its file is evidence/*.zip."""
    earmark("query", "clip.wav", "--evidence", tmp_path / "evidence")
    return statement(bundle_of(tmp_path))


def bundle_of(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "evidence").glob("*.zip")
    return file


def statement(bundle: Path) -> dict[str, Any]:
    with zipfile.ZipFile(bundle) as archive:
        return json.loads(archive.read("evidence.json"))


def checks(earmark: Earmark, *arguments: object, **options: Any) -> dict[str, bool | None]:
    lines = earmark.lines("verify-evidence", *arguments, **options)
    return {line["what"]: line["holds"] for line in lines}


def test_evidence_holds_with_its_clip_and_its_library(
    earmark: Earmark, evidence: dict[str, Any], music: Path, tmp_path: Path
) -> None:
    held = checks(earmark, bundle_of(tmp_path), "--clip", music / "clip.wav")
    assert held == dict.fromkeys(held, True) | {"time stamp": None}
    (answer,) = earmark.lines("query", "clip.wav")
    assert evidence["match"] == answer["matches"][0]
    assert evidence["score"] == pytest.approx(answer["matches"][0]["score"], rel=0.05)
    assert (
        evidence["recording"]["sha256"]
        == earmark.lines("show", evidence["match"]["recording"])[0]["sha256"]
    )
    assert {"host", "made_at", "version", "versions", "settings", "limits"} <= evidence.keys()


def test_evidence_needs_neither_library_nor_clip_and_says_what_was_not_checked(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = {"EARMARK_LIBRARY": str(tmp_path / "none")}
    file = bundle_of(tmp_path)
    held = checks(earmark, file, environment=elsewhere)
    open_ones = {what for what, holds in held.items() if holds is None}
    assert open_ones == {"key", "time stamp", "clip", "library"}
    assert held["conclusion"] is True and False not in held.values()
    said = earmark("verify-evidence", file, environment=elsewhere).stdout
    assert "clip NOT CHECKED: the clip was not checked" in said
    key = earmark.lines("signing-key")[0]["public_key"]
    assert checks(earmark, file, "--key", key, environment=elsewhere)["key"] is True
    assert checks(earmark, file, "--key", "0" * 64, environment=elsewhere, status=1)["key"] is False


def test_several_bundles_are_verified_and_the_others_still_are(
    earmark: Earmark, evidence: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "x.zip").write_text("")
    done = earmark("verify-evidence", tmp_path / "x.zip", bundle_of(tmp_path), status=1)
    assert "x.zip: is no evidence" in done.stderr and "conclusion holds" in done.stdout


def test_clips_of_one_content_have_evidence_each(
    earmark: Earmark, music: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes((music / "clip.wav").read_bytes())
    earmark("query", "clip.wav", copy, "--evidence", tmp_path / "evidence")
    files = sorted((tmp_path / "evidence").glob("*.zip"))
    assert [Path(statement(file)["clip"]).name for file in files] == ["clip.wav", "copy.wav"]
    before = {file.name for file in files}
    earmark("query", "clip.wav", copy, "--evidence", tmp_path / "evidence")
    assert {file.name for file in (tmp_path / "evidence").glob("*.zip")} == before


def test_where_evidence_cannot_be_written_answers_are_still_given(
    earmark: Earmark, tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    folder.write_text("a file")
    done = earmark("query", "clip.wav", "unknown.wav", "--json", "--evidence", folder, status=1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(answer["matches"]) for answer in answers] == [1, 0]
    assert "evidence cannot be written" in done.stderr


def test_where_evidence_cannot_be_signed_answers_are_still_given(
    earmark: Earmark, library: Path, tmp_path: Path
) -> None:
    (library / "evidence.key").write_text("no key")
    done = earmark("query", "clip.wav", "--json", "--evidence", tmp_path / "evidence", status=1)
    assert json.loads(done.stdout)["matches"]
    assert "evidence.key: is damaged" in done.stderr and "signing-key --replace" in done.stderr
    earmark("signing-key", "--replace")
    earmark("query", "clip.wav", "--evidence", tmp_path / "evidence")


def test_an_altered_copy_has_evidence_that_holds(earmark: Earmark, tmp_path: Path) -> None:
    song = melody(2)[4 * RATE : 14 * RATE]
    # played a sixth faster: the same samples at a higher rate
    import soundfile

    clip = tmp_path / "fast.wav"
    soundfile.write(clip, song, round(RATE * 7 / 6))
    (answer,) = earmark.lines("query", clip, "--evidence", tmp_path / "evidence")
    assert answer["matches"][0]["tempo"] == pytest.approx(7 / 6, rel=0.01)
    for file in (tmp_path / "evidence").glob("*.zip"):
        held = checks(earmark, file, "--clip", clip)
        assert (held["score"], held["clip"]) == (True, True)
    assert min(statement(it)["e_value"] for it in (tmp_path / "evidence").glob("*.zip")) < 1e-4


def test_the_page_shows_pictures_with_axes_and_loads_nothing(
    earmark: Earmark, evidence: dict[str, Any], music: Path, tmp_path: Path
) -> None:
    file = bundle_of(tmp_path)
    page = file.with_suffix(".html").read_text()
    assert page.count('href="data:image/png;base64,') == 2
    assert evidence["sha256"] in page and "song-1.flac" in page and "<line" in page
    assert "time in the recording" in page and "1 kHz" in page and "0:09.0" in page
    assert "What else could explain it" in page and "Another version" in page
    assert "http" not in page and "<script" not in page and "chance of being wrong" not in page
    with zipfile.ZipFile(file) as archive:
        assert archive.read("page.html").decode() == page
        assert {"likeness.png", "clip.png"} <= set(archive.namelist())
    song = music / "songs" / "song-1.flac"
    command = ("query", "clip.wav", "--evidence", tmp_path / "evidence", "--reference")
    earmark(*command, song)
    page = file.with_suffix(".html").read_text()
    assert page.count('href="data:image/png;base64,') == 3
    assert "from the file that was ingested" in page
    done = earmark(*command, music / "clip.wav", status=1)
    assert "no recording was ingested from this file" in done.stderr


def test_a_page_for_review_does_not_say_that_it_is_a_match(
    earmark: Earmark, tmp_path: Path
) -> None:
    write(tmp_path / "piano.flac", played(piano))
    earmark("ingest", tmp_path / "piano.flac", "--rightsholder", "Me", "--rights", "owned")
    write(tmp_path / "chip.flac", played(chip))
    earmark("query", tmp_path / "chip.flac", "--evidence", tmp_path / "evidence")
    file = next(iter((tmp_path / "evidence").glob("*.zip")))
    assert statement(file)["match"]["tier"] == "review"
    page = file.with_suffix(".html").read_text()
    assert (
        "For review:" in page
        and "This is not a match" in page
        and "Likely: the clip is less" in page
    )
    assert "Match:" not in page and "is the sound of" not in page and " is in " not in page


def test_a_scan_links_its_evidence(earmark: Earmark, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    clip = write(tmp_path / "dump" / "a.flac", melody(3)[2 * RATE : 9 * RATE])
    earmark("scan", tmp_path / "dump", "--report", tmp_path / "report", "--evidence")
    (file,) = (tmp_path / "report" / "evidence").glob("*.zip")
    page = (tmp_path / "report" / "report.html").read_text()
    assert f'href="evidence/{file.name}"' in page
    assert f'href="evidence/{file.stem}.html"' in page
    held = checks(earmark, file, "--clip", clip)
    assert held == dict.fromkeys(held, True) | {"time stamp": None}


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "[1]", "\0"])
def test_what_is_no_evidence_is_one_line(text: str, earmark: Earmark, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text(text)
    done = earmark("verify-evidence", tmp_path / "x.zip", status=1)
    assert "no evidence" in done.stderr and len(done.stderr.splitlines()) == 1
    done = earmark("verify-evidence", tmp_path / "gone.zip", status=1)
    assert "cannot be read" in done.stderr
