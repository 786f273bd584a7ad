"""The command without what its start takes: a process that has imported and compiled all forks one for each.

What runs is the same code in a process of its own, with the arguments, folder, environment and streams that
it is given. Its start is most of what a command costs, and the tests run hundreds.
"""

import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread

from patience import PATIENCE

# Ray's client and what trains do not belong to most commands; the first does not survive a fork either.
_LEFT_OUT = (
    "index.cluster.shards",
    "service.runtime.ray_nodes",
    "fingerprint.training",
    "index.migrations",
)


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: bytes
) -> tuple[int, bytes, bytes]:
    """Exit status (negative: of a signal), standard output and error of `earmark ARGUMENTS`."""
    address, _ = _parent()
    reading, writing = os.pipe()
    with (
        os.fdopen(reading) as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        Thread(target=_feed, args=(writing, stdin), daemon=True).start()
        connection.settimeout(PATIENCE)
        connection.connect(address)
        asked = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
        streams = [it.fileno() for it in (given, out, err)]
        socket.send_fds(connection, [len(asked).to_bytes(4)], streams)
        connection.sendall(asked)
        status = connection.recv(4)
        assert len(status) == 4, "the process that runs commands is gone"
        out.seek(0)
        err.seek(0)
        return int.from_bytes(status, signed=True), out.read(), err.read()


def _feed(writing: int, stdin: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(writing, "wb") as given:
        given.write(stdin)


@cache
def _parent() -> tuple[str, "subprocess.Popen[bytes]"]:
    """The process that commands are forked from, and where it listens; it ends with this one."""
    address = str(Path(tempfile.mkdtemp(prefix="earmark-commands-")) / "socket")
    clean = {name: text for name, text in os.environ.items() if not name.startswith("EARMARK_")}
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        env=clean | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.read(1) == b"."
    return address, process


def _fork_for_each(address: str) -> None:
    """Serve until standard input ends; returns in the processes that are to run a command."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    os.write(1, b".")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:  # who started it has ended
            shutil.rmtree(Path(address).parent)
            os._exit(0)
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        asked = b""
        while len(asked) < int.from_bytes(size):
            asked += connection.recv(int.from_bytes(size) - len(asked))
        arguments, folder, environment = json.loads(asked)
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))
            os._exit(0)
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["earmark", *arguments]
        return


def _import_everything() -> None:
    import service.cli.group  # noqa: F401  before NumPy: it says how many threads that has

    for package in ("fingerprint", "index", "service"):
        module = importlib.import_module(package)
        for found in pkgutil.walk_packages(module.__path__, f"{package}."):
            if not found.name.startswith(_LEFT_OUT):
                importlib.import_module(found.name)


def _compile_everything() -> None:
    """Ask a library of one sound about it, and about another: all kernels are there then."""
    import numpy as np
    import soundfile

    from fingerprint.cores import pool
    from fingerprint.encoder import Encoder
    from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint
    from index.library import Library
    from index.recording import Metadata

    encoder = Encoder.load()
    noise = np.random.default_rng(0).standard_normal((2, 8000 * 8)) / 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, sound in enumerate(noise):
            soundfile.write(folder / f"{number}.wav", sound, 8000)
        library = Library.open(folder / "library", encoder, create=True)
        with library.writer() as writer:
            made = fingerprint(folder / "0.wav", encoder, REFERENCE_EVERY)
            writer.add(made, Metadata("0.wav", "Me", "owned", id="0"))
        for number in range(2):
            library.search(fingerprint(folder / f"{number}.wav", encoder, QUERY_EVERY))
        library.close()
    pool().shutdown()
    pool.cache_clear()


if __name__ == "__main__":
    _import_everything()
    _compile_everything()
    if len(sys.argv) > 1:
        from service.command import main

        _fork_for_each(sys.argv[1])
        main(prog_name="earmark")
