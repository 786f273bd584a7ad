"""What the clients of `benchmarks.soak.load` do, run by locust: ask about a clip; once answered, ask again.

A client that is refused with Retry-After comes again after so many seconds. What became of each request is
written to the file that EARMARK_LOAD_OUT names, as a list of JSON objects; clips are those of
EARMARK_LOAD_CLIPS.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, events, task

PATIENCE = 120.0  # s after which a client gives up

_clips = [(it.name, it.read_bytes()) for it in Path(os.environ["EARMARK_LOAD_CLIPS"]).iterdir()]
_asked: list[dict[str, Any]] = []


class Client(HttpUser):
    """One of many."""

    @task
    def ask(self) -> None:
        """Ask about a clip."""
        name, clip = random.choice(_clips)
        started = time.time()
        with self.client.post(
            "/v1/query", files={"clip": (name, clip)}, timeout=PATIENCE, catch_response=True
        ) as response:
            seconds = time.time() - started
            again = response.headers.get("Retry-After") if response.headers else None
            found = None
            if response.status_code == 200:
                matches = response.json()["matches"]
                found = any(name.startswith(match["recording"]) for match in matches)
            response.success()  # counted by `benchmarks.soak.load`
        _asked.append(
            {
                "clip": name,
                "at": started,
                "seconds": seconds,
                "status": response.status_code,  # 0: no answer
                "error": str(response.error or ""),
                "again": again,
                "found": found,
            }
        )
        if again:
            time.sleep(float(again))


@events.quitting.add_listener
def write(**_: Any) -> None:
    """Leave behind what became of each request."""
    Path(os.environ["EARMARK_LOAD_OUT"]).write_text(json.dumps(_asked))
