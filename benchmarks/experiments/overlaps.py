"""Whether music of one split is heard in another, by Earmark's own fingerprint.

    python -m benchmarks.experiments.overlaps [--package NAME ...] [--against tune report]

puts the train packages' works (or those of the packages named) into a library and asks it about two stretches
of 15 s of each work of the other splits, as they are. Packages may share a recording under another name, and
a split that shares one with train measures what was learned by heart. Exit status 1 if there is a match.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import fingerprint_of
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY
from index.library import Library
from index.recording import Metadata

STRETCH = 15  # s
PLACES = (0.25, 0.6)  # of the work's length, where the stretches begin


def library_of(items: list[corpora.Item], folder: Path, encoder: Encoder) -> Library:
    """A library of these works."""
    library = Library.open(folder, encoder, create=True)
    with library.writer() as writer:
        for item in tqdm(items, "library", disable=None):
            made = fingerprint_of(read_audio(item.audio()), encoder, REFERENCE_EVERY)
            about = Metadata(
                source=item.member, rightsholder="corpus", rights="open-licence", id=item.id
            )
            writer.add(made, about)
    library.refresh()
    return library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--package", nargs="*", default=[], help="of train; default: all")
    parser.add_argument("--against", nargs="*", choices=corpora.SPLITS, default=["tune", "report"])
    args = parser.parse_args()
    encoder = Encoder.load()
    works = [i for i in corpora.items("train") if not args.package or i.package in args.package]
    asked = [item for split in args.against for item in corpora.items(split)]
    known = {item.id: item for item in works}
    found = 0
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        library = library_of(works, Path(folder, "library"), encoder)
        for item in tqdm(asked, "asked", disable=None):
            samples = read_audio(item.audio())
            for place in PLACES:
                first = int(place * len(samples))
                clip = samples[first : first + STRETCH * SAMPLE_RATE]
                try:
                    matches, _ = library.search(
                        fingerprint_of(clip, encoder, QUERY_EVERY), hypotheses=0
                    )
                except AudioError:  # a pause in the music
                    continue
                for match in matches:
                    other = known[match.recording]
                    found += 1
                    print(
                        f"{item.split} {item.package} {item.title!r} from {first / SAMPLE_RATE:.0f} s: "
                        f"{match.tier} with {other.package} {other.title!r}, E {match.e_value:.1e}",
                        flush=True,
                    )
    print(
        f"{len(works)} works of train, {len(asked)} of {' and '.join(args.against)}: {found} matches"
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
