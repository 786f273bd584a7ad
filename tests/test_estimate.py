"""`python -m benchmarks.estimate`: figures that a pencil gives too."""

import pytest
from click.testing import CliRunner

from benchmarks.estimate import Measured, libraries, main, scans, size
from index.votes import Effort

ROUND = Measured(
    decode=100, opus=2, fingerprint=100, reference=100, compare=0, file=0, probed=1 / 8
)


def cells(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_scan_takes_what_decoding_and_fingerprints_take() -> None:
    # 100 h of sound: an hour each of decoding and of fingerprints, two of decoding Opus
    rows = cells(list(scans(ROUND, 3600, 100.0, [10], [1, 4])))
    told = {(row[0].partition(",")[0], row[2]): (row[4], row[5], row[6], row[7]) for row in rows}
    assert told["Ogg Vorbis", "full"] == ("2", "2 h", "30 min", "7.2 GB")
    assert told["Opus", "full"] == ("3", "3 h", "45 min", "3.38 GB")
    assert told["Ogg Vorbis", "probe"][3] == "900 MB"


def test_searching_costs_the_lists_that_are_probed() -> None:
    # two embeddings a second, each compared with 64 of 1,024 lists, 20,000 embeddings, or one cell
    effort = Effort(every=5, neighbours=20, probes=64, compared=20_000, candidates=8)
    small, large, huge = (
        Measured(compare=10).search(count, 512, effort) for count in (10, 10_000, 1_000_000)
    )
    assert small == pytest.approx(64 * 10 * 10e-9 * 2)
    assert large == pytest.approx(2 * 10_000 * 10e-9 * 2)
    assert huge == pytest.approx(62_500 * 10e-9 * 2)


def test_a_library_takes_its_bytes_for_each_second() -> None:
    (row,) = cells(list(libraries(Measured(bytes=36, catalogue=1000), 100.0, [36])))
    assert (row[0], row[1], row[3], row[4]) == ("36", "1", "130 kB", "36 kB")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (3.61e14, "361 TB")]
)
def test_sizes(count: float, said: str) -> None:
    assert size(count) == said


def test_every_cost_is_an_option() -> None:
    done = CliRunner().invoke(main, ["--decode", "100", "--files", "1000"])
    assert done.exit_code == 0 and "256,000,000 rows of metadata" in done.output
