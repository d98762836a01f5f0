"""Failures stop routing to one model on one node, for a while."""

import pytest

from meshd.core.routing import breaker as rules
from meshd.core.routing.breaker import Breakers


def broken(failures=1, now=0.0):
    """One pair that failed so many times at once."""
    breakers = Breakers()
    for _ in range(failures):
        breakers.failed("a", "m", now)
    return breakers


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (9, 30)])
def test_each_failure_doubles_the_pause_up_to_a_limit(failures, pause_s):
    """1, 2, 4 ... seconds, never more than OPEN_MAX_S."""
    assert broken(failures, now=100.0).open_for_s("a", "m", now=100.0) == pause_s


def test_success_closes_the_breaker_and_forgives_slowly():
    """The pause is gone at once; the error ratio fades."""
    breakers = broken()
    spoiled = breakers.error_ratio("a", "m", 0.0)
    breakers.succeeded("a", "m")
    assert breakers.open_for_s("a", "m", now=0.0) == 0.0
    assert 0.0 < breakers.error_ratio("a", "m", 0.0) < spoiled


def test_a_first_word_opens_the_door_and_forgives_nothing():
    """Who begins every answer and breaks it off fails every time."""
    breakers = Breakers()
    for number in range(6):
        breakers.tried("a", "m", now=number * 10.0)
        breakers.spoke("a", "m")
        assert breakers.open_for_s("a", "m", now=number * 10.0) == 0.0
        breakers.failed("a", "m", now=number * 10.0)
    assert breakers.open_for_s("a", "m", now=50.0) == rules.OPEN_MAX_S
    assert breakers.error_ratio("a", "m", 50.0) > 0.95
    breakers.spoke("b", "m")
    assert breakers.open_for_s("b", "m", now=50.0) == 0.0


def test_enough_successes_forget_the_failure_entirely():
    """No entry is kept for a node that is well."""
    breakers = broken()
    for _ in range(20):
        breakers.succeeded("a", "m")
    assert len(breakers.entries) == 0
    assert breakers.error_ratio("a", "m", 0.0) == 0.0


def test_half_open_lets_one_request_try():
    """Its dispatch closes the door behind it; one that passes a closed breaker does not."""
    breakers = broken()
    breakers.tried("b", "m", now=0.0)
    assert breakers.open_for_s("a", "m", now=1.5) == 0.0
    breakers.tried("a", "m", now=1.5)
    assert breakers.open_for_s("a", "m", now=1.5) == rules.OPEN_FIRST_S
    breakers.succeeded("a", "m")
    breakers.tried("a", "m", now=1.6)
    assert breakers.open_for_s("a", "m", now=1.6) == 0.0


def test_errors_fade_with_time_the_slower_the_more_there_were():
    """Half after FADE_FIRST_S for a single one; a node that only fails is remembered."""
    once, often = broken(), broken(failures=5)
    assert once.error_ratio("a", "m", rules.FADE_FIRST_S) == pytest.approx(0.25)
    assert often.error_ratio("a", "m", 60.0) > 0.8


def test_failures_in_a_row_weigh_even_when_they_are_far_apart():
    """A node that fails every trial has an error ratio near one, however seldom it is tried."""
    breakers = Breakers()
    for number in range(6):
        breakers.failed("a", "m", now=number * 10_000.0)
    assert breakers.error_ratio("a", "m", 50_000.0) > 0.95


def test_one_model_says_nothing_of_another():
    """Breakers are per (node, model)."""
    breakers = broken()
    assert breakers.open_for_s("a", "other", now=0.0) == 0.0
    assert breakers.open_for_s("b", "m", now=0.0) == 0.0


def test_the_table_is_bounded():
    """The entry touched least recently gives way."""
    breakers = Breakers()
    for number in range(rules.BREAKERS_MAX + 5):
        breakers.failed(str(number), "m", now=0.0)
    assert len(breakers.entries) == rules.BREAKERS_MAX
    assert breakers.error_ratio("0", "m", 0.0) == 0.0


def test_a_node_that_runs_anew_may_be_tried_at_once() -> None:
    """Its breakers close, those of others do not; what it cost lately still counts."""
    breakers = Breakers()
    breakers.failed("a", "m", 0.0)
    breakers.failed("b", "m", 0.0)
    breakers.restarted("a")
    assert breakers.open_for_s("a", "m", 0.0) == 0.0
    assert breakers.open_for_s("b", "m", 0.0) > 0.0
    assert breakers.error_ratio("a", "m", 0.0) > 0.0
