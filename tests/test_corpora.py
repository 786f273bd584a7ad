"""Corpora: the catalogue and its splits, packs opened, packages fetched whole or reported."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile as sf
from click.testing import CliRunner

from benchmarks import corpora, render
from benchmarks.carve import audio_in, collect, sniff
from fingerprint.errors import EarmarkError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def smoke() -> list[corpora.Item]:
    """The works of the smoke package, fetched if need be."""
    try:
        result = corpora.fetch("smoke")
    except corpora.CorpusError as error:
        pytest.skip(f"the smoke package cannot be had: {error}")
    if result.failed:
        pytest.skip(f"the smoke package cannot be had: {result.failed}")
    return corpora.items("smoke")


def wave(seconds: float = 0.5) -> bytes:
    """A WAV file's bytes."""
    buffer = io.BytesIO()
    sf.write(buffer, [0.25, -0.25] * int(4_000 * seconds), 8_000, format="WAV")
    return buffer.getvalue()


def midi() -> bytes:
    """A MIDI file's bytes: one note of two seconds."""
    events = b"\x00\xc0\x00" + b"\x00\x90\x3c\x64" + b"\x8f\x00\x80\x3c\x00" + b"\x00\xff\x2f\x00"
    track = b"MTrk" + struct.pack(">I", len(events)) + events
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + track


# --- splits and catalogue ---


def test_no_package_recording_or_artist_is_in_two_splits() -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in corpora.catalogue():
        seen["package", item.package].add(item.split)
        seen["recording", item.group].add(item.split)
        if item.artist:
            seen["artist", item.artist.casefold()].add(item.split)
    assert {key: splits for key, splits in seen.items() if len(splits) > 1} == {}


def test_tune_is_an_eighth_of_what_may_be_trained_on() -> None:
    hours = {
        split: sum(i.duration for i in corpora.items(split, present=False))
        for split in ("train", "tune")
    }
    assert 0.10 < hours["tune"] / sum(hours.values()) < 0.15
    assert {i.kind for i in corpora.items("tune", corpora.KINDS, present=False)} == set(
        corpora.KINDS
    )


def test_smoke_is_one_report_package_of_real_music() -> None:
    assert len(corpora.packages("smoke")) == 1
    assert set(corpora.packages("smoke")) < set(corpora.packages("report"))
    works = corpora.items("smoke", ("music",), present=False)
    assert len(works) >= 8
    assert all(i.split == "report" and i.licence and i.duration >= 30 for i in works)


def test_a_recording_has_at_most_one_primary_file() -> None:
    primaries: dict[str, int] = defaultdict(int)
    for item in corpora.catalogue():
        primaries[item.group] += item.primary
    assert max(primaries.values()) == 1


def test_items_are_filtered_by_length_only_where_that_is_asked_or_usual() -> None:
    music = corpora.items("train", present=False)
    assert min(i.duration for i in music) >= 30
    long = corpora.items("train", min_seconds=100, present=False)
    assert min(i.duration for i in long) >= 100
    assert 0 < len(long) < len(music)
    assert min(i.duration for i in corpora.items("report", ("speech",), present=False)) < 30
    with pytest.raises(corpora.CorpusError, match="no kind"):
        corpora.items("report", ("podcast",))
    with pytest.raises(corpora.CorpusError, match="no split"):
        corpora.items("validation")


def test_items_not_fetched_are_left_out_and_say_how_to_get_them(cache: Path) -> None:
    assert corpora.items("smoke") == []
    item = corpora.items("smoke", present=False)[0]
    with pytest.raises(corpora.CorpusError, match=f"fetch --package {item.package}"):
        item.audio()


# --- packs ---


def test_packs_in_packs_are_opened() -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        entry = tarfile.TarInfo("music/a.wav")
        entry.size = len(wave())
        archive.addfile(entry, io.BytesIO(wave()))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as pack:
        pack.writestr("data/inner.tar.gz", gzip.compress(inner.getvalue()))
        pack.writestr("readme.txt", "no sound")
    found = dict(audio_in("game.pk3", outer.getvalue()))
    assert found == {"game.pk3.d/data/inner.tar.d/music/a.wav": wave()}


def test_a_clonk_group_is_gzip_under_another_name() -> None:
    group = b"\x1e\x8c" + gzip.compress(wave())[2:]
    assert dict(audio_in("Music.ocg", group)) == {"Music.ocg.wav": wave()}


def test_a_pack_cannot_write_outside_its_folder() -> None:
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as pack:
        pack.writestr("../../evil.wav", wave())
        pack.writestr("/etc/evil.wav", wave())
    for name, _ in audio_in("game.zip", outer.getvalue()):
        assert name.startswith("game.zip.d/")
        assert ".." not in name


def test_streams_are_carved_whole_out_of_unknown_containers() -> None:
    ogg = io.BytesIO()
    sf.write(ogg, [0.25, -0.25, 0.1] * 20_000, 8_000, format="OGG")
    filler = b"\x07" * 30_000
    container = filler + midi() + filler + wave() + filler + ogg.getvalue() + ogg.getvalue()
    found = dict(audio_in("data.res", container))
    assert found == {
        "data.res.d/carved-0000.ogg": ogg.getvalue(),
        "data.res.d/carved-0001.ogg": ogg.getvalue(),
        "data.res.d/carved-0002.wav": wave(),
        "data.res.d/carved-0003.mid": midi(),
    }


