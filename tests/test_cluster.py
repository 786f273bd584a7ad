"""A library and a scan in a real Ray cluster: what is answered is what one machine answers, whoever dies."""

import csv
import hashlib
import json
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soxr
from command import Earmark
from embeddings import noisy, query, reference, track
from melodies import RATE, melody, write
from patience import PATIENCE, until
from webhdfs import served

from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint_samples
from index.errors import ClusterError, LibraryError
from index.library import Library
from index.recording import Metadata
from index.search import QUICK, THOROUGH
from service.jobs.scan_jobs import files_heard
from service.scan.journal import FILE as JOURNAL

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "earmark[cluster]"')

from ray._private import services  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from index.cluster import shards as cluster  # noqa: E402
from index.cluster.shards import Shards  # noqa: E402

ENCODER = Encoder.load()
TRACKS = 6
SOME_SEGMENTS = 2_000_000  # bytes that not all segments of the library have room in

# So that a dead node is known to be dead in a second or two, and shards are as quick as the rest of the tests
# on a busy machine: Ray's workers are nice otherwise.
HEALTH = {
    "worker_niceness": 0,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
NODE: dict[str, Any] = {
    "num_cpus": 1,
    "memory": 2 * 2**30,
    "object_store_memory": 100 * 2**20,
    "include_dashboard": False,
}


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """Ray gives a node 30 s to be there, which a busy machine does not always grant."""

    def get_node(*given: Any) -> Any:
        def look() -> Any:
            with suppress(RuntimeError):
                return asked(*given)

        return until(look)

    asked = services.get_node
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", get_node)
        yield


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A cluster of a head, which has only this process, and two nodes with a core each."""
    made = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "memory": 1, "_system_config": HEALTH},
    )
    for _ in range(2):
        made.add_node(**NODE)
    cluster.connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def victim(nodes: Cluster) -> Iterator[Any]:
    """A node that a test may kill; another takes its place."""
    node = nodes.list_all_nodes()[-1]
    yield node
    if node not in nodes.list_all_nodes():
        nodes.add_node(**NODE)


def heard(samples: Any, every: int, speed: float = 1.0) -> Fingerprint:
    """The fingerprint of a part of a tune, played at a speed, which changes its pitch too."""
    slower = soxr.resample(samples, RATE * speed, SAMPLE_RATE).astype(np.float32)
    made = fingerprint_samples(slower, ENCODER, every, "tune.wav")
    return replace(made, sha256=hashlib.sha256(slower).hexdigest())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of six tracks and two tunes, a segment each, one removed, one private."""
    folder = tmp_path_factory.mktemp("cluster") / "library"
    library = Library.open(folder, ENCODER, create=True)
    made = {str(n): reference(ENCODER, track(ENCODER, n, 60), f"{n}.flac") for n in range(TRACKS)}
    # sound of which every moment is there twice: of equal neighbours, too, the same are found
    made["twice"] = reference(ENCODER, np.concatenate(2 * [track(ENCODER, 1, 40)]), "twice.flac")
    made |= {f"song-{n}": heard(melody(n), REFERENCE_EVERY) for n in range(2)}
    for name, fingerprint in made.items():
        with library.writer(merge=False) as writer:
            private = name == "3"
            metadata = Metadata(
                fingerprint.source,
                "Me",
                "owned",
                id=name,
                private=private,
                owner="a" if private else None,
            )
            writer.add(fingerprint, metadata)
    with library.writer(merge=False) as writer:
        writer.remove("4")
    library.close()
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Library:
    return Library.open(folder, ENCODER)


def sharded(folder: Path, encoder: Encoder = ENCODER, **options: Any) -> Library:
    given = {"where": str(folder / "segments"), "most": SOME_SEGMENTS} | options
    return Library.open(folder, encoder, shards=Shards(encoder=encoder, **given))


@pytest.fixture(scope="module")
def together(nodes: Cluster, folder: Path) -> Iterator[Library]:
    """The same library, in several shards."""
    library = sharded(folder)
    yield library
    library.close()


def clip(number: int, amount: float = 0.8) -> Fingerprint:
    """6 s of a track, in noise."""
    return query(ENCODER, noisy(track(ENCODER, number, 60)[200:260], number, amount))


CLIPS = {
    **{f"track {n}": clip(n) for n in range(TRACKS)},
    "two tracks": query(
        ENCODER, np.concatenate([track(ENCODER, 0, 60)[100:250], track(ENCODER, 2, 60)[300:450]])
    ),
    "as it is": heard(melody(0)[4 * RATE : 9 * RATE], QUERY_EVERY),
    "altered": heard(melody(1)[7 * RATE : 12 * RATE], QUERY_EVERY, speed=1.06),
}


def ask(library: Library, clip: Fingerprint, **options: Any) -> tuple[Any, float]:
    """The matches, and the share of the library that answered."""
    matches, snapshot = library.search(clip, **options)
    return matches, snapshot.answered


@pytest.mark.parametrize("name", CLIPS)
def test_shards_answer_as_one_machine_does(name: str, alone: Library, together: Library) -> None:
    for options in ({}, {"effort": QUICK}, {"owner": "a"}, {"owner": "b", "hypotheses": 0}):
        given = {"max_e_value": 1e3, "effort": THOROUGH, **options}
        expected, whole = ask(alone, CLIPS[name], **given)
        assert ask(together, CLIPS[name], **given) == (expected, whole) and whole == 1.0
        assert expected or name in ("track 3", "track 4")


def test_what_is_added_and_removed_is_seen(folder: Path, nodes: Cluster, tmp_path: Path) -> None:
    here = Library.open(tmp_path / "library", ENCODER, create=True)
    library = sharded(tmp_path / "library")
    assert ask(library, clip(0)) == ([], 1.0)
    with here.writer() as writer:
        writer.add(
            reference(ENCODER, track(ENCODER, 0, 60)), Metadata("a.flac", "Me", "owned", id="0")
        )
    assert [match.recording for match in ask(library, clip(0))[0]] == ["0"]
    with here.writer() as writer:
        writer.remove("0")
    assert ask(library, clip(0)) == ([], 1.0)
    library.close()


def test_segments_may_lie_in_an_object_store(nodes: Cluster, folder: Path, alone: Library) -> None:
    library = sharded(folder, where=f"file://{folder}/segments", most=10**7)
    assert ask(library, clip(0)) == ask(alone, clip(0))
    library.close()


def until_whole(library: Library, clip: Fingerprint) -> Iterator[tuple[Any, float]]:
    """Ask until a part of the library has been missing, and is there again."""
    missed = False
    while True:
        matches, answered = ask(library, clip)
        yield matches, answered
        missed |= answered < 1
        if missed and answered == 1:
            return


def test_a_node_that_dies_is_missed_and_comes_back(
    nodes: Cluster, victim: Any, folder: Path, alone: Library
) -> None:
    clip = CLIPS["two tracks"]
    library = sharded(folder)
    expected, _ = ask(alone, clip)
    assert {match.recording for match in expected} == {"0", "2"}
    shares = set()
    for number, (matches, answered) in enumerate(until_whole(library, clip)):
        if number == 1:
            nodes.remove_node(victim, allow_graceful=False)
        if answered < 1 and len(nodes.list_all_nodes()) == 2:
            nodes.add_node(**NODE)
        shares.add(answered)
        # what is found is what is there, and nothing of what answered is left out
        assert [match for match in expected if match in matches] == matches
        assert answered < 1 or matches == expected
    assert min(shares) > 0
    library.close()


def test_a_replica_answers_for_a_node_that_dies(
    nodes: Cluster, victim: Any, folder: Path, alone: Library
) -> None:
    library = sharded(folder, replicas=2, most=10**7)
    expected = ask(alone, clip(0))
    for number in range(6):
        if number == 2:
            nodes.remove_node(victim, allow_graceful=False)
        assert ask(library, clip(0)) == expected
    library.close()


def test_a_shard_of_another_encoder_is_refused(nodes: Cluster, folder: Path) -> None:
    other = copy(ENCODER)
    other.id = "other"
    with pytest.raises(
        ClusterError, match=f"{ENCODER.id}, here is .* with other; install the same"
    ):
        shards = Shards(str(folder / "segments"), other, most=10**7)
        shards.hold([cluster.SegmentRow(1, 120, "", "")])


def test_a_library_that_the_cluster_has_no_room_for_is_refused(
    nodes: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "STARTED_WITHIN", 3.0)
    with pytest.raises(ClusterError, match=r"no room for 1 of 1 shards of 10\.30 GB"):
        sharded(folder, most=10**10)


def test_a_folder_that_the_nodes_do_not_have_is_told(nodes: Cluster, folder: Path) -> None:
    with pytest.raises(LibraryError, match=r"nowhere/.*this segment is missing"):
        sharded(folder, where="/nowhere")


@pytest.fixture
def command(folder: Path, tmp_path: Path) -> Earmark:
    write(tmp_path / "clip.wav", melody(1)[7 * RATE : 12 * RATE])
    return Earmark(tmp_path, folder)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: no Ray cluster answers there (.*refused.*ray start --head"),
        ("nonsense", "nonsense: is no address of a Ray cluster; give host:port, or auto"),
    ],
)
@pytest.mark.parametrize("what", [["query", "clip.wav"], ["scan", "clip.wav", "--report", "r"]])
def test_no_cluster_at_the_address(
    address: str, said: str, what: list[str], command: Earmark
) -> None:
    error = command(*what, "--ray", address, status=3).stderr
    assert said.split("(")[0] in error and len(error.splitlines()) == 1
    assert not (command.folder / "r").exists()


