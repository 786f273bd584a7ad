"""`earmark log` shows who did what; `earmark remove` asks on a terminal and names the work."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from command import Earmark

from service.cli import upkeep
from service.command import main


def test_the_log_tells_what_was_done_to_a_recording(earmark: Earmark, tmp_path: Path) -> None:
    recording = next(it for it in earmark.lines("list") if it["source"] == "song-1.flac")["id"]
    (tmp_path / "change.csv").write_text(f"id,title\n{recording},Dawn\n")
    earmark("change", tmp_path / "change.csv")
    said = earmark("remove", recording).stdout
    assert f"removed {recording}  Dawn" in said
    entries = earmark.lines("log", "--recording", recording)
    assert [it["kind"] for it in entries] == ["ingest", "change", "remove"]
    assert entries[1]["details"] == {"title": [None, "Dawn"]} and entries[1]["by"] is None
    _, change, _ = earmark("log", "--recording", recording).stdout.splitlines()
    assert f"change {recording}  title: None -> Dawn  (at the machine)" in change
    assert {it["kind"] for it in earmark.lines("log", "--kind", "ingest")} == {"ingest"}
    assert earmark.lines("log", "--since", "2999-01-01") == []
    assert "is none of ingest" in earmark("log", "--kind", "x", status=2).stderr


def test_a_broken_chain_is_told_of(earmark: Earmark, library: Path) -> None:
    with closing(sqlite3.connect(library / "catalogue.sqlite")) as connection, connection:
        connection.execute("DROP TRIGGER audit_refuses_update")
        connection.execute("UPDATE audit SET details = '{}' WHERE number = 2")
    done = earmark("log", "--json", status=3)
    assert len(done.stdout.splitlines()) == 1
    assert "entry 2 of the audit log was altered" in done.stderr


@pytest.mark.parametrize(
    ("answer", "flags", "asked", "left"),
    [("n\n", (), True, 4), ("y\n", (), True, 3), ("", ("--yes",), False, 3)],
)
def test_on_a_terminal_removal_names_the_work_and_asks(
    answer: str,
    flags: tuple[str, ...],
    asked: bool,
    left: int,
    earmark: Earmark,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = next(it for it in earmark.lines("list") if it["source"] == "song-1.flac")["id"]
    monkeypatch.setattr(upkeep, "_at_terminal", lambda: True)
    command = ["remove", recording, *flags, "--library", str(library)]
    done = CliRunner().invoke(main, command, input=answer, prog_name="earmark")
    assert ("Remove this recording?" in done.output) == asked
    assert "song-1.flac" in done.output
    assert len(earmark.lines("list")) == left
