"""Metadata for an ingest as people write it: separators, headers, paths, ISRCs, ERN 3, a second ingest."""

import unicodedata
from pathlib import Path
from threading import Event

import pytest
from melodies import melody, write

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from index.library import Library
from service.intake.ern import load_message
from service.intake.ingest import Candidate, Outcome, find_candidates, ingest, made_here
from service.intake.metadata import MetadataTable
from service.intake.metadata_change import KEYS, change

RIGHTS = {"rightsholder": "Me", "rights": "owned"}


def table(folder: Path, *rows: str, encoding: str = "utf-8") -> MetadataTable:
    path = folder / "meta.csv"
    path.write_bytes("\r\n".join(rows).encode(encoding))
    return MetadataTable.load(path)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def titles(folder: Path, rows: MetadataTable, *paths: Path) -> dict[str, str | None]:
    """The title that each file is given."""
    found, failures, _ = find_candidates(paths or [folder], RIGHTS, rows)
    assert not failures
    return {it.name: it.fields.get("title") for it in found}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header",
    ["file title ISRC Rights", "FILE TITLE ISRC RIGHTS", "FileName Track_Title isrc-code rights"],
)
def test_separators_headers_and_encodings_are_understood(
    tmp_path: Path, encoding: str, separator: str, header: str
) -> None:
    cells = ("Café, live.wav", "Été", "gb-aye-00-00001", "Open License")
    quoted = [f'"{cell}"' for cell in cells]
    rows = table(
        tmp_path, separator.join(header.split()), separator.join(quoted), encoding=encoding
    )
    (row,) = rows.rows
    assert (row.number, row.file, row.problem) == (2, cells[0], None)
    assert row.fields == {"title": "Été", "isrc": "GBAYE0000001", "rights": "open-licence"}
    assert rows.assumed == (encoding == "latin-1") and not rows.unknown_columns


def test_a_false_isrc_refuses_its_row_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = table(tmp_path, "file,isrc", "a.wav,GBAYE0000001", "b.wav,GBAYE1", "c.wav,-")
    found, failures, _ = find_candidates([tmp_path], RIGHTS, rows)
    assert [it.name for it in found] == ["a.wav", "c.wav"]
    (failure,) = failures
    assert failure.error and "meta.csv, row 3: isrc 'GBAYE1' is no ISRC" in failure.error["detail"]


WRITTEN = [
    ("disc1/01.wav", "disc1/01.wav"),
    ("disc2\\01.wav", "disc2/01.wav"),
    ("DISC1/02.WAV", "disc1/02.wav"),
    ("C:\\music\\album\\disc1\\03.wav", "disc1/03.wav"),
    ("sftp://host/in/disc2/02.wav", "disc2/02.wav"),
    ("file:///somewhere/else/only%20here.wav", "only here.wav"),
    (unicodedata.normalize("NFD", "Été.wav"), "Été.wav"),
    ("only.wav", "disc2/only.wav"),
]
FILES = [name for _, name in WRITTEN]


def test_paths_are_found_however_they_are_written(tmp_path: Path) -> None:
    album = tmp_path / "album"
    touch(album, *FILES)
    rows = table(tmp_path, "file,title", *(f'"{path}",{name}' for path, name in WRITTEN))
    assert titles(tmp_path, rows, album) == {name: name for name in FILES}
    found, _, _ = find_candidates([album], RIGHTS, rows)
    assert {it.name for it in found if it.written} == {
        *("disc1/02.wav", "disc1/03.wav", "disc2/02.wav", "only here.wav")
    }


def test_rows_of_another_folder_are_not_taken_for_these(tmp_path: Path) -> None:
    touch(tmp_path, "disc1/01.wav", "disc1/02.wav")
    rows = table(
        tmp_path,
        "file,title",
        *(f"disc{disc}/0{at}.wav,{disc}" for disc in (2, 3) for at in (1, 2)),
    )
    found, _, unused = find_candidates([tmp_path], RIGHTS, rows)
    assert [it.fields.get("title") for it in found] == [None, None] and len(unused) == 4


def test_identical_rows_are_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    rows = table(tmp_path, "file,title", "a.wav,A", "a.wav,A")
    assert titles(tmp_path, rows) == {"a.wav": "A"}


ERN_3 = """<?xml version="1.0" encoding="UTF-8"?>
<ern:NewReleaseMessage xmlns:ern="http://ddex.net/xml/ern/{version}">
  <ResourceList><SoundRecording>
    <SoundRecordingId><ISRC>{isrc}</ISRC></SoundRecordingId>
    <IndirectSoundRecordingId><ISWC>T1234567890</ISWC></IndirectSoundRecordingId>
    <ResourceReference>A1</ResourceReference>
    <ReferenceTitle><TitleText>One</TitleText><SubTitle>Live</SubTitle></ReferenceTitle>
    <Duration>PT0H3M45S</Duration>
    <SoundRecordingDetailsByTerritory><TerritoryCode>FR</TerritoryCode>
      <LabelName>Bleu</LabelName></SoundRecordingDetailsByTerritory>
    <SoundRecordingDetailsByTerritory><TerritoryCode>Worldwide</TerritoryCode>
      <DisplayArtist SequenceNumber="2"><PartyName><FullName>Bo Wind</FullName></PartyName></DisplayArtist>
      <DisplayArtist SequenceNumber="1"><PartyName><FullName>Ada Reed</FullName></PartyName></DisplayArtist>
      <LabelName>Blue Label</LabelName>
      <TechnicalSoundRecordingDetails><IsPreview>true</IsPreview>
        <File><FileName>preview.wav</FileName></File></TechnicalSoundRecordingDetails>
      <TechnicalSoundRecordingDetails>
        <File><FileName>A1.wav</FileName><FilePath>{folder}</FilePath></File>
      </TechnicalSoundRecordingDetails>
    </SoundRecordingDetailsByTerritory>
  </SoundRecording></ResourceList>
</ern:NewReleaseMessage>"""


