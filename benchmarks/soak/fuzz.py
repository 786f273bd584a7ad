"""Files made to do harm, through the server's decoder, as uploads go through it.

    python -m benchmarks.soak.fuzz [--files 20000] [--seed 1] [--folder fuzz]

A small file of every container that is read, and fingerprints (.emk), are damaged at random: bits flipped,
runs of bytes overwritten, removed, repeated and mixed between files, numbers set to extremes, ends cut off.
Each is decoded in the worker processes of `service.runtime.decoding`, under the server's own limits. It has
to end in a fingerprint or in an AudioError; a fingerprint that came as one is also searched for.

What ended otherwise, ended its worker or ran into the time limit is kept in the folder, as
NUMBER-SEED-FILE; file NUMBER of a seed is always the same. The folder also holds a line of JSON for each
file, and a second run goes on from there. Bombs come first: small files that decode to hours or announce
gigabytes.
"""

import argparse
import io
import itertools
import json
import multiprocessing
import re
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import soundfile
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from tqdm import tqdm

from benchmarks.codecs import BIT_EXACT
from benchmarks.journal import Journal
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import (
    QUERY_EVERY,
    REFERENCE_EVERY,
    Fingerprint,
    fingerprint_samples,
)
from index.library import Library
from index.recording import Metadata
from service.runtime.decoding import Decoder
from service.runtime.settings import Settings
from service.runtime.workers import WorkerDied

SECONDS, RATE = 0.8, 16_000  # of the files that are damaged
LARGEST = 2**18  # bytes of a damaged file
BATCH = 100  # files from one look at the memory to the next
SLOW = 5.0  # s; what takes longer is counted

