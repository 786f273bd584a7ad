"""Jobs, files and settings at the door: what is foreign, broken, late or hostile costs itself alone."""

import io
import os
import socket
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sql
import zstandard
from command import Earmark
from conftest import BOTH
from melodies import SONGS, melody, write
from patience import until
from server import Server
from webhdfs import serving

from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from index.key import Key
from index.library import Library
from service.datasets import limits
from service.datasets.location import DatasetError, place
from service.datasets.walk import members, read_container
from service.jobs import job_table as jobs
from service.jobs.scan_jobs import Scans
from service.runtime.asker import Asker
from service.runtime.reading import Reader
from service.runtime.settings import Settings, load_settings
from service.runtime.workers import Bounds, Workers

NOBODY = Asker(None)


def made(path: Path) -> tuple[Library, str]:
    """A library, and its id."""
    library = Library.open(path, Encoder.load(), create=True)
    return library, library.id()


def asked(scans: Scans, name: str = "a.wav", asker: Asker = NOBODY) -> str:
    return scans.ask(io.BytesIO(b"RIFF"), name, {}, asker).id


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scans]:
    """Scans of a library that are kept and not run."""
    monkeypatch.setattr(Scans, "_work", lambda self: None)
    _, id = made(tmp_path / "library")
    scans = Scans(Settings(library=tmp_path / "library"))
    scans.start(id)
    yield scans
    scans.stop()


# Jobs


def test_two_servers_in_one_folder_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    song = write(tmp_path / "song.wav", melody(3, 2.0)).read_bytes()
    with Server(library=Path("one")) as one, Server(library=Path("two")) as two:
        url = one.post("/v1/scans", files={"dataset": ("song.wav", song)}).headers["location"]
        assert two.get(url).status_code == 404
        assert two.get("/v1/scans").json()["scans"] == []
        assert one.delete(url).status_code == 204
    assert sorted(it.name for it in tmp_path.iterdir()) == ["one", "song.wav", "two"]


def test_a_job_of_another_library_is_neither_shown_nor_run(waiting: Scans, tmp_path: Path) -> None:
    id = asked(waiting)
    engine = sql.create_engine(f"sqlite:///{tmp_path}/library/jobs/jobs.sqlite")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE scans SET library = 'another'")
    assert waiting.page(NOBODY).scans == []
    assert waiting._in_turn() == []
    assert waiting._find(id) is None


@BOTH
def test_two_servers_of_one_library_do_nothing_twice(
    library: Path, database: sql.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(self: Scans, row: sql.Row) -> tuple[int, list[str]]:
        ran.append(row.id)
        return 1, ["it is not a sound"]

    monkeypatch.setattr(Scans, "_run", run)
    opened = Library.open(library, Encoder.load(), url=database)
    both = [Scans(Settings(library=library, database=database)) for _ in range(2)]
    for each in both:
        each.start(opened.id())
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda number: asked(both[number % 2]), range(8)))
    until(lambda: both[0].unfinished() == 0)
    for each in both:
        each.stop()
    assert sorted(ran) == sorted(ids)


def test_a_job_that_cannot_be_started_has_failed_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jobs.subprocess, "Popen", full)
    _, id = made(tmp_path / "library")
    scans = Scans(Settings(library=tmp_path / "library"))
    scans.start(id)
    one = asked(scans)
    until(lambda: scans.get(one, NOBODY).state == "failed")
    assert "No space left on device" in str(scans.get(one, NOBODY).error)
    scans.stop()


def test_a_job_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_START", "import signal; signal.pause()")
    _, id = made(tmp_path / "library")
    settings = Settings(library=tmp_path / "library", max_job_time=timedelta(seconds=0.1))
    scans = Scans(settings)
    scans.start(id)
    one = asked(scans)
    until(lambda: scans.get(one, NOBODY).state == "failed")
    assert "not done after" in str(scans.get(one, NOBODY).error)
    scans.stop()


