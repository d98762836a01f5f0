"""Every scenario under many seeds. `SIM_SEEDS` sets how many (200; `make sim` runs 1,000)."""

from __future__ import annotations

import os

import pytest

from tests.sim.measure import detect
from tests.sim.scenarios import SCENARIOS

SEEDS = int(os.environ.get("SIM_SEEDS", "200"))
SCALE_SEEDS = int(os.environ.get("SIM_SCALE_SEEDS", "1"))
BLOCK = 25
"""Seeds per test: a failure is found, and named, before the rest have run."""


@pytest.mark.timeout(180)  # one or two seconds of CPU, which a loaded machine may take long to give
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str, first: int) -> None:
    """What the scenario says is true under each seed; a failure says how to replay it."""
    for seed in range(first, min(first + BLOCK, SEEDS)):
        try:
            SCENARIOS[name](seed)
        except AssertionError as error:
            pytest.fail(f"{error}\nreplay: python -m tests.sim replay {name} {seed}", pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(600 * SCALE_SEEDS)
def test_a_silent_host_among_a_thousand_is_seen_by_all_in_about_three_seconds() -> None:
    """SWIM's promise holds at a thousand nodes: the median is below three seconds (`measure`), and
    no seed is far from it. Slow: a million table rows are filled per seed."""
    silent = detect(1_000, SCALE_SEEDS)["silent"]
    assert silent["p50_s"] <= 3.5
    assert silent["false_deaths"] == 0
