"""What people have is taken whole, or the answer says what was not: damage, tracks, silence, folders."""

import gzip
import io
import json
import os
import signal
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from command import Earmark
from decoding_matrix import cut_off
from melodies import CLIP_START, RATE, melody, write

import service.query.clips
import service.runtime.settings
from fingerprint.audio import Limits, open_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.ladder import excerpts
from service.command import main
from service.datasets.extensions import is_sound
from service.datasets.location import DatasetError
from service.datasets.walk import members
from service.intake.ingest import find_candidates
from service.query.answer import Answer

RIGHTS_GIVEN = {"rightsholder": "Me", "rights": "owned"}
RIGHTS = ("--rightsholder", "Me", "--rights", "owned")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


def with_tracks(path: Path, *tracks: np.ndarray) -> Path:
    """A Matroska file with a sound track of each of these, at RATE."""
    import av

    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("flac", rate=RATE, layout="mono") for _ in tracks]
        for stream, samples in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "flt", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("format", ["FLAC", "OGG"])
def test_a_file_that_is_cut_off_is_refused_unless_it_is_allowed(
    earmark: Earmark, tmp_path: Path, format: str
) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, melody(70, 12.0), RATE, format=format)
    path = tmp_path / f"song.{format.lower()}"
    path.write_bytes(cut_off(buffer.getvalue()))
    (refused,) = earmark.lines("ingest", path, *RIGHTS, status=1)
    assert refused["status"] == "failed"
    assert "--allow-damaged" in refused["error"]["detail"]
    (taken,) = earmark.lines("ingest", path, *RIGHTS, "--allow-damaged")
    assert taken["status"] == "added"
    assert taken["notes"]
    (shown,) = earmark.lines("show", taken["recording"])
    (answer,) = earmark.lines("query", path)
    assert 0 < shown["undecoded_seconds"] == pytest.approx(answer["undecoded_seconds"], abs=0.01)
    assert answer["notes"] == taken["notes"]
    assert [match["recording"] for match in answer["matches"]] == [taken["recording"]]


def test_every_sound_track_is_heard_and_named(earmark: Earmark, tmp_path: Path) -> None:
    start = round(CLIP_START * RATE)
    one, other = (melody(number)[start : start + 6 * RATE] for number in (1, 2))
    silent = np.zeros(6 * RATE, np.float32)
    path = with_tracks(tmp_path / "film.mkv", silent, one, other)
    (answer,) = earmark.lines("query", path)
    found = sorted((match["track"], match["source"]) for match in answer["matches"])
    assert found == [(2, "song-1.flac"), (3, "song-2.flac")]
    assert len(answer["notes"]) == 1
    assert answer["notes"][0].startswith("track 1 is not heard: 6.0 s of silence")
    earmark("scan", tmp_path, "--report", tmp_path / "report")
    segments = (tmp_path / "report" / "segments.csv").read_text().splitlines()
    column = segments[0].split(",").index("track")
    assert sorted(line.split(",")[column] for line in segments[1:]) == ["2", "3"]


def test_evidence_is_of_the_track_that_it_is_about(earmark: Earmark, tmp_path: Path) -> None:
    start = round(CLIP_START * RATE)
    music = melody(1)[start : start + 6 * RATE]
    path = with_tracks(tmp_path / "film.mkv", melody(98, 6.0), music)
    earmark("query", path, "--evidence", tmp_path / "evidence")
    (bundle,) = (tmp_path / "evidence").glob("*.zip")
    with zipfile.ZipFile(bundle) as archive:
        assert json.loads(archive.read("evidence.json"))["match"]["track"] == 2
    checks = earmark.lines("verify-evidence", bundle, "--clip", path)
    assert {it["what"]: it["holds"] for it in checks}["clip"] is True


def test_a_fingerprint_has_all_tracks_of_its_file(encoder: Encoder, tmp_path: Path) -> None:
    path = with_tracks(tmp_path / "film.mkv", melody(1, 4.0), melody(2, 5.0))
    made = fingerprint(path, encoder, QUERY_EVERY)
    read = Fingerprint.load(made.to_bytes(), "film.emk")
    assert [it.track for it in read.tracks] == [1, 2]
    assert [round(it.duration) for it in read.tracks] == [4, 5]
    assert all(it.sha256 == made.sha256 for it in read.tracks)


