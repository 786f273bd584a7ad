"""`make demo`: a small library, damaged clips of it, and what Earmark says of them.

    python -m benchmarks.demo [--audio FOLDER] [--output demo-output]

Works that the project composes itself (and the music in FOLDER, if given) go into a library with the real
`earmark ingest`; clips of them are damaged as the world damages music; the real `earmark query` is asked
what they are. One work is kept out of the library: of a clip of that, Earmark has to say nothing. The
exit status is 1 if an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from benchmarks import codecs
from benchmarks.degrade import (
    AUTOMATIC_GAIN,
    BandPass,
    Chain,
    Noise,
    Sources,
    Speed,
    Step,
    SyntheticRoom,
    degrade,
    rng_for,
)
from benchmarks.demo import works
from service.datasets.extensions import AUDIO_EXTENSIONS
from service.presentation.formatting import chance, change, clock, table
from service.query.answer import Match

OUTPUT = Path("demo-output")
SECONDS = (5.0, 8.0)  # of a clip
MARGIN = 3.0  # s left out at both ends of a work: beginnings fade in, endings ring out
NEAR = 0.5  # s; a place this close to the true one is right
OWN_CLIPS = 3  # of the user's files
QUIET = 0.003  # root mean square re full scale; too little to ask about
MOST_TOLD = 5  # files of the user's that could not be read
TRIES = 20  # places in a user's file looked at for one that is not quiet
UNKNOWN = "Fingers and Wire"  # is not put into the library


@dataclass(frozen=True)
class Damage:
    """What is done to a clip before it is written as a file."""

    name: str  # of the file
    words: str
    codec: str  # in `codecs.CODECS`
    steps: tuple[Step, ...] = ()


MP3 = Damage("mp3", "MP3 at 64 kbit/s", "mp3-64")
NOISY = Damage("noise", "loud noise over it (5 dB)", "flac", (Noise("pink", 5.0),))
FASTER = Damage("faster", "played 3 % faster", "mp3-128", (Speed(1.03),))
TELEPHONE = Damage("telephone", "over the telephone", "gsm", (BandPass(300.0, 3_400.0),))
PHONE = Damage(
    "phone-in-a-room",
    "recorded by a phone in a room",
    "opus-32",
    (SyntheticRoom(0.4, 2.0), Noise("pink", 12.0), BandPass(200.0, 6_000.0), AUTOMATIC_GAIN),
)
# Works of different kinds, so that the demo shows more than one music.
CLIPS = (
    ("Waltz for a Rainy Tuesday", MP3),
    ("Concrete Gardens", NOISY),
    ("Blue Umbrella", FASTER),
    ("The Mayor Arrives Late", TELEPHONE),
    ("Chorale at Dusk", PHONE),
    (UNKNOWN, MP3),
)


@dataclass(frozen=True)
class Clip:
    """A damaged clip and the truth about it."""

    path: Path
    words: str
    source: Path | None  # None: not in the library
    offset: float  # s; where in the source it begins
    own: bool = False  # of the user's music


@dataclass(frozen=True)
class Verdict:
    """What Earmark said of a clip, and whether that is so."""

    clip: Clip
    right: bool
    said: str
    place: str = ""
    odds: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Its cells under `HEADER`."""
        true_place = "" if self.clip.source is None else clock(self.clip.offset)
        mark = "right" if self.right else "WRONG"
        return self.clip.words, self.said, self.place, true_place, self.odds, mark


HEADER = ("WHAT THE CLIP IS", "EARMARK SAYS", "FROM", "TRULY", "IN A TEST", "")


def make_clip(source: Path, damage: Damage, path: Path, rng: Generator) -> Clip:
    """A damaged clip from a random place of a file. Raises ValueError if all of it is quiet."""
    chain = Chain(damage.steps)
    seconds = float(rng.uniform(*SECONDS))
    latest = max(_duration(source) - MARGIN - seconds * chain.tempo, 0.0)
    for _ in range(TRIES):
        offset = float(rng.uniform(min(MARGIN, latest), latest))
        samples, rate = codecs.cut(source, offset, seconds * chain.tempo)
        if np.sqrt(np.mean(np.square(samples))) > QUIET:
            break
    else:
        raise ValueError(f"{source}: hardly any sound was found in it")
    damaged = degrade(samples, rate, chain, rng, Sources())
    codecs.write(path, damaged.samples, damaged.rate, damage.codec)
    return Clip(path, damage.words, source, offset)


def _duration(source: Path) -> float:
    import av

    with av.open(str(source)) as container:
        return float(container.duration or 0) / av.time_base


def make_clips(composed: dict[str, Path], own: Sequence[Path], folder: Path) -> list[Clip]:
    """The demo's clips, and some of the user's own files; what cannot be read is left out."""
    folder.mkdir(parents=True)
    clips = []
    for number, (title, damage) in enumerate(CLIPS, 1):
        rng = rng_for("demo", title, damage.name)
        unknown = title == UNKNOWN
        name = (
            f"{number}-{'unknown' if unknown else damage.name}{codecs.CODECS[damage.codec].suffix}"
        )
        clip = make_clip(composed[title], damage, folder / name, rng)
        if unknown:
            clip = replace(clip, source=None, words="a work that is not in the library")
        clips.append(clip)
    rng = rng_for("demo", "own")
    damages = (MP3, NOISY, TELEPHONE)
    for source in (own[i] for i in rng.permutation(len(own))):
        damage = damages[(len(clips) - len(CLIPS)) % len(damages)]
        number = len(clips) + 1
        path = folder / f"{number}-yours-{damage.name}{codecs.CODECS[damage.codec].suffix}"
        try:
            clip = make_clip(source, damage, path, rng)
            clips.append(replace(clip, own=True, words=f"yours: {damage.words}"))
        except (ValueError, OSError, IndexError) as error:  # PyAV's errors are among these
            print(f"   left out: {error}")
        if len(clips) == len(CLIPS) + OWN_CLIPS:
            break
    return clips


