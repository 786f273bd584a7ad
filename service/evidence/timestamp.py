"""Time stamps (RFC 3161): a server elsewhere says that a signature was there at a time.

Without one, the time in evidence is what the library's own machine said.
"""

import hashlib
import urllib.request
from datetime import datetime
from pathlib import Path

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from service.evidence.errors import EvidenceError

_PATIENCE = 20.0  # s that a server has to answer
_LARGEST = 2**16  # bytes of an answer; one with a chain of certificates takes 6,000


def ask(url: str, message: bytes) -> bytes:
    """A server's answer for a message, whose SHA-256 alone is sent. Raises EvidenceError."""
    request = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    headers = {"Content-Type": "application/timestamp-query"}
    try:
        asked = urllib.request.Request(url, request.as_bytes(), headers)
        with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
            data: bytes = answer.read(_LARGEST)
        stamp = decode_timestamp_response(data)
        if stamp.tst_info.nonce != request.nonce or not _is_of(stamp, message):
            raise ValueError("its answer is to another question")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EvidenceError(f"{url}: no time stamp ({reason})") from None
    return data


def read(data: bytes) -> TimeStampResponse:
    """Raises ValueError for what is no time stamp."""
    stamp = decode_timestamp_response(data)
    _ = stamp.tst_info  # which raises where there is none
    return stamp


def _is_of(stamp: TimeStampResponse, message: bytes) -> bool:
    imprint = stamp.tst_info.message_imprint
    algorithm = imprint.hash_algorithm.dotted_string
    kinds = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.3": "sha512"}
    if algorithm not in kinds:
        return False
    return bytes(imprint.message) == hashlib.new(kinds[algorithm], message).digest()


def check(
    data: bytes, message: bytes, roots: Path | None
) -> tuple[bool | None, datetime | None, str]:
    """Whether a time stamp is of a message, its time, and in words.

    roots : certificates (PEM) of who is trusted to make time stamps; without them nobody is known to have
    made it
    """
    try:
        stamp = read(data)
    except ValueError as error:
        return False, None, f"the time stamp is damaged ({error})"
    at = stamp.tst_info.gen_time
    if not _is_of(stamp, message):
        return (
            False,
            None,
            "the time stamp is of something else: it was taken from another piece of evidence",
        )
    if roots is None:
        return (
            None,
            at,
            f"stamped {at.isoformat()}; who stamped it was not checked: name the certificates of the "
            f"time stamp "
            "server (--timestamp-roots FILE.pem)",
        )
    try:
        builder = VerifierBuilder()
        for certificate in x509.load_pem_x509_certificates(roots.read_bytes()):
            builder = builder.add_root_certificate(certificate)
        builder.build().verify_message(stamp, message)
    except OSError as error:
        raise EvidenceError(f"{roots}: cannot be read ({error.strerror})") from None
    except (ValueError, VerificationError) as error:
        return False, None, f"the time stamp is not by a server of {roots} ({error})"
    return True, at, f"stamped {at.isoformat()} by a server of {roots}"
