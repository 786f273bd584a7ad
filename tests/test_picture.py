"""README's picture: what is drawn is what was given, and the file can be shown anywhere."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from benchmarks.demo.picture import LEVELS, heat

PICTURE = Path(__file__).parent.parent / "docs" / "picture.svg"


def test_heat_draws_every_cell_in_its_shade() -> None:
    values = np.random.default_rng(0).uniform(-0.2, 1.2, (9, 14)).astype(np.float32)
    drawn = np.zeros(values.shape)
    for runs, shade in re.findall(
        r'd="([^"]*)" stroke-opacity="([\d.]+)"', heat(values, 0, 0, 1, 1, "work")
    ):
        for column, row, length in re.findall(r"M(\d+) (\d+)h(\d+)", runs):
            cells = np.s_[int(row), int(column) : int(column) + int(length)]
            assert not drawn[cells].any()
            drawn[cells] = float(shade)
    assert np.abs(drawn - values.clip(0, 1)).max() <= 0.5 / LEVELS + 0.01


def test_the_picture_is_small_and_needs_nothing_from_elsewhere() -> None:
    source = PICTURE.read_text()
    assert PICTURE.stat().st_size < 300_000
    assert ElementTree.fromstring(source).tag.endswith("svg")
    assert "prefers-color-scheme: dark" in source
    assert not re.search(r"href|url\((?!#)|<image|<script", source)
