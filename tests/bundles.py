"""Evidence for the tests: made as the command makes it, taken apart and put together as a forger does."""

import json
import zipfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fingerprint.audio import Limits
from index.library import Library
from index.signing import Signer
from service.evidence import bundle
from service.evidence.bundle import STATEMENT
from service.query.answer import answer, fingerprint_clip
from service.runtime.settings import load_settings

Files = dict[str, bytes]
THEIRS = Signer(Ed25519PrivateKey.generate())


def evidence_for(clip: Path, library: Library, folder: Path, **flags: Any) -> Path:
    """The bundle for a clip's one match."""
    told: list[str] = []
    writer = bundle.Writer(library, folder, load_settings(**flags), told.append)
    made = fingerprint_clip(clip, clip.name, library.encoder, Limits())
    found = answer(clip.name, made, library, max_e_value=0.01, hypotheses=0)
    (path,) = writer.write(clip.name, made, found.matches)
    assert path is not None and told == []
    return path


def packed(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def signed_anew(files: Files, key: Signer = THEIRS) -> Files:
    """As a forger does it who has a key, though not the library's."""
    rest = {name: data for name, data in files.items() if name not in bundle._SEALS}
    return rest | bundle._sealed(rest, key, None)


def edited(files: Files, **values: Any) -> Files:
    """With other values in the statement; a function makes them of the old ones."""
    said = json.loads(files[STATEMENT])
    for name, value in values.items():
        at, _, last = f"evidence__{name}".rpartition("__")
        place = said
        for part in at.split("__")[1:]:
            place = place[part]
        place[last] = value(place[last]) if callable(value) else value
    return files | {STATEMENT: json.dumps(said).encode()}
