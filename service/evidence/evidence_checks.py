"""Whether a piece of evidence holds: checks that give reasons, and a conclusion that needs some of them.

A check never raises for what evidence states: that something does not hold, or could not be looked at, is a
result with its reason. What must not happen is that nothing was checked and nothing failed: `conclusion`
refuses an empty set of checks, and one without the signature, the log and the score.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from index import audit_log as audit
from index import signing
from index.audit_log import Entry
from index.library import Library
from index.significance import Calibration
from service.evidence import bundle, checks
from service.evidence.bundle import STATEMENT, Manifest
from service.evidence.checks import NAMES, Check
from service.evidence.clip import again, same_moments
from service.evidence.errors import EvidenceError
from service.evidence.statement import Evidence

_MOST_MOMENTS = 0.9  # of a clip that is fingerprinted again are the same

REQUIRED = ("signature", "log", "score")  # without which nothing can be said to hold


@dataclass(frozen=True)
class Means:
    """What evidence is checked with.

    Attributes
    ----------
    encoder : that made the fingerprints
    library : the library that is here, if there is one
    clip : file to compare, if one is named
    key : public key, or the beginning of one, that the signature has to be of
    timestamp_roots : certificates of time stamp servers that are trusted (PEM)
    limits : on the clip
    """

    encoder: Encoder
    library: Library | None = None
    clip: Path | None = None
    key: str | None = None
    timestamp_roots: Path | None = None
    limits: Limits = field(default_factory=Limits)


def verify(path: Path, means: Means) -> list[Check]:
    """Check a bundle; the conclusion is the last of the checks.

    Raises EvidenceError for what is no evidence.
    """
    files = bundle.read(path)
    try:
        manifest = bundle.manifest_of(files)
        evidence = _statement(files, means.encoder)
    except EvidenceError as error:
        raise EvidenceError(f"{path}: {error}") from None
    try:
        entries, log = checks.log(evidence)
        found = [
            checks.signature(files, manifest),
            _key(manifest, evidence, entries, means),
            checks.times(manifest, evidence, entries),
            checks.time_stamp(files, manifest, means.timestamp_roots),
            log,
            checks.recording(evidence, entries, means.encoder),
            checks.calibration(evidence, entries),
            checks.score(evidence, means.encoder),
            checks.answer(evidence),
            _clip(evidence, means),
            _library(evidence, means),
        ]
    except (ValueError, KeyError, TypeError, ArithmeticError, IndexError, AudioError) as error:
        raise EvidenceError(f"{path}: is damaged ({error})") from error
    return [*found, conclusion(found)]


def conclusion(found: Sequence[Check]) -> Check:
    """Whether all of it holds. That nothing failed is not enough: what is REQUIRED has to hold.

    An empty set of checks is a failure: it would let everything pass.
    """
    by_name = {check.what: check.holds for check in found}
    failed = [check.what for check in found if check.holds is False]
    missing = [what for what in REQUIRED if by_name.get(what) is None]
    open_ones = [check.what for check in found if check.holds is None and check.what not in missing]
    if failed or missing:
        parts = [f"{', '.join(failed)} does not hold"] if failed else []
        parts += [f"{', '.join(missing)} could not be checked"] if missing else []
        return Check(what="conclusion", holds=False, detail="; ".join(parts))
    rest = f"; NOT CHECKED: {', '.join(open_ones)}" if open_ones else ""
    return Check(what="conclusion", holds=True, detail=f"all that was checked holds{rest}")


def _statement(files: Mapping[str, bytes], encoder: Encoder) -> Evidence:
    """Raises EvidenceError for a statement that is missing, damaged, of another format or encoder."""
    if STATEMENT not in files:
        raise EvidenceError(f"is no evidence of Earmark's: it has no {STATEMENT}")
    try:
        said = json.loads(files[STATEMENT])
        stated = said.get("encoder") if isinstance(said, dict) else None
        if isinstance(said, dict) and said.get("format") == bundle.FORMAT and stated != encoder.id:
            raise EvidenceError(
                f"is of encoder {stated}, this is {encoder.id}; verify it with Earmark {said.get('version')}"
            )
        return Evidence.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EvidenceError(f"is no evidence of Earmark's ({where}: {first['msg']})") from None
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"is no evidence of Earmark's ({error})") from None


def _key(
    manifest: Manifest | None, evidence: Evidence, entries: Sequence[Entry], means: Means
) -> Check:
    """Whose key signed it: the log's, the library's that is here, the one that is named."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="key", holds=holds, detail=detail)

    if manifest is None:
        return said(None, "there is no signature")
    key = manifest.public_key
    named = [it.details.get("public_key") for it in entries if it.kind == signing.EVENT]
    if means.key is not None:
        given = means.key.strip().lower()
        if len(given) < 16 or not key.startswith(given):
            return said(False, f"it was signed by {key}, not by the key that was named, {given}")
    if named != [key]:
        return said(False, f"key {key} is not the one that the audit log stated here names")
    if means.library is not None:
        place = _place(evidence, means.library)
        if place.is_here:
            return _key_of(key, evidence, manifest, means.library)
    if means.key is not None:
        return said(True, f"it is the key that was named, {key}")
    return said(
        None,
        f"whose key {key} is was not checked: ask its owner for it by another way, and name it (--key)",
    )