def judge(clip: Clip, answer: dict[str, Any]) -> Verdict:
    """Compare one line of `earmark query --json` with the truth.

    The first match has to be the clip's source, and where the clip begins within NEAR of the true place.
    A user's own music may hold the same audio twice, or loop: there it is enough that the source is
    among the matches.
    """
    if answer["error"]:
        return Verdict(clip, False, f"cannot read it: {answer['error']['detail']}")
    matches = answer["matches"]
    if not matches:
        return Verdict(clip, clip.source is None, "nothing known in here")
    name = clip.source.name if clip.source else None
    chosen = matches[0]
    if clip.own:
        chosen = next((m for m in matches if Path(m["source"]).name == name), chosen)
    begin = chosen["reference_start"] - chosen["tempo"] * chosen["query_start"]
    right = Path(chosen["source"]).name == name and (clip.own or abs(begin - clip.offset) <= NEAR)
    said = chosen["title"] or Path(chosen["source"]).name
    match = Match.model_construct(**chosen)
    if match.changed:
        said += f", {change(match)}"
    if chosen["tier"] != "match":
        said += " (please review)"
    return Verdict(clip, right, said, clock(max(begin, 0.0)), chance(match))


def _command(library: Path, *words: object) -> list[str]:
    """The `earmark` command beside this Python, as a user would type it."""
    program = Path(sys.executable).with_name("earmark")
    here = Path.cwd()
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return [str(shown), "--library", str(library), *map(str, words)]


def _show(command: Sequence[str]) -> None:
    print(f"   $ {shlex.join(command)}", flush=True)


def _compose(folder: Path) -> dict[str, Path]:
    """All works as files: those for the library, and beside them the one that is kept out."""
    return {
        work.title: works.write(work, folder / ("unknown" if work.title == UNKNOWN else "works"))
        for work in works.WORKS
    }


def run(output: Path, audio: Path | None) -> int:
    """The whole demo; returns the exit status. Begins by deleting what it left there last time."""
    started = time.monotonic()
    library, clips_folder = output / "library", output / "clips"
    for name in ("library", "clips", "works", "unknown"):
        shutil.rmtree(output / name, ignore_errors=True)

    print(f"1. Composing {len(works.WORKS)} short works, so that there is music to try it on.")
    composed = _compose(output)
    print(
        f"   {len(composed) - 1} of them are in {output / 'works'}, one is kept out of the library.\n"
    )

    print("2. Putting them into a library. It keeps fingerprints, no audio.")
    command = _command(library, "ingest", output / "works")
    command += ["--rightsholder", works.ARTIST, "--rights", "public-domain"]
    _show(command)
    ingested = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(f"   {ingested.stdout.strip()}")
    if ingested.returncode:
        return 1
    own: list[Path] = []
    if audio is not None:
        command = _command(library, "ingest", audio, "--rightsholder", "me", "--rights", "owned")
        _show([*command, "--json"])
        ingested = subprocess.run(
            [*command, "--json"], stdout=subprocess.PIPE, text=True, check=False
        )
        outcomes = [json.loads(line) for line in ingested.stdout.splitlines()]
        own = sorted(Path(it["file"]) for it in outcomes if it["status"] == "added")
        print(f"   {len(own)} of {len(outcomes)} files added")
        failed = [it["error"]["detail"] for it in outcomes if it["status"] == "failed"]
        for detail in failed[:MOST_TOLD]:
            print(f"   failed: {detail}")
        if len(failed) > MOST_TOLD:
            print(f"   … and {len(failed) - MOST_TOLD} more")
        if ingested.returncode not in (0, 1):  # 1: some files could not be read
            return 1

    clips = make_clips(composed, own, clips_folder)
    print(f"\n3. Cutting {len(clips)} clips of 5 to 8 seconds out, damaging them, and asking.")
    command = _command(library, "query", *(clip.path for clip in clips), "--json")
    print(f"   $ {shlex.join(command[:4])} {clips_folder}/* --json", flush=True)
    asked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    answers = {Path(a["clip"]).name: a for a in map(json.loads, asked.stdout.splitlines())}
    if len(answers) != len(clips):
        print("   There is not an answer to every clip; see the message above.")
        return 1
    verdicts = [judge(clip, answers[clip.path.name]) for clip in clips]
    print()
    print(table(HEADER, [verdict.row for verdict in verdicts], indent="   "))
    right = sum(verdict.right for verdict in verdicts)
    took = time.monotonic() - started
    print(f"\n   {right} of {len(verdicts)} answers are right. All this took {took:.0f} s.\n")

    print("Now you.")
    serve = shlex.join(_command(library, "serve"))
    earmark = shlex.join(_command(library)[:1])
    print(f'   Your music: {earmark} ingest ~/Music --rightsholder "Me" --rights owned')
    print(f"               {earmark} query some-clip.mp3")
    print(f"   The page:   {serve}")
    print("               then open http://127.0.0.1:8000/ and drop a clip there")
    return 0 if right == len(verdicts) else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo and leave with its exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.demo", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--audio",
        metavar="FOLDER",
        help=f"your own music, to go into the library too ({len(AUDIO_EXTENSIONS)} file types are known)",
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FOLDER", help="default: demo-output"
    )
    options = parser.parse_args(arguments)
    audio = Path(options.audio) if options.audio else None  # `make demo` passes an empty AUDIO on
    if audio is not None and not audio.exists():
        parser.error(f"--audio {audio}: there is no such folder")
    sys.exit(run(options.output, audio))


if __name__ == "__main__":
    main()
