"""The choice as a whole."""

from collections import Counter
from random import Random

import pytest

from meshd.core.routing import breaker
from meshd.core.routing.demand import demand_of
from meshd.core.routing.router import Router
from tests.core.routing.fleet import MODEL, chat, load, member, model_load, view

DEMAND = demand_of(chat(), MODEL)
FAST = load(model_load(generation_tps=100.0))


def chosen(router, house, now=0.0, excluded=()):
    """The name of the chosen node, None when there is none."""
    decision = router.choose(house, DEMAND, now, excluded)
    return decision.chosen and decision.chosen.offer.member.name


def test_the_node_that_will_finish_first_is_chosen():
    """Ten times faster decoding outweighs a millisecond on the wire."""
    house = view(member(1), member(2, load=FAST))
    decision = Router(Random(1)).choose(house, DEMAND, 0.0)
    assert decision.chosen is not None
    assert decision.chosen.offer.member.name == "node2"
    assert decision.alternatives == 1
    assert decision.reason.startswith("peer; soonest of 2, expected ")


def test_the_only_candidate_is_named_as_such():
    """People who read the header learn that there was no choice."""
    assert Router(Random(1)).choose(view(member(1)), DEMAND, 0.0).reason == "local; only candidate"


def test_equal_machines_share_a_burst_between_two_heartbeats():
    """64 requests on frozen records: own dispatches spread them evenly over four machines."""
    router = Router(Random(7))
    house = view(*(member(number, rtt_s=0.0) for number in range(1, 5)))
    counts: Counter[str] = Counter()
    for _ in range(64):
        decision = router.choose(house, DEMAND, 1.0)
        assert decision.chosen is not None
        router.dispatch(decision.chosen, 1.0)
        counts[decision.chosen.offer.member.name] += 1
    assert max(counts.values()) / 16 <= 1.5


def test_released_attempts_no_longer_repel():
    """Two lost attempts made node1 look busy; once they are over it looks idle again."""
    router = Router(Random(1))
    house = view(member(1, load=FAST))
    leases = []
    for _ in range(3):
        decision = router.choose(house, DEMAND, 1.0)
        assert decision.chosen is not None
        leases.append(router.dispatch(decision.chosen, 1.0))
    busy = router.choose(house, DEMAND, 1.0).chosen
    assert busy is not None
    assert busy.cost.own_dispatch_s > 0
    for lease in leases:
        router.release(lease)
    idle = router.choose(house, DEMAND, 1.0).chosen
    assert idle is not None
    assert idle.cost.own_dispatch_s == 0


def test_an_excluded_node_is_not_tried_again():
    """One request, one try per node."""
    house = view(member(1), member(2))
    assert chosen(Router(Random(1)), house, excluded={member(1).node_id}) == "node2"


@pytest.mark.parametrize(
    ("code", "still_chosen"), [("engine_failed", False), ("timeout", False), ("overloaded", True)]
)
def test_a_broken_node_is_avoided_and_a_full_one_is_not(code, still_chosen):
    """Being full is no fault."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    first = router.choose(house, DEMAND, 0.0).chosen
    assert first is not None
    lease = router.dispatch(first, 0.0)
    router.failed(lease, code, now=0.0)
    router.release(lease)
    assert (chosen(router, house) == "node2") is still_chosen


def test_when_every_breaker_is_open_trying_beats_refusing():
    """The breaker is the only gate that gives way."""
    router = Router(Random(1))
    house = view(member(1))
    first = router.choose(house, DEMAND, 0.0).chosen
    assert first is not None
    router.failed(router.dispatch(first, 0.0), "unreachable", now=0.0)
    assert chosen(router, house) == "node1"


def test_a_node_that_recovers_is_used_again():
    """After the pause and one success, the faster node wins as before."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    first = router.choose(house, DEMAND, 0.0).chosen
    assert first is not None
    lease = router.dispatch(first, 0.0)
    router.failed(lease, "unreachable", now=0.0)
    assert chosen(router, house, now=0.1) == "node1"
    for _ in range(20):
        router.succeeded(lease)
    assert chosen(router, house, now=breaker.OPEN_MAX_S + 1.0) == "node2"


def test_nobody_eligible_says_why_for_each_node():
    """The sentence ends up in front of the person who asked."""
    house = view(member(1, load=load(pressure="critical", accepting=False)), member(2))
    decision = Router(Random(1)).choose(house, DEMAND, 0.0, {member(2).node_id})
    assert decision.chosen is None
    assert decision.reason == (
        "node1: not accepting work, memory pressure is critical; "
        "node2: already tried for this request"
    )


def test_the_same_seed_gives_the_same_choices():
    """A decision can be replayed."""
    house = view(*(member(number) for number in range(1, 6)))
    runs = []
    for _ in range(2):
        router = Router(Random(42))
        runs.append([chosen(router, house) for _ in range(20)])
    assert runs[0] == runs[1]


def test_the_catalogue_is_built_once_per_view():
    """A new view replaces it, the same view does not."""
    router = Router(Random(1))
    house = view(member(1))
    assert router.catalogue(house) is router.catalogue(house)
    assert router.catalogue(house) is not router.catalogue(view(member(1)))
