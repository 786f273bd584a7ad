"""Evidence as files: a page to look at, and a bundle that says the same, signed with the library's key.

    NAME.html         the page
    NAME.zip          the bundle, whose files are
      evidence.json     what is stated and what it can be computed from (`service.evidence.statement`)
      page.html         the page
      *.png             its pictures
      manifest.json     the SHA-256 of each of these, when they were signed, with which public key
      manifest.sig      Ed25519 signature of manifest.json, 64 bytes
      timestamp.tsr     RFC 3161 time stamp of manifest.sig, where a server for that is configured
    verify.html       a page that checks bundles in a browser, without a network

A bundle is written in two steps, because what reads sounds of strangers must not have the key: a worker
writes it without a signature (`write_evidence`), who started the worker signs it (`seal`).
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from fingerprint.audio import Limits
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint
from index.errors import LibraryError
from index.library import Library
from index.signing import Signer, signer
from service.evidence import timestamp
from service.evidence.errors import EvidenceError
from service.evidence.page import render
from service.evidence.pictures import pictures
from service.evidence.statement import FORMAT, gather
from service.presentation.templating import templates
from service.query.answer import Match

if TYPE_CHECKING:
    from service.runtime.settings import Settings

STATEMENT, PAGE = "evidence.json", "page.html"
MANIFEST, SIGNATURE, STAMP = "manifest.json", "manifest.sig", "timestamp.tsr"
CHECKER = "verify.html"
SUFFIX = ".zip"
# Bytes of all files of a bundle; one of a clip of 10 minutes takes 3 MB.
LARGEST = 2**27
_LONGEST_NAME = 60  # characters of a clip's name in a file's
_DATE = (1980, 1, 1, 0, 0, 0)  # of files in a bundle: the manifest has the time


class Manifest(BaseModel):
    """What is signed."""

    what: Literal["Earmark evidence"] = "Earmark evidence"
    format: Literal[2] = 2
    signed_at: str
    public_key: str = Field(pattern="^[0-9a-f]{64}$")
    time_stamp: str | None = Field(description="Address of the server that stamped the signature.")
    files: dict[str, str] = Field(description="SHA-256 by name.")


def write_evidence(
    clip: str,
    made: Fingerprint,
    matches: Sequence[Match],
    library: Library,
    folder: Path,
    *,
    owner: str | None = None,
    begins: float = 0.0,
    settings: Mapping[str, Any] | None = None,
    references: Sequence[Fingerprint] = (),
) -> list[Path | None]:
    """Write a page and an unsigned bundle for each match of a clip; returns the bundles, in their order.

    There is none (None) of a recording that was removed since. The same match of the same clip has the same
    file names whenever it is written.

    owner : who asked, if not all of the library answered
    begins : second of the clip at which what was fingerprinted begins
    settings : how the clip was searched for
    references : query fingerprints of files that were ingested, whose spectra are shown

    Raises EvidenceError if the folder cannot be written, or the clock is before the ingest.
    """
    by_hash = {it.sha256: it for it in references}
    bundles: list[Path | None] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for match in matches:
            try:
                evidence, weighed = gather(
                    clip, made, match, library, owner=owner, begins=begins, settings=settings
                )
            except KeyError:
                bundles.append(None)
                continue
            reference = by_hash.get(evidence.recording.sha256)
            drawn = pictures(evidence, weighed, evidence.excerpt(), reference)
            page = render(evidence, drawn).encode()
            files = {STATEMENT: (evidence.model_dump_json(indent=1) + "\n").encode(), PAGE: page}
            files |= {f"{it.name}.png": it.png for it in drawn}
            path = folder / (name_of(clip, made.sha256, match) + SUFFIX)
            _write(path, files)
            path.with_suffix(".html").write_bytes(page)
            bundles.append(path)
    except OSError as error:
        raise EvidenceError(f"{folder}: evidence cannot be written ({error.strerror})") from error
    return bundles


def name_of(clip: str, sha256: str, match: Match) -> str:
    """The file name of a match's evidence, without its suffix."""
    plain = re.sub(r"[^\w.-]+", "_", Path(clip).name)[:_LONGEST_NAME].strip("._") or "clip"
    whole = f"{clip}\n{sha256}\n{match.track}\n{match.recording}\n{match.query_start}"
    return f"{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def seal(path: Path, key: Signer, stamps: str | None = None) -> str | None:
    """Sign a bundle, and have the signature stamped; returns why it has no time stamp if it should.

    stamps : address of an RFC 3161 time stamp server

    Raises EvidenceError if the bundle cannot be read or written.
    """
    files = {name: data for name, data in read(path).items() if name not in _SEALS}
    complaint = None
    sealed = _sealed(files, key, stamps)
    if stamps is not None:
        try:
            sealed[STAMP] = timestamp.ask(stamps, sealed[SIGNATURE])
        except EvidenceError as error:
            complaint = str(error)
            sealed = _sealed(files, key, None)
    try:
        _write(path, files | sealed)
        (path.parent / CHECKER).write_text(checker(), encoding="utf-8")
    except OSError as error:
        raise EvidenceError(f"{path}: evidence cannot be written ({error.strerror})") from error
    return complaint


