"""Evidence that was tampered with, or made up, is refused with the reason; what cannot be checked is said."""

import base64
import hashlib
import http.server
import json
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bundles import Files, edited, evidence_for, packed, signed_anew
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from melodies import RATE, melody, write

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, fingerprint
from index import audit_log as audit
from index import catalogue, signing
from index.backup import backup
from index.library import Library
from index.recording import Metadata
from index.signing import SigningKeyError
from service.evidence import bundle, statement
from service.evidence.bundle import MANIFEST, SIGNATURE, STAMP, STATEMENT
from service.evidence.checks import Check
from service.evidence.errors import EvidenceError
from service.evidence.evidence_checks import Means, conclusion, verify
from service.query.answer import answer, fingerprint_clip
from service.runtime.settings import load_settings


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


@pytest.fixture
def opened(library: Path, encoder: Encoder) -> Iterator[Library]:
    with closing(Library.open(library, encoder)) as opened:
        yield opened


@pytest.fixture(scope="module")
def true_one(ingested: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library, `library`, and a bundle that it signed, `true.zip`."""
    folder = tmp_path_factory.mktemp("true")
    shutil.copytree(ingested, folder / "library")
    with closing(Library.open(folder / "library", Encoder.load())) as library:
        path = evidence_for(music / "clip.wav", library, folder / "evidence")
    shutil.copy(path, folder / "true.zip")
    return folder


@pytest.fixture
def files(true_one: Path) -> Files:
    return bundle.read(true_one / "true.zip")


def checked(path: Path, means: Means) -> dict[str, Check]:
    return {check.what: check for check in verify(path, means)}


def refused(checks: dict[str, Check], what: str, why: str) -> None:
    """That a check fails for that reason, and so does the whole."""
    assert checks[what].holds is False, checks[what]
    assert why in checks[what].detail
    assert checks["conclusion"].holds is False and what in checks["conclusion"].detail


def test_what_the_library_signed_holds(true_one: Path, music: Path, encoder: Encoder) -> None:
    with closing(Library.open(true_one / "library", encoder)) as library:
        checks = checked(true_one / "true.zip", Means(encoder, library, music / "clip.wav"))
    held = {what: check.holds for what, check in checks.items()}
    assert held == dict.fromkeys(held, True) | {"time stamp": None}
    assert "NOT CHECKED: time stamp" in checks["conclusion"].detail


def test_without_clip_library_and_key_it_says_what_was_not_checked(
    true_one: Path, encoder: Encoder
) -> None:
    checks = checked(true_one / "true.zip", Means(encoder))
    open_ones = {what for what, check in checks.items() if check.holds is None}
    assert open_ones == {"key", "time stamp", "clip", "library"}
    assert "the clip was not checked" in checks["clip"].detail
    assert checks["conclusion"].holds is True
    assert "NOT CHECKED: key, time stamp, clip, library" in checks["conclusion"].detail


def swapped_codes(codes: str) -> str:
    return base64.b64encode(base64.b64decode(codes)[::-1]).decode()


FORGERIES: dict[str, tuple[Callable[[Files], Files], str, str]] = {
    "another hash of the clip": (
        lambda files: edited(files, sha256="0" * 64),
        "clip",
        "its fingerprint is of a file of SHA-256",
    ),
    "codes edited": (lambda files: edited(files, codes=swapped_codes), "recording", "the codes"),
    "calibration edited": (
        lambda files: edited(files, calibration__unaltered__decay=lambda it: [2 * x for x in it]),
        "calibration",
        "neither the one that comes with Earmark nor one that the audit log has",
    ),
    "another title": (
        lambda files: edited(files, match__title="Theirs", recording__title="Theirs"),
        "recording",
        "the log says title None",
    ),
    "another rightsholder": (
        lambda files: edited(files, match__rightsholder="Red Label"),
        "recording",
        "the log says rightsholder 'Blue Label'",
    ),
    "another file's hash": (
        lambda files: edited(files, recording__sha256="1" * 64),
        "recording",
        "the log says that a file of SHA-256",
    ),
    "another entry": (
        lambda files: edited(
            files,
            entries=lambda it: [it[0] | {"said": it[0]["said"].replace("Blue", "Red")}, *it[1:]],
        ),
        "log",
        "not in the audit log",
    ),
    "an entry left out": (
        lambda files: edited(files, entries=lambda it: it[1:]),
        "log",
        "not both there",
    ),
    "another hash of the log": (
        lambda files: edited(files, log__hash="2" * 64),
        "log",
        "not in the audit log",
    ),
    "a better score": (lambda files: edited(files, score=lambda it: it + 5), "score", "computed"),
    "a smaller chance": (
        lambda files: edited(files, e_value=lambda it: it / 1000),
        "score",
        "computed",
    ),
    "another place": (
        lambda files: edited(
            files,
            match__reference_start=lambda it: it + 2.7,
            match__reference_end=lambda it: it + 2.7,
        ),
        "score",
        "computed",
    ),
    "an earlier time": (
        lambda files: edited(files, made_at="2020-01-01T00:00:00+00:00"),
        "time",
        "which is after the evidence",
    ),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_is_refused_as_it_is_and_signed_anew(
    what: str, files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    forge, check, why = FORGERIES[what]
    forged = forge(files)
    as_it_is = checked(packed(tmp_path / "forged.zip", forged), Means(encoder))
    refused(as_it_is, "signature", f"{STATEMENT} was altered after signing")
    refused(as_it_is, check, why)
    anew = checked(packed(tmp_path / "anew.zip", signed_anew(forged)), Means(encoder))
    assert anew["signature"].holds is True
    refused(anew, "key", "not the one that the audit log stated here names")
    refused(anew, check, why)


def test_another_clip_is_refused(true_one: Path, music: Path, encoder: Encoder) -> None:
    means = Means(encoder, clip=music / "unknown.wav")
    refused(checked(true_one / "true.zip", means), "clip", "is not the one stated")


def test_a_fingerprint_that_is_not_the_clips_is_refused_although_the_hash_is(
    files: Files, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """Whoever says that the fingerprint is of another file is found out with that file."""
    innocent = music / "unknown.wav"
    sha256 = hashlib.sha256(innocent.read_bytes()).hexdigest()

    def renamed(data: str) -> str:
        made = statement.Fingerprint.load(base64.b64decode(data), "it")
        return base64.b64encode(replace(made, sha256=sha256).to_bytes()).decode()

    forged = signed_anew(edited(files, sha256=sha256, fingerprint=renamed))
    checks = checked(packed(tmp_path / "forged.zip", forged), Means(encoder, clip=innocent))
    refused(checks, "clip", "the fingerprint here is not of it")


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_a_stripped_signature_is_refused(
    name: str, files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    left = {it: data for it, data in files.items() if it != name}
    refused(checked(packed(tmp_path / "x.zip", left), Means(encoder)), "signature", "stripped")


def test_what_is_put_in_or_taken_out_is_refused(
    files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    more = checked(packed(tmp_path / "more.zip", files | {"extra.txt": b"x"}), Means(encoder))
    refused(more, "signature", "extra.txt was put in")
    del files["likeness.png"]
    refused(
        checked(packed(tmp_path / "less.zip", files), Means(encoder)),
        "signature",
        "likeness.png was taken out",
    )


def test_a_signature_of_other_bytes_is_refused(
    files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    manifest = json.loads(files[MANIFEST])
    manifest["signed_at"] = "2020-01-01T00:00:00+00:00"
    files[MANIFEST] = json.dumps(manifest).encode()
    checks = checked(packed(tmp_path / "x.zip", files), Means(encoder))
    refused(checks, "signature", "not of this manifest")


def test_another_librarys_evidence_is_not_this_ones(
    true_one: Path, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """A library with the same recording, made up: all of its own log is right."""
    with closing(Library.open(tmp_path / "theirs", encoder, create=True)) as theirs:
        song = music / "songs" / "song-1.flac"
        with theirs.writer() as writer:
            metadata = Metadata(song.name, "Red Label", "owned")
            writer.add(fingerprint(song, encoder, REFERENCE_EVERY), metadata)
        path = evidence_for(music / "clip.wav", theirs, tmp_path / "evidence")
    with closing(Library.open(true_one / "library", encoder)) as ours:
        key = signing.current(ours)
        checks = checked(path, Means(encoder, ours))
        assert checks["key"].holds is None and checks["library"].holds is None
        assert "the library here is another" in checks["library"].detail
        refused(
            checked(path, Means(encoder, ours, key=key)), "key", "not by the key that was named"
        )
        said = edited(bundle.read(path), library=ours.id())  # and says that it is ours
        forged = packed(tmp_path / "forged.zip", signed_anew(said))
        refused(checked(forged, Means(encoder, ours)), "library", "has another hash")


def test_the_named_key_holds_and_no_short_beginning_of_it(true_one: Path, encoder: Encoder) -> None:
    path = true_one / "true.zip"
    key = json.loads(bundle.read(path)[MANIFEST])["public_key"]
    for given in (key, key.upper(), key[:16]):
        assert checked(path, Means(encoder, key=given))["key"].holds is True
    refused(checked(path, Means(encoder, key=key[:8])), "key", "not by the key that was named")


def test_an_empty_set_of_checks_is_a_failure() -> None:
    assert conclusion([]).holds is False
    for left_out in ("signature", "log", "score"):
        some = [
            Check(what=what, holds=True, detail="")
            for what in ("signature", "log", "score", "clip")
            if what != left_out
        ]
        assert conclusion(some).holds is False
        assert left_out in conclusion(some).detail


def test_evidence_of_before_the_change_of_a_name_still_holds(
    opened: Library, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    path = evidence_for(music / "clip.wav", opened, tmp_path)
    recording = json.loads(bundle.read(path)[STATEMENT])["match"]["recording"]
    with opened.writer() as writer:
        writer.change(recording, {"title": "Dawn"})
    old = checked(path, Means(encoder, opened))
    assert old["library"].holds is True and "title is now 'Dawn'" in old["library"].detail
    path = evidence_for(music / "clip.wav", opened, tmp_path / "new")
    new = checked(path, Means(encoder, opened))
    assert {new[what].holds for what in ("log", "recording", "library")} == {True}
    with opened.writer() as writer:
        writer.remove(recording)
    gone = checked(path, Means(encoder, opened))
    assert gone["library"].holds is None and "was removed" in gone["library"].detail
    assert gone["conclusion"].holds is True


def test_a_replaced_key_counts_for_what_was_signed_before(
    opened: Library, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    path = evidence_for(music / "clip.wav", opened, tmp_path)
    old = signing.signer(opened)
    new = signing.replace(opened)
    assert new.public_key != old.public_key
    checks = checked(path, Means(encoder, opened))
    assert checks["key"].holds is True
    assert "this library's key until" in checks["key"].detail
    assert "without a time stamp" in checks["key"].detail
    later = evidence_for(music / "clip.wav", opened, tmp_path / "later")
    assert checked(later, Means(encoder, opened))["key"].holds is True
    forged = packed(tmp_path / "forged.zip", signed_anew(bundle.read(later), old))
    refused(checked(forged, Means(encoder, opened)), "key", "not the one that the audit log")


@pytest.mark.parametrize("left", [None, b"no key", "another"])
def test_a_library_whose_key_was_lost_says_so_and_signs_nothing(
    left: bytes | str | None, opened: Library, music: Path, tmp_path: Path
) -> None:
    path = evidence_for(music / "clip.wav", opened, tmp_path)
    key = opened.path / signing.FILE
    assert key.stat().st_mode & 0o077 == 0
    if left is None:
        key.unlink()
    elif isinstance(left, bytes):
        key.write_bytes(left)
    else:
        signing._write(key)
    with pytest.raises(SigningKeyError, match=r"restore it .*signing-key --replace"):
        signing.signer(opened)
    with pytest.raises(EvidenceError, match="cannot be signed"):
        evidence_for(music / "clip.wav", opened, tmp_path)
    assert checked(path, Means(opened.encoder, opened))["conclusion"].holds is True
    signing.replace(opened)
    evidence_for(music / "clip.wav", opened, tmp_path)


def test_a_snapshot_signs_with_the_same_key(
    opened: Library, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    path = evidence_for(music / "clip.wav", opened, tmp_path / "evidence")
    backup(opened, tmp_path / "copy")
    with closing(Library.open(tmp_path / "copy", encoder)) as copy:
        assert signing.signer(copy).public_key == signing.signer(opened).public_key
        assert checked(path, Means(encoder, copy))["library"].holds is True


def test_a_library_restored_from_an_older_backup_cannot_confirm(
    library: Path, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    shutil.copytree(library, tmp_path / "older")
    with closing(Library.open(library, encoder)) as newer:
        path = evidence_for(music / "clip.wav", newer, tmp_path / "evidence")
    with closing(Library.open(tmp_path / "older", encoder)) as older:
        checks = checked(path, Means(encoder, older))
    assert (
        checks["library"].holds is None and "older than this evidence" in checks["library"].detail
    )


def test_a_clock_before_the_ingest_makes_no_evidence(
    opened: Library, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write(tmp_path / "late.flac", melody(41))
    clip = write(tmp_path / "late.wav", melody(41)[4 * RATE : 12 * RATE])
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "now", lambda: tomorrow)
        with opened.writer() as writer:
            made = fingerprint(song, opened.encoder, REFERENCE_EVERY)
            writer.add(made, Metadata(song.name, "Me", "owned"))
    with pytest.raises(EvidenceError, match=r"clock says .*, before recording .* was ingested"):
        evidence_for(clip, opened, tmp_path / "evidence")
    # a forger's clock does not care
    with monkeypatch.context() as patched:
        patched.setattr(statement, "CLOCK_SKEW", timedelta(days=9))
        path = evidence_for(clip, opened, tmp_path / "evidence")
    refused(checked(path, Means(opened.encoder, opened)), "time", "which is after the evidence")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda data: data[:-100], "truncated"),
        (lambda data: data[:100], "truncated"),
        (lambda data: b"", "no evidence"),
        (lambda data: b"[1]", "no evidence"),
        (lambda data: b'{"format": 1, "library_embeddings": 9}', "evidence of format 1"),
    ],
)
def test_what_is_no_whole_bundle_says_what_it_is(
    make: Callable[[bytes], bytes], says: str, true_one: Path, encoder: Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(make((true_one / "true.zip").read_bytes()))
    with pytest.raises(EvidenceError, match=says) as error:
        verify(path, Means(encoder))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"encoder": "0123456789abcdef"}, "is of encoder 0123456789abcdef"),
        ({"format": 3}, "no evidence"),
        ({"match__tempo": 0}, "damaged"),
        ({"match__query_end": 1e308}, "damaged"),
        ({"lists": "AA=="}, "damaged"),
        ({"made_at": "yesterday"}, "damaged"),
    ],
)
def test_hostile_evidence_is_one_line(
    values: dict[str, Any], says: str, files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    path = packed(tmp_path / "x.zip", signed_anew(edited(files, **values)))
    with pytest.raises(EvidenceError, match=says) as error:
        verify(path, Means(encoder))
    assert "\n" not in str(error.value)


def test_a_bundle_without_a_statement_is_no_evidence(
    files: Files, encoder: Encoder, tmp_path: Path
) -> None:
    del files[STATEMENT]
    with pytest.raises(EvidenceError, match=r"it has no evidence\.json"):
        verify(packed(tmp_path / "x.zip", files), Means(encoder))


def test_two_files_of_one_name_are_refused(files: Files, encoder: Encoder, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", files)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(STATEMENT, files[STATEMENT])
    with pytest.raises(EvidenceError, match="two files of one name"):
        verify(path, Means(encoder))


def test_a_clip_that_is_gone_is_said_to_be(
    true_one: Path, encoder: Encoder, tmp_path: Path
) -> None:
    checks = checked(true_one / "true.zip", Means(encoder, clip=tmp_path / "gone.wav"))
    refused(checks, "clip", "the clip could not be checked")


class StampServer:
    """A time stamp server with a certificate of its own making; `stamp` answers a request (OpenSSL does)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stamps made up for a test")])
        now = datetime.now(UTC)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 7)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / "tsa.key").write_bytes(private)
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(
            f"[tsa]\ndefault_tsa = it\n[it]\nserial = {folder}/serial\ndefault_policy = 1.2.3.4\n"
            "digests = sha256, sha512\nsigner_digest = sha256\n"
        )

    def stamp(self, request: bytes) -> bytes:
        asked, given = self._folder / "asked", self._folder / "given"
        asked.write_bytes(request)
        command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "it"]
        command += ["-queryfile", asked, "-signer", self.roots, "-inkey", "tsa.key", "-out", given]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
        return given.read_bytes()


