"""How the dump's benchmark judges a scan."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks.soak.dump import Made, score
from fingerprint.audio import SAMPLE_RATE


def melody(seed: int, seconds: float) -> np.ndarray:
    """Notes of 0.2 s between 300 and 3,000 Hz."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(0.2 * SAMPLE_RATE)) / SAMPLE_RATE
    pitches = rng.uniform(300, 3000, round(seconds / 0.2))
    return np.concatenate([0.3 * np.sin(2 * np.pi * pitch * at) for pitch in pitches])


def test_of_a_recording_named_wrongly_is_told_whether_the_file_has_audio_of_it(tmp_path: Path):
    common = melody(1, 12)
    sounds = {
        "in it": np.concatenate([melody(2, 10), common]),
        "has a part of it": np.concatenate([common, melody(3, 10)]),
        "is another": melody(4, 22),
    }
    audio = {name: tmp_path / f"{name}.wav" for name in sounds}
    for name, sound in sounds.items():
        soundfile.write(audio[name], sound, SAMPLE_RATE)
    rows = [
        {"file": "a.tar", "member": "1.wav", "recording": name, "tier": tier}
        | {"reference_start": 0.0, "reference_end": 12.0}
        for name, tier in (
            *((name, "match") for name in (*sounds, "has no audio")),
            ("is no match", "review"),
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "segments.parquet")
    files = [{"file": "a.tar", "member": "1.wav", "status": "match"}]
    pq.write_table(pa.Table.from_pylist(files), tmp_path / "files.parquet")
    where = {("a.tar", "1.wav"): Made("1.wav", "original", ("in it",))}
    tally = score(tmp_path, where, {name: name for name in sounds}, audio)["original"]
    assert (tally.present, tally.found, tally.named) == (1, 1, 4)
    assert tally.wrong == [
        ("1.wav", "has a part of it", True),
        ("1.wav", "has no audio", False),
        ("1.wav", "is another", False),
    ]
