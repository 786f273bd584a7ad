"""What a DDEX ERN 4 message says of a delivery's sound recordings goes with their files."""

from pathlib import Path

import pytest
from command import Earmark
from melodies import melody, write

from service.intake.ern import load_message
from service.intake.metadata import MetadataError

PARTIES = """
  <PartyList>
    <Party><PartyReference>P1</PartyReference>
      <PartyName><FullName>Ada  Reed</FullName></PartyName></Party>
    <Party><PartyReference>P2</PartyReference>
      <PartyName><FullName>Bo Wind</FullName></PartyName></Party>
    <Party><PartyReference>P3</PartyReference>
      <PartyName><FullName>Blue Label</FullName></PartyName></Party>
    <Party><PartyReference>P4</PartyReference>
      <PartyName><FullName>Guest Label</FullName></PartyName></Party>
  </PartyList>"""

RELEASES = """
  <ReleaseList>
    <Release><ReleaseReference>R0</ReleaseReference>
      <DisplayTitleText>The Album</DisplayTitleText>
      <ReleaseLabelReference>P3</ReleaseLabelReference></Release>
    <TrackRelease><ReleaseReference>R2</ReleaseReference>
      <ReleaseResourceReference>A2</ReleaseResourceReference>
      <ReleaseLabelReference>P4</ReleaseLabelReference></TrackRelease>
  </ReleaseList>"""

EDITIONS = """
    <SoundRecording><ResourceReference>A1</ResourceReference>
      <SoundRecordingEdition>
        <ResourceId><ISRC>DEXX12400001</ISRC></ResourceId>
        <TechnicalDetails><DeliveryFile><Type>AudioFile</Type>
          <File><URI>resources/A1%20take.flac</URI></File></DeliveryFile></TechnicalDetails>
        <TechnicalDetails><IsPreview>true</IsPreview><DeliveryFile>
          <File><URI>resources/A1_preview.flac</URI></File></DeliveryFile></TechnicalDetails>
      </SoundRecordingEdition>
      <WorkId><ISWC>T-123.456.789-0</ISWC></WorkId>
      <DisplayTitleText>Eins</DisplayTitleText>
      <DisplayTitleText IsDefault="true">One</DisplayTitleText>
      <DisplayArtistName>Ada Reed &amp; Bo Wind</DisplayArtistName>
      <Duration>PT0H0M20S</Duration></SoundRecording>
    <SoundRecording><ResourceReference>A2</ResourceReference>
      <ResourceId><ISRC>DEXX12400002</ISRC></ResourceId>
      <DisplayTitle><TitleText>Two</TitleText><SubTitle>Live</SubTitle></DisplayTitle>
      <DisplayArtist SequenceNumber="2"><ArtistPartyReference>P1</ArtistPartyReference></DisplayArtist>
      <DisplayArtist SequenceNumber="1"><ArtistPartyReference>P2</ArtistPartyReference></DisplayArtist>
      <Duration>PT3M20.5S</Duration>
      <TechnicalDetails><File><URI>A2.wav</URI></File></TechnicalDetails></SoundRecording>
    <SoundRecording><ResourceReference>A3</ResourceReference>
      <DisplayTitleText>Three</DisplayTitleText></SoundRecording>
    <Image><ResourceReference>A4</ResourceReference>
      <TechnicalDetails><File><URI>cover.jpg</URI></File></TechnicalDetails></Image>"""


def message(folder: Path, version: str = "43", resources: str = EDITIONS, head: str = "") -> Path:
    path = folder / "release.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>{head}\n'
        f'<ern:NewReleaseMessage xmlns:ern="http://ddex.net/xml/ern/{version}">'
        f"{PARTIES}<ResourceList>{resources}</ResourceList>{RELEASES}</ern:NewReleaseMessage>"
    )
    return path


@pytest.mark.parametrize("version", ["41", "411", "42", "43", "432"])
def test_each_file_gets_what_its_sound_recording_says(tmp_path: Path, version: str) -> None:
    one, two, three = load_message(message(tmp_path, version)).rows
    assert (one.file, one.seconds) == ("resources/A1 take.flac", 20)
    assert dict(one.fields) == {
        "isrc": "DEXX12400001",
        "title": "One",
        "artist": "Ada Reed & Bo Wind",
        "label": "Blue Label",
        "iswc": "T-123.456.789-0",
    }
    assert (two.file, two.seconds) == ("A2.wav", 200.5)
    assert two.fields["title"] == "Two (Live)"
    assert (two.fields["artist"], two.fields["label"]) == ("Bo Wind, Ada Reed", "Guest Label")
    assert (three.number, three.problem) == (3, "names no audio file")


def test_a_message_in_which_everything_is_qualified_is_read_the_same(tmp_path: Path) -> None:
    path = message(tmp_path)
    plain = load_message(path).rows
    path.write_text(path.read_text().replace("ern:", "").replace("xmlns:ern", "xmlns"))
    path.write_text(path.read_text().replace(":ern=", "="))
    assert load_message(path).rows == plain


BOMB = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no XML", "is not XML"),
        ("<a><b></a>", "is not XML"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "is not XML"),
        ("<a/>", "no NewReleaseMessage of DDEX ERN 3 or 4"),
        ('<NewReleaseMessage xmlns="http://ddex.net/xml/ern/2"/>', "ern/2"),
        (f"{BOMB}<a/>", "document type"),
    ],
)
def test_what_is_no_ern_message_is_refused_in_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "release.xml"
    path.write_text(text)
    with pytest.raises(MetadataError, match=said) as caught:
        load_message(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(MetadataError, match="cannot be read"):
        load_message(tmp_path / "missing.xml")


def test_a_delivery_is_ingested_with_its_message(earmark: Earmark, tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    write(tmp_path / "resources" / "A1 take.flac", melody(11, 20.0))
    write(tmp_path / "A2.wav", melody(12, 5.0))  # said to last 200 s
    rights = ("--rightsholder", "Blue Label", "--rights", "licensed")
    arguments = ("--metadata", message(tmp_path), "--library", tmp_path / "delivered")
    done = earmark.lines("ingest", tmp_path, *rights, *arguments, status=1)
    assert {it["status"] for it in done} == {"added", "failed"}
    details = sorted(it["error"]["detail"].rpartition("/")[2] for it in done if it["error"])
    assert details == [
        "A2.wav: lasts 5 s where its metadata says 200 s: is it another recording's file?",
        "release.xml, sound recording 3: names no audio file",
    ]
    (listed,) = earmark.lines("list", "--library", tmp_path / "delivered")
    assert (listed["isrc"], listed["title"], listed["label"]) == (
        "DEXX12400001",
        "One",
        "Blue Label",
    )
    lacking = earmark("ingest", tmp_path, *arguments, status=2).stderr
    assert "in sound recording 1, 2, 3 of" in lacking


def test_an_artists_place_that_is_no_number_is_none(tmp_path: Path) -> None:
    resources = EDITIONS.replace('SequenceNumber="2"', 'SequenceNumber="second"')
    _, two, _ = load_message(message(tmp_path, resources=resources)).rows
    assert sorted(two.fields["artist"].split(", ")) == ["Ada Reed", "Bo Wind"]
