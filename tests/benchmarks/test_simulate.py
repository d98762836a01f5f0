"""The simulated figures: named as documented, bounded by the number of seeds."""

from pathlib import Path

import pytest

from benchmarks.simulate import PARTS, few, figures, parse

METHODOLOGY = Path(__file__).parents[2] / "benchmarks" / "METHODOLOGY.md"


def test_a_part_says_that_it_is_simulated_and_how_often_it_ran() -> None:
    """So that nobody takes virtual seconds for measured ones."""
    found = figures(1, ["load"])
    assert (found["simulated"], found["seeds"]) == (True, 1)
    assert found["load"]["n10"]["runs"] == 1
    assert set(found["load"]["n50"]) == {"nodes", "runs", "p50_s", "p99_s", "max_s"}


@pytest.mark.parametrize(("seeds", "runs"), [(1, 1), (20, 2), (200, 20)])
def test_large_runs_get_fewer_seeds(seeds: int, runs: int) -> None:
    """Half a minute each: one in ten, and at least one."""
    assert few(seeds) == runs


def test_every_part_is_documented() -> None:
    """By its name in the JSON."""
    text = METHODOLOGY.read_text().split("## Simulated")[1]
    assert [name for name in PARTS if f"**{name}.**" not in text] == []


def test_nonsense_is_refused() -> None:
    """No seeds are no figures."""
    with pytest.raises(SystemExit):
        parse(["--seeds", "0"])
