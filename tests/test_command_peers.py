"""Systems that their users build themselves: their command lines, and what is said when they misbehave."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.peers import command
from benchmarks.peers.audfprint import Audfprint
from benchmarks.peers.base import PeerError
from benchmarks.peers.command import Call, CommandPeer, Found, run
from benchmarks.peers.olaf import Olaf
from benchmarks.peers.panako import Panako

SYSTEMS = (Audfprint, Olaf, Panako)


def install(name: str, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a Python script on the PATH as a command."""
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{script}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# --- what the programs print -----------------------------------------------------------------------------

# As the programs printed it over real music, but for names and a few numbers that are made harder.
AUDFPRINT = """\
Wed Nov 25 15:49:24 2026 Reading hash table index/hashes.pklz
Read fprints for 24 files ( 41878 hashes) from index/hashes.pklz (0.00% dropped)
Wed Nov 25 15:49:28 2026 Analyzed #0 clips/0006.flac of 4.481 s to 444 hashes
Matched clips/0006.flac 4.5 sec 444 raw hashes as /idx 7 as 8/works/1.ogg at   58.7 s \
with    83 of   376 common hashes at rank  0
Wed Nov 25 15:49:29 2026 Analyzed #1 clips/0010.flac of 0.000 s to 0 hashes
NOMATCH clips/0010.flac 0.0 sec 0 raw hashes
Wed Nov 25 15:49:28 2026 Analyzed #2 clips/0007.flac of 4.760 s to 391 hashes
Matched clips/0007.flac 4.8 sec 391 raw hashes as /idx 7 as 8/works/24.ogg at   -1.4 s \
with    13 of   180 common hashes at rank  1
Processed 3 files (9.0 s total dur) in 2.2 s sec = 0.246 x RT
"""

OLAF = """\
{
  "query_index": 1,
  "total_queries": 2,
  "query_path": "clips/0002.flac",
  "query_offset": 0.000,
  "fingerprints_matched": 25,
  "query_duration_seconds": 2.000,
  "fingerprints_per_second": 12.500,
  "search_time_seconds": 0.002,
  "realtime_factor": 1227.426,
  "matches": [
    {
      "match_count": 17,
      "query_start": 0.616,
      "query_stop": 0.648,
      "path": "/idx/works/1.ogg",
      "match_identifier": 2472892993,
      "reference_start": 88.088,
      "reference_stop": 88.120
    },
    {
      "match_count": 7,
      "query_start": 0.624,
      "query_stop": 0.696,
      "path": "/idx/works/12.ogg",
      "match_identifier": 3741512785,
      "reference_start": 84.096,
      "reference_stop": 84.168
    }
  ]
}
{
  "query_index": 2,
  "total_queries": 2,
  "query_path": "clips/0003.flac",
  "query_offset": 0.000,
  "fingerprints_matched": 20,
  "query_duration_seconds": 2.000,
  "fingerprints_per_second": 10.000,
  "search_time_seconds": 0.001,
  "realtime_factor": 1561.000,
  "matches": []
}
"""

PANAKO = """\
Processing 3 queries on 1 seperate threads.
Index; Total ; Query path;Query start (s);Query stop (s); Match path;Match id; Match start (s); \
Match stop (s); Match score; Time factor (%); Frequency factor(%); Seconds with match (%)
2 ; 3 ; /clips/0010.flac ; 0.000 ; 0.000 ; null ; null ; -1.000 ; -1.000 ; -1 ; -1.000 % ; -1.000 %; 0.00
1 ; 3 ; /clips/a ; b.flac ; 0.947 ; 7.947 ; /idx/works/3.ogg ; 3 ; 125.851 ; 132.851 ; \
100 ; 0.999 % ; 1.000 %; 1.14
3 ; 3 ; /clips/0009.flac ; 2.500 ; 7.723 ; /idx/works/1.ogg ; 1 ; 110.355 ; 115.635 ; \
12 ; 1.100 % ; 1.000 %; 0.50
"""


