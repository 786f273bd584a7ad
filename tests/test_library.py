"""A library keeps what was committed, for everyone, whatever happens."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sql
from embeddings import query, reference, track
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fingerprint.encoder import Encoder
from index.backup import backup
from index.catalogue import SCHEMA
from index.compaction import compact
from index.database import BESIDE
from index.errors import LibraryError, LibraryLocked
from index.library import Library
from index.recording import Metadata
from index.verify import verify

ENCODER = Encoder.load()


def metadata(**more) -> Metadata:
    return Metadata(**{"source": "tune.flac", "rightsholder": "Me", "rights": "owned"} | more)


def add(library: Library, seed: int, **more) -> str:
    with library.writer() as writer:
        recording, _ = writer.add(reference(ENCODER, track(ENCODER, seed, 20)), metadata(**more))
    return recording.id


def finds(library: Library, seed: int) -> list[str]:
    matches, _ = library.search(query(ENCODER, track(ENCODER, seed, 20)[30:70]))
    return [match.recording for match in matches]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def library(tmp_path, database) -> Library:
    return Library.open(tmp_path / "library", ENCODER, url=database, create=True)


def test_what_was_added_is_there_after_opening_again(library):
    id = add(library, 1, id="one", title="Title", artist="Artist", isrc="DEXX12400001", work="W")
    again = Library.open(library.path, ENCODER, url=library.database.url)
    recording = again.recording("one")
    assert (id, recording.title, recording.artist, recording.work) == (
        "one",
        "Title",
        "Artist",
        "W",
    )
    assert recording.duration == pytest.approx(20, abs=0.2)
    assert finds(again, 1) == ["one"]
    assert again.info()["recordings"] == 1
    files = sum(file.stat().st_size for file in (library.path / "segments").iterdir())
    assert again.info()["bytes_per_second"] == pytest.approx(files / recording.duration, rel=0.05)


def test_the_same_audio_again_changes_nothing(library):
    first = add(library, 1, id="one")
    before = library.info()
    assert add(library, 1, id="another", title="Another") == first
    assert library.info() == before
    assert library.recording("one").title is None


def test_the_same_sound_in_another_file_is_the_same_audio(library):
    x = track(ENCODER, 1, 20)
    with library.writer() as writer:
        writer.add(reference(ENCODER, x), metadata(id="one"))
        import dataclasses

        retagged = dataclasses.replace(reference(ENCODER, x), sha256="f" * 64)
        recording, added = writer.add(retagged, metadata(id="two"))
    assert (recording.id, added) == ("one", False)


def test_nothing_is_looked_up_by_going_through_all_recordings(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    add(library, 1, id="one")
    said = []

    @sql.event.listens_for(library.database.engine, "before_cursor_execute")
    def note(_, cursor, statement, parameters, context, many) -> None:
        said.append((statement, parameters[0] if many else parameters))

    add(library, 2, id="two")
    with library.writer() as writer:
        writer.change("one", {"private": True})
        writer.remove("two")
    asked = [it for it in said if it[0].startswith(("SELECT", "UPDATE"))]
    with library.reading() as connection:
        plans = [
            step.detail
            for statement, parameters in asked
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert any("recordings USING INDEX" in step for step in plans)
    assert not any(step.startswith("SCAN recordings") for step in plans)


def test_removed_is_unfindable_at_once_and_may_come_back(library):
    add(library, 1, id="one")
    add(library, 2, id="two")
    reader = Library.open(library.path, ENCODER, url=library.database.url)
    assert finds(reader, 1) == ["one"]
    with library.writer() as writer:
        writer.remove("one")
    assert finds(reader, 1) == []
    assert finds(reader, 2) == ["two"]
    with pytest.raises(KeyError):
        reader.recording("one")
    add(library, 1, id="one")
    assert finds(reader, 1) == ["one"]


def test_unknown_id_and_bad_metadata_are_refused_and_change_nothing(library):
    add(library, 1, id="one")
    before = library.info()
    x = reference(ENCODER, track(ENCODER, 2, 20))
    with library.writer() as writer:
        with pytest.raises(KeyError):
            writer.remove("nobody")
        for wrong in (
            {"rights": "stolen"},
            {"rightsholder": "  "},
            {"id": "one"},
            {"id": "line\nbreak"},
            {"id": " space"},
            {"title": "nul\0"},
            {"id": "x" * 300},
        ):
            with pytest.raises(ValueError):
                writer.add(x, metadata(**wrong))
        with pytest.raises(
            ValueError, match=r"id 'one' is taken by another recording, 'tune.flac'"
        ):
            writer.add(x, metadata(id="one"))
    assert library.info() == before


def test_who_may_not_know_a_recording_is_not_told_what_has_the_id(library):
    add(library, 1, id="one", owner="ada", private=True)
    with library.writer() as writer, pytest.raises(ValueError) as refused:
        writer.add(reference(ENCODER, track(ENCODER, 2, 20)), metadata(id="one", owner="bob"))
    assert str(refused.value) == "id 'one' is taken by another recording"


def test_pages_and_words(library):
    with library.writer() as writer:
        for seed in range(7):
            fingerprint = reference(ENCODER, track(ENCODER, seed, 5))
            writer.add(fingerprint, metadata(id=f"id-{seed}", title=f"Piece 100% {seed % 2}"))
    seen, cursor = [], None
    while True:
        page, cursor = library.recordings(cursor=cursor, limit=3)
        seen += [recording.id for recording in page]
        if cursor is None:
            break
    assert seen == [f"id-{seed}" for seed in range(7)]
    assert [r.id for r in library.recordings("piece 100% 1")[0]] == ["id-1", "id-3", "id-5"]
    assert library.recordings("100_")[0] == []
    with pytest.raises(ValueError):
        library.recordings(cursor="nonsense")


def test_one_writer_any_number_of_readers(library):
    add(library, 1, id="one")
    reader = Library.open(library.path, ENCODER, url=library.database.url)
    with library.writer() as writer:
        writer.add(reference(ENCODER, track(ENCODER, 2, 20)), metadata(id="two"))
        with pytest.raises(LibraryLocked, match="another process"), reader.writer():
            pass
        assert finds(reader, 1) == ["one"]
        assert finds(reader, 2) == []
    assert finds(reader, 2) == ["two"]


def test_what_was_added_before_an_error_is_kept(library):
    with pytest.raises(RuntimeError), library.writer() as writer:
        writer.add(reference(ENCODER, track(ENCODER, 1, 20)), metadata(id="one"))
        raise RuntimeError
    assert finds(library, 1) == ["one"]


def _killed_while_writing(path: Path, url: sql.URL, at: str) -> None:
    """Die in the middle of the second commit: before the segment, after it, or in the transaction."""
    from index import catalogue, segment

    library = Library.open(path, ENCODER, url=url)

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    write = segment.write
    if at == "half a segment":

        def half(target: Path, *_) -> None:
            target.with_suffix(".ivfdata").write_bytes(b"half")
            die()

        segment.write = half
    elif at == "segment without a name":
        segment.write = lambda *what: (write(*what), die())[0]
    else:
        catalogue.next_revision = die
    with library.writer() as writer:
        writer.add(reference(ENCODER, track(ENCODER, 2, 20)), metadata(id="two"))


@pytest.mark.parametrize("at", ["half a segment", "segment without a name", "before the commit"])
def test_a_kill_leaves_the_last_commit(library, at):
    add(library, 1, id="one")
    before = library.info()
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_while_writing, args=(library.path, library.database.url, at)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = Library.open(library.path, ENCODER, url=library.database.url)
    assert again.info()["snapshot"] == before["snapshot"]
    assert (finds(again, 1), finds(again, 2)) == (["one"], [])
    add(again, 3, id="three")
    assert finds(again, 3) == ["three"]
    kinds = sorted(file.suffix for file in (library.path / "segments").iterdir())
    assert kinds == [".faiss", ".faiss", ".ivfdata", ".ivfdata"]


def test_a_full_disk_loses_nothing(library, monkeypatch):
    add(library, 1, id="one")
    before = library.info()["snapshot"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LibraryError, match="No space left"):
        add(library, 2, id="two")
    monkeypatch.undo()
    assert library.info()["snapshot"] == before
    assert (finds(library, 1), finds(library, 2)) == (["one"], [])
    add(library, 2, id="two")
    assert finds(library, 2) == ["two"]


def test_what_is_no_usable_library_is_refused(tmp_path, library):
    with pytest.raises(LibraryError, match="no library here"):
        Library.open(tmp_path / "nothing", ENCODER)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("precious")
    with pytest.raises(LibraryError, match="holds other things"):
        Library.open(full, ENCODER, create=True)
    assert [file.name for file in full.iterdir()] == ["thesis.txt"]

    add(library, 1)

    def change(statement: str) -> None:
        with library.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    change("UPDATE properties SET value = 'another' WHERE name = 'encoder'")
    with pytest.raises(LibraryError, match="encoder another"):
        Library.open(library.path, ENCODER, url=library.database.url)
    change(f"UPDATE properties SET value = '{ENCODER.id}' WHERE name = 'encoder'")
    change("UPDATE catalogue_version SET version_num = '99'")
    with pytest.raises(LibraryError, match="format 99"):
        Library.open(library.path, ENCODER, url=library.database.url)
    change("UPDATE catalogue_version SET version_num = '5'")
    with pytest.raises(LibraryError, match="format 5, this Earmark reads format 6"):
        Library.open(library.path, ENCODER, url=library.database.url)
    change(f"UPDATE catalogue_version SET version_num = '{SCHEMA.format}'")
    for segment in (library.path / "segments").iterdir():
        whole = segment.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"garbage" * 100):
            segment.write_bytes(damage)
            with pytest.raises(LibraryError, match="damaged"):
                Library.open(library.path, ENCODER, url=library.database.url)
        segment.unlink()
        with pytest.raises(LibraryError, match="damaged"):
            Library.open(library.path, ENCODER, url=library.database.url)
        segment.write_bytes(whole)
    assert finds(Library.open(library.path, ENCODER, url=library.database.url), 1)


def test_a_damaged_catalogue_is_refused(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    library.close()
    for leftover in library.path.glob("catalogue.sqlite-*"):
        leftover.unlink()
    (library.path / "catalogue.sqlite").write_bytes(b"no database at all" * 1000)
    with pytest.raises(LibraryError, match="catalogue"):
        Library.open(library.path, ENCODER)


@pytest.mark.parametrize(
    "left", [[], ["segments/"], ["segments/", "write.lock"], ["segments/", "catalogue.sqlite"]]
)
def test_a_library_that_was_begun_is_made_by_who_writes_next(tmp_path, left):
    path = tmp_path / "library"
    path.mkdir()
    for name in left:
        if name.endswith("/"):
            (path / name).mkdir()
        else:
            (path / name).touch()
    assert not Library.is_there(path, BESIDE)
    with pytest.raises(LibraryError, match="no library here"):
        Library.open(path, ENCODER)
    library = Library.open(path, ENCODER, create=True)
    add(library, 1, id="one")
    assert finds(Library.open(path, ENCODER), 1) == ["one"]


def test_a_lost_catalogue_is_told_and_not_made_anew_over_its_segments(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    add(library, 1)
    library.close()
    for lose in (lambda file: file.write_bytes(b""), Path.unlink):
        for file in library.path.glob("catalogue.sqlite*"):
            lose(file)
        for create in (False, True):
            with pytest.raises(
                LibraryError, match="no catalogue of them; restore it from a backup"
            ):
                Library.open(library.path, ENCODER, create=create)
        assert len(list((library.path / "segments").iterdir())) == 2


def _make_and_add(path: Path, url: sql.URL, seed: int, together) -> None:
    together.wait()
    library = Library.open(path, ENCODER, url=url, create=True)
    with library.writer(wait=-1) as writer:
        writer.add(reference(ENCODER, track(ENCODER, seed, 20)), metadata(id=f"id-{seed}"))


def test_several_may_make_the_same_library_at_once(tmp_path, database):
    path = tmp_path / "library"
    context = multiprocessing.get_context("fork")
    together = context.Barrier(4)
    processes = [
        context.Process(target=_make_and_add, args=(path, database, seed, together))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    made = Library.open(path, ENCODER, url=database)
    assert sorted(it.id for it in made.every_recording()) == [f"id-{seed}" for seed in range(4)]
    assert list(verify(made)) == []


def test_who_waited_for_a_library_that_is_made_does_not_wait_for_its_writer(
    tmp_path, database, monkeypatch
):
    """It is made between the look and the lock, which the one that made it goes on to hold."""
    path = tmp_path / "library"
    made = Library.open(path, ENCODER, url=database, create=True)
    looks = [False]
    has = type(made.database).has
    monkeypatch.setattr(type(made.database), "has", lambda *of: looks.pop() if looks else has(*of))
    with made.writer():
        assert Library.open(path, ENCODER, url=database, create=True).id() == made.id()
    assert not looks


@pytest.mark.parametrize(
    ("kind", "statement", "what"),
    [
        (kind, statement, what)
        for kind in ("sqlite", "postgresql")
        for statement, what in (
            ("SET name = 'encodex' WHERE name = 'encoder'", "property 'encoder' is missing"),
            ("SET name = 'revisiom' WHERE name = 'revision'", "property 'revision' is missing"),
            ("SET value = '1x' WHERE name = 'revision'", "revision is '1x'"),
            ("SET value = '' WHERE name = 'revision'", "revision is ''"),
            ("SET name = 'calibratiom' WHERE name = 'calibration'", "'calibratiom' is not known"),
        )
    ],
)
def test_a_property_that_was_altered_is_told_with_how_to_mend_it(library, statement, what):
    with library.writer() as writer:
        writer.calibrate({"encoder": ENCODER.id, "library": library.id()})
    with library.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE properties {statement}")
    for create in (False, True):
        with pytest.raises(LibraryError, match=f"{what}; restore it from a backup") as told:
            Library.open(
                library.path,
                ENCODER,
                url=library.database.url,
                create=create,
                searchable=False,
            )
        assert str(library.path) in str(told.value)


def test_a_revision_that_is_altered_in_use_is_told(library):
    with library.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE properties SET value = 'x' WHERE name = 'revision'")
    for use in (library.info, library.refresh, lambda: add(library, 1)):
        with pytest.raises(LibraryError, match="revision is 'x'; restore it from a backup"):
            use()


def test_a_format_that_is_no_number_is_told(library):
    with library.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE catalogue_version SET version_num = 'x'")
    with pytest.raises(LibraryError, match="cannot be read"):
        Library.open(library.path, ENCODER, url=library.database.url)


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    stat = os.stat

    def refuse(path, *of, **more):
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied")
        return stat(path, *of, **more)

    library = Library.open(tmp_path / "library", ENCODER, create=True)
    monkeypatch.setattr(os, "stat", refuse)
    for use in (
        lambda: Library.open(closed / "library", ENCODER),
        lambda: Library.open(closed / "library", ENCODER, create=True),
        lambda: Library.is_there(closed / "library", BESIDE),
        lambda: backup(library, closed / "copy"),
    ):
        with pytest.raises(LibraryError, match=r"closed/.*: Permission denied"):
            use()


def test_another_encoders_fingerprint_is_refused(library):
    import dataclasses

    other = dataclasses.replace(query(ENCODER, track(ENCODER, 1, 5)), encoder="other")
    with pytest.raises(LibraryError, match="encoder other"):
        library.search(other)


class Model(RuleBasedStateMachine):
    """A library against a dictionary: by id, the sound's seed, title, and whether its licence ended."""

    def __init__(self, new_database: Callable[[], sql.URL]) -> None:
        super().__init__()
        self.new_database = new_database

    def opened(self) -> Library:
        return Library.open(self.library.path, ENCODER, url=self.library.database.url)

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "library")
        self.library = Library.open(path, ENCODER, url=self.new_database(), create=True)
        self.reader = self.opened()
        self.model: dict[str, tuple[int, str | None, bool]] = {}

    @rule(seeds=st.lists(st.integers(0, 5), min_size=1, max_size=3))
    def ingest(self, seeds):
        with self.library.writer() as writer:
            for seed in seeds:
                fingerprint = reference(ENCODER, track(ENCODER, seed, 8))
                recording, added = writer.add(fingerprint, metadata(id=f"id-{seed}"))
                assert added == (f"id-{seed}" not in self.model)
                self.model.setdefault(recording.id, (seed, None, False))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, unique=True))
        with self.library.writer() as writer:
            for id in ids:
                writer.remove(id)
                del self.model[id]

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(),
        title=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
        ended=st.booleans(),
    )
    def change(self, data, title, ended):
        id = data.draw(st.sampled_from(sorted(self.model)))
        with self.library.writer() as writer:
            until = "2001-01-31" if ended else None
            writer.change(id, {"title": title, "licence_until": until})
        self.model[id] = (self.model[id][0], title, ended)

    @rule()
    def compact(self):
        list(compact(self.library))
        assert self.library.info()["segments"] == bool(self.model)
        assert self.library.info()["removed_embeddings"] == 0

    @rule()
    def reopen(self):
        self.library.close()
        self.library = self.opened()

    @rule()
    def go_on_with_a_backup(self):
        copy = Path(self.folder.name, str(self.library.refresh().revision))
        if not copy.exists():
            database = self.new_database()
            backup(self.library, copy, database)
            self.library = Library.open(copy, ENCODER, url=database)
            self.reader = self.opened()

    @invariant()
    def everyone_sees_the_model(self):
        answering = {id: seed for id, (seed, _, ended) in self.model.items() if not ended}
        for library in (self.library, self.reader):
            listed = {it.id: it.title for it in library.recordings()[0]}
            assert listed == {id: title for id, (_, title, _) in self.model.items()}
            snapshot = library.refresh()
            assert {it.id for it in snapshot.recordings} == set(answering)
            for number, recording in enumerate(snapshot.recordings):
                stored = snapshot.embeddings(number, 0, snapshot.length(number))
                sound = track(ENCODER, answering[recording.id], 8)[::5]
                assert (stored == ENCODER.codec.decode(*ENCODER.codec.encode(sound))).all()
            assert list(verify(library)) == []

    def teardown(self):
        self.folder.cleanup()


