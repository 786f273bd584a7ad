"""Whose a recording is, until when it answers, and who said so: told, kept, changed, logged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql
from command import Earmark
from embeddings import query, reference, track

from fingerprint.encoder import Encoder
from index import audit_log as audit
from index import catalogue
from index.library import Library
from index.recording import Metadata

ENCODER = Encoder.load()
DAY = timedelta(days=1)


def metadata(**more) -> Metadata:
    return Metadata(**{"source": "tune.flac", "rightsholder": "Me", "rights": "owned"} | more)


def day(offset: int) -> str:
    return (datetime.now(UTC).date() + offset * DAY).isoformat()


def finds(library: Library, seed: int) -> list[str]:
    matches, _ = library.search(query(ENCODER, track(ENCODER, seed, 20)[30:70]))
    return [match.recording for match in matches]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def works(tmp_path, database) -> Library:
    library = Library.open(tmp_path / "library", ENCODER, url=database, create=True)
    with library.writer() as writer:
        for seed in range(3):
            fingerprint = reference(ENCODER, track(ENCODER, seed, 20))
            writer.add(fingerprint, metadata(id=f"id-{seed}", source=f"{seed}.flac"))
    return library


def segments(library: Library) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (library.path / "segments").iterdir()}


def log(library: Library) -> list[audit.Entry]:
    with library.reading() as connection:
        return list(audit.entries(connection))


def test_a_licence_that_has_ended_no_longer_answers_and_is_still_listed(works, monkeypatch):
    with works.writer() as writer:
        writer.change("id-1", {"licence_until": day(0)})
    assert finds(works, 1) == ["id-1"]
    tomorrow = day(1)
    monkeypatch.setattr(catalogue, "today", lambda: tomorrow)
    assert finds(works, 1) == []
    assert finds(works, 0) == ["id-0"]
    assert [r.id for r in works.recordings()[0]] == ["id-0", "id-1", "id-2"]
    assert [r.id for r in works.recordings(expired=True)[0]] == ["id-1"]
    with works.writer() as writer:
        writer.change("id-1", {"licence_until": None})
    assert finds(works, 1) == ["id-1"]


def test_a_change_touches_no_segment_and_says_who_supplied_the_rights(works):
    before = segments(works)
    with works.writer("key-7") as writer:
        titled, changed = writer.change("id-0", {"title": "New", "artist": None})
        assert (titled.title, titled.supplied_by, changed) == ("New", None, True)
        licensed, _ = writer.change("id-1", {"rightsholder": "Her", "rights": "licensed"})
        assert licensed.supplied_by == "key-7"
        assert writer.change("id-2", {"rights": "owned"})[1] is False
    again = Library.open(works.path, ENCODER, url=works.database.url)
    assert again.recording("id-0").title == "New"
    assert again.recording("id-1").rightsholder == "Her"
    assert again.recording("id-1").supplied_by == "key-7"
    assert [r.id for r in again.recordings(rightsholder="Her")[0]] == ["id-1"]
    assert segments(works) == before
    assert finds(again, 1) == ["id-1"]


def test_a_change_that_cannot_be_is_refused_and_changes_nothing(works):
    before = works.info()
    with works.writer() as writer:
        with pytest.raises(KeyError):
            writer.change("nobody", {"title": "x"})
        for wrong in (
            {"rights": "stolen"},
            {"rightsholder": " "},
            {"licence_until": "next year"},
            {"licence_until": "20271231"},
            {"id": "other"},
            {"sha256": "0" * 64},
        ):
            with pytest.raises(ValueError):
                writer.change("id-0", wrong)
    assert works.info() == before


def test_the_log_tells_everything_in_order(works):
    with works.writer("key-1") as writer:
        writer.change("id-0", {"title": "New"})
        writer.remove("id-2")
        writer.calibrate({"clips": 400})
    entries = log(works)
    assert [(entry.kind, entry.recording, entry.by) for entry in entries] == [
        ("ingest", "id-0", None),
        ("ingest", "id-1", None),
        ("ingest", "id-2", None),
        ("change", "id-0", "key-1"),
        ("remove", "id-2", "key-1"),
        ("calibration", None, "key-1"),
    ]
    assert entries[0].details["rightsholder"] == "Me"
    assert entries[3].details == {"title": [None, "New"]}
    assert {entry.kind for entry in entries} < set(audit.KINDS)
    assert works.info()["audit"] == entries[-1].hash


def test_the_log_refuses_to_be_rewritten_and_shows_it_if_it_was(works):
    engine = works.database.engine
    for statement in ("UPDATE audit SET at = ''", "DELETE FROM audit WHERE number = 3"):
        with pytest.raises(sql.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    with engine.begin() as connection:
        on = "ON audit" if engine.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"DROP TRIGGER audit_refuses_update {on}")
        said = """UPDATE audit SET details = replace(details, '"Me"', '"Him"')"""
        connection.exec_driver_sql(said)
    with pytest.raises(ValueError, match="entry 1 of the audit log"):
        log(works)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_rights_are_changed_row_by_row_from_a_file(
    earmark: Earmark, tmp_path: Path, conforms
) -> None:
    ids = {it["source"]: it["id"] for it in earmark.lines("list")}
    table = tmp_path / "changes.csv"
    table.write_text(
        "id,file,title,rightsholder,rights,licence_until\n"
        f"{ids['song-0.flac']},,Zero,,,2020-01-31\n"
        ",song-1.flac,One,New Label,licensed,\n"
        ",song-1.flac,Uno,,,\n"
        ",song-2.flac,,,,\n"
        ",gone.flac,,,,\n"
        "nobody,,,,,\n"
        ",song-2.flac,,,stolen,\n"
        ",song-2.flac,,-,,\n"
        ",,Nothing,,,\n"
    )
    outcomes = earmark.lines("change", table, status=1)
    assert [(it["row"], it["status"]) for it in outcomes] == [
        (2, "changed"),
        (3, "changed"),
        (4, "failed"),
        (5, "unchanged"),
        *((row, "failed") for row in range(6, 11)),
    ]
    details = [
        it["error"]["detail"].partition("changes.csv, ")[2] for it in outcomes if it["error"]
    ]
    assert details == [
        "row 4: row 3 is about the same recording",
        "row 6: no recording was ingested from a file named 'gone.flac'; give its id",
        "row 7: no recording 'nobody'",
        "row 8: rights 'stolen' is none of owned, licensed, open-licence, public-domain",
        "row 9: row 5 is about the same recording",
        "row 10: no `id` or `file`",
    ]
    (expired,) = earmark.lines("list", "--expired")
    conforms(expired, "recording")
    assert (expired["title"], expired["licence_until"]) == ("Zero", "2020-01-31")
    (new,) = earmark.lines("list", "--rightsholder", "New Label")
    assert (new["title"], new["rights"]) == ("One", "licensed")
    (answer,) = earmark.lines("query", "clip.wav")
    assert answer["matches"][0]["rightsholder"] == "New Label"
    table.write_text("file,licence_until\nsong-0.flac,-\n")
    assert earmark("change", table).stdout == "1 changed, 0 unchanged, 0 failed\n"
    assert earmark.lines("list", "--expired") == []
    assert "no column `id` or `file`" in earmark("change", "text.mp3", status=2).stderr


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_licence_term_is_given_at_ingest(earmark: Earmark, tmp_path: Path) -> None:
    rights = ("--rightsholder", "Me", "--rights", "licensed")
    library = ("--library", tmp_path / "new")
    wrong = ("ingest", "songs/song-0.flac", *rights, *library, "--licence-until", "soon")
    assert "no date like" in earmark(*wrong, status=2).stderr
    earmark("ingest", "songs/song-0.flac", *rights, *library, "--licence-until", "2020-01-31")
    (listed,) = earmark.lines("list", *library)
    assert listed["licence_until"] == "2020-01-31"
    assert listed["supplied_at"] == listed["ingested_at"]
    (answer,) = earmark.lines("query", "songs/song-0.flac", *library)
    assert (answer["matches"], answer["library"]["recordings"]) == ([], 0)
