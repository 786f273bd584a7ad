"""What can be checked of a piece of evidence from its files alone; each check gives its reason."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fingerprint.encoder import Encoder
from index import signing
from index.audit_log import Entry
from index.significance import Calibration
from service.evidence import bundle, timestamp
from service.evidence.bundle import SIGNATURE, STAMP, Manifest
from service.evidence.statement import CLOCK_SKEW, Evidence

# Two computers' sums differ in the last digits.
_SAME_SCORE = 1e-3
# An answer's score is of all that was aligned, evidence's of what is kept of that: so much more is the same.
_MORE = 1.05
# Of these fields of a match the catalogue has the last word.
NAMES = ("source", "title", "artist", "isrc", "work", "rightsholder", "rights")


class Check(BaseModel):
    """One thing that evidence states, and whether it holds; None: it could not be looked at."""

    what: str
    holds: bool | None
    detail: str


def signature(files: Mapping[str, bytes], manifest: Manifest | None) -> Check:
    """Whether every file is as it was when it was signed, and no other file is there."""

    def said(holds: bool, detail: str) -> Check:
        return Check(what="signature", holds=holds, detail=detail)

    if manifest is None or SIGNATURE not in files:
        return said(False, "there is none: it was stripped, or this was never signed")
    try:
        good = signing.is_signed(files[bundle.MANIFEST], files[SIGNATURE], manifest.public_key)
    except ValueError:
        good = False
    if not good:
        return said(False, "the signature is not of this manifest by the key that it names")
    there = {it for it in files if it not in (bundle.MANIFEST, SIGNATURE, STAMP)}
    for name in sorted(there ^ manifest.files.keys()):
        return said(False, f"{name} was {'put in' if name in there else 'taken out'} after signing")
    for name, sha256 in manifest.files.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            return said(False, f"{name} was altered after signing")
    return said(
        True, f"{len(there)} files are as they were when key {manifest.public_key} signed them"
    )


def times(
    manifest: Manifest | None,
    evidence: Evidence,
    entries: Sequence[Entry],
) -> Check:
    """Whether the times are in an order that is possible."""
    made = _moment(evidence.made_at)
    steps = [(f"entry {it.number} of the audit log", _moment(it.at)) for it in entries]
    steps.sort(key=lambda it: it[1])
    steps.append(("the evidence", made))
    if manifest is not None:
        steps.append(("the signature", _moment(manifest.signed_at)))
    steps.append(("now", datetime.now(UTC)))
    for (before, at), (after, then) in pairwise(steps):
        if at > then + CLOCK_SKEW:
            detail = (
                f"{before} is of {at.isoformat()}, which is after {after}, {then.isoformat()}: "
            )
            return Check(
                what="time", holds=False, detail=detail + "a clock was wrong, or a time was made up"
            )
    return Check(what="time", holds=True, detail=f"made {evidence.made_at}, after what it rests on")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def time_stamp(files: Mapping[str, bytes], manifest: Manifest | None, roots: Path | None) -> Check:
    """Whether somebody else says when the signature was there."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="time stamp", holds=holds, detail=detail)

    stated = manifest.time_stamp if manifest is not None else None
    if STAMP not in files:
        if stated is not None:
            return said(False, f"the time stamp by {stated} was taken out")
        return said(None, "there is none: the time is what the library's machine said")
    if SIGNATURE not in files or manifest is None:
        return said(False, "there is a time stamp, and no signature that it could be of")
    if stated is None:
        return said(False, "a time stamp was put in that was never asked for")
    holds, at, detail = timestamp.check(files[STAMP], files[SIGNATURE], roots)
    if at is not None and at < _moment(manifest.signed_at) - CLOCK_SKEW:
        return said(False, f"{detail}; that is before it was signed ({manifest.signed_at})")
    return said(holds, detail)