@pytest.mark.parametrize("cut", [0, 3, 20, 50])
def test_damaged_packs_are_passed_over(cut: int) -> None:
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as pack:
        pack.writestr("a.wav", wave())
    for damaged in (outer.getvalue()[:cut], gzip.compress(wave())[:cut]):
        assert list(audio_in("pack.bin", damaged)) == []


def test_text_that_is_named_like_a_module_is_not_audio() -> None:
    assert list(audio_in("fr.it", b"buongiorno " * 50)) == []
    assert list(audio_in("kernel.mod", b"source code " * 50)) == []
    assert sniff(b"\0" * 1080 + b"M.K.") == "mod"


def test_collect_drops_the_usual_prefix_and_programs(tmp_path: Path) -> None:
    tree, kept = tmp_path / "tree", tmp_path / "kept"
    for name in (
        "usr/share/games/x/a.wav",
        "usr/lib/x/b.wav",
        "usr/bin/c.wav",
        "usr/share/x/d.png",
    ):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wave())
    (tree / "usr/share/games/x/link.wav").symlink_to("a.wav")
    assert collect(tree, kept) == []
    files = {p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file()}
    assert files == {"games/x/a.wav", "lib/x/b.wav"}


# --- fetching ---


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An apt-get that knows package lists and one package, built here with dpkg-deb."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not on this machine")
    package = corpora.packages("smoke")[0]
    tree = tmp_path / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {package}\nVersion: 1.2-3\nArchitecture: all\nMaintainer: a <a@b>\nDescription: d\n"
    )
    documents = tree / "usr/share/doc" / package
    documents.mkdir(parents=True)
    (documents / "copyright").write_text("free")
    for item in corpora.items("smoke", corpora.KINDS, primary=False, min_seconds=0, present=False):
        path = tree / "usr/share" / item.member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wave())
    subprocess.run(
        ["dpkg-deb", "--build", tree, tmp_path / "it.deb"], check=True, capture_output=True
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    script = programs / "apt-get"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *indextargets*) echo {script};; *{package}) cp {tmp_path}/it.deb .;;\n'
        "*) echo 'E: Unable to locate package' >&2; exit 100;; esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield script


def test_fetch_is_whole_repeatable_and_goes_on_past_a_missing_package(
    cache: Path, fake_apt: Path
) -> None:
    package = corpora.packages("smoke")[0]
    result = corpora.fetch(["no-such-package", package])
    assert result.fetched == [package]
    assert "Unable to locate" in result.failed["no-such-package"]
    assert result.missing == []
    assert (cache / "packages" / package / "_version").read_text() == "1.2-3\n"
    assert (cache / "packages" / package / "_copyright").read_text() == "free"
    assert {p.name for p in (cache / "packages").iterdir()} == {package}  # nothing half done
    assert len(corpora.items("smoke")) >= 8
    again = corpora.fetch("smoke")
    assert (again.fetched, again.present) == ([], [package])


def test_an_interrupted_package_is_fetched_again(cache: Path, fake_apt: Path) -> None:
    package = corpora.packages("smoke")[0]
    leftover = cache / "packages" / package / "old.wav"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"")
    assert corpora.fetch("smoke").fetched == [package]
    assert not leftover.exists()


def test_without_package_lists_the_error_says_what_to_do(cache: Path, fake_apt: Path) -> None:
    fake_apt.write_text("#!/bin/sh\nexit 0\n")
    done = CliRunner().invoke(corpora.main, ["fetch", "--split", "smoke"])
    assert done.exit_code == 2
    assert "apt-get update" in done.output
    assert done.output.count("\n") == 1


def test_list_prints_licence_and_duration_of_every_item() -> None:
    done = CliRunner().invoke(corpora.main, ["list", "--split", "smoke"])
    lines = done.output.splitlines()
    assert lines[0] == "id,kind,package,licence,duration,title,path"
    assert len(lines) >= 9


def test_the_module_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.corpora", "--help"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "fetch" in done.stdout


def test_real_music_of_the_smoke_package_is_as_long_as_the_catalogue_says(
    smoke: list[corpora.Item],
) -> None:
    assert len(smoke) >= 8
    for item in smoke:
        assert sf.info(item.audio()).duration == pytest.approx(item.duration, abs=0.1)


# --- rendering ---


def test_midi_is_rendered_to_audio(tmp_path: Path) -> None:
    if not shutil.which("fluidsynth") or not render.SOUND_FONT.is_file():
        pytest.skip("fluidsynth or its sound font is not on this machine")
    source = tmp_path / "note.mid"
    source.write_bytes(midi())
    target = render.render(source, tmp_path / "rendered" / "note.flac")
    assert 1.5 < sf.info(target).duration < 20
    assert [p.name for p in target.parent.iterdir()] == ["note.flac"]


def test_a_renderer_is_stopped_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "openmpt123"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(render, "LONGEST", 5)
    target = render.render(tmp_path / "endless.mod", tmp_path / "endless.flac")
    assert sf.info(target).duration == 5


def test_a_missing_or_failing_renderer_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EarmarkError, match="install the Debian package openmpt123"):
        render.render(tmp_path / "a.mod", tmp_path / "a.flac")
    program = tmp_path / "openmpt123"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(EarmarkError, match="gave no sound"):
        render.render(tmp_path / "a.mod", tmp_path / "a.flac")
    assert not (tmp_path / "a.flac").exists()
