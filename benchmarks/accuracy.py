"""Ask every peer about every clip, and score the answers.

    <work folder>/answers/<peer>-<version>/index/          the peer's own
    <work folder>/answers/<peer>-<version>/answers.jsonl   an answer a line, with why there is none

A peer that is missing, takes in nothing or keeps failing is left out, from where on is said; so is every
cell that lacks its answers.
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.clips import MadeClip
from benchmarks.degrade import DEGRADATIONS
from benchmarks.journal import Journal
from benchmarks.peers.base import Answer, Peer
from benchmarks.peers.earmark import Earmark
from benchmarks.plan import CHAIN_LENGTH, SEVERITIES
from benchmarks.scoring import (
    GATES,
    AbsentTally,
    Share,
    Tally,
    Verdict,
    gate_for,
    judge,
    share,
    strength,
)
from benchmarks.truth import Place

BATCH = 50  # clips asked together, and lost by a kill
MOST_BARREN = 3  # batches in a row without a single answer, after which a peer is given up
ROOT = Path(__file__).parents[1]


@dataclass
class PeerRun:
    """What a peer did."""

    name: str
    version: str = ""
    licence: str = ""
    gate: str = ""
    problem: str | None = None  # why it did not run, or not to the end
    ingest_seconds: float | None = None  # CPU
    index_bytes: int | None = None
    refused: dict[str, str] = field(default_factory=dict)  # works it could not take in
    answers: dict[str, Answer] = field(default_factory=dict)  # by clip
    failures: dict[str, str] = field(default_factory=dict)  # clip: why there is no answer


@dataclass(frozen=True)
class Task:
    """What every peer is given."""

    works: Sequence[tuple[str, Path]]  # the library: (id, file)
    clips: Sequence[tuple[str, Path]]  # (id, file)


def ask(peer: Peer, task: Task, folder: Path, *, quiet: bool = False) -> PeerRun:
    """Let a peer take in the library and answer the clips; goes on from what is in `folder`."""
    run = PeerRun(peer.name)
    try:
        run.problem = peer.missing()
        run.version, run.licence, run.gate = peer.version, peer.licence, peer.gate
        if run.problem is None:
            _converse(peer, run, task, folder / answers_name(peer), quiet)
    except Exception as error:  # whatever a peer raises is its failure, not the run's
        run.problem = f"{type(error).__name__}: {error}"
    finally:
        peer.close()
    return run


def answers_name(peer: Peer) -> str:
    """Folder of a peer's answers: another one for another version, and for other code of Earmark."""
    version = peer.version + (code_digest() if isinstance(peer, Earmark) else "")
    digest = hashlib.blake2b(version.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^a-z0-9]+', '-', peer.name.lower()).strip('-')}-{digest}"


def code_digest() -> str:
    """A hash of the code under test."""
    files = sorted(
        path
        for part in ("fingerprint", "index")
        for path in (ROOT / part).iterdir()
        if path.suffix in (".py", ".json")
    )
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _converse(peer: Peer, run: PeerRun, task: Task, folder: Path, quiet: bool) -> None:
    journal = Journal(folder / "answers.jsonl")
    _remember(run, journal.entries)
    peer.ingest(task.works, folder / "index")
    run.ingest_seconds, run.index_bytes = peer.ingest_seconds, peer.index_bytes()
    run.refused = peer.refused
    waiting = [clip for clip in task.clips if clip[0] not in run.answers | run.failures]
    barren = 0
    with tqdm(total=len(waiting), unit="clip", desc=run.name, disable=quiet or None) as bar:
        for first in range(0, len(waiting), BATCH):
            batch = waiting[first : first + BATCH]
            answers = peer.query([path for _, path in batch])
            entries = [
                {"id": id, **asdict(answer)} for (id, _), answer in zip(batch, answers, strict=True)
            ]
            journal.append(entries)
            _remember(run, entries)
            bar.update(len(batch))
            barren = barren + 1 if all(answer.error for answer in answers) else 0
            if barren == MOST_BARREN:
                left = len(waiting) - first - len(batch)
                run.problem = (
                    f"given up: {barren * BATCH} clips without an answer; {left} not asked"
                )
                break


