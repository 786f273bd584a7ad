"""Speeds are measured in turns, and decoders read the same sound."""

from pathlib import Path

import numpy as np
import pytest
from melodies import melody, write

from benchmarks import corpora, throughput
from benchmarks.throughput import ThroughputError, choose_files, comparison, measure, table


def test_stages_take_turns() -> None:
    order: list[str] = []

    def work(name: str) -> None:
        order.append(name)
        np.linalg.svd(np.ones((50, 50)))

    stages = {name: (2.0, lambda name=name: work(name)) for name in ("decode", "rest")}
    speeds = measure(stages, 3, "decode")
    assert order == ["decode", "rest"] * 4  # the first round does not count
    assert [speed.stage for speed in speeds] == ["decode", "rest"]
    assert speeds[0].share_of_decoding == 1.0
    assert all(speed.slowest <= speed.times_real_time <= speed.fastest for speed in speeds)
    assert "rest" in table(speeds)


def test_every_stage_runs(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.ogg", melody(n, 8.0)) for n in range(2)]
    speeds = measure(throughput.stages_of_earmark(files, tmp_path), 1, throughput.DECODE)
    assert {"ingest", "spectrogram", "encoder, query step"} <= {speed.stage for speed in speeds}
    assert all(speed.share_of_decoding for speed in speeds)


def test_every_decoder_runs(tmp_path: Path) -> None:
    files = [write(tmp_path / "0.ogg", melody(0, 8.0))]
    speeds = measure(throughput.stages_of_decoders(files, tmp_path), 1, "")
    assert len(speeds) == 4 * len(throughput.DECODED_CODECS)
    assert comparison(speeds).count("\n") == len(throughput.DECODED_CODECS)


def test_without_music_it_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "items", lambda *_: [])
    with pytest.raises(ThroughputError, match="fetch --split report"):
        choose_files(1.0)
