"""Runs one engine and answers JSON lines; see `worker`. Runs in any environment: standard library only.

    python -P serve.py ENGINE.py FOLDER OPTIONS

An engine file has a class `Engine(folder, **options)`, which takes up the index in `folder` if there is
one, with

    add(recording, path)    take in a work
    save() -> int           write the index to `folder`; its bytes
    best(path) -> dict      recording, reference_start, score and accepted (see `base.Answer`); it may
                            state its own `seconds` where it does more than its user would

What a system raises is its answer; what kills it is the worker's business.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    engine_path, folder, options = sys.argv[1:]
    # What a system prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    engine = runpy.run_path(engine_path)["Engine"](Path(folder), **json.loads(options))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), file=answers, flush=True)


def _answer(engine: Any, request: dict[str, str]) -> dict[str, Any]:
    started = time.process_time()
    reply: dict[str, Any] = {}
    try:
        if request["do"] == "add":
            engine.add(request["recording"], request["path"])
        elif request["do"] == "save":
            reply = {"bytes": engine.save()}
        else:
            reply = engine.best(request["path"])
    except Exception as error:  # whatever a system raises
        reply = {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"seconds": time.process_time() - started, **reply}


if __name__ == "__main__":
    main()