def _remember(run: PeerRun, entries: Iterable[Mapping[str, Any]]) -> None:
    for entry in entries:
        answer = Answer(**{key: value for key, value in entry.items() if key != "id"})
        if answer.error:
            run.failures[entry["id"]] = answer.error
        else:
            run.answers[entry["id"]] = answer


# --- scoring ---------------------------------------------------------------------------------------------


def score(
    run: PeerRun,
    clips: Sequence[MadeClip],
    truth: Mapping[str, Sequence[Place]],
    seconds: float,
) -> dict[str, Any]:
    """Everything that the report says of one peer, as JSON; `seconds` of audio are in the library."""
    verdicts = {
        clip.id: judge(run.answers[clip.id], truth[clip.id], clip.lead * clip.tempo)
        for clip in clips
        if not clip.absent and clip.id in run.answers
    }
    absent = [c for c in clips if c.absent and c.id in run.answers and not truth[c.id]]
    return {
        "version": run.version,
        "licence": run.licence,
        "gate": run.gate,
        "problem": run.problem,
        "refused": run.refused,
        "ingest_seconds": run.ingest_seconds,
        "ingest_speed": seconds / run.ingest_seconds if run.ingest_seconds else None,
        "index_bytes": run.index_bytes,
        "bytes_per_second": run.index_bytes / seconds if run.index_bytes and seconds else None,
        "query_seconds": _query_seconds(run, clips),
        "groups": {
            name: {key: tally_json(tally) for key, tally in group.items()}
            for name, group in _groups(clips, verdicts).items()
        },
        "absent": _absent(run, absent),
        "mistaken": _mistaken(run, clips, verdicts, absent),
        "gates": [_at_gate(rate, run, clips, verdicts, absent) for rate in GATES],
        "failures": dict(Counter(run.failures.values()).most_common(20)),
        "missing": _missing(clips, run),
    }


def _mistaken(
    run: PeerRun,
    clips: Iterable[MadeClip],
    verdicts: Mapping[str, Verdict],
    absent: Iterable[MadeClip],
) -> list[tuple[str, str, str | None]]:
    """(clip, its work, the recording) of each wrong answer, and each to an absent clip, that it accepts."""
    wrong = [clip for clip in clips if clip.id in verdicts and verdicts[clip.id].wrong]
    false = [clip for clip in absent if run.answers[clip.id].accepted]
    return [(clip.id, clip.work, run.answers[clip.id].recording) for clip in (*wrong, *false)]


def _pooled(clips: Iterable[MadeClip]) -> set[str]:
    """Ids of clips that count in what cells have in common: as many of each cell, and all chains."""
    cells: dict[tuple[str, int], list[str]] = defaultdict(list)
    chains = set()
    for clip in clips:
        if clip.degradation in SEVERITIES:
            chains.add(clip.id)
        elif not clip.absent:
            cells[clip.degradation, clip.seconds].append(clip.id)
    usual = min(map(len, cells.values()), default=0)
    return chains.union(*(ids[:usual] for ids in cells.values()))


def _groups(
    clips: Sequence[MadeClip], verdicts: Mapping[str, Verdict]
) -> dict[str, dict[str, Tally]]:
    """Tallies by cell, and by what cells have in common.

    Chains are kept apart from single degradations, whose cells all count for the same number of clips: what
    some have more of counts in the cell alone.
    """
    groups: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    pooled = _pooled(clips)
    for clip in clips:
        if (verdict := verdicts.get(clip.id)) is None:
            continue
        chain = clip.degradation in SEVERITIES
        groups["cell"][f"{clip.degradation}|{clip.seconds}"].add(verdict)
        if clip.id not in pooled:
            continue
        groups["degradation"][clip.degradation].add(verdict)
        family = DEGRADATIONS[clip.degradation].family
        groups["family"][f"{family}|{clip.seconds}"].add(verdict)
        if not chain:
            groups["single"]["all"].add(verdict)
            groups["length"][str(clip.seconds)].add(verdict)
        elif clip.seconds == CHAIN_LENGTH:
            groups["severity"][clip.degradation].add(verdict)
            altered = clip.tempo != 1 or clip.pitch_semitones != 0
            kind = "altered" if altered else "unaltered"
            groups["severity"][f"{clip.degradation}|{kind}"].add(verdict)
            groups["chain"]["all"].add(verdict)
            groups["chain"][kind].add(verdict)
    return groups


