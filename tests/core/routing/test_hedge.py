"""When a second attempt is worth its price."""

import pytest

from meshd.core.routing import hedge as rules
from meshd.core.routing.demand import Demand
from meshd.core.routing.hedge import HedgePolicy
from tests.core.routing.fleet import MODEL

SHORT = Demand(MODEL, frozenset({"chat"}), prompt_tokens=100, output_tokens=50)
LONG = Demand(MODEL, frozenset({"chat"}), rules.PROMPT_MAX_TOKENS + 1, output_tokens=50)


def practised(requests=100, demand=SHORT):
    """A policy that saw first bytes after 0.01, 0.02 ... 1.00 s, and as many requests."""
    policy = HedgePolicy()
    for number in range(1, 101):
        policy.observed(demand, number / 100)
    for _ in range(requests):
        policy.delay_s(demand, 0.0)
    return policy


def test_late_is_what_95_of_100_are_not():
    """The second attempt waits until the first is later than its kind."""
    assert practised().delay_s(SHORT, 0.0) == pytest.approx(0.95, abs=0.05)


def test_long_prompts_are_never_hedged():
    """Reading one twice is dear."""
    assert practised(demand=LONG).delay_s(LONG, 0.0) is None


def test_nobody_knows_what_late_means_before_enough_was_seen():
    """Another size of prompt is another class."""
    policy = practised()
    other = Demand(MODEL, frozenset(), prompt_tokens=1_000, output_tokens=50)
    for _ in range(rules.SAMPLES_MIN - 1):
        policy.observed(other, 1.0)
    assert policy.delay_s(other, 0.0) is None
    policy.observed(other, 1.0)
    assert policy.delay_s(other, 0.0) == 1.0


def test_each_class_is_looked_at_by_its_own_count():
    """Two that take turns would otherwise leave one of them as it was for ever."""
    policy = practised()
    other = Demand(MODEL, frozenset(), prompt_tokens=1_000, output_tokens=50)
    for _ in range(200):
        policy.observed(SHORT, 2.0)
        policy.observed(other, 1.0)
    assert policy.delay_s(SHORT, 0.0) == 2.0


def test_hedges_never_exceed_their_share_of_the_requests():
    """A thousand requests that would all like one get fifty."""
    policy = practised(requests=0)
    granted = 0
    for _ in range(1_000):
        granted += policy.delay_s(SHORT, 0.0) is not None and policy.spent()
    assert 49 <= granted <= 1_000 * rules.BUDGET_RATIO


def test_an_empty_budget_refuses():
    """Asking again does not help."""
    assert not HedgePolicy().spent()


def test_quiet_hours_save_up_only_a_handful():
    """A storm after a quiet night finds BUDGET_MAX hedges."""
    policy = practised(requests=10_000)
    assert policy.budget == rules.BUDGET_MAX


def test_a_hedge_is_never_sooner_than_a_timer_can_tell():
    """First bytes within a millisecond do not make twenty late."""
    policy = HedgePolicy()
    for _ in range(50):
        policy.observed(SHORT, 0.001)
        policy.delay_s(SHORT, 0.0)
    assert policy.delay_s(SHORT, 0.0) == rules.DELAY_MIN_S


def test_classes_are_bounded():
    """The one used least recently gives way."""
    policy = HedgePolicy()
    for number in range(rules.CLASSES_MAX + 5):
        policy.observed(Demand(str(number), frozenset(), 10, 10), 0.1)
    assert len(policy) == rules.CLASSES_MAX