# What libav writes: file, container, encoder, Hz. The name says what is inside.
_ENCODED = (
    ("aac.aac", "adts", "aac", RATE),
    ("latm.loas", "latm", "aac", RATE),
    ("ac3.ac3", "ac3", "ac3", 32_000),
    ("eac3.eac3", "eac3", "eac3", 32_000),
    ("pcm.aiff", "aiff", "pcm_s16be", RATE),
    ("amr.amr", "amr", "libopencore_amrnb", 8_000),
    ("amr.3gp", "3gp", "libopencore_amrnb", 8_000),
    ("wma2.asf", "asf", "wmav2", RATE),
    ("wma1.asf", "asf", "wmav1", RATE),
    ("mulaw.au", "au", "pcm_mulaw", RATE),
    ("mp3.avi", "avi", "libmp3lame", RATE),
    ("adpcm.avi", "avi", "adpcm_ima_wav", RATE),
    ("alac.caf", "caf", "alac", RATE),
    ("pcm.caf", "caf", "pcm_s16le", RATE),
    ("flac.flac", "flac", "flac", RATE),
    ("aac.flv", "flv", "aac", RATE),
    ("nellymoser.flv", "flv", "nellymoser", 8_000),
    ("opus.webm", "webm", "libopus", 48_000),
    ("vorbis.webm", "webm", "vorbis", RATE),
    ("flac.mka", "matroska", "flac", RATE),
    ("pcm.mka", "matroska", "pcm_f32le", RATE),
    ("aac.m4a", "ipod", "aac", RATE),
    ("alac.m4a", "ipod", "alac", RATE),
    ("flac.mp4", "mp4", "flac", RATE),
    ("fragments.mp4", "ismv", "aac", RATE),
    ("adpcm.mov", "mov", "adpcm_ima_qt", RATE),
    ("pcm.mov", "mov", "pcm_s24be", RATE),
    ("mp3.mp3", "mp3", "libmp3lame", RATE),
    ("mp2.mp2", "mp2", "mp2", RATE),
    ("mp2.mpeg", "mpeg", "mp2", RATE),
    ("aac.ts", "mpegts", "aac", RATE),
    ("opus.ts", "mpegts", "libopus", 48_000),
    ("vorbis.ogg", "ogg", "vorbis", RATE),
    ("opus.opus", "opus", "libopus", 48_000),
    ("flac.oga", "ogg", "flac", RATE),
    ("ac3.rm", "rm", "ac3", 32_000),
    ("real.rm", "rm", "real_144", 8_000),
    ("tta.tta", "tta", "tta", RATE),
    ("pcm.w64", "w64", "pcm_s16le", RATE),
    ("pcm.wav", "wav", "pcm_s16le", RATE),
    ("double.wav", "wav", "pcm_f64le", RATE),
    ("adpcm.wav", "wav", "adpcm_ms", RATE),
    ("g726.wav", "wav", "g726", 8_000),
    ("wavpack.wv", "wv", "wavpack", RATE),
)
# What libsndfile writes, which is also asked where libav refuses a file: file, format, subtype.
_WRITTEN = (
    ("gsm.wav", "WAV", "GSM610"),
    ("rf64.wav", "RF64", "PCM_24"),
    ("float.aiff", "AIFF", "FLOAT"),
    ("adpcm.aiff", "AIFF", "IMA_ADPCM"),
    ("sndfile.flac", "FLAC", "PCM_24"),
)
# Formats that nothing at hand writes: how a file of it begins, with noise behind.
_BEGINNINGS = {
    # lengths of what follows, MD5; level, flags, samples of a frame, frames, bits, channels, Hz
    "noise.ape": b"MAC " + struct.pack("<HHIIIIIII", 3990, 0, 52, 24, 4, 0, 7900, 0, 0) + bytes(16)
    + struct.pack("<HHIIIHHI", 2000, 32, 73_728, 12_800, 1, 16, 1, RATE) + struct.pack("<I", 80),
    # version, format, channel type, channels, Hz, bits, samples, bytes of a block
    "noise.dsf": b"DSD " + struct.pack("<QQQ", 28, 8_092, 0) + b"fmt "
    + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2_822_400, 1, 60_000, 4096, 0)
    + b"data" + struct.pack("<Q", 8_012),
    "noise.dts": b"".join(
        bytes.fromhex("7ffe8001fc3c1ff0b5e03800") + bytes(range(244)) * 2 + bytes(12)
        for _ in range(8)
    ),
    "noise.mpc": b"MP+\x07" + struct.pack("<I", 20),
    "noise.mpc8": b"MPCKSH\x0d" + bytes(4) + b"\x08\x8a\x00\x00\x11\x0bAP\xbe\x00",
    "noise.tak": b"tBaK\x01\x0a\0\0",
    "noise.xwma": b"RIFF\xff\x20\0\0XWMAfmt \x12\0\0\0"
    + struct.pack("<HHIIHHH", 0x161, 1, 16_000, 2_000, 320, 16, 0)
    + b"dpds\x08\0\0\0" + struct.pack("<II", 8_192, 16_384) + b"data\xc0\x12\0\0",
}  # fmt: skip


@cache
def seeds() -> dict[str, bytes]:
    """The files that are damaged, by name."""
    sound = _sound()
    files = {
        name: _encoded(sound, container, encoder, rate)
        for name, container, encoder, rate in _ENCODED
    }
    for name, container, subtype in _WRITTEN:
        file = io.BytesIO()
        soundfile.write(file, sound, RATE, format=container, subtype=subtype)
        files[name] = file.getvalue()
    noise = np.random.default_rng(0).bytes(8_000)
    files |= {name: start + noise for name, start in _BEGINNINGS.items()}
    made = fingerprint_samples(_at_8_khz(3.0), Encoder.load(), QUERY_EVERY, "clip")
    made = replace(made, sha256="0" * 64)
    return files | {"clip.emk": made.to_bytes()}


