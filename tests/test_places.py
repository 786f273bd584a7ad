"""What a reader keeps of a library is, after any commits, what it would read anew."""

import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from conftest import BOTH
from embeddings import query, reference, track
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from index import catalogue, compaction, merging
from index.catalogue import Placements
from index.library import Library
from index.placements import Places
from index.recording import Metadata

ENCODER = Encoder.load()
OWNERS = (None, "ada", "bo")
DAYS = ("2030-01-01", "2030-06-01", "2031-01-01")
SEEDS = st.integers(0, 4)
CHANGES = st.one_of(
    st.fixed_dictionaries({"licence_until": st.sampled_from((None, "2029-12-31", *DAYS))}),
    st.fixed_dictionaries({"private": st.booleans()}),
    st.fixed_dictionaries({"title": st.sampled_from("xyz")}),
)
STEPS = st.one_of(
    st.tuples(st.just("ingest"), st.lists(SEEDS, min_size=1, max_size=3), st.sampled_from(OWNERS)),
    st.tuples(st.just("remove"), st.lists(SEEDS, min_size=1, max_size=2)),
    st.tuples(st.just("change"), SEEDS, CHANGES),
    st.tuples(st.just("change"), SEEDS, CHANGES),
    st.tuples(st.just("compact")),
    st.tuples(st.just("wait"), st.sampled_from(DAYS)),
)


def perform(library: Library, what: str, *arguments: Any) -> None:
    """One commit, or for a compaction several, of those of its recordings that are there."""
    if what == "compact":
        for _ in compaction.compact(library):
            pass
        return
    there = {recording.id for recording in library.every_recording()}
    with library.writer() as writer:
        if what == "ingest":
            seeds, owner = arguments
            for seed in seeds:
                made = reference(ENCODER, track(ENCODER, seed, 8), f"{seed}.flac")
                about = Metadata("a.flac", "Me", "owned", id=f"id-{seed}", owner=owner)
                with suppress(ValueError):  # another's private recording has the id
                    writer.add(made, about)
        elif what == "remove":
            for id in there & {f"id-{seed}" for seed in arguments[0]}:
                writer.remove(id)
        elif f"id-{arguments[0]}" in there:
            writer.change(f"id-{arguments[0]}", arguments[1])


def finds(library: Library, seed: int, **options: Any) -> list[str]:
    matches, _ = library.search(query(ENCODER, track(ENCODER, seed, 8)), **options)
    return [match.recording for match in matches]


def same(one: Placements, other: Placements) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Placements)
    )


@BOTH
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, min_size=5, max_size=20))
def test_a_reader_that_reads_what_changed_has_what_is_there(kind, request, steps) -> None:
    url = request.getfixturevalue("server").new() if kind == "postgresql" else None
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(compaction, "LARGEST", 40):
        where = {"url": url} if url else {}
        library = Library.open(Path(folder, "library"), ENCODER, create=True, **where)
        readers = {owner: Places(owner) for owner in OWNERS}
        day = DAYS[0]
        for what, *arguments in steps:
            if what == "wait":
                (day,) = arguments
            else:
                perform(library, what, *arguments)
            with library.reading() as connection:
                for owner, reader in readers.items():
                    read = catalogue.placements(connection, day, owner)
                    assert same(reader.at(connection, day), read)
        library.close()


@BOTH
def test_after_a_removal_only_its_segment_is_read_again(tmp_path, database, monkeypatch) -> None:
    monkeypatch.setattr(merging, "FEW", 100)  # nothing is merged
    library = Library.open(tmp_path / "library", ENCODER, url=database, create=True)
    for seed in range(6):
        perform(library, "ingest", [seed], None)
    reader = Library.open(library.path, ENCODER, url=database)
    read: list[int] = []
    placements = catalogue.placements

    def noting(*arguments: Any) -> Placements:
        found = placements(*arguments)
        read.extend(found.number.tolist())
        return found

    perform(library, "remove", [2])
    perform(library, "ingest", [7], None)
    perform(library, "change", 3, {"title": "said of it, and no matter where it lies"})
    monkeypatch.setattr(catalogue, "placements", noting)
    assert len(reader.refresh().recordings) == 6
    assert read == [7]  # of the removed one's segment nothing is left
    assert finds(reader, 2) == []
    assert finds(reader, 7) == ["id-7"]


@BOTH
def test_a_change_of_rights_is_seen_by_who_has_read_before(tmp_path, database) -> None:
    library = Library.open(tmp_path / "library", ENCODER, url=database, create=True)
    for seed in range(6):
        perform(library, "ingest", [seed], "ada")
    reader = Library.open(library.path, ENCODER, url=database)
    assert finds(reader, 2) == finds(reader, 2, owner="bo") == ["id-2"]
    perform(library, "change", 2, {"private": True})
    assert finds(reader, 2) == finds(reader, 2, owner="ada") == ["id-2"]
    assert finds(reader, 2, owner="bo") == []
    perform(library, "change", 2, {"licence_until": "2020-01-01"})
    assert finds(reader, 2) == finds(reader, 2, owner="ada") == []
    assert finds(reader, 3, owner="bo") == ["id-3"]


def test_placements_of_any_number_of_segments_are_read(tmp_path, monkeypatch) -> None:
    """However many parameters a database takes in one query."""
    monkeypatch.setattr(merging, "FEW", 100)  # nothing is merged
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    for seed in range(5):
        perform(library, "ingest", [seed], None)
    with library.reading() as connection:
        rows = [row.number for row in catalogue.segments(connection)]
        whole = catalogue.placements(connection)
        monkeypatch.setattr(catalogue, "AT_ONCE", 2)
        assert same(catalogue.placements(connection, segments=rows[::-1]), whole)
        some = catalogue.placements(connection, segments=rows[1:4])
        assert same(some, whole.where(rows[1:4]))
