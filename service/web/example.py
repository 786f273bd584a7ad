"""The example that `/` offers: a clip of a made-up work, and the answer of a library of that work alone.

Both sounds come from `benchmarks.demo.example`. Nobody's library is touched, so that the example is found in
an empty one too.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.recording import Metadata
from service.query.answer import Answer, answer
from service.runtime.settings import Settings

STATIC = Path(__file__).parent / "static"
CLIP = STATIC / "example.mp3"
WORK = STATIC / "example-work.opus"
_SAID = Metadata(
    source=WORK.name,
    title="Fingers and Wire",
    artist="Earmark Demo Ensemble",
    rightsholder="nobody (CC0)",
    rights="public-domain",
)


@contextmanager
def answered_example(
    encoder: Encoder, settings: Settings
) -> Iterator[tuple[Answer, Fingerprint, Library]]:
    """The answer to the example clip, the clip's fingerprint, and the library that answered."""
    with (
        TemporaryDirectory(prefix="earmark-example-") as folder,
        closing(Library.open(Path(folder) / "library", encoder, create=True)) as library,
    ):
        with library.writer() as writer:
            writer.add(fingerprint(WORK, encoder, REFERENCE_EVERY), _SAID)
        made = fingerprint(CLIP, encoder, QUERY_EVERY)
        found = answer(
            CLIP.name,
            made,
            library,
            max_e_value=settings.max_e_value,
            hypotheses=settings.hypotheses,
        )
        yield found, made, library
