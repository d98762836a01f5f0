"""Everybody looks at the same moments, and nobody twice at one."""

import pytest

from meshd.rhythm import until_next


@pytest.mark.parametrize(
    ("period_s", "now", "wait_s"),
    [(0.25, 10.0, 0.25), (0.25, 10.1, 0.15), (1.0, 10.25, 0.75), (1.0, 10.999, 1.001)],
)
def test_the_next_look_is_at_a_multiple_of_the_period(period_s, now, wait_s):
    """However late the last one was; a timer that went off early does not go off again."""
    assert until_next(period_s, now) == pytest.approx(wait_s)


def test_different_periods_meet():
    """What looks once a second looks together with what looks four times."""
    now = 1234.567
    second = now + until_next(1.0, now)
    while now < second - 0.2:
        now += until_next(0.25, now)
    assert now == pytest.approx(second)