@contextmanager
def serving(stamp: Callable[[bytes], bytes]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = stamp(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_time_stamp_holds_and_is_not_of_other_evidence(
    opened: Library, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    stamps = StampServer(tmp_path)
    with serving(stamps.stamp) as address:
        path = evidence_for(
            music / "clip.wav", opened, tmp_path / "evidence", timestamp_url=address
        )
        other = evidence_for(
            music / "songs" / "song-2.flac", opened, tmp_path / "other", timestamp_url=address
        )
    trusted = Means(encoder, opened, timestamp_roots=stamps.roots)
    checks = checked(path, trusted)
    assert {checks[what].holds for what in ("signature", "key", "time stamp", "library")} == {True}
    unknown = checked(path, Means(encoder))["time stamp"]
    assert unknown.holds is None and "who stamped it was not checked" in unknown.detail
    files = bundle.read(path)
    replayed = files | {STAMP: bundle.read(other)[STAMP]}
    refused(
        checked(packed(tmp_path / "replayed.zip", replayed), trusted),
        "time stamp",
        "it was taken from another piece of evidence",
    )
    without = {name: data for name, data in files.items() if name != STAMP}
    refused(checked(packed(tmp_path / "out.zip", without), trusted), "time stamp", "was taken out")
    damaged = files | {STAMP: files[STAMP][:50]}
    refused(checked(packed(tmp_path / "cut.zip", damaged), trusted), "time stamp", "damaged")
    (tmp_path / "strangers").mkdir()
    strangers = Means(encoder, timestamp_roots=StampServer(tmp_path / "strangers").roots)
    refused(checked(path, strangers), "time stamp", "is not by a server of")


@pytest.mark.parametrize("answer", [b"", b"<html>busy</html>"])
def test_a_time_stamp_server_that_fails_is_told_of_and_the_evidence_has_none(
    answer: bytes, opened: Library, music: Path, encoder: Encoder, tmp_path: Path
) -> None:
    told: list[str] = []
    with serving(lambda request: answer) as address:
        settings = load_settings(timestamp_url=address)
        writer = bundle.Writer(opened, tmp_path, settings, told.append)
        clip = music / "clip.wav"
        made = fingerprint_clip(clip, clip.name, encoder, Limits())
        found = answer_of(made, opened)
        (path,) = writer.write(clip.name, made, found)
    (complaint,) = told
    assert "no time stamp" in complaint and address in complaint
    assert path is not None
    checks = checked(path, Means(encoder, opened))
    assert checks["time stamp"].holds is None and checks["conclusion"].holds is True


def answer_of(made: Any, library: Library) -> list[Any]:
    return answer("clip.wav", made, library, max_e_value=0.01, hypotheses=0).matches


def test_the_log_names_the_key_before_it_signs(opened: Library) -> None:
    key = signing.signer(opened)
    with opened.reading() as connection:
        last = list(audit.entries(connection))[-1]
    assert (last.kind, last.details) == ("signing-key", {"public_key": key.public_key})
    assert signing.signer(opened).public_key == key.public_key
