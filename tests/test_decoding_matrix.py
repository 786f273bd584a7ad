"""Whatever people have is heard, or it is said what was not: containers, codecs, bits, channels, damage."""

import pytest
from decoding_matrix import CELLS, Cell, faults


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_sound_is_found_or_it_is_said_what_was_not_heard(cell: Cell) -> None:
    assert faults(cell) == []


def test_the_matrix_is_as_large_as_is_promised() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS) >= 150