def _sound(seconds: float = SECONDS) -> NDArray[np.float32]:
    """Gliding tones under noise [shape=(n,)]."""
    t = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    tones = sum(np.sin(2 * np.pi * (f * t + 40 * t**2)) for f in (220, 554, 1318))
    return (0.2 * tones + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def _at_8_khz(seconds: float) -> NDArray[np.float32]:
    return soxr.resample(_sound(seconds), RATE, SAMPLE_RATE)


def _encoded(sound: NDArray[np.float32], container: str, encoder: str, rate: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=BIT_EXACT) as output:
        output.metadata.update({"title": "A title", "artist": "An artist", "date": "2021"})
        options = {"strict": "experimental"}
        layout = "stereo" if encoder == "vorbis" else "mono"  # all that libav's own can do
        stream: Any = output.add_stream(encoder, rate=rate, layout=layout, options=options)
        if encoder.startswith("wma"):
            stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        for part in (frame, None):
            output.mux(stream.encode(part))
    return file.getvalue()


def damaged(number: int, seed: int) -> tuple[str, bytes]:
    """File `number`: the name of the one that it was made of, and its bytes."""
    rng = np.random.default_rng([seed, number])
    name, other = rng.choice(list(seeds()), 2)
    data = seeds()[name]
    if name.endswith(".emk") and rng.integers(4):
        return str(name), untrue(data, rng)
    for _ in range(1 + rng.geometric(0.4)):
        data = MUTATIONS[rng.integers(len(MUTATIONS))](data, seeds()[other], rng)[:LARGEST]
    if data.startswith(b"OggS") and rng.integers(4):
        data = _with_ogg_sums(data)
    return str(name), data


def _with_ogg_sums(data: bytes) -> bytes:
    """An Ogg file with the check sums of its pages (RFC 3533) made right, or nobody would look into them."""
    pages = []
    for page in re.split(b"(?=OggS)", data)[1:]:
        length = 27 + sum(page[27 : 27 + page[26]]) + page[26] if len(page) > 26 else len(page)
        whole, rest = page[:length], page[length:]
        whole = whole[:22] + bytes(4) + whole[26:]
        pages += [whole[:22], _crc(whole, 32, 0x04C11DB7).to_bytes(4, "little"), whole[26:], rest]
    return b"".join(pages)


_UNTRUE: tuple[Any, ...] = (
    *(0, 1, -1, 5, 10**30, 0.5, 1e308, -1e-308, float("nan"), float("inf"), 2.9, 3.1, 60.0),
    *(None, True, "", "0" * 64, [], {}, "[" * 2000),
)


def untrue(data: bytes, rng: Generator) -> bytes:
    """A fingerprint whose file is whole, as damage to its bytes seldom leaves it, and that lies."""
    tensors = load_tensors(data)
    text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    for _ in range(int(rng.integers(3))):
        text[str(rng.choice(sorted(text)))] = json.dumps(_UNTRUE[rng.integers(len(_UNTRUE))])
    for tensor in rng.permutation(sorted(tensors))[: rng.integers(3)]:
        known = tensors[str(tensor)]
        noise = rng.integers(-128 if known.dtype.kind == "i" else 0, 128, known.shape)
        changed = (
            known[: rng.integers(len(known) + 1)],
            np.concatenate([known] * int(rng.integers(2, 40))),
            np.zeros_like(known),
            np.full_like(known, np.iinfo(known.dtype).min),
            noise.astype(known.dtype),
            known.astype(np.float32),
            known[:, : rng.integers(known.shape[1] + 1)],
            None,
        )[rng.integers(8)]
        if changed is None:
            del tensors[str(tensor)]
        else:
            tensors[str(tensor)] = np.ascontiguousarray(changed)
    return save_tensors(tensors, text)


def _place(data: bytes, rng: Generator) -> int:
    """Anywhere, but as often as not in the first 600 bytes: where the headers are."""
    ends = (min(600, len(data)), len(data))
    return int(rng.integers(ends[rng.integers(2)] + 1))


def _run(data: bytes, rng: Generator) -> tuple[int, int]:
    """Where a run of bytes begins and ends: long ones are rarer than short ones."""
    start = _place(data, rng)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 11)))