def tally_json(tally: Tally) -> dict[str, Any]:
    """Counts, and the intervals of those that are shown."""
    shares = {
        name: share_json(share(getattr(tally, name), tally.clips))
        for name in ("identified", "localised", "accepted", "wrong")
    }
    return {**asdict(tally), "shares": shares}


def share_json(value: Share | None) -> list[float] | None:
    """[share, low, high], four digits."""
    return None if value is None else [round(v, 4) for v in (value.value, value.low, value.high)]


def _absent(run: PeerRun, clips: Sequence[MadeClip]) -> dict[str, Any]:
    tallies: dict[Hashable, AbsentTally] = defaultdict(AbsentTally)
    for clip in clips:
        answer = run.answers[clip.id]
        family = DEGRADATIONS[clip.degradation].family
        for key in ("all", f"length {clip.seconds}", f"family {family}"):
            tallies[key].add(answer, clip.duration)
    return {
        str(key): {
            "clips": tally.clips,
            "accepted": tally.accepted,
            "hours": round(tally.seconds / 3600, 4),
            "share": share_json(share(tally.accepted, tally.clips)),
            "per_hour": round(tally.accepted / (tally.seconds / 3600), 4),
        }
        for key, tally in tallies.items()
    }


def _at_gate(
    rate: float,
    run: PeerRun,
    clips: Sequence[MadeClip],
    verdicts: Mapping[str, Verdict],
    absent: Sequence[MadeClip],
) -> dict[str, Any]:
    """Clips found when the gate is put where `rate` of the absent clips pass."""
    gate = gate_for((strength(run.answers[clip.id]) for clip in absent), rate)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    pooled = _pooled(clips)
    for clip in clips:
        if (verdict := verdicts.get(clip.id)) is None or clip.id not in pooled:
            continue
        chain = clip.degradation in SEVERITIES
        keys = [clip.degradation] if chain else ["single", f"length {clip.seconds}"]
        if chain and clip.seconds == CHAIN_LENGTH:
            keys = [clip.degradation, "chain"]
        elif chain:
            continue
        for key in keys:
            counts[key][0] += verdict.identified and strength(run.answers[clip.id]) > gate
            counts[key][1] += 1
    return {
        "false_accepts": rate,
        "score": gate if abs(gate) < float("inf") else None,
        "found": {key: share_json(share(k, n)) for key, (k, n) in counts.items()},
    }


def _query_seconds(run: PeerRun, clips: Iterable[MadeClip]) -> dict[str, float]:
    """Median seconds of a query, by length and over all."""
    spent: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        if clip.id in run.answers:
            for key in ("all", str(clip.seconds)):
                spent[key].append(run.answers[clip.id].seconds)
    return {key: round(statistics.median(values), 5) for key, values in spent.items()}


def _missing(clips: Iterable[MadeClip], run: PeerRun) -> list[dict[str, Any]]:
    """Cells that lack clips or answers, and why."""
    lacking: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for clip in clips:
        if clip.id not in run.answers and clip.problem is None:
            reason = run.failures.get(clip.id) or run.problem or "not asked"
            lacking[clip.degradation, clip.seconds][reason] += 1
    return [
        {"degradation": degradation, "seconds": seconds, "clips": n, "reason": reason}
        for (degradation, seconds), reasons in lacking.items()
        for reason, n in reasons.items()
    ]