def test_something_else_at_the_address(command: Earmark, tmp_path: Path) -> None:
    with served(tmp_path) as url:
        address = url.partition("://")[2]
        error = command("query", "clip.wav", "--ray", address, status=3).stderr
    assert f"{address}: no Ray cluster answers there (something else does)" in error


# The command where a module is not installed, or is of another version.
WITHOUT = "import sys; sys.modules['ray'] = None"
ANOTHER = "import ray; ray.__version__ = '2.0.0'"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (WITHOUT, 'needs Ray: pip install "earmark[cluster]"'),
        (ANOTHER, "the Ray cluster cannot be joined: Version mismatch"),
    ],
)
def test_another_ray_or_none(before: str, said: str, nodes: Cluster, command: Earmark) -> None:
    words = command.command("query", "clip.wav", "--ray", nodes.address)
    started = f"{before}; from service.command import main; main(prog_name='earmark')"
    words[2:4] = ["-c", started]  # instead of -m earmark
    done = subprocess.run(words, cwd=command.folder, env=command.environment, capture_output=True)
    assert done.returncode == 3
    assert said in done.stderr.decode() and len(done.stderr.splitlines()) == 1


def test_the_command_asks_the_cluster(nodes: Cluster, command: Earmark) -> None:
    (alone,) = command.lines("query", "clip.wav")
    (answer,) = command.lines("query", "clip.wav", "--ray", nodes.address)
    assert answer["matches"] == alone["matches"] != []
    assert answer["library"] == alone["library"] and "answered" not in alone["library"]