def test_a_reference_is_the_first_track_that_sounds(encoder: Encoder, tmp_path: Path) -> None:
    silent = np.zeros(4 * RATE, np.float32)
    path = with_tracks(tmp_path / "film.mkv", silent, melody(1, 4.0), melody(2, 4.0))
    made = fingerprint(path, encoder, REFERENCE_EVERY)
    assert (made.track, made.others) == (2, ())
    assert [note.split(" is ")[0] for note in made.notes] == ["track 1", "track 3"]


def test_tracks_count_against_the_limit_together(encoder: Encoder, tmp_path: Path) -> None:
    path = with_tracks(tmp_path / "film.mkv", melody(1, 4.0), melody(2, 4.0), melody(3, 4.0))
    made = fingerprint(path, encoder, QUERY_EVERY, limits=Limits(max_seconds=7.0))
    assert [it.track for it in made.tracks] == [1]
    assert len(made.notes) == 2
    assert all("raise the setting max_duration" in note for note in made.notes)


@pytest.mark.parametrize(("before", "after"), [(0, 60), (60, 0), (30, 30)])
def test_silence_around_a_clip_makes_no_excerpts(
    encoder: Encoder, tmp_path: Path, before: int, after: int
) -> None:
    music = melody(1, 5.0)
    parts = (np.zeros(before * RATE), music, np.zeros(after * RATE))
    alone = fingerprint(write(tmp_path / "a.wav", music), encoder, QUERY_EVERY)
    clip = write(tmp_path / "b.wav", np.concatenate(parts).astype(np.float32))
    (expected,), (found,) = excerpts(alone), excerpts(fingerprint(clip, encoder, QUERY_EVERY))
    assert found.start - before == pytest.approx(expected.start, abs=0.1)
    assert found.end - before == pytest.approx(expected.end, abs=0.1)


def test_a_long_clip_is_looked_up_in_stretches(
    earmark: Earmark, music: Path, tmp_path: Path
) -> None:
    clip, _ = sf.read(music / "clip.wav", dtype="float32")
    long = np.zeros(700 * RATE, np.float32)
    long[-len(clip) :] = clip
    (answer,) = earmark.lines("query", write(tmp_path / "log.flac", long))
    assert answer["duration"] == pytest.approx(700, abs=0.1)
    (match,) = answer["matches"]
    assert match["source"] == "song-1.flac"
    assert match["query_end"] == pytest.approx(700, abs=0.3)


def test_a_folder_is_queried_file_by_file(earmark: Earmark, music: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "more").mkdir(parents=True)
    clip = (music / "clip.wav").read_bytes()
    (tmp_path / "clips" / "a.wav").write_bytes(clip)
    (tmp_path / "clips" / "more" / "b.wave").write_bytes(clip)
    (tmp_path / "clips" / "notes.md").write_text("no music")
    answers = earmark.lines("query", tmp_path / "clips")
    assert [Path(it["clip"]).name for it in answers] == ["a.wav", "b.wave"]
    assert all(it["matches"] for it in answers)
    (tmp_path / "empty").mkdir()
    assert "no audio file in this folder" in earmark("query", tmp_path / "empty", status=1).stderr


