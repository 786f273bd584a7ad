"""What an ingest takes in, and what it knows of each file."""

import tarfile
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import soundfile
from melodies import RATE, melody, write

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from index.library import Library
from service.datasets.extensions import AUDIO_EXTENSIONS
from service.intake.estimate import estimate
from service.intake.ingest import Candidate, Outcome, find_candidates, ingest, made_here
from service.intake.metadata import MetadataError, MetadataTable, describe

RIGHTS = {"rightsholder": "Me", "rights": "owned"}


def touch(folder: Path, *names: str) -> None:
    """Empty files, with the folders they are in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def table(folder: Path, text: str) -> MetadataTable:
    """The metadata of a CSV file with this text."""
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return MetadataTable.load(folder / "metadata.csv")


def names(candidates: list[Candidate], folder: Path) -> list[str]:
    """Where the candidates are, below a folder."""
    return [str(candidate.path.relative_to(folder)) for candidate in candidates]


def take_in(
    folder: Path, candidates: list[Candidate], stop: Event | None = None
) -> tuple[Library, list[Outcome]]:
    """The library that an ingest makes in a folder, and what became of the candidates."""
    encoder = Encoder.load()
    library = Library.open(folder / "library", encoder, create=True)
    stop = stop or Event()
    make = made_here(encoder, Limits())
    outcomes = ingest(library, candidates, make, library.writer, limits=Limits(), jobs=1, stop=stop)
    return library, list(outcomes)


def test_a_folder_is_searched_for_audio_by_extension(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP3", "a/z.flac", "a/film.mkv", "notes.txt", "cover.jpg", ".hidden.mp3")
    touch(tmp_path, ".trash/old.mp3")
    candidates, failures, _ = find_candidates([tmp_path], RIGHTS)
    assert names(candidates, tmp_path) == ["b.MP3", "a/film.mkv", "a/z.flac"]
    assert failures == []


def test_a_file_that_is_named_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "take-1.dat", ".hidden")
    paths = [tmp_path / "take-1.dat", tmp_path / ".hidden"]
    assert [candidate.path for candidate in find_candidates(paths, RIGHTS)[0]] == paths


def test_a_file_that_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3")
    (tmp_path / "link.mp3").symlink_to("a.mp3")
    (tmp_path / "loop.mp3").symlink_to("loop.mp3")
    paths = [tmp_path / "a.mp3", tmp_path, tmp_path / "link.mp3"]
    assert names(find_candidates(paths, RIGHTS)[0], tmp_path) == ["a.mp3"]


def test_what_is_missing_or_empty_fails_alone(tmp_path: Path) -> None:
    touch(tmp_path, "music/a.mp3", "texts/a.txt")
    paths = [tmp_path / "music", tmp_path / "texts", tmp_path / "gone"]
    candidates, failures, _ = find_candidates(paths, RIGHTS)
    assert names(candidates, tmp_path) == ["music/a.mp3"]
    assert [failure.error and failure.error["type"] for failure in failures] == ["not-found"] * 2
    assert [failure.file for failure in failures] == [str(path) for path in paths[1:]]


def test_rows_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "csv/near.mp3", "music/disc/far.mp3", "music/disc/named.mp3", "music/none.mp3")
    rows = table(
        tmp_path / "csv",
        "file,title\n"
        "near.mp3,beside the CSV\n"
        "disc/far.mp3,below a folder that was given\n"
        "named.mp3,by its name\n"
        f"{tmp_path}/music/none.mp3,absolute\n",
    )
    paths = [tmp_path / "csv", tmp_path / "music"]
    candidates, failures, unused = find_candidates(paths, RIGHTS, rows)
    assert {candidate.path.name: candidate.fields["title"] for candidate in candidates} == {
        "near.mp3": "beside the CSV",
        "far.mp3": "below a folder that was given",
        "named.mp3": "by its name",
        "none.mp3": "absolute",
    }
    assert failures == unused == []


def test_a_bad_row_is_one_error_that_names_it_and_the_others_count(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}.mp3" for name in "abcdef"), "x/twin.mp3", "y/twin.mp3")
    rows = table(
        tmp_path,
        "file,title,rights\n"
        "a.mp3,fine,licensed\n"
        "b.mp3,bad,stolen\n"
        "c.mp3,too,many,cells\n"
        ",no file,owned\n"
        "d.mp3,first,owned\n"
        "d.mp3,second,owned\n"
        "twin.mp3,which,owned\n"
        "gone.mp3,of no file,owned\n",
    )
    candidates, failures, unused = find_candidates([tmp_path], RIGHTS, rows)
    assert names(candidates, tmp_path) == ["a.mp3", "e.mp3", "f.mp3"]
    assert dict(candidates[0].fields) == {
        "title": "fine",
        "rightsholder": "Me",
        "rights": "licensed",
    }
    told = {
        Path(failure.file).name: failure.error["detail"].partition("metadata.csv, ")[2]
        for failure in failures
        if failure.error
    }
    assert told == {
        "b.mp3": "row 3: rights 'stolen' is none of owned, licensed, open-licence, public-domain",
        "c.mp3": "row 4: 4 cells, but the header has 3",
        "metadata.csv": "row 5: no `file`",
        "d.mp3": "row 7: row 6 is about the same file",
        "twin.mp3": "row 8: 'twin.mp3' could be 2 of the files; write its folder",
    }
    assert [row.file for row in unused] == ["gone.mp3"]


def test_a_file_without_a_rights_basis_is_not_even_decoded(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "b.mp3")
    rows = table(tmp_path, "file,rightsholder,rights\na.mp3,Me,owned\n")
    candidates, failures, _ = find_candidates([tmp_path], {}, rows)
    assert names(candidates, tmp_path) == ["a.mp3"]
    assert failures[0].error
    assert "no rightsholder" in failures[0].error["detail"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"colour,title\n", "its columns are colour, title"),
        (b"file,title,Title\n", "two columns of the name title"),
    ],
)
def test_metadata_that_cannot_be_used_says_why(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(MetadataError, match=message):
        MetadataTable.load(tmp_path / "metadata.csv")


def test_metadata_as_spreadsheets_write_it(tmp_path: Path) -> None:
    rows = table(tmp_path, '\ufefffile , title ,,mood\r\na.mp3,"One, two\nthree",,blue\r\n')
    assert rows.unknown_columns == ["mood"]
    assert dict(rows.rows[0].fields) == {"title": "One, two\nthree"}


def test_tags_fill_what_the_metadata_leaves_open() -> None:
    tags = {"title": "Tag", "artist": "Tagger", "isrc": "DEA120000001", "label": "L", "x": "y"}
    metadata = describe("a.mp3", tags, {"title": "Row", "id": "one"} | RIGHTS)
    assert (metadata.id, metadata.title, metadata.artist) == ("one", "Row", "Tagger")
    assert (metadata.isrc, metadata.label, metadata.work) == ("DEA120000001", "L", None)


def test_title_and_artist_come_from_the_files_tags(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.title = "A Tune"
        file.artist = "Someone"
        file.write(melody(3, 3.0))
    library, (outcome,) = take_in(tmp_path, [Candidate(tmp_path / "a.flac", fields=RIGHTS)])
    assert outcome.status == "added"
    assert outcome.recording
    recording = library.recording(outcome.recording)
    assert (recording.title, recording.artist) == ("A Tune", "Someone")
    assert recording.source == "a.flac"


def test_the_same_audio_under_another_name_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a.wav", melody(3, 3.0))
    take_in(tmp_path, [Candidate(first, fields=RIGHTS)])
    monkeypatch.setattr("service.intake.ingest.fingerprint", None)
    other = first.rename(tmp_path / "b.wav")
    _, (outcome,) = take_in(tmp_path, [Candidate(other, fields=RIGHTS)])
    assert outcome.status == "unchanged"
    assert outcome.duration == pytest.approx(3)


def test_twins_in_one_ingest_are_one_recording(tmp_path: Path) -> None:
    twins = [write(tmp_path / f"{name}.wav", melody(3, 3.0)) for name in "ab"]
    library, outcomes = take_in(tmp_path, [Candidate(twin, fields=RIGHTS) for twin in twins])
    assert sorted(outcome.status for outcome in outcomes) == ["added", "unchanged"]
    assert len({outcome.recording for outcome in outcomes}) == 1
    assert library.info()["recordings"] == 1


def test_an_id_that_another_recording_has_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    songs = [write(tmp_path / f"{seed}.wav", melody(seed, 3.0)) for seed in range(3)]
    fields = [{"id": "one"}, {"id": "one"}, {"id": "two"}]
    candidates = [
        Candidate(song, fields=RIGHTS | more) for song, more in zip(songs, fields, strict=True)
    ]
    library, outcomes = take_in(tmp_path, candidates)
    assert sorted(outcome.status for outcome in outcomes) == ["added", "added", "failed"]
    assert {recording.id for recording in library.recordings()[0]} == {"one", "two"}


def test_a_stopped_ingest_begins_no_other_file(tmp_path: Path) -> None:
    song = write(tmp_path / "a.wav", melody(3, 3.0))
    stop = Event()
    stop.set()
    library, outcomes = take_in(tmp_path, [Candidate(song, fields=RIGHTS)], stop)
    assert outcomes == []
    assert library.info()["recordings"] == 0


def test_an_archive_is_read_as_a_folder(tmp_path: Path) -> None:
    songs = [write(tmp_path / f"{seed}.wav", melody(seed, 3.0)) for seed in range(3)]
    packed = tmp_path / "album.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        for song, name in zip(
            songs, ("cd 1/one.wav", "cd 2/one.wav", "../../out.wav"), strict=True
        ):
            archive.add(song, name)
        archive.add(write(tmp_path / "quiet.wav", melody(5, 0.1)), "short.wav")
    rows = table(tmp_path, "file,title\ncd 2/one.wav,Second\nout.wav,Out\nthree.wav,Third\n")
    candidates, failures, unused = find_candidates([packed], RIGHTS, rows)
    assert not failures
    assert [row.file for row in unused] == ["three.wav"]
    library, outcomes = take_in(tmp_path, candidates)
    told = {str(Path(it.file).relative_to(packed)): it.status for it in outcomes}
    assert told == {
        "cd 1/one.wav": "added",
        "cd 2/one.wav": "added",
        "out.wav": "added",
        "short.wav": "failed",
    }
    (error,) = [it.error for it in outcomes if it.error]
    assert error["type"] == "too-short"
    titles = sorted((it.source, it.title or "") for it in library.recordings()[0])
    assert titles == [("cd 1/one.wav", ""), ("cd 2/one.wav", "Second"), ("out.wav", "Out")]


def test_extensions_are_written_as_they_are_compared() -> None:
    assert {".mp3", ".flac", ".mp4", ".dsf", ".w64", ".mpc", ".tak", ".rm"} < AUDIO_EXTENSIONS
    assert all(name == name.lower() and name[0] == "." for name in AUDIO_EXTENSIONS)


def test_what_an_ingest_takes_is_estimated_before_it_starts(tmp_path: Path, monkeypatch) -> None:
    library, _ = take_in(tmp_path, [])
    files = [Candidate(Path("a.wav"), 176_400 * 600), Candidate(Path("b.mp3"), 16_000 * 3000)]
    line, enough = estimate(library, files)
    assert line.startswith("2 files, about 1:00:00.0 of audio: the library takes 4")
    assert enough
    cost = library.cost(len(files), 3600)
    assert 36 * 3600 < cost.disk < 500_000  # a small library is mostly tables
    hours = 1000
    assert 50 < library.cost(hours, hours * 3600).disk / (hours * 3600) < 56
    assert cost.memory > library.info()["bytes_of_memory"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert not estimate(library, files)[1]


def test_of_many_rows_three_bad_ones_are_three_errors(tmp_path: Path) -> None:
    names = [f"{number}.mp3" for number in range(10_000)]
    touch(tmp_path, *names)
    lines = [f"{name},Title {name},owned," for name in names]
    lines[41] = "41.mp3,Title,stolen,"
    lines[4199] = "4199.mp3,Title,licensed,next year"
    lines[9999] = "9999.mp3,Title,owned,,,"
    rows = table(tmp_path, "\n".join(["file,title,rights,licence_until", *lines]))
    candidates, failures, unused = find_candidates([tmp_path], {"rightsholder": "Me"}, rows)
    assert (len(candidates), unused) == (9997, [])
    assert sorted(
        failure.error["detail"].partition("metadata.csv, ")[2]
        for failure in failures
        if failure.error
    ) == [
        "row 10001: 6 cells, but the header has 4",
        "row 4201: licence_until 'next year' is no date like 2027-12-31",
        "row 43: rights 'stolen' is none of owned, licensed, open-licence, public-domain",
    ]