def _flip(data: bytes, other: bytes, rng: Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 7))):
        if at := _place(data, rng):
            changed[at - 1] ^= 1 << rng.integers(8)
    return bytes(changed)


def _overwrite(data: bytes, other: bytes, rng: Generator) -> bytes:
    start, end = _run(data, rng)
    filling = (bytes(end - start), b"\xff" * (end - start), rng.bytes(end - start))
    return data[:start] + filling[rng.integers(3)] + data[end:]


def _remove(data: bytes, other: bytes, rng: Generator) -> bytes:
    start, end = _run(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, other: bytes, rng: Generator) -> bytes:
    start, end = _run(data, rng)
    return data[:start] + data[start:end] * int(2 ** rng.uniform(1, 7)) + data[end:]


def _extreme(data: bytes, other: bytes, rng: Generator) -> bytes:
    """A number of 1 to 8 bytes becomes 0, 1, the largest, the smallest, or one beside them."""
    size = 2 ** int(rng.integers(4))
    value = (0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1)
    order: Any = ("little", "big")[rng.integers(2)]
    number = (value[rng.integers(5)] + int(rng.integers(-1, 2))) % 2 ** (8 * size)
    start = _place(data, rng)
    return data[:start] + number.to_bytes(size, order) + data[start + size :]


def _cut_off(data: bytes, other: bytes, rng: Generator) -> bytes:
    return data[: _place(data, rng)]


def _splice(data: bytes, other: bytes, rng: Generator) -> bytes:
    """One file's head before another's end."""
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _insert(data: bytes, other: bytes, rng: Generator) -> bytes:
    start, end = _run(other, rng)
    at = _place(data, rng)
    return data[:at] + other[start:end] + data[at:]


MUTATIONS: tuple[Callable[[bytes, bytes, Generator], bytes], ...] = (
    _flip,
    _overwrite,
    _remove,
    _repeat,
    _extreme,
    _extreme,
    _cut_off,
    _splice,
    _insert,
)


class Sandbox:
    """The server's decoder, and a library to search in for what is a fingerprint; a context manager."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.encoder = Encoder.load()
        self._decoder = Decoder(settings, self.encoder)
        self._library = Library.open(folder / "library", self.encoder, create=True)
        made = fingerprint_samples(_at_8_khz(20.0), self.encoder, REFERENCE_EVERY, "it")
        about = Metadata(source="it", rightsholder="-", rights="owned")
        with self._library.writer() as writer:
            writer.add(made, about)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()
        self._library.close()

    def outcome(self, name: str, data: bytes, as_recording: bool = False) -> str:
        """What becomes of an upload: "decoded", an AudioError's type, "died", or a traceback."""
        decode = self._decoder.recording if as_recording else self._decoder.clip
        try:
            made = decode(io.BytesIO(data), name)
            if name.endswith(".emk") and not as_recording:
                self._search(made)
        except WorkerDied as error:
            return "died" if error.type == "undecodable" else error.type
        except AudioError as error:
            return error.type
        except Exception:
            return traceback.format_exc()
        return "decoded"

    def _search(self, made: Fingerprint) -> None:
        matches, _ = self._library.search(made)
        for match in matches:
            assert np.isfinite([match.e_value, match.score, match.query_start, match.tempo]).all()


def hear(sandbox: Sandbox, number: int, seed: int, keep: Path) -> dict[str, Any]:
    """What became of file `number`; it is kept if it ended its worker or as nothing should end."""
    name, data = damaged(number, seed)
    began = time.monotonic()
    outcome = sandbox.outcome(name, data, as_recording=bool(number % 2))
    entry = {"number": number, "of": name, "outcome": outcome.strip().rpartition("\n")[2]}
    entry["seconds"] = round(time.monotonic() - began, 3)
    if is_finding(outcome) or outcome in ("died", "timeout"):
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{number}-{seed}-{name}").write_bytes(data)
        if is_finding(outcome):
            (keep / f"{number}-{seed}-{name}.txt").write_text(outcome)
    return entry


