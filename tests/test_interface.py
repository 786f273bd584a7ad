"""`import earmark`: what its documentation says, and the errors of bad input."""

import doctest
import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earmark
from service.query.answer import Answer as JsonAnswer
from service.query.answer import LibraryState as JsonState
from service.query.answer import Match as JsonMatch

STATIC = Path(__file__).parent.parent / "service" / "web" / "static"
MODULES = ["earmark", "earmark.interface", "earmark.answers"]


def folder_of_documentation(folder: Path) -> Path:
    """A folder with what the examples name: a work, and a clip of it under noise, 6 % faster."""
    (folder / "album").mkdir()
    shutil.copy(STATIC / "example-work.opus", folder / "album")
    shutil.copy(STATIC / "example.mp3", folder / "suspect.mp3")
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = folder_of_documentation(tmp_path_factory.mktemp("documented"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with earmark.Library.open("earmark-library", create=True) as library:
            library.ingest("album", rightsholder="Me", rights="owned")
        yield folder


@pytest.fixture
def library(here: Path) -> Iterator[earmark.Library]:
    with earmark.Library.open(here / "earmark-library") as library:
        yield library


def test_examples_in_docstrings_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder_of_documentation(tmp_path))
    run = 0
    for name in MODULES:
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0
        run += result.attempted
    assert run >= 10


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(earmark.__all__) - {"__version__"}:
        assert getattr(earmark, name).__doc__, name
    for name in dir(earmark.Library):
        assert name.startswith("_") or getattr(earmark.Library, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'libary'"):
        earmark.libary  # noqa: B018


@pytest.mark.parametrize(
    ("public", "json_model", "left_out"),
    [
        (earmark.Match, JsonMatch, set()),
        (earmark.LibraryState, JsonState, set()),
        (earmark.Answer, JsonAnswer, {"error"}),  # raised instead
    ],
    ids=["match", "library", "answer"],
)
def test_dataclasses_have_every_name_of_the_json(
    public: type, json_model: Any, left_out: set[str]
) -> None:
    names = {each.name for each in fields(public)}
    assert set(json_model.model_fields) - left_out <= names


def test_answers_are_those_of_the_command(library: earmark.Library, here: Path) -> None:
    answer = library.query("suspect.mp3")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "earmark", "query", "--json", "suspect.mp3"],
        cwd=here,
        env={"PYTHONPATH": str(STATIC.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["clip"] == answer.clip
    assert (said["sha256"], said["duration"]) == (answer.sha256, answer.duration)
    assert len(said["matches"]) == len(answer.matches) == 1
    for name, value in said["matches"][0].items():
        ours = getattr(answer.matches[0], name)
        assert ours == pytest.approx(value) if isinstance(value, float) else ours == value, name


def test_a_clip_is_a_path_a_file_a_fingerprint_or_samples(
    library: earmark.Library, here: Path
) -> None:
    import soundfile

    stereo, rate = soundfile.read(here / "suspect.mp3")
    samples = stereo.mean(axis=1)
    made = earmark.fingerprint("suspect.mp3")
    made.save("suspect.emk")
    answers = [
        library.query(here / "suspect.mp3"),
        library.query(io.BytesIO((here / "suspect.mp3").read_bytes())),
        library.query(made),
        library.query("suspect.emk"),
        library.query(samples=samples, rate=rate),
        library.query(samples=stereo, rate=rate),
        library.query(samples=(samples * 32767).astype(np.int16), rate=rate),
        library.query(earmark.fingerprint(samples=samples.tolist(), rate=rate)),
    ]
    for answer in answers:
        (match,) = answer.matches
        assert match.tier == "match"
        assert match.tempo == pytest.approx(1.06, abs=0.005)
        assert match.query_end - match.query_start > 6


def test_a_notebook_shows_a_timeline(library: earmark.Library) -> None:
    shown = library.query("suspect.mp3")._repr_html_()
    assert "<svg" in shown and "example-work.opus" in shown and "1 match" in shown
    noise = np.random.default_rng(0).standard_normal(8000 * 4) / 8
    assert "no known work" in library.query(samples=noise, rate=8000)._repr_html_()


NOISE = np.random.default_rng(0).standard_normal(16000)


@pytest.mark.parametrize(
    ("samples", "rate", "kind", "says"),
    [
        ([], 8000, "too-short", "none"),
        (NOISE[:100], 8000, "too-short", "0.01 s"),
        (np.zeros(16000), 8000, "silent", "silence"),
        (np.where(np.arange(16000) == 7, np.nan, NOISE), 8000, "undecodable", "1 of 16000 values"),
        (np.full(16000, np.inf), 8000, "undecodable", "NaN or infinite"),
        (NOISE, None, "undecodable", "rate=None"),
        (NOISE, "8000", "undecodable", "rate='8000'"),
        (NOISE, True, "undecodable", "rate=True"),
        (NOISE, 0, "undecodable", "0 Hz"),
        (NOISE, -44100, "undecodable", "-44100 Hz"),
        (NOISE, float("nan"), "undecodable", "nan Hz"),
        (NOISE, 8000.5, "undecodable", "whole number"),
        (NOISE, 1e9, "undecodable", "1e+09 Hz"),
        (NOISE.reshape(10, 40, 40), 8000, "undecodable", "shape"),
        (NOISE.reshape(2, 8000), 8000, "undecodable", "8000 channels"),
        (np.empty((8000, 0)), 8000, "undecodable", "0 channels"),
        (np.array(["a", "b"]), 8000, "undecodable", "type"),
        (NOISE.astype(complex), 8000, "undecodable", "complex"),
        (np.ones(16000, bool), 8000, "undecodable", "bool"),
    ],
)
def test_bad_samples_are_the_commands_errors(
    library: earmark.Library, samples: Any, rate: Any, kind: str, says: str
) -> None:
    with pytest.raises(earmark.AudioError, match=says.replace("+", r"\+")) as caught:
        library.query(samples=samples, rate=rate)
    assert caught.value.type == kind
    assert isinstance(caught.value, earmark.EarmarkError)


def test_bad_clips_are_the_commands_errors(library: earmark.Library, here: Path) -> None:
    (here / "text.mp3").write_text("no sound")
    for clip, kind in (("nowhere.mp3", "not-found"), ("text.mp3", "undecodable")):
        with pytest.raises(earmark.AudioError) as caught:
            library.query(clip)
        assert caught.value.type == kind
    with pytest.raises(TypeError, match="give a clip, or samples"):
        library.query()


def test_ingest_needs_rights_and_names_what_failed(tmp_path: Path) -> None:
    folder_of_documentation(tmp_path)
    (tmp_path / "album" / "broken.mp3").write_text("no sound")
    with earmark.Library.open(tmp_path / "library", create=True) as library:
        with pytest.raises(earmark.MetadataError, match="no rights basis: give rightsholder="):
            library.ingest(tmp_path / "album", rights="owned")
        with pytest.raises(earmark.MetadataError, match="licence_until='soon'"):
            library.ingest(
                tmp_path / "album", rightsholder="Me", rights="licensed", licence_until="soon"
            )
        assert len(library) == 0
        outcomes = library.ingest([tmp_path / "album"], rightsholder="Me", rights="owned")
        by_status = {outcome.status: outcome for outcome in outcomes}
        assert set(by_status) == {"added", "failed"}
        assert by_status["failed"].error is not None
        assert by_status["failed"].error["type"] == "undecodable"
        assert [recording.source for recording in library.recordings()] == ["example-work.opus"]
        again = library.ingest([tmp_path / "album"], rightsholder="Me", rights="owned")
        assert {outcome.status for outcome in again} == {"unchanged", "failed"}


def test_a_scan_leaves_its_report(library: earmark.Library, here: Path) -> None:
    (here / "dump").mkdir()
    shutil.copy(here / "suspect.mp3", here / "dump")
    report = library.scan("dump", "found", hypotheses=124)
    assert (report.folder / "report.html").is_file()
    assert report.summary["files"] == report.summary["matched_files"] == 1
    assert earmark.ScanReport.load("found").summary == report.summary
    assert "1 of 1 files" in report._repr_html_()
    with pytest.raises(earmark.JournalError, match="holds a scan already"):
        library.scan("dump", "found")


def test_a_missing_extra_is_an_import_error_that_names_it(
    library: earmark.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("service.scan", "duckdb"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'earmark\[datasets\]'") as caught:
        library.scan("dump", "never")
    assert isinstance(caught.value, earmark.EarmarkError)
    assert isinstance(caught.value, earmark.MissingExtra)
    assert caught.value.extra == "datasets"


def test_importing_earmark_is_cheap() -> None:
    code = "import sys, earmark; print(*{'numpy', 'numba', 'pydantic', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_plain_installation_needs_no_extra() -> None:
    code = """
import sys
from service.runtime.extras import EXTRA_OF
sys.modules.update(dict.fromkeys(EXTRA_OF))  # as if they were not installed
import earmark.interface, service.cli.main, service.intake.ern, service.intake.metadata
import service.query.clips, service.evidence.bundle
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