def test_the_server_asks_the_cluster(nodes: Cluster, command: Earmark, tmp_path: Path) -> None:
    (alone,) = command.lines("query", "clip.wav")
    with (
        command.server(EARMARK_RAY=nodes.address) as address,
        (tmp_path / "clip.wav").open("rb") as file,
    ):
        answer = httpx.post(f"{address}/v1/query", files={"clip": file}, timeout=PATIENCE).json()
    assert answer["matches"] == alone["matches"]
    assert answer["library"] == alone["library"]


def report(folder: Path) -> tuple[list[dict[str, str]], ...]:
    return tuple(
        list(csv.DictReader((folder / f"{name}.csv").open(newline="")))
        for name in ("files", "segments", "errors")
    )


def test_a_scan_is_the_same_when_a_node_dies_in_it(
    nodes: Cluster, victim: Any, command: Earmark, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    for number in range(8):
        sound = melody(number % 3, 20.0)[number * 4000 : number * 4000 + 8 * RATE]
        write(dataset / f"{number:02d}.flac", sound)
    (dataset / "broken.mp3").write_text("This is a letter, not music.\n" * 20)
    (dataset / "copy.flac").write_bytes((dataset / "00.flac").read_bytes())
    command("scan", dataset, "--report", "alone", status=1)
    words = command.command(
        "scan", dataset, "--report", "disturbed", "--ray", nodes.address, "--jobs", "2"
    )
    scan = subprocess.Popen(words, cwd=command.folder, env=command.environment)
    until(lambda: done(tmp_path / "disturbed") >= 3 or scan.poll() is not None)
    assert scan.poll() is None
    nodes.remove_node(victim, allow_graceful=False)
    assert scan.wait() == 1
    assert report(tmp_path / "disturbed") == report(tmp_path / "alone")
    summaries = [
        json.loads((tmp_path / it / "summary.json").read_text()) for it in ("alone", "disturbed")
    ]
    for summary in summaries:
        for name in ("elapsed_seconds", "real_time_factor", "begun_at", "made_at"):
            del summary[name]
    assert summaries[0] == summaries[1] and summaries[0]["files"] == 10


def test_the_cluster_scans_a_dataset_at_a_url(
    nodes: Cluster, command: Earmark, tmp_path: Path
) -> None:
    (tmp_path / "dump").mkdir()
    write(tmp_path / "dump" / "0.flac", melody(0, 20.0)[4 * RATE : 12 * RATE])
    with zipfile.ZipFile(tmp_path / "dump" / "1.zip", "w") as archive:
        archive.write(tmp_path / "clip.wav", "deep/clip.wav")
    (tmp_path / "dump" / "2.mp3").write_text("This is a letter, not music.\n" * 20)
    command("scan", tmp_path / "dump", "--report", "alone", status=1)
    with served(tmp_path) as url:
        words = ("scan", f"{url}/dump", "--report", "far", "--ray", nodes.address, "--jobs", "1")
        command(*words, status=1)
    assert report(tmp_path / "far") == report(tmp_path / "alone")
    assert len(report(tmp_path / "far")[1]) == 2


def done(report: Path) -> int:
    """Members that a scan's journal has."""
    return files_heard(report / JOURNAL)