@pytest.mark.parametrize(
    "extension", ["wave", "bwf", "mpga", "weba", "m2ts", "vob", "m4r", "snd", "rf64", "eac3", "mod"]
)
def test_extensions_that_are_tried(extension: str) -> None:
    assert is_sound(f"song.{extension}")
    assert is_sound(f"SONG.{extension.upper()}")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "set" / "inner").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for path in ("set/a.wav", "set/inner/b.wav", "elsewhere/c.wav"):
        (tmp_path / path).write_bytes(b"RIFF")
    (tmp_path / "set" / "inner" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set" / "inner")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    assert [it.file for it in members(tmp_path / "set")] == ["a.wav", "inner/b.wav", "linked/c.wav"]


def test_an_archive_is_what_its_content_says(tmp_path: Path) -> None:
    song = tmp_path / "a.wav"
    song.write_bytes(b"RIFF" * 100)
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(song, "a.wav")
    plain = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "packed.tar").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.tar.gz").write_bytes(plain)
    (tmp_path / "named.zip").write_bytes(gzip.compress(plain))
    for name in ("packed.tar", "plain.tar.gz", "named.zip"):
        (member,) = members(tmp_path / name)
        assert (member.member, member.problem) == ("a.wav", None), name


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "Git LFS"),
        ("/annex/objects/MD5-s1--ab\n", "git-annex"),
        ("<!DOCTYPE html>\n<p>404", "a web page"),
    ],
)
def test_what_stands_for_a_sound_is_called_that(tmp_path: Path, content: str, said: str) -> None:
    for name in ("song.flac", "set.tar", "set.zip", "set.parquet"):
        (tmp_path / name).write_text(content)
    with pytest.raises(AudioError, match=said) as caught:
        open_audio(tmp_path / "song.flac")
    assert caught.value.type == "undecodable"
    if said != "a web page":
        problems = {it.file: str(it.problem) for it in members(tmp_path) if it.problem is not None}
        assert list(problems) == ["set.parquet", "set.tar", "set.zip"]
        assert all(said in problem for problem in problems.values())
        with pytest.raises(DatasetError, match=said):
            list(members(tmp_path / "set.tar"))


def test_an_archive_that_was_not_fetched_fails_by_itself(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_text(LFS)
    song = write(tmp_path / "song.wav", melody(1, 1.0))
    found, failures, _ = find_candidates([tmp_path / "set.tar", song], RIGHTS_GIVEN)
    assert [it.path for it in found] == [song]
    assert ["Git LFS" in it.error["detail"] for it in failures if it.error] == [True]


def test_playlists_and_lists_of_paths_are_manifests(tmp_path: Path) -> None:
    (tmp_path / "disc 1").mkdir()
    lines = [
        "disc 1/01.mp3",
        str(tmp_path / "disc 1" / "02.mp3"),
        (tmp_path / "disc 1" / "03.mp3").as_uri(),
        "disc 1\\04.mp3",
    ]
    for name in ("album.m3u", "album.m3u8", "files.txt", "files.lst"):
        text = "\ufeff#EXTM3U\n#EXTINF:225,Artist - Title\n" + "\r\n".join(lines) + "\n\n"
        (tmp_path / name).write_text(text)
        found = list(members(tmp_path / name))
        opened = [Path(str(it.source.path)).resolve() for it in found if it.source is not None]
        assert opened == [tmp_path.resolve() / "disc 1" / f"0{n}.mp3" for n in (1, 2, 3, 4)], name
    (tmp_path / "disc 1" / "out.m3u").write_text("../../secret.wav\n")
    (outside,) = members(tmp_path / "disc 1" / "out.m3u")
    assert "lies outside the list's folder" in str(outside.problem)


@pytest.mark.parametrize("seconds", [True, False])
def test_what_is_beyond_a_limit_names_the_setting(tmp_path: Path, seconds: bool) -> None:
    path = write(tmp_path / "a.wav", melody(1, 4.0))
    limits = Limits(2.0, 2**30, "max_clip") if seconds else Limits(60.0, 100, "", "max_upload")
    with pytest.raises(AudioError, match="max_clip" if seconds else "max_upload"):
        open_audio(path, limits)


@pytest.mark.parametrize(
    "arguments",
    [
        "list",
        "info",
        "verify",
        "compact",
        "query a.wav",
        "ingest a.wav --rights owned",
    ],
)
def test_an_interrupt_ends_every_command_with_130(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service.runtime.settings, "load_settings", interrupted)
    with pytest.raises(SystemExit) as left:
        main(arguments.split())
    assert left.value.code == 130
    assert capsys.readouterr().err.strip() == "earmark: stopped"


def test_an_interrupted_query_finishes_the_clip_in_hand(
    library: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = service.query.clips._answered

    def interrupted(*given: Any) -> Answer:
        os.kill(os.getpid(), signal.SIGINT)
        return answered(*given)

    monkeypatch.setattr(service.query.clips, "_answered", interrupted)
    clip = str(music / "clip.wav")
    with pytest.raises(SystemExit) as left:
        main(["query", clip, clip, "--json", "--library", str(library)])
    assert left.value.code == 130
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["matches"]
