"""Whether the full benchmark comes out the same again: clips made anew, and Earmark asked about them anew.

    python -m benchmarks.again [--works 8] [--clips 150] [--seed 7]

The clips of some works, drawn at random, are made a second time and compared with the first ones' SHA-256;
some of them are put to Earmark again, in the index that the run left, and compared with its answers
then: recording, place, score, decision. Needs a finished `make benchmark-full` by the same code.
"""

import argparse
import random
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import corpora
from benchmarks.accuracy import answers_name
from benchmarks.clips import make_clips
from benchmarks.journal import Journal
from benchmarks.peers import PEERS
from benchmarks.run import SIZES, gather, material_of, plan_of

DECISION = ("recording", "reference_start", "score", "accepted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--works", type=int, default=8)
    parser.add_argument("--clips", type=int, default=150, help="that are asked about again")
    parser.add_argument("--seed", type=int, default=7, help="of the drawing; the run's own is 1")
    args = parser.parse_args()
    collected = gather(SIZES["full"], fetch=False, workers=1)
    material = material_of(plan_of(SIZES["full"], 1, collected), collected)
    plan = material.plan
    run = corpora.cache_folder() / "runs" / f"full-seed1-{plan.digest}"
    peer = PEERS["earmark"]()
    if (missing := peer.missing()) is not None:
        sys.exit(missing)
    answered = run / "answers" / answers_name(peer)
    before = {entry["id"]: entry for entry in Journal(run / "clips.jsonl").entries}
    answers = {entry["id"]: entry for entry in Journal(answered / "answers.jsonl").entries}
    if len(answers) < len(plan.clips):
        sys.exit(f"{answered}: this code has not answered all clips: make benchmark-full")
    rng = random.Random(args.seed)
    drawn = set(rng.sample(sorted({clip.work for clip in plan.clips}), args.works))
    part = replace(plan, clips=tuple(clip for clip in plan.clips if clip.work in drawn))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make_clips(replace(material, plan=part), folder)
        same = sum(asdict(clip)["sha256"] == before[clip.id]["sha256"] for clip in made)
        print(f"{len(made)} clips made again, {same} the same bit for bit")
        shutil.copytree(answered / "index", folder / "index")
        works = plan.works("reference", "distractor")
        peer.ingest([(work, collected.audio[work]) for work in works], folder / "index")
        asked = rng.sample(made, min(args.clips, len(made)))
        (*again,) = peer.query([folder / "clips" / f"{clip.id}.flac" for clip in asked])
        peer.close()
    same = sum(
        all(asdict(answer)[name] == answers[clip.id][name] for name in DECISION)
        for clip, answer in zip(asked, again, strict=True)
    )
    print(f"{len(asked)} clips asked about again, {same} answered the same")


if __name__ == "__main__":
    main()