def sealer(
    library: Library, stamps: str | None, complain: Callable[[str], None]
) -> Callable[[Path], None]:
    """What signs bundles with a library's key, and tells once if there are no time stamps.

    Raises EvidenceError if the library has no key and none can be made.
    """
    try:
        key = signer(library)
    except LibraryError as error:
        raise EvidenceError(f"evidence cannot be signed: {error}") from None
    told: set[str] = set()

    def sign(path: Path) -> None:
        complaint = seal(path, key, stamps)
        if complaint is not None and complaint not in told:
            told.add(complaint)
            complain(f"{complaint}; the evidence has none")

    return sign


class Writer:
    """Writes signed evidence for the matches of clips into a folder."""

    def __init__(
        self,
        library: Library,
        folder: Path,
        settings: "Settings",
        complain: Callable[[str], None],
    ) -> None:
        """Raises EvidenceError if the library has no key and none can be made."""
        self._library = library
        self._folder = folder
        self._seal = sealer(library, settings.timestamp_url, complain)
        self._settings = {
            name: getattr(settings, name)
            for name in ("max_e_value", "wrong_per_million", "hypotheses")
        }
        self._references: dict[str, Fingerprint] = {}

    def show(self, file: Path, limits: Limits) -> None:
        """Show a file's spectrum in the evidence for the recording that was ingested from it.

        Raises EvidenceError for a file that cannot be read, or that no recording was ingested from.
        """
        try:
            made = fingerprint(file, self._library.encoder, QUERY_EVERY, limits=limits)
        except AudioError as error:
            raise EvidenceError(f"{error.detail}; it is not shown in the evidence") from None
        if self._library.find(made.sha256) is None:
            raise EvidenceError(
                f"{file}: no recording was ingested from this file (SHA-256 {made.sha256}); "
                "it is not shown in the evidence"
            )
        self._references[made.sha256] = made

    def write(
        self, clip: str, made: Fingerprint, matches: Sequence[Match], begins: float = 0.0
    ) -> list[Path | None]:
        """Bundles for the matches of a clip, fingerprinted from that second on. Raises EvidenceError."""
        bundles = write_evidence(
            clip,
            made,
            matches,
            self._library,
            self._folder,
            begins=begins,
            settings=self._settings,
            references=list(self._references.values()),
        )
        for path in bundles:
            if path is not None:
                self._seal(path)
        return bundles


_SEALS = (MANIFEST, SIGNATURE, STAMP)


def _sealed(files: Mapping[str, bytes], key: Signer, stamps: str | None) -> dict[str, bytes]:
    manifest = Manifest(
        signed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        public_key=key.public_key,
        time_stamp=stamps,
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    text = (manifest.model_dump_json(indent=1) + "\n").encode()
    return {MANIFEST: text, SIGNATURE: key.sign(text)}


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """A bundle of these files, in place of one that is there."""
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    os.replace(partial, path)


def read(path: Path) -> dict[str, bytes]:
    """The files of a bundle, by name. Raises EvidenceError for what is none, or is damaged."""
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise EvidenceError(f"{path}: {_what_else(path)}")
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            names = [it.filename for it in infos]
            if len(set(names)) < len(names):
                raise EvidenceError(
                    f"{path}: has two files of one name; nobody can say which counts"
                )
            if sum(it.file_size for it in infos) > LARGEST:
                raise EvidenceError(f"{path}: holds more than {LARGEST} bytes; that is no evidence")
            return {name: archive.read(name) for name in names}
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise EvidenceError(
            f"{path}: is truncated or damaged ({error}); ask for the bundle again"
        ) from error
    except Exception as error:  # what zlib and others make of damage
        if isinstance(error, EvidenceError):
            raise
        raise EvidenceError(f"{path}: is damaged ({error})") from error


def _what_else(path: Path) -> str:
    """What a file is that is no bundle."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:4] == b"PK\x03\x04":
        return "is a truncated bundle: its end is missing; ask for the bundle again"
    if path.suffix == ".html":
        return f"is a page of evidence; verify the bundle beside it, {path.stem}{SUFFIX}"
    found = re.search(rb'"format":\s*(\d+)', start)
    if found and b'"library_embeddings"' in path.read_bytes()[:LARGEST]:
        return (
            f"is evidence of format {int(found[1])}, which is neither signed nor proved; this Earmark "
            f"verifies "
            f"format {FORMAT}: have it made again from the clip"
        )
    return "is no evidence of Earmark's"


def manifest_of(files: Mapping[str, bytes]) -> Manifest | None:
    """The manifest of a bundle; None if it has none. Raises EvidenceError for one that is none."""
    if MANIFEST not in files:
        return None
    try:
        said = json.loads(files[MANIFEST])
        if isinstance(said, dict) and said.get("format") != FORMAT:
            raise EvidenceError(
                f"is of format {said.get('format')}, this Earmark verifies format {FORMAT}"
            )
        return Manifest.model_validate(said)
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise EvidenceError(f"has a manifest that is damaged ({reason})") from None


def checker() -> str:
    """The page that checks bundles in a browser."""
    return templates().get_template("verify.html").render(format=FORMAT)