@pytest.mark.parametrize(
    ("peer", "output", "meaning"),
    [
        (Audfprint(), AUDFPRINT, [(0, Found(1, 58.7, 83)), (1, None), (2, Found(24, -1.4, 13))]),
        (
            Olaf(),
            OLAF,
            [(0, None), (0, Found(1, 87.472, 17)), (0, Found(12, 83.472, 7)), (1, None)],
        ),
        (Panako(), PANAKO, [(1, None), (0, Found(3, 124.905, 100)), (2, Found(1, 107.605, 12))]),
    ],
)
def test_what_a_program_prints_is_understood(
    peer: CommandPeer, output: str, meaning: list[tuple[int, Found | None]]
) -> None:
    understood = list(peer.understood(output))
    assert [clip for clip, _ in understood] == [clip for clip, _ in meaning]
    for (_, found), (_, meant) in zip(understood, meaning, strict=True):
        assert (found is None) == (meant is None)
        if found and meant:
            assert (found.work, found.score) == (meant.work, meant.score)
            assert found.reference_start == pytest.approx(meant.reference_start, abs=1e-3)


@pytest.mark.parametrize(
    ("peer", "stated"),
    [
        (Audfprint(), "20150406"),
        (Olaf(), "Olaf 2026.11.25 - Overly Lightweight Audio Fingerprinting"),
        (Panako(), "\nPanako Acoustic Fingerprinting, by user\n  Version: 2.1 - 2026-11-25"),
    ],
)
def test_versions_are_those_that_the_programs_state(
    peer: CommandPeer, stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(peer.name, f"print({stated!r})", tmp_path, monkeypatch)
    assert peer.missing() is None
    assert peer.version and peer.version in stated


@pytest.mark.parametrize("make", SYSTEMS)
def test_an_absent_command_is_named(
    make: type[CommandPeer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"no command {make.name} was found" in (make().missing() or "")
    with pytest.raises(PeerError, match=f"{make.name} cannot be measured"):
        make().ingest([], tmp_path / "index")


# --- how the programs are called -------------------------------------------------------------------------


def words(call: Call) -> list[str]:
    return [str(argument) for argument in call.arguments]


def test_audfprint_is_called_as_its_readme_says(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    index, names = tmp_path / "index" / "hashes.pklz", tmp_path / "works.txt"
    new = words(Audfprint().storing([], names, tmp_path))
    assert new == [
        "audfprint",
        "new",
        "--dbase",
        str(index),
        "--maxtime",
        "65536",
        "--list",
        str(names),
    ]
    index.touch()
    assert words(Audfprint().storing([], names, tmp_path))[1] == "add"
    clips = [tmp_path / "a.flac"]
    match = ["audfprint", "match", "--dbase", str(index)]
    assert words(Audfprint().matching(clips, tmp_path, open_gate=False)) == [*match, str(clips[0])]
    opened = words(Audfprint().matching(clips, tmp_path, open_gate=True))
    assert opened == [*match, "--min-count", "1", str(clips[0])]


def test_olaf_is_told_of_its_index_by_its_settings(tmp_path: Path) -> None:
    def settings(call: Call) -> str:
        return (Path(call.environment["HOME"]) / ".olaf" / "olaf_config.json").read_text()

    names = tmp_path / "works.txt"
    store = Olaf().storing([tmp_path / "1.ogg", tmp_path / "2.opus"], names, tmp_path)
    assert words(store) == ["olaf", "store", str(names)]
    assert f'"db_folder": "{tmp_path}/index/"' in settings(store)
    assert '[".ogg", ".opus"]' in settings(store)  # and the text file is a list of files
    ask = Olaf().matching([tmp_path / "a.flac"], tmp_path, open_gate=False)
    assert words(ask) == ["olaf", "query", "--format", "json", str(tmp_path / "a.flac")]
    assert "min_match_count" not in settings(ask)
    assert '"min_match_count": 1' in settings(
        Olaf().matching([tmp_path / "a.flac"], tmp_path, open_gate=True)
    )


def test_panako_is_told_of_its_index_by_arguments(tmp_path: Path) -> None:
    names = tmp_path / "works.txt"
    store = words(Panako().storing([], names, tmp_path))
    assert store[:3] == ["panako", "store", str(names)]
    assert {"STRATEGY=panako", f"PANAKO_LMDB_FOLDER={tmp_path}/index"} < set(store)
    clip = tmp_path / "a.flac"
    ask = words(Panako().matching([clip], tmp_path, open_gate=False))
    assert ask[:3] == ["panako", "query", str(clip)]
    opened = words(Panako().matching([clip], tmp_path, open_gate=True))
    assert opened[: len(ask)] == ask
    assert "PANAKO_MIN_MATCH_DURATION=0" in opened[len(ask) :]


# --- a command that misbehaves ---------------------------------------------------------------------------

# Takes in files and answers clips by what is written in them.
SCRIPT = """
import os, signal, sys, threading
do, *arguments = sys.argv[1:]
index = os.path.join("index", "names")
if do == "version":
    print("fake 1.5")
if do == "store":
    for name in open(arguments[0]).read().splitlines():
        text = open(name).read()
        if text == "odd":
            sys.exit("no such format")
        if text == "deadly":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "silent":
            sys.exit(4)
        open(index, "a").write(name + "\\n")
if do == "match":
    gate, *clips = arguments
    for number, clip in enumerate(clips):
        text = open(clip).read()
        if text == "deadly":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "endless":
            threading.Event().wait()
        if text == "odd":
            print("  File trace", "ValueError: no such format", "  more", sep="\\n", file=sys.stderr)
            sys.exit(1)
        if text == "babble":
            print("what?")
        elif text == "weak" and gate == "open":
            print(number, 1, 2)
        elif text in ("weak", "unknown"):
            print(number, 0, 0)
        elif text != "passed over":
            print(number, 1, 3)
            print(number, 2, 7)
            print(number, 1, 5)
"""


class Fake(CommandPeer):
    """Runs SCRIPT."""

    name = "fake"
    licence = "none"
    gate = "none"
    version_arguments = ("version",)
    version_pattern = r"fake (\S+)"

    def storing(self, works: Sequence[Path], names: Path, folder: Path) -> Call:
        return Call(["fake", "store", names])

    def matching(self, clips: Sequence[Path], folder: Path, *, open_gate: bool) -> Call:
        return Call(["fake", "match", "open" if open_gate else "shut", *clips])

    def understood(self, output: str) -> Iterator[tuple[int, Found | None]]:
        for line in output.splitlines():
            clip, work, score = map(int, line.split())
            yield clip, Found(work, 1.5, score) if work else None


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    install("fake", SCRIPT, tmp_path, monkeypatch)
    return Fake()


def files(folder: Path, *texts: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number} {text}.wav" for number, text in enumerate(texts)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def works(folder: Path, *texts: str) -> list[tuple[str, Path]]:
    return list(zip("abcdefgh", files(folder, *texts), strict=False))


def test_the_strongest_answer_is_given(fake: Fake, tmp_path: Path) -> None:
    fake.ingest(works(tmp_path / "works", "good", "good"), tmp_path / "index")
    assert fake.version == "1.5"
    assert fake.index_bytes() > 0
    assert fake.ingest_seconds > 0
    [answer] = fake.query(files(tmp_path / "clips", "good"))
    assert (answer.recording, answer.reference_start, answer.score) == ("b", 1.5, 7)
    assert answer.accepted
    assert answer.seconds > 0


def test_an_answer_that_the_gate_refuses_is_ranked_and_not_accepted(
    fake: Fake, tmp_path: Path
) -> None:
    fake.ingest(works(tmp_path / "works", "good", "good"), tmp_path / "index")
    good, weak, unknown = fake.query(files(tmp_path / "clips", "good", "weak", "unknown"))
    assert (good.recording, good.accepted) == ("b", True)
    assert (weak.recording, weak.score, weak.accepted) == ("a", 2, False)
    assert (unknown.recording, unknown.accepted, unknown.error) == (None, False, None)
    assert good.seconds == weak.seconds == unknown.seconds > 0


def test_a_crash_costs_one_answer(fake: Fake, tmp_path: Path) -> None:
    fake.ingest(works(tmp_path / "works", "good", "good"), tmp_path / "index")
    texts = ("good", "deadly", "good", "odd", "passed over", "babble", "good")
    answers = fake.query(files(tmp_path / "clips", *texts))
    assert [answer.recording for answer in answers] == ["b", None, "b", None, None, None, "b"]
    assert [answer.error for answer in answers if answer.error] == [
        "fake: killed by signal 11",
        "fake: ValueError: no such format",
        "fake said nothing of this clip",
        "fake: its answer cannot be understood (invalid literal for int() with base 10: 'what?')",
    ]


def test_a_hang_costs_one_answer(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.ingest(works(tmp_path / "works", "good", "good"), tmp_path / "index")
    monkeypatch.setattr(command, "BATCH", 1)
    [good] = fake.query(files(tmp_path / "clips", "good"))
    monkeypatch.setattr(command, "START_LIMIT", 1.0)
    monkeypatch.setattr(command, "CLIP_LIMIT", 0.0)
    [endless] = fake.query(files(tmp_path / "clips", "endless"))
    assert (good.recording, good.error) == ("b", None)
    assert (endless.recording, endless.error) == (None, "fake: no answer within 1 s")


def test_a_command_that_keeps_failing_is_not_asked_for_ever(fake: Fake, tmp_path: Path) -> None:
    fake.ingest(works(tmp_path / "works", "good", "good"), tmp_path / "index")
    answers = fake.query(files(tmp_path / "clips", *["deadly"] * (command.MOST_FAILED + 2)))
    assert all(answer.error for answer in answers)
    assert "not asked" in (answers[-1].error or "")


def test_works_that_cannot_be_taken_in_are_named(fake: Fake, tmp_path: Path) -> None:
    library = works(tmp_path / "works", "good", "deadly", "good", "odd", "silent", "good")
    fake.ingest(library, tmp_path / "index")
    assert fake.refused == {
        "b": "fake: killed by signal 11",
        "d": "fake: no such format",
        "e": "fake: ended with status 4",
    }
    again = Fake()
    again.ingest(library, tmp_path / "index")
    assert (again.refused, again.ingest_seconds) == (fake.refused, fake.ingest_seconds)
    with pytest.raises(PeerError, match="took in none of 1 works: fake: no such format"):
        fake.ingest([library[3]], tmp_path / "index")


def test_a_command_that_refuses_everything_is_given_up(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MOST_REFUSED", 2)
    with pytest.raises(PeerError, match="fake refused 3 works: fake: no such format"):
        fake.ingest(works(tmp_path / "works", *["odd"] * 6), tmp_path / "index")


def test_a_command_that_cannot_be_started_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("fake", "", tmp_path, monkeypatch)
    (tmp_path / "fake").write_text("#!/no/such/interpreter\n")
    assert "fake: [Errno 2]" in (Fake().missing() or "")


def test_what_a_hanging_command_started_is_ended_with_it(tmp_path: Path) -> None:
    lock, survived = tmp_path / "lock", tmp_path / "survived"
    # The child holds the lock as long as it lives: 30 s, unless it is ended.
    child = f"import pathlib, threading; threading.Event().wait(30); pathlib.Path({str(survived)!r}).touch()"
    script = (
        "import fcntl, subprocess, sys\n"
        f"held = open({str(lock)!r}, 'w')\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], pass_fds=[held.fileno()])\n"
    )
    with pytest.raises(PeerError, match="no answer within 1 s"):
        run(Call([sys.executable, "-c", script]), 1.0, tmp_path)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert not survived.exists()