EXPECTED = (
    *("decoded", "undecodable", "too-short", "silent", "too-long", "too-large", "timeout", "died"),
)


def is_finding(outcome: str) -> bool:
    """Whether an outcome is one that no file may have."""
    return outcome not in EXPECTED


def bombs() -> dict[str, bytes]:
    """Small files that decode to hours, or announce gigabytes, by name."""
    seed = seeds()
    emk = seed["clip.emk"]
    header = json.loads(emk[8 : 8 + int.from_bytes(emk[:8], "little")])
    end = 2**40 * 128
    header["embeddings"] |= {"shape": [2**40, 128], "data_offsets": [0, end]}
    header["levels"]["data_offsets"] = [end, end + 96]
    announcing = json.dumps(header).encode()
    return {
        "ten-hours.flac": _flac(_frames(10 * 3600 * 1000)),
        "ten-hours.mp4": _mp4_that_repeats(),
        "ten-hours-said.flac": _flac(_frames(65_535), stated=10 * 3600 * 1000),
        "four-gigabytes.wav": _announcing(seed["pcm.wav"], b"data", 0, b"\xff" * 4),
        "exabytes.rf64": _announcing(seed["rf64.wav"], b"ds64", 4, b"\xff" * 24),
        "65535-channels.wav": _announcing(seed["pcm.wav"], b"fmt ", 6, b"\xff" * 2),
        "4-ghz.wav": _announcing(seed["pcm.wav"], b"fmt ", 8, b"\xff" * 4),
        "4-billion-frames.aiff": _announcing(seed["pcm.aiff"], b"COMM", 6, b"\xff" * 4),
        "huge-block.flac": _announcing(seed["flac.flac"], b"fLaC", 35, b"\x04\xff\xff\xff"),
        "4-billion-samples.m4a": _announcing(seed["aac.m4a"], b"stsz", 4, b"\0\0\0\1" + b"\xff" * 4),
        "4-billion-chunks.m4a": _announcing(seed["aac.m4a"], b"stco", 4, b"\xff" * 4),
        "4-billion-times.m4a": _announcing(seed["aac.m4a"], b"stts", 4, b"\xff" * 4),
        "exabyte-atom.m4a": seed["aac.m4a"][:32] + b"\0\0\0\1moov" + b"\x7f" + b"\xff" * 7,
        "exabyte-segment.mka": _announcing(seed["flac.mka"], b"\x18\x53\x80\x67", 0, b"\x01" + b"\xff" * 7),
        "endless-tag.mp3": b"ID3\x04\0\0\x7f\x7f\x7f\x7fAPIC\x7f\x7f\x7f\x7f" + seed["mp3.mp3"],
        "exabyte-chunk.caf": _announcing(seed["alac.caf"], b"pakt", 0, b"\x7f" + b"\xff" * 7),
        "4-gigabytes.avi": _announcing(seed["mp3.avi"], b"movi", -8, b"\xff" * 4),
        "4-billion-samples.tta": _announcing(seed["tta.tta"], b"TTA1", 10, b"\xff" * 4),
        "4-billion-frames.ape": _announcing(seed["noise.ape"], b"MAC ", 24, b"\xff" * 12),
        "4-billion-samples.wv": _announcing(seed["wavpack.wv"], b"wvpk", 8, b"\xff" * 4),
        "256-terabytes.dsf": _announcing(seed["noise.dsf"], b"data", 0, b"\xff" * 6),
        "nested.mp4": _nested(b"moov", b"trak", 20_000),
        "huge-header.emk": b"\xff" * 7 + b"\x7f" + emk[8:],
        "huge-shape.emk": len(announcing).to_bytes(8, "little") + announcing + bytes(96),
    }  # fmt: skip