def test_a_library_does_what_a_dictionary_would(kind, request):
    new = (lambda: BESIDE) if kind == "sqlite" else request.getfixturevalue("server").new
    examples = 15 if kind == "sqlite" else 5  # the statements are the same
    some = settings(max_examples=examples, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(partial(Model, new), settings=some)


def test_as_many_may_search_at_once_as_like(tmp_path):
    """Each holds a connection to the catalogue for as long as it searches."""
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    add(library, 1, id="one")
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(library._current())
        assert finds(library, 1) == ["one"]


def test_info_says_what_the_files_hold(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    for seed in range(6):
        add(library, seed)
    said = library.info()
    segments = sum(file.stat().st_size for file in (library.path / "segments").iterdir())
    assert said["bytes_per_second"] * said["seconds"] == pytest.approx(segments, rel=0.05)
    held = sum(file.stat().st_size for file in library.path.rglob("*") if file.is_file())
    assert said["bytes_on_disk"] == pytest.approx(held, rel=0.05)


def test_info_is_told_while_files_are_deleted(tmp_path, monkeypatch):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    add(library, 1)
    glob = Path.rglob

    def meanwhile(path: Path, pattern: str) -> list[Path]:
        return [*glob(path, pattern), path / "segments" / "deleted.faiss"]

    monkeypatch.setattr(Path, "rglob", meanwhile)
    assert library.info()["recordings"] == 1