@pytest.mark.parametrize("version", ["341", "382", "383"])
@pytest.mark.parametrize("folder", ["resources/", "resources\\", "/resources"])
def test_messages_of_ern_3_are_read(tmp_path: Path, version: str, folder: str) -> None:
    path = tmp_path / "release.xml"
    path.write_text(ERN_3.format(version=version, isrc="GB-AYE-00-00001", folder=folder))
    (row,) = load_message(path).rows
    assert (row.file, row.seconds, row.problem) == ("resources/A1.wav", 225.0, None)
    assert row.fields == {
        "isrc": "GBAYE0000001",
        "iswc": "T1234567890",
        "title": "One (Live)",
        "artist": "Ada Reed, Bo Wind",
        "label": "Blue Label",
    }
    path.write_text(ERN_3.format(version=version, isrc="none", folder=folder))
    (row,) = load_message(path).rows
    assert row.problem and "'none' is no ISRC" in row.problem


def take_in(
    folder: Path, given: Path, rows: MetadataTable | None = None, owner: str | None = None
) -> tuple[Library, list[Outcome], list[Candidate]]:
    """The library after an ingest of a path, what became of the files, and which are nameless."""
    encoder = Encoder.load()
    library = Library.open(folder / "library", encoder, create=True)
    found, failures, _ = find_candidates([given], RIGHTS, rows)
    nameless: list[Candidate] = []
    outcomes = ingest(
        library,
        found,
        made_here(encoder, Limits()),
        library.writer,
        limits=Limits(),
        jobs=1,
        stop=Event(),
        owner=owner,
        on_nameless=nameless.append,
    )
    return library, [*failures, *outcomes], nameless


def test_a_second_ingest_says_what_its_table_says_and_a_change_finds_paths(tmp_path: Path) -> None:
    album = tmp_path / "album"
    for number in (1, 2):
        (album / f"disc{number}").mkdir(parents=True)
        write(album / f"disc{number}" / "01.wav", melody(number, 3.0))
    (album / "bad.wav").write_text("no sound")
    library, outcomes, nameless = take_in(tmp_path, album)
    assert sorted(it.status for it in outcomes) == ["added", "added", "failed"]
    (error,) = [it.error for it in outcomes if it.error]
    assert str(album / "bad.wav") in error["detail"]
    assert [it.name for it in nameless] == ["disc1/01.wav", "disc2/01.wav"]
    (album / "bad.wav").unlink()

    rows = table(album, "File;Title;ISRC", "disc1/01.wav;One;gb-aye-00-00001", "disc2/01.wav;;")
    library, outcomes, nameless = take_in(tmp_path, album, rows)
    assert [it.status for it in outcomes] == ["changed", "unchanged"] and not nameless
    said = {it.source: (it.title, it.isrc) for it in library.recordings()[0]}
    assert said == {"disc1/01.wav": ("One", "GBAYE0000001"), "disc2/01.wav": (None, None)}
    _, outcomes, _ = take_in(tmp_path, album, rows)
    assert [it.status for it in outcomes] == ["unchanged", "unchanged"]

    path = tmp_path / "renewed.csv"
    path.write_text(
        "FILE,TITLE\ndisc1/01.wav,Uno\n/music/album/disc2/01.wav,Due\n01.wav,Which\nx/9.wav,None\n"
    )
    done = list(change(library, MetadataTable.load(path, KEYS)))
    assert [it.status for it in done] == ["changed", "changed", "failed", "failed"]
    assert [it.title for it in library.recordings()[0]] == ["Uno", "Due"]


def test_a_second_ingest_changes_neither_ids_nor_what_is_anothers(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", melody(1, 3.0))
    rows = table(tmp_path, "file,id,title", "a.wav,one,A")
    take_in(tmp_path, tmp_path / "a.wav", rows)
    rows = table(tmp_path, "file,id,title", "a.wav,two,B")
    library, (outcome,), _ = take_in(tmp_path, tmp_path / "a.wav", rows)
    assert outcome.error and "its id cannot become 'two'" in outcome.error["detail"]
    rows = table(tmp_path, "file,title", "a.wav,B")
    library, (outcome,), _ = take_in(tmp_path, tmp_path / "a.wav", rows, owner="Ada")
    assert outcome.status == "unchanged"
    assert library.recording("one").title == "A"