def _announcing(data: bytes, after: bytes, skip: int, value: bytes) -> bytes:
    """A file with other bytes `skip` bytes after the end of a mark."""
    at = data.index(after) + len(after) + skip
    return data[:at] + value + data[at + len(value) :]


def _nested(*marks: Any) -> bytes:
    """Boxes in boxes, so many deep."""
    first, inner, depth = marks
    boxes = b"".join(struct.pack(">I4s", 8 * (depth - i), inner) for i in range(depth))
    return _box(b"ftyp", b"isom", bytes(4)) + _box(first, boxes)


def _flac(frames: bytes, stated: int = 0, rate: int = 1000) -> bytes:
    """A FLAC file of mono frames of 8 bits, which states so many samples (0: that they are not known)."""
    return b"fLaC\x80\0\0\x22" + _stream_info(stated, rate) + frames


def _stream_info(stated: int, rate: int) -> bytes:
    packed = rate << 44 | (8 - 1) << 36 | stated
    return struct.pack(">HH", 65_535, 65_535) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)


def _frames(samples: int) -> bytes:
    """FLAC frames of so many samples of one value: 14 bytes for 65 535 of them."""
    frames = []
    for number in range(-(-samples // 65_535)):
        # sync; length in 16 bits, rate as in the file's header; mono, 8 bits; number; length less one
        head = b"\xff\xf8\x70\x02" + chr(number).encode() + struct.pack(">H", 65_534)
        head += bytes([_crc(head, 8, 0x07)])
        body = head + b"\x00\x40"  # one value for all
        frames.append(body + _crc(body, 16, 0x8005).to_bytes(2, "big"))
    return b"".join(frames)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """A check sum, from the highest bit on: those of FLAC (RFC 9639, 9.1.8 and 9.3) and Ogg."""
    value = 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
    return value


def _mp4_that_repeats() -> bytes:
    """FLAC in MP4, whose table of chunks names the same one again and again: 1 kB for ten hours."""
    frames, each = 20, len(_frames(65_535))
    chunk = _frames(65_535 * frames)
    chunks = -(-10 * 3600 * 1000 // (65_535 * frames))
    start = _box(b"ftyp", b"isom", bytes(4))
    at = len(start) + 8  # of the first chunk

    def full(*values: int) -> bytes:
        return struct.pack(f">{len(values) + 1}I", 0, *values)

    entry = bytes(6) + struct.pack(">HQHHII", 1, 0, 1, 8, 0, 1000 << 16)
    described = _box(b"fLaC", entry, _box(b"dfLa", full(0x80000022), _stream_info(0, 1000)))
    table = _box(
        b"stbl",
        _box(b"stsd", full(1), described),
        _box(b"stts", full(1, chunks * frames, 65_535)),
        _box(b"stsc", full(1, 1, frames, 1)),
        _box(b"stsz", full(each, chunks * frames)),
        _box(b"stco", full(chunks, *[at] * chunks)),
    )
    data = _box(b"dinf", _box(b"dref", full(1), _box(b"url ", struct.pack(">I", 1))))
    media = _box(
        b"mdia",
        _box(b"mdhd", full(0, 0, 1000, 0), b"\x55\xc4\0\0"),
        _box(b"hdlr", full(0), b"soun", bytes(13)),
        _box(b"minf", _box(b"smhd", full(0)), data, table),
    )
    head = _box(b"mvhd", full(0, 0, 1000, 0, 1 << 16), bytes(76), struct.pack(">I", 2))
    track = _box(b"tkhd", struct.pack(">IIIIII", 7, 0, 0, 1, 0, 0), bytes(60))
    return start + _box(b"mdat", chunk) + _box(b"moov", head, _box(b"trak", track, media))


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def workers() -> list[psutil.Process]:
    """The processes that decode."""
    return [psutil.Process(it.pid) for it in multiprocessing.active_children() if it.pid]


def explode(settings: Settings, folder: Path) -> Iterator[dict[str, Any]]:
    """What each bomb ends in, the seconds it takes and the memory its worker had at most, in bytes."""
    with Sandbox(settings.model_copy(update={"jobs": 1}), folder) as sandbox:
        sandbox.outcome("pcm.wav", seeds()["pcm.wav"])  # starts the worker
        for name, data in bombs().items():
            _forget_peaks()
            began = time.monotonic()
            outcome = sandbox.outcome(name, data, as_recording=not name.endswith(".emk"))
            yield {
                "bomb": name,
                "bytes": len(data),
                "outcome": outcome.strip().rpartition("\n")[2],
                "seconds": round(time.monotonic() - began, 2),
                "peak": max((_peak(it) for it in workers()), default=0),
            }


def _forget_peaks() -> None:
    """Begin anew to note how much memory workers have at most (Linux)."""
    for worker in workers():
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")


def _peak(process: psutil.Process) -> int:
    """Most resident memory since, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def fuzz(numbers: Iterable[int], seed: int, settings: Settings, folder: Path) -> Iterator[dict]:
    """What became of these files, in any order; every BATCH of them also what memory there was."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Sandbox(settings, Path(scratch)) as sandbox,
        ThreadPoolExecutor(settings.jobs) as threads,
    ):
        waiting = iter(numbers)
        while batch := list(itertools.islice(waiting, BATCH)):
            yield from threads.map(lambda n: hear(sandbox, n, seed, folder / "kept"), batch)
            me = psutil.Process()
            yield {
                "server_bytes": me.memory_info().rss,
                "server_files": me.num_fds(),
                "worker_bytes": max((it.memory_info().rss for it in workers()), default=0),
            }


def table(entries: Iterable[dict[str, Any]]) -> str:
    """For people."""
    known = list(entries)
    files = [entry for entry in known if "number" in entry]
    memory = [entry for entry in known if "server_bytes" in entry]
    lines = [
        f"{it['bomb']:24}{it['bytes']:>9,} bytes {it['seconds']:>7.2f} s"
        f"{it['peak'] / 2**20:>7.0f} MiB  {it['outcome']}"
        for it in known
        if "bomb" in it
    ]
    counts = Counter(entry["outcome"] for entry in files)
    lines += [f"{count:8,} {outcome}" for outcome, count in counts.most_common()]
    if files:
        slowest = max(files, key=lambda entry: entry["seconds"])
        slow = sum(entry["seconds"] > SLOW for entry in files)
        lines.append(
            f"{len(files):,} files; {slow} took more than {SLOW:g} s, the slowest "
            f"{slowest['seconds']:.1f} s (number {slowest['number']}, of {slowest['of']})"
        )
    for share in (0.1, 0.5, 1.0) if memory else ():
        at = memory[max(0, round(share * len(memory)) - 1)]
        lines.append(
            f"after {share:4.0%}: server {at['server_bytes'] / 2**20:.0f} MiB and "
            f"{at['server_files']} open files, its largest worker {at['worker_bytes'] / 2**20:.0f} MiB"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("fuzz"))
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--max-duration", type=float, default=4 * 3600.0, metavar="SECONDS")
    args = parser.parse_args()
    settings = Settings(jobs=args.jobs, max_duration=timedelta(seconds=args.max_duration))
    journal = Journal(args.folder / f"seed-{args.seed}.jsonl")
    if not any("bomb" in entry for entry in journal.entries):
        with tempfile.TemporaryDirectory() as scratch:
            journal.append(explode(settings, Path(scratch)))
    done = {entry.get("number") for entry in journal.entries}
    left = [number for number in range(args.files) if number not in done]
    with tqdm(total=args.files, initial=args.files - len(left), disable=None) as bar:
        news: list[dict] = []
        for entry in fuzz(left, args.seed, settings, args.folder):
            news.append(entry)
            if "number" in entry:
                bar.update()
            else:
                journal.append(news)
                news = []
    print(table(journal.entries))
    findings = [it for it in journal.entries if is_finding(it.get("outcome", "decoded"))]
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
