"""Failures stop routing to one model on one node, for a while."""

import pytest

from meshd.core.routing import breaker as rules
from meshd.core.routing.breaker import Breakers


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (9, 30)])
def test_each_failure_doubles_the_pause_up_to_a_limit(failures, pause_s):
    """1, 2, 4 ... seconds, never more than OPEN_MAX_S."""
    breakers = Breakers()
    for _ in range(failures):
        breakers.failed("a", "m", now=100.0)
    assert breakers.open_for_s("a", "m", now=100.0) == pause_s


def test_success_closes_the_breaker_and_forgives_slowly():
    """The pause is gone at once; the error ratio fades."""
    breakers = Breakers()
    breakers.failed("a", "m", now=0.0)
    spoiled = breakers.error_ratio("a", "m")
    breakers.succeeded("a", "m")
    assert breakers.open_for_s("a", "m", now=0.0) == 0.0
    assert 0.0 < breakers.error_ratio("a", "m") < spoiled


def test_enough_successes_forget_the_failure_entirely():
    """No entry is kept for a node that is well."""
    breakers = Breakers()
    breakers.failed("a", "m", now=0.0)
    for _ in range(20):
        breakers.succeeded("a", "m")
    assert len(breakers) == 0
    assert breakers.error_ratio("a", "m") == 0.0


def test_one_model_says_nothing_of_another():
    """Breakers are per (node, model)."""
    breakers = Breakers()
    breakers.failed("a", "m", now=0.0)
    assert breakers.open_for_s("a", "other", now=0.0) == 0.0
    assert breakers.open_for_s("b", "m", now=0.0) == 0.0


def test_the_table_is_bounded():
    """The entry touched least recently gives way."""
    breakers = Breakers()
    for number in range(rules.BREAKERS_MAX + 5):
        breakers.failed(str(number), "m", now=0.0)
    assert len(breakers) == rules.BREAKERS_MAX
    assert breakers.error_ratio("0", "m") == 0.0
