"""The server is what its description at /openapi.json says, whatever Schemathesis makes up to send it.

make described CASES=1000      # as many for every route, where the tests make do with a few
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from command import Earmark
from conftest import BOTH
from patience import PATIENCE

CASES = os.environ.get("CASES", "5")
HERE = Path(__file__).parent


@pytest.fixture
def key(earmark: Earmark) -> str:
    """A key that may do everything."""
    (made,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "admin")
    return str(made["key"])


@pytest.fixture
def address(earmark: Earmark, key: str) -> Iterator[str]:
    """Where a server of this test's own library is."""
    with earmark.server(EARMARK_REQUESTS_PER_MINUTE="0") as address:
        yield address


@BOTH
def test_nothing_is_answered_that_is_not_described(
    address: str, key: str, music: Path, tmp_path: Path
) -> None:
    client = httpx.Client(
        base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE
    )
    dataset = {"dataset": (music / "clip.wav").open("rb")}
    assert client.post("/v1/scans", files=dataset).status_code == 202
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "--no-color"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{address}/openapi.json", "--header", f"Authorization: Bearer {key}"),
            *("--checks", "all", "--max-examples", CASES, "--seed", "1", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    counted = client.get("/metrics").text
    for method, route, status in (
        ("POST", "/v1/query", 200),
        ("POST", "/v1/recordings", 201),
        ("PATCH", "/v1/recordings/{recording_id:path}", 200),
        ("GET", "/v1/scans/{scan_id}", 200),
        ("POST", "/v1/keys", 201),
    ):
        labels = f'{{method="{method}",route="{route}",status="{status}"}}'
        assert f"earmark_request_seconds_count{labels}" in counted, "too few cases to count"