def test_a_job_that_does_not_end_is_killed_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = (
        "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    )
    monkeypatch.setattr(jobs, "_START", stubborn + "\nwhile True: signal.pause()")
    begun: list[str] = []
    monkeypatch.setattr(Scans, "heard", lambda self, row, line: begun.append(row.id))
    _, id = made(tmp_path / "library")
    settings = Settings(library=tmp_path / "library", stop_within=timedelta(seconds=0.2))
    scans = Scans(settings)
    scans.start(id)
    one = asked(scans)
    until(lambda: begun == [one])
    scans.stop()
    again = Scans(settings)
    monkeypatch.setattr(Scans, "_work", lambda self: None)
    again.start(id)
    assert again.get(one, NOBODY).state == "running", "the next server goes on with it"
    again.stop()


def test_owners_take_turns(waiting: Scans) -> None:
    ada, bo = (Asker(Key(owner, owner, "query", "2026-01-01")) for owner in ("ada", "bo"))
    first, second = asked(waiting, asker=ada), asked(waiting, asker=ada)
    third = asked(waiting, asker=bo)
    assert waiting._in_turn() == [first, second, third]
    with waiting._begin() as connection:
        table = waiting._jobs
        started = sql.update(table).where(table.c.id == first)
        connection.execute(started.values(state="done", started_at="2026-01-01T00:00:00"))
    assert waiting._in_turn() == [third, second]


def test_what_is_old_is_forgotten_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scans, "_work", lambda self: None)
    monkeypatch.setattr(jobs, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(jobs, "_FORGET_EVERY", 0.0)
    _, id = made(tmp_path / "library")
    scans = Scans(Settings(library=tmp_path / "library", keep_scans=timedelta(seconds=1)))
    scans.start(id)
    one = asked(scans)
    scans.end(one, "cancelled")
    with scans._begin() as connection:
        connection.execute(sql.update(scans._jobs).values(finished_at="2026-01-01T00:00:00+00:00"))
    until(lambda: scans.page(NOBODY).scans == [])
    scans.stop()


def test_jobs_are_listed_page_by_page(waiting: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAGE", 2)
    ids = [asked(waiting) for _ in range(5)]
    listed, cursor = [], None
    while True:
        page = waiting.page(NOBODY, cursor)
        assert len(page.scans) <= 2
        listed += [it.id for it in page.scans]
        if (cursor := page.next_cursor) is None:
            break
    assert listed == ids[::-1]


@pytest.mark.parametrize("name", ["a" * 300 + ".wav", "é" * 140 + ".wav", "猫" * 90 + ".wav"])
def test_a_name_that_no_file_can_have_is_still_taken(name: str, waiting: Scans) -> None:
    id = asked(waiting, name)
    assert waiting.get(id, NOBODY).name == name


@pytest.mark.parametrize("name", ["a?mode=ro", "b#c", "d%20e"])
def test_a_library_may_be_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "library"
    with Server(library=path) as client:
        sent = {"dataset": ("x.wav", b"RIFF")}
        url = client.post("/v1/scans", files=sent).headers["location"]
        until(lambda: client.get(url).json()["state"] in ("done", "failed"))
        assert client.get(url).json()["state"] == "done"
        errors = client.get(f"{url}/report/errors.csv").text
        assert "x.wav" in errors and str(tmp_path) not in errors
    assert sorted(it.name for it in tmp_path.iterdir()) == [name]


def test_the_files_of_a_library_are_their_owners(library: Path, earmark: Earmark) -> None:
    earmark("ingest", "clip.wav", "--rightsholder", "Me", "--rights", "owned")
    fresh = library.parent / "fresh"
    made(fresh)
    with Server(library=fresh) as client:
        sent = {"dataset": ("x.wav", b"RIFF")}
        url = client.post("/v1/scans", files=sent).headers["location"]
        until(lambda: client.get(url).json()["state"] == "done")
    for path in (fresh, *fresh.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, f"{path}: {mode:o}"


# Stopping


def test_a_server_stops_in_time_whatever_is_being_sent(earmark: Earmark, library: Path) -> None:
    process = subprocess.Popen(
        earmark.command("serve", "--port", "0"),
        cwd=earmark.folder,
        env=earmark.environment | {"EARMARK_STOP_WITHIN": "2 s", "EARMARK_JOBS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "ready, with" in line:
            break
    host, port = said.partition("http://")[2].partition(" ")[0].split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/query HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100000\r\n"
        kind = "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        connection.sendall((head + kind).encode())
        with Server(library=library.parent / "other"):  # by then it has come
            pass
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode is not None


# Bombs


MANY = 2**22  # bytes of a member of a bomb


def small(path: Path) -> Path:
    assert path.stat().st_size < MANY // 100
    return path


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small files that unpack to very much."""
    folder = tmp_path_factory.mktemp("bombs")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.wav")
            info.size = MANY
            archive.addfile(info, io.BytesIO(bytes(MANY)))
    (folder / "a.tar.zst").write_bytes(zstandard.compress(tar.getvalue(), 3))
    del tar
    with zipfile.ZipFile(folder / "b.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(8):
            packed.writestr(f"{number}.wav", bytes(MANY))
    table = pa.table({"audio": pa.array(64 * [bytes(MANY // 64)], pa.binary())})
    with pq.ParquetWriter(folder / "c.parquet", table.schema, compression="zstd") as writer:
        for _ in range(8):
            writer.write_table(table)
    row = b"{}\n"
    (folder / "d.jsonl.zst").write_bytes(zstandard.compress(row * (MANY // len(row)), 3))
    return {it.name: small(it) for it in folder.iterdir()}


@pytest.mark.parametrize("name", ["a.tar.zst", "b.zip", "c.parquet", "d.jsonl.zst"])
def test_what_unpacks_to_very_much_is_given_up(
    name: str, bombs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_IN_MEMORY", 2 * MANY)
    problems, unpacked = [], 0
    for member in read_through(bombs[name]):
        if member.problem is None:
            unpacked += member.held
        else:
            problems.append(member.problem.detail)
    told = ("of almost nothing", "far more than the archive can hold")
    assert any(word in it for it in problems for word in told), problems[-1:]
    assert unpacked < 3 * MANY


def read_through(path: Path) -> Iterator[Any]:
    """Members of a dataset; of rows that name nothing, of which there are many, the last few."""
    last: list[Any] = []
    for member in members(path):
        if member.problem is not None and "names no file" in member.problem.detail:
            continue
        last.append(member)
        yield member


def test_containers_read_apart_are_what_they_are_read_here(tmp_path: Path, music: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(music / "clip.wav", "clip.wav")
        archive.add(music / "text.mp3", "text.mp3")
    (tmp_path / "b.zip").write_bytes(b"PK no zip file")
    pq.write_table(pa.table({"title": ["x"]}), tmp_path / "c.parquet")
    here = list(members(tmp_path))
    with Reader() as reader:
        apart = list(members(tmp_path, reader.read))

    def told(found: list[Any]) -> list[Any]:
        return [(it.file, it.member, it.index, it.source, str(it.problem)) for it in found]

    assert told(apart) == told(here) and len(here) == 3


def test_a_reader_that_takes_too_much_costs_its_container_alone(
    tmp_path: Path, music: Path
) -> None:
    rows = {"audio": [{"bytes": bytes(2**20) * 200, "path": "a.wav"}]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(music / "clip.wav", "clip.wav")
    with Reader(memory=150 * 2**20) as reader:
        bad, good = members(tmp_path, reader.read)
    assert bad.problem is not None and "is damaged" in bad.problem.detail
    assert good.member == "clip.wav" and good.problem is None
    assert len(list(read_container(tmp_path / "b.tar", "b.tar"))) == 1


# Workers


def _nothing() -> None:
    pass


def _tries(folder: Path, target: str) -> list[str]:
    """What a worker is refused."""
    refused = []
    for name, attempt in {
        "write": lambda: (folder / "new").write_text("x"),
        "change": lambda: (folder / "there").write_text("x"),
        "remove": lambda: (folder / "there").unlink(),
        "start": lambda: subprocess.run(["true"], check=True),
        "socket": lambda: socket.socket(),
        "signal": lambda: os.kill(os.getppid(), 0),
        "read": lambda: (folder / "there").read_text(),
    }.items():
        try:
            attempt()
        except OSError:
            refused.append(name)
    return refused


def test_a_worker_reads_and_does_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("there")
    with Workers(1, Bounds(60.0), _nothing) as workers:
        refused = workers.submit(_tries, tmp_path, "").result()
    assert refused == ["write", "change", "remove", "start", "socket", "signal"]
    with Workers(1, Bounds(60.0, writable=(tmp_path,)), _nothing) as workers:
        assert workers.submit(_tries, tmp_path, "").result() == [
            "start",
            "socket",
            "signal",
            "read",
        ]


def _for_ever() -> None:
    while True:
        pass


def test_a_piece_of_work_may_have_less_time_than_others() -> None:
    with Workers(1, Bounds(600.0), _nothing) as workers:
        with pytest.raises(AudioError, match=r"not done after 0\.2 s"):
            workers.submit_within(0.2, _for_ever).result()
        assert workers.submit(os.getpid).result()


# Settings


def test_settings_of_the_current_folder_are_ignored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EARMARK_{name.upper()}", raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    hostile = Path("earmark.toml")
    hostile.write_text('ray = "evil.example:6379"\nisolate = false\n')
    settings = load_settings()
    assert (settings.ray, settings.isolate) == (None, True)
    assert "earmark.toml in the current folder is ignored" in caplog.text
    caplog.clear()
    assert load_settings(config="earmark.toml").ray == "evil.example:6379"
    monkeypatch.setenv("EARMARK_CONFIG", str(hostile))
    told = load_settings()
    assert told.isolate is False and not caplog.text
    assert told.as_environment()["EARMARK_CONFIG"] == str(tmp_path / "earmark.toml")
    monkeypatch.delenv("EARMARK_CONFIG")
    (home / "earmark").mkdir(parents=True)
    (home / "earmark" / "earmark.toml").write_text("port = 4711\n")
    assert load_settings().port == 4711


# Web servers


class _Elsewhere(BaseHTTPRequestHandler):
    """Sends whoever asks to another name of this machine, or into folders without end."""

    def do_GET(self) -> None:
        port = self.headers["Host"].partition(":")[2]
        if self.path.startswith("/deep/"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'<a href="down/">down/</a>')
            return
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{port}/secret.wav")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server_leads_nowhere_else_and_not_for_ever() -> None:
    with serving(_Elsewhere) as address:
        with pytest.raises(DatasetError, match=r"another server, localhost, .* not followed"):
            list(members(place(f"http://{address}/song.wav")))
        found = list(members(place(f"http://{address}/deep/")))
        assert [it.problem is not None for it in found] == [True]
        assert "folders deep" in str(found[0].problem)


def test_metrics_have_an_address_of_their_own(earmark: Earmark) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (made,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "query")
    with earmark.server(EARMARK_METRICS_PORT=str(port)) as address:
        assert httpx.get(f"{address}/metrics").status_code == 401
        with_key = {"Authorization": f"Bearer {made['key']}"}
        assert httpx.get(f"{address}/metrics", headers=with_key).status_code == 403
        told = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert f"earmark_recordings {SONGS}.0" in told
