"""Absence is told from waiting by two clocks."""

from __future__ import annotations

import pytest

from meshd.net.sleep import SleepWatch, steady_clock


@pytest.mark.parametrize(
    ("awake_s", "steady_s", "meant_s", "away_s"),
    [
        (0.25, 0.25, 0.25, 0.0),
        (1.5, 1.5, 0.25, 0.0),
        (0.25, 3600.25, 0.25, 3600.0),
        (10.0, 10.0, 0.25, 9.75),
        (0.25, 0.0, 0.25, 0.0),
    ],
    ids=["an ordinary turn", "a slow turn", "a closed lid", "a stopped process", "a clock's whim"],
)
def test_absence_row_by_row(awake_s: float, steady_s: float, meant_s: float, away_s: float) -> None:
    """Only what is long beyond doubt counts as absence."""
    watch = SleepWatch(100.0, 500.0)
    assert watch.away_s(100.0 + awake_s, 500.0 + steady_s, meant_s) == away_s


def test_absence_is_told_once() -> None:
    """The next ordinary turn is ordinary again."""
    watch = SleepWatch(0.0, 0.0)
    assert watch.away_s(0.25, 60.25, 0.25) == 60.0
    assert watch.away_s(0.50, 60.50, 0.25) == 0.0


def test_steady_clock_goes_forward() -> None:
    """On every system there is a clock to ask."""
    assert 0 < steady_clock() <= steady_clock()