def _key_of(key: str, evidence: Evidence, manifest: Manifest, library: Library) -> Check:
    """Whether a key was this library's when the log was as it is stated."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="key", holds=holds, detail=detail)

    every = signing.keys(library)
    mine = [it for it in every if it.details.get("public_key") == key]
    if not mine:
        return said(False, f"key {key} was never this library's")
    later = [it for it in every if it.number > mine[-1].number]
    if not later:
        return said(True, "it is this library's key")
    replaced = f"it was this library's key until {later[0].at} (entry {later[0].number} of its log)"
    if later[0].number <= evidence.log.number:
        return said(False, f"{replaced}, and this was made after that")
    if manifest.time_stamp is None:
        replaced += "; without a time stamp, nobody can tell whether it was signed before that"
    return said(True, replaced)


def _clip(evidence: Evidence, means: Means) -> Check:
    """Whether a file is the clip: its hash, and its fingerprint made again."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="clip", holds=holds, detail=detail)

    kept = evidence.excerpt()
    if kept.sha256 != evidence.sha256:
        return said(
            False, f"its fingerprint is of a file of SHA-256 {kept.sha256}, not {evidence.sha256}"
        )
    clip = means.clip
    if clip is None:
        return said(
            None,
            "the clip was not checked: nothing here shows that this fingerprint is of the file that is "
            "stated; name the file (--clip)",
        )
    try:
        made = again(clip, evidence, means.encoder, means.limits)
    except AudioError as error:
        return said(False, f"the clip could not be checked: {error.detail}")
    except KeyError:
        return said(
            False, f"the file has no sound track {evidence.match.track}, which is the one stated"
        )
    if made.sha256 != evidence.sha256:
        return said(False, f"SHA-256 {made.sha256} is not the one stated, {evidence.sha256}")
    share = same_moments(made, evidence)
    if share < _MOST_MOMENTS:
        return said(
            False,
            "the file is the one stated, and the fingerprint here is not of it: made again, "
            f"{share:.0%} of its moments are the same",
        )
    return said(
        True, f"SHA-256 {made.sha256}; fingerprinted again, {share:.0%} of its moments are the same"
    )


@dataclass(frozen=True)
class _Place:
    """What a library that is here has to do with the one that evidence is of."""

    is_here: bool
    check: Check | None = None  # why it is not


def _place(evidence: Evidence, library: Library) -> _Place:
    """Whether a library is the one, or a copy: its log has the same hash at the same entry."""

    def not_here(holds: bool | None, detail: str) -> _Place:
        return _Place(False, Check(what="library", holds=holds, detail=detail))

    with library.reading() as connection:
        here = audit.hash_of(connection, evidence.log.number)
        newest, _ = audit.newest(connection)
    if here == evidence.log.hash:
        return _Place(True)
    if library.id() != evidence.library:
        return not_here(
            None, f"the library here is another ({library.id()}, not {evidence.library})"
        )
    if here is None:
        return not_here(
            None,
            f"the audit log here ends at entry {newest}, before {evidence.log.number}: it was restored "
            f"from a "
            "backup that is older than this evidence, or this evidence was made up",
        )
    return not_here(
        False, f"entry {evidence.log.number} of the audit log here has another hash, {here}"
    )


def _library(evidence: Evidence, means: Means) -> Check:
    """Whether the library that is here has the recording as it is stated."""

    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="library", holds=holds, detail=detail)

    library, encoder = means.library, means.encoder
    if library is None:
        return said(None, "there is none here to compare with")
    place = _place(evidence, library)
    if place.check is not None:
        return place.check
    match = evidence.match
    try:
        recording = library.recording(match.recording)
    except KeyError:
        return said(None, f"recording {match.recording} was removed from this library since")
    codes = evidence.all_codes(encoder)
    try:
        stored, _ = library.codes(match.recording, 0.0, len(codes) * 2 * encoder.step * 5)
    except KeyError:
        return said(
            None, f"recording {match.recording} does not answer queries any more: its licence ended"
        )
    if stored.sha256() != codes.sha256():
        return said(False, f"the codes of {match.recording} here are not the evidence's")
    others = [it for it in NAMES if getattr(recording, it) != getattr(match, it)]
    told = ", ".join(f"{it} is now {getattr(recording, it)!r}" for it in others)
    info = library.info()
    if info["audit"] == evidence.log.hash and (
        others
        or evidence.library_embeddings > info["embeddings"]
        or Calibration.from_entry(evidence.calibration) != library.calibration
    ):
        return said(False, f"in snapshot {evidence.snapshot} the library was not as it is stated")
    changed = f"; since then {told}" if others else ""
    return said(True, f"codes and names are those of {match.recording} in this library{changed}")
