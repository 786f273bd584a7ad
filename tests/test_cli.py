"""The command as a person or a script meets it: real processes, real files."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command import Earmark
from melodies import CLIP_START, SONGS, melody, write
from patience import PATIENCE

import benchmarks
import service.cli.main
import service.intake.ingest
from fingerprint.encoder import Encoder
from index.library import Library
from index.recording import RIGHTS
from service.command import main

Conforms = Callable[[object, str], None]
MY_RIGHTS = ("--rightsholder", "Me", "--rights", "licensed")


def test_the_command_is_imported_without_what_is_slow_to_import() -> None:
    slow = "{'numpy', 'numba', 'faiss', 'av', 'fastapi', 'pydantic', 'sqlalchemy', 'tqdm'}"
    code = f"import service.cli.main, sys; print(*({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def every_command(
    group: click.Group = main, before: str = ""
) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield before + name, command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{before}{name} ")


@pytest.mark.parametrize(("name", "command"), every_command(), ids=str)
def test_every_commands_help_is_its_manual(name: str, command: click.Command) -> None:
    text = CliRunner().invoke(main, [*name.split(), "--help"]).output
    assert "Example" in text
    assert "Exit status: 0 all done; 1 some inputs failed" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_rights_that_can_be_given_are_those_of_the_library() -> None:
    assert service.cli.main.RIGHTS == RIGHTS


def test_query_says_which_recording_and_where(earmark: Earmark, conforms: Conforms) -> None:
    (answer,) = earmark.lines("query", "clip.wav")
    conforms(answer, "answer")
    assert list(answer) == [
        "clip",
        "sha256",
        "duration",
        "error",
        "matches",
        "undecoded_seconds",
        "notes",
        "library",
        "encoder",
        "elapsed_ms",
    ]
    assert answer["clip"] == "clip.wav"
    assert answer["duration"] == pytest.approx(5.0, abs=0.01)
    assert answer["library"]["recordings"] == SONGS
    best = answer["matches"][0]
    assert list(best) == [
        "recording",
        "source",
        "title",
        "artist",
        "isrc",
        "work",
        "rightsholder",
        "rights",
        "tier",
        "e_value",
        "score",
        "query_start",
        "query_end",
        "reference_start",
        "reference_end",
        "tempo",
        "tempo_low",
        "tempo_high",
        "pitch_semitones",
        "pitch_low",
        "pitch_high",
        "changed",
        "likelihood_ratio",
        "tested_clips",
        "tested_closer",
        "same_file",
        "repeats",
        "track",
    ]
    assert (best["source"], best["tier"]) == ("song-1.flac", "match")
    assert (best["rightsholder"], best["rights"]) == ("Blue Label", "owned")
    assert best["reference_start"] - best["query_start"] == pytest.approx(CLIP_START, abs=0.25)
    assert best["tempo"] == pytest.approx(1, abs=0.05)


def test_the_gate_is_moved_by_the_wrong_answers_that_are_put_up_with(earmark: Earmark) -> None:
    tiers = {}
    for wrong in ("1", "1e-200"):
        (answer,) = earmark.lines("query", "clip.wav", "--wrong-per-million", wrong)
        tiers[wrong] = [match["tier"] for match in answer["matches"]]
    assert tiers == {"1": ["match"], "1e-200": ["review"]}
    refused = earmark("query", "clip.wav", "--wrong-per-million", "0", status=2)
    assert "wrong_per_million" in refused.stderr


def test_query_tells_people_in_words(earmark: Earmark) -> None:
    text = earmark("query", "clip.wav", "unknown.wav").stdout
    assert "song-1.flac" in text
    assert "IN A TEST" in text
    assert "unknown.wav (0:05.0): no known work" in text


def test_query_goes_on_after_clips_that_cannot_be_read(
    earmark: Earmark, conforms: Conforms
) -> None:
    expected = {
        "missing.wav": "not-found",
        "missing.emk": "not-found",
        "empty.wav": "undecodable",
        "text.mp3": "undecodable",
        "broken.emk": "undecodable",
        "silent.wav": "silent",
        "short.wav": "too-short",
        "clip.wav": None,
    }
    answers = earmark.lines("query", *expected, status=1)
    for answer in answers:
        conforms(answer, "answer")
    assert {
        answer["clip"]: answer["error"] and answer["error"]["type"] for answer in answers
    } == expected
    assert answers[-1]["matches"]


def test_a_pipe_named_as_a_fingerprint_is_no_fingerprint(earmark: Earmark, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.emk"
    os.mkfifo(pipe)  # nobody writes to it: who opens it waits for ever
    (answer,) = earmark.lines("query", pipe, status=1)
    assert answer["error"]["type"] == "undecodable"


def test_query_tells_people_what_is_wrong_with_a_clip(earmark: Earmark) -> None:
    done = earmark("query", "missing.wav", "clip.wav", status=1)
    assert "missing.wav" in done.stderr
    assert "song-1.flac" in done.stdout


@pytest.mark.parametrize(
    ("limit", "kind"),
    [({"EARMARK_MAX_DURATION": "2 s"}, "too-long"), ({"EARMARK_MAX_SIZE": "1 KiB"}, "too-large")],
)
def test_query_keeps_to_the_limits(
    earmark: Earmark, conforms: Conforms, limit: dict[str, str], kind: str
) -> None:
    (answer,) = earmark.lines("query", "clip.wav", status=1, environment=limit)
    conforms(answer, "answer")
    assert answer["error"]["type"] == kind


def test_query_reads_standard_input_and_fingerprints(
    earmark: Earmark, music: Path, tmp_path: Path, conforms: Conforms
) -> None:
    emk = tmp_path / "clip.emk"
    assert earmark("fingerprint", "clip.wav", "-o", emk).stdout == ""
    (made,) = earmark.lines("fingerprint", "clip.wav", "-o", emk)
    assert made["fingerprint"] == str(emk) and made["duration"] == 5.0
    clip = (music / "clip.wav").read_bytes()
    answers = earmark.lines("query", "-", emk, "clip.wav", stdin=clip)
    assert len(answers) == 3
    for answer in answers:
        conforms(answer, "answer")
        assert answer["matches"][0]["source"] == "song-1.flac"
        assert answer["sha256"] == made["sha256"]
    assert answers[0]["clip"] == "-"


def test_fingerprint_of_no_audio_fails(earmark: Earmark, tmp_path: Path) -> None:
    output = tmp_path / "text.emk"
    assert "text.mp3" in earmark("fingerprint", "text.mp3", "-o", output, status=1).stderr
    assert not output.exists()


def test_query_shows_only_what_is_rare_enough(earmark: Earmark) -> None:
    (answer,) = earmark.lines("query", "clip.wav", "--max-e-value", "1e-300")
    assert answer["matches"] == []


def test_a_name_that_is_not_utf8_is_a_clip_like_any_other(
    earmark: Earmark, music: Path, tmp_path: Path, conforms: Conforms
) -> None:
    clip = os.fsencode(tmp_path) + b"/clip-\xff.wav"
    with open(clip, "wb") as stream:
        stream.write((music / "clip.wav").read_bytes())
    (answer,) = earmark.lines("query", os.fsdecode(clip))
    conforms(answer, "answer")
    assert answer["matches"]
    assert earmark.lines("ingest", os.fsdecode(clip), *MY_RIGHTS)[0]["status"] == "added"


def test_ingest_twice_changes_nothing_and_says_so(earmark: Earmark, conforms: Conforms) -> None:
    before = earmark.lines("info")
    again = earmark.lines("ingest", "songs", "songs/song-1.flac", *MY_RIGHTS)
    for outcome in again:
        conforms(outcome, "outcome")
    assert [outcome["status"] for outcome in again] == ["unchanged"] * SONGS
    assert earmark.lines("info") == before
    text = earmark("ingest", "songs", *MY_RIGHTS).stdout
    assert text == f"0 added, {SONGS} already there, 0 failed\n"


def test_ingest_goes_on_after_files_that_cannot_be_read(
    earmark: Earmark, tmp_path: Path, conforms: Conforms
) -> None:
    song = write(tmp_path / "new.ogg", melody(7, 3.0))
    bad = {
        "text.mp3": "undecodable",
        "silent.wav": "silent",
        "short.wav": "too-short",
        "missing.wav": "not-found",
    }
    outcomes = earmark.lines("ingest", *bad, song, *MY_RIGHTS, status=1)
    for outcome in outcomes:
        conforms(outcome, "outcome")
    kinds = {it["file"]: it["error"]["type"] for it in outcomes if it["error"]}
    assert kinds == bad
    assert [it["file"] for it in outcomes if it["status"] == "added"] == [str(song)]
    assert earmark.lines("query", song)[0]["matches"][0]["rightsholder"] == "Me"


def test_ingest_makes_the_library_and_takes_titles_from_metadata(
    earmark: Earmark, music: Path, tmp_path: Path, conforms: Conforms
) -> None:
    table = tmp_path / "songs.csv"
    table.write_text(
        "file,id,title,artist,rightsholder,rights,mood\n"
        "song-0.flac,first,Zéro,The Noughts,Zero Ltd,licensed,blue\n"
        "songs/song-1.flac,,One,,One Ltd,public-domain,\n"
        "song-2.flac,,,,Two Ltd,stolen,\n",
        encoding="utf-8",
    )
    library = ("--library", tmp_path / "new" / "library")
    files = ("songs/song-0.flac", "songs/song-1.flac", "songs/song-2.flac")
    done = earmark("ingest", *files, "--metadata", table, *library, status=1)
    assert done.stdout == "2 added, 0 already there, 1 failed\n"
    assert "'mood'" in done.stderr
    assert "row 4: rights 'stolen' is none of" in done.stderr
    recordings = earmark.lines("list", *library)
    for recording in recordings:
        conforms(recording, "recording")
    titles = {it["title"]: (it["rightsholder"], it["rights"]) for it in recordings}
    assert titles == {"Zéro": ("Zero Ltd", "licensed"), "One": ("One Ltd", "public-domain")}
    (first,) = earmark.lines("show", "first", *library)
    assert (first["artist"], first["source"]) == ("The Noughts", "song-0.flac")
    assert "Zéro (The Noughts)" in earmark("list", *library).stdout


def test_no_rights_basis_no_ingest(earmark: Earmark, tmp_path: Path) -> None:
    assert "no rights basis" in earmark("ingest", "songs", status=2).stderr
    table = tmp_path / "songs.csv"
    table.write_text("file,rightsholder,rights\nsong-0.flac,Zero Ltd,owned\nsong-1.flac,,owned\n")
    done = earmark("ingest", "songs", "--metadata", table, status=2)
    assert "--rightsholder is missing (or in row 3 of" in done.stderr
    rows = "".join(f"song-{n}.flac,Zero Ltd,\n" for n in range(12))
    table.write_text("file,rightsholder,rights\n" + rows)
    done = earmark("ingest", "songs", "--metadata", table, status=2)
    assert "2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more of" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_ingest_commits_what_is_done_and_says_so(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    fingerprint = service.intake.ingest.fingerprint

    once = iter([number])

    def interrupted(*arguments: object, **options: object) -> object:
        for each in once:
            signal.raise_signal(each)
        return fingerprint(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(service.intake.ingest, "fingerprint", interrupted)
    library = tmp_path / "library"
    arguments = ["ingest", str(music / "songs"), *MY_RIGHTS, "--jobs", "1"]
    ended = CliRunner().invoke(main, [*arguments, "--library", str(library)])
    assert ended.exit_code == 128 + number
    assert "what was finished is committed" in ended.stderr
    added = int(ended.stdout.split()[0])
    assert 1 <= added < SONGS
    assert len(Library.open(library, Encoder.load()).recordings()[0]) == added


def test_a_removed_recording_is_not_found_again(earmark: Earmark, conforms: Conforms) -> None:
    recordings = {it["source"]: it["id"] for it in earmark.lines("list")}
    removed = recordings["song-1.flac"]
    outcomes = earmark.lines("remove", "nobody", removed, status=1)
    assert [(it["recording"], it["status"]) for it in outcomes] == [
        ("nobody", "failed"),
        (removed, "removed"),
    ]
    assert outcomes[0]["error"]["type"] == "not-found"
    (answer,) = earmark.lines("query", "clip.wav")
    assert removed not in {match["recording"] for match in answer["matches"]}
    assert removed not in {it["id"] for it in earmark.lines("list")}
    assert removed in earmark("show", removed, status=1).stderr
    assert answer["library"]["recordings"] == SONGS - 1


def test_info_tells_the_librarys_size(earmark: Earmark, library: Path) -> None:
    (info,) = earmark.lines("info")
    assert info["recordings"] == SONGS
    assert info["seconds"] == pytest.approx(20 * SONGS, abs=1)
    assert info["path"] == str(library)
    assert info["bytes_on_disk"] > 0
    told = [line.split() for line in earmark("info").stdout.splitlines()]
    assert ["recordings", str(SONGS)] in told


def test_a_library_that_another_process_is_writing_is_locked(
    earmark: Earmark, library: Path, tmp_path: Path
) -> None:
    song = write(tmp_path / "new.flac", melody(8, 3.0))
    (recording,) = earmark.lines("list")[:1]
    with Library.open(library, Encoder.load()).writer():
        assert "earmark: " in earmark("ingest", song, *MY_RIGHTS, status=3).stderr
        earmark("remove", recording["id"], status=3)
        assert earmark.lines("query", "clip.wav")[0]["matches"]
    earmark("ingest", song, *MY_RIGHTS)


def test_a_library_that_is_not_there_is_not_made_by_a_question(
    earmark: Earmark, tmp_path: Path
) -> None:
    missing = tmp_path / "nothing"
    for command in (["query", "clip.wav"], ["list"], ["show", "x"], ["remove", "x"], ["info"]):
        done = earmark(*command, "--library", missing, status=3)
        assert str(missing) in done.stderr
        assert done.stdout == ""
    assert not missing.exists()


def test_a_library_of_another_encoder_is_refused(earmark: Earmark, tmp_path: Path) -> None:
    baseline = Path(benchmarks.__file__).parent / "data" / "linear.safetensors"
    encoder = Encoder.load(baseline)
    library = tmp_path / "other"
    Library.open(library, encoder, create=True)
    assert encoder.id in earmark("query", "clip.wav", "--library", library, status=3).stderr


def test_a_damaged_library_is_refused(earmark: Earmark, library: Path) -> None:
    for file in library.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    earmark("query", "clip.wav", status=3)


def test_the_library_may_be_named_before_or_after_the_command(
    earmark: Earmark, library: Path, tmp_path: Path
) -> None:
    elsewhere = {"EARMARK_LIBRARY": str(tmp_path / "nothing")}
    before = earmark.lines("--library", library, "list", environment=elsewhere)
    after = earmark.lines("list", "--library", library, environment=elsewhere)
    assert before == after != []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query"], "CLIP"),
        (["nonsense"], "nonsense"),
        (["query", "clip.wav", "--max-e-value", "-1"], "--max-e-value"),
        (["query", "clip.wav", "--jobs", "none"], "--jobs"),
        (["ingest", "songs", "--rightsholder", "Me", "--rights", "stolen"], "--rights"),
        (["ingest", "songs", *MY_RIGHTS, "--metadata", "missing.csv"], "missing.csv"),
        (["ingest", "songs", *MY_RIGHTS, "--metadata", "text.mp3"], "no column `file`"),
        (["fingerprint", "clip.wav", "-o", "clip.txt"], ".emk"),
        (["serve", "--host", "0.0.0.0"], "no keys yet"),
        (["serve", "--host", "example.org"], "no keys yet"),
        (["serve", "--port", "70000"], "--port"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    earmark: Earmark, arguments: list[str], message: str
) -> None:
    done = earmark(*arguments, status=2)
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_settings_come_from_flag_environment_and_file_in_this_order(
    earmark: Earmark, tmp_path: Path
) -> None:
    earmark.folder = tmp_path
    file = tmp_path / "own.toml"
    file.write_text('max_duration = "2 h"\nmax_upload = "1 GiB"\nport = 1\n')
    values = {
        row["name"]: row["value"]
        for row in earmark.lines(
            "--config", file, "settings", environment={"EARMARK_MAX_UPLOAD": "64 MiB"}
        )
    }
    assert values["max_duration"] == "2 h"
    assert values["max_upload"] == "64.0 MiB"
    assert values["max_size"] == "4.0 GiB"
    file.write_text("max_uplaod = 1\n")
    beside = {"EARMARK_CONFIG": str(file)}
    said = earmark("settings", status=2, environment=beside).stderr
    assert "max_uplaod, given by the configuration file" in said
    said = earmark("--config", "gone.toml", "settings", status=2).stderr
    assert "gone.toml: there is no such file" in said


def test_the_server_answers_over_http_and_stops(earmark: Earmark, music: Path) -> None:
    import httpx

    server = subprocess.Popen(
        earmark.command("serve", "--port", "0"),
        cwd=music,
        env=earmark.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    too_slow = threading.Timer(PATIENCE, server.kill)
    too_slow.start()
    try:
        assert server.stderr is not None
        serving = server.stderr.readline()
        assert "this machine only" in serving
        url = next(word for word in serving.split() if word.startswith("http://127.0.0.1:"))
        assert f"ready, with {SONGS} recordings" in server.stderr.readline()
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200
        with (music / "clip.wav").open("rb") as clip:
            answer = httpx.post(f"{url}/v1/query", files={"clip": clip}, timeout=PATIENCE).json()
        assert answer["matches"][0]["source"] == "song-1.flac"
        taken = earmark("serve", "--port", url.rpartition(":")[2], status=2)
        assert "choose another with --port" in taken.stderr
        server.send_signal(signal.SIGTERM)
        assert server.wait() in (0, -signal.SIGTERM)
    finally:
        too_slow.cancel()
        server.kill()
        server.wait()


def test_a_server_whose_library_cannot_be_used_ends(earmark: Earmark, library: Path) -> None:
    for file in library.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    earmark("serve", "--port", "0", status=3)
