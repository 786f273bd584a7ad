"""Tracker modules and MIDI files as audio, rendered by openmpt123 and FluidSynth."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
import soundfile as sf

from fingerprint.errors import EarmarkError

SAMPLE_RATE = 44_100  # Hz
CHANNELS = 2
LONGEST = 600  # s of audio; some modules repeat for ever
PATIENCE = 300  # s of computing; a renderer that hangs is ended
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar", ".rmi"})


class RenderError(EarmarkError):
    """A module or MIDI file cannot be rendered."""


def render(source: Path, destination: Path, sound_font: Path = SOUND_FONT) -> Path:
    """Write `source` (module or MIDI) as 44.1 kHz stereo FLAC of at most `LONGEST` seconds.

    A MIDI file's instruments are those of `sound_font`. The file appears under its name only when it is
    complete. Raises `RenderError` for a missing program or sound font, and for a file that gives no sound.
    """
    command = (
        _midi_command(source, sound_font)
        if source.suffix.lower() in MIDI_SUFFIXES
        else _module_command(source)
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".partial-") as folder:
        partial = Path(folder, "audio.flac")
        if not _write_flac(command, partial):
            raise RenderError(f"{source}: {command[0]} gave no sound; is the file damaged?")
        os.replace(partial, destination)
    return destination


def _module_command(source: Path) -> list[str]:
    program = _program("openmpt123", "openmpt123")
    # fmt: off
    return [program, "--batch", "--quiet", "--stdout", "--no-float", "--samplerate", str(SAMPLE_RATE),
            "--channels", str(CHANNELS), "--end-time", str(LONGEST), str(source)]
    # fmt: on


def _midi_command(source: Path, sound_font: Path) -> list[str]:
    program = _program("fluidsynth", "fluidsynth")
    if not sound_font.is_file():
        raise RenderError(
            f"{sound_font} is missing: MIDI files need a sound font; install its Debian package, "
            "fluid-soundfont-gm or timgm6mb-soundfont"
        )
    # fmt: off
    return [program, "-ni", "-q", "-r", str(SAMPLE_RATE), "-T", "raw", "-O", "s16", "-F", "-",
            str(sound_font), str(source)]
    # fmt: on


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if not found:
        raise RenderError(f"{name} was not found: install the Debian package {package}")
    return found


def _write_flac(command: list[str], path: Path) -> int:
    """Frames that `command` printed (16-bit stereo) and that now are in `path`."""
    frames, most = 0, LONGEST * SAMPLE_RATE
    # Neither program can be told to stop after so many seconds of every file, so the pipe is closed.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            with sf.SoundFile(path, "w", SAMPLE_RATE, CHANNELS, "PCM_16", format="FLAC") as output:
                while frames < most:
                    block = process.stdout.read(SAMPLE_RATE * CHANNELS * 2)
                    samples = np.frombuffer(block[: len(block) // 4 * 4], "<i2").reshape(
                        -1, CHANNELS
                    )
                    if not len(samples):
                        break
                    output.write(samples[: most - frames])
                    frames += min(len(samples), most - frames)
        finally:
            watchdog.cancel()
            process.kill()
    return frames