def log(evidence: Evidence) -> tuple[list[Entry], Check]:
    """The entries of the audit log that are proved, and whether all are."""
    try:
        entries = [it.entry(evidence.log.number, evidence.log.hash) for it in evidence.entries]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return [], Check(what="log", holds=False, detail=str(error))
    kinds = {it.kind for it in entries}
    if not {"ingest", signing.EVENT} <= kinds:
        detail = "the entries of the ingest and of the signing key are not both there"
        return entries, Check(what="log", holds=False, detail=detail)
    told = ", ".join(f"{it.number} ({it.kind})" for it in entries)
    detail = f"entries {told} are in the log whose entry {evidence.log.number} has hash {evidence.log.hash}"
    return entries, Check(what="log", holds=True, detail=detail)


def recording(evidence: Evidence, entries: Sequence[Entry], encoder: Encoder) -> Check:
    """Whether recording, names and codes are those that the log says were ingested."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="recording", holds=holds, detail=detail)

    match, row = evidence.match, evidence.recording
    logged: dict[str, Any] | None = None
    for entry in entries:
        if entry.recording is None:
            continue
        if entry.recording != match.recording or entry.recording != row.id:
            return said(False, f"the log's entry is of recording {entry.recording!r}")
        if entry.kind == "ingest":
            logged = dict(entry.details)
        elif entry.kind == "change" and logged is not None:
            logged |= {name: after for name, (_, after) in entry.details.items()}
    if logged is None:
        return said(None, "no entry of the log says what was ingested")
    for stated, what in ((match, "match"), (row, "catalogue row")):
        others = [it for it in NAMES if logged.get(it) != getattr(stated, it)]
        if others:
            names = ", ".join(f"{it} {logged.get(it)!r}" for it in others)
            return said(False, f"the log says {names}; the {what} does not")
    if logged.get("sha256") != row.sha256:
        return said(
            False, f"the log says that a file of SHA-256 {logged.get('sha256')} was ingested"
        )
    if evidence.all_codes(encoder).sha256() != logged.get("codes_sha256"):
        return said(False, "the codes are not those that were ingested")
    return said(
        True, f"ingested from {row.source}, SHA-256 {row.sha256}, with these codes and names"
    )


def calibration(evidence: Evidence, entries: Sequence[Entry]) -> Check:
    """Whether chance is stated by the encoder's fit, or by one that the log has."""

    def said(holds: bool, detail: str) -> Check:
        return Check(what="calibration", holds=holds, detail=detail)

    stated = Calibration.from_entry(evidence.calibration)
    if stated == Calibration.of(evidence.encoder):
        return said(True, "it is the one that comes with Earmark")
    for entry in entries:
        own = entry.kind == "calibration" and bool(entry.details)
        if own and Calibration.from_entry(entry.details) == stated:
            return said(True, f"it is the library's own, entry {entry.number} of its log")
    return said(
        False, "it is neither the one that comes with Earmark nor one that the audit log has"
    )


def score(evidence: Evidence, encoder: Encoder) -> Check:
    weighed = evidence.weigh(encoder)
    same = abs(weighed.score - evidence.score) <= _SAME_SCORE * max(1.0, evidence.score)
    same = same and bool(np.isclose(weighed.e_value, evidence.e_value, rtol=0.05, atol=0))
    for computed, stated in (
        (weighed.likeness, evidence.likeness),
        (weighed.contrast, evidence.contrast),
    ):
        same = same and (stated is None or math.isclose(computed or 0.0, stated, rel_tol=0.01))
    detail = f"score {weighed.score:.3f} and E-value {weighed.e_value:.3g} computed, "
    detail += f"{evidence.score:.3f} and {evidence.e_value:.3g} stated"
    if weighed.likeness is not None and evidence.likeness is not None:
        detail += f"; likeness {weighed.likeness:.3f} computed, {evidence.likeness:.3f} stated"
    return Check(what="score", holds=same, detail=detail)


def answer(evidence: Evidence) -> Check:
    """Whether the answer said no more than what is kept here bears out."""
    match = evidence.match
    same = match.score <= _MORE * evidence.score and math.log(
        max(match.e_value, 1e-300)
    ) >= _MORE * math.log(min(max(evidence.e_value, 1e-300), 1.0))
    said = f"the answer said score {match.score:.3f} and E-value {match.e_value:.3g}"
    more = "" if same else ", which is of more than what is kept here, and cannot be computed again"
    return Check(what="answer", holds=same or None, detail=said + more)
