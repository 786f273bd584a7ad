"""Processes that do the dangerous work: what they cannot reach, and what their end costs."""

import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from service.runtime.workers import Bounds, Workers


def _nothing() -> None:
    pass


def _reach(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except OSError as error:
        return type(error).__name__
    return "reached"


def _who() -> tuple[int, int]:
    return os.getpid(), os.getuid()


def _may_leave_the_network() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and any(
        subprocess.run([unshare, *how, "true"], capture_output=True).returncode == 0
        for how in (["--net"], ["--user", "--net"])
    )


@pytest.mark.skipif(not _may_leave_the_network(), reason="this system keeps its network to all")
def test_a_worker_reaches_nothing_not_even_on_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Workers(1, Bounds(60), _nothing) as it:
        port = server.getsockname()[1]
        assert _reach(port) == "reached"
        assert it.submit(_reach, port).result() in ("PermissionError", "OSError")
        assert it.submit(_who).result()[1] == os.getuid()


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_costs_nothing() -> None:
    others = set(threading.enumerate())
    with Workers(1, Bounds(60), _nothing) as workers:
        first, _ = workers.submit(_who).result()
        os.kill(first, signal.SIGKILL)
        for thread in set(threading.enumerate()) - others:  # until its end has been noticed
            if type(thread).__name__ == "_ExecutorManagerThread":
                thread.join()
        second, _ = workers.submit(_who).result()
        assert second != first
