"""The key that a library signs evidence with: Ed25519 (RFC 8032), made when it is first needed.

    library/evidence.key              the private key (PEM, PKCS #8), for the library's owner alone to read

The audit log names the public key, and each one that replaces it, so that evidence can be checked against the
library that it says it is of, also when its key is replaced later.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from index import audit_log as audit
from index.audit_log import Entry
from index.errors import LibraryError
from index.library import Library
from index.segment import synchronise

FILE = "evidence.key"
EVENT = "signing-key"
REPLACE = "restore it from a backup, or make another: `earmark signing-key --replace`"


class SigningKeyError(LibraryError):
    """A library whose signing key is lost, damaged or not the one that its audit log names."""


@dataclass(frozen=True)
class Signer:
    """A library's private key; `public_key` is the public one: 32 bytes in hexadecimal."""

    _key: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """What others check signatures with."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)


def is_signed(message: bytes, signature: bytes, public_key: str) -> bool:
    """Whether a signature of a message is of that key. Raises ValueError for what is no key."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def signer(library: Library) -> Signer:
    """The library's key; made, and named in the audit log, if it has had none.

    Raises SigningKeyError if it is lost, damaged or another than the log names, LibraryError if one cannot be
    made because the library cannot be written.
    """
    path, named = library.path / FILE, current(library)
    found = _read(path)
    if found is None and named is None:
        with library.writer(wait=-1) as writer:
            found = _read(path) or _write(path)  # another process may have made it meanwhile
            if current(library) is None:
                writer.announce_signing_key(found.public_key)
        named = current(library)
    if found is None:
        raise SigningKeyError(f"{path}: the library's signing key is missing; {REPLACE}")
    if named is None:  # its process was killed before it was named
        with library.writer(wait=-1) as writer:
            writer.announce_signing_key(found.public_key)
        return found
    if found.public_key != named:
        raise SigningKeyError(
            f"{path}: is not the key that the audit log names ({named[:16]}…); {REPLACE}"
        )
    return found


def replace(library: Library) -> Signer:
    """Make another key, and name it in the audit log: evidence is signed with it from now on."""
    with library.writer(wait=-1) as writer:
        made = _write(library.path / FILE)
        writer.announce_signing_key(made.public_key)
    return made


def keys(library: Library) -> list[Entry]:
    """The entries of the audit log that name public keys, the first first."""
    with library.reading() as connection:
        return audit.find(connection, [EVENT])


def current(library: Library) -> str | None:
    """The public key that the audit log names last; None if it names none."""
    named = keys(library)
    return named[-1].details["public_key"] if named else None


def _read(path: Path) -> Signer | None:
    """The key in a file; None if there is none. Raises SigningKeyError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SigningKeyError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError):
        raise SigningKeyError(f"{path}: is damaged; {REPLACE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path}: is not an Ed25519 key; {REPLACE}")
    return Signer(key)


def _write(path: Path) -> Signer:
    """A new key, in place of any other. Raises LibraryError if it cannot be written."""
    made = Ed25519PrivateKey.generate()
    text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f"{path.name}.", delete=False
        ) as file:  # readable by its owner alone
            file.write(text)
        synchronise(Path(file.name))
        os.replace(file.name, path)
        synchronise(path.parent)
    except OSError as error:
        raise LibraryError(f"{path}: cannot be written ({error.strerror})") from None
    return Signer(made)
