"""A decision, printed."""

from random import Random

from meshd.core.routing.demand import demand_of
from meshd.core.routing.explain import decision_body
from meshd.core.routing.router import Router
from tests.core.routing.fleet import MODEL, chat, load, member, view

TERMS = [
    "rtt_s",
    "backlog_s",
    "own_dispatch_s",
    "load_s",
    "prefill_s",
    "decode_s",
    "penalty_s",
    "crowd_s",
    "batch_s",
    "pressure_s",
    "correction_s",
    "owner_s",
    "queue_s",
    "reading_s",
]
"""Part of the HTTP interface: names stay, new ones join at the end."""


def test_every_candidate_shows_its_gates_and_terms():
    """Eligible ones first, each with a sum that its terms add up to."""
    demand = demand_of(chat(), MODEL)
    house = view(member(1, load=load(draining=True)), member(2))
    body = decision_body(demand, Router(Random(1)).choose(house, demand, 0.0))
    assert body["chosen"] == "node2"
    assert [entry["node"] for entry in body["candidates"]] == ["node2", "node1"]
    assert [entry["eligible"] for entry in body["candidates"]] == [True, False]
    first = body["candidates"][0]
    assert abs(sum(first["terms"].values()) - first["score_s"]) < 0.001
    assert list(first["terms"]) == TERMS
    assert (first["load_age_s"], first["cached_ratio"]) == (0.0, 0.0)
    assert {gate["name"] for gate in first["gates"]} >= {"capability", "context", "breaker"}
    assert body["demand"]["capabilities"] == ["chat"]


def test_what_others_pay_is_no_time_that_the_asker_waits():
    """A battery, a queue behind and errors before make a node dearer, and its answer no later."""
    demand = demand_of(chat(), MODEL)
    dear = member(2, load=load(on_battery=True, error_ratio=0.2))
    decision = Router(Random(1)).choose(view(dear), demand, 0.0)
    (told,) = decision_body(demand, decision)["candidates"]
    for_others = sum(told["terms"][name] for name in ("queue_s", "owner_s", "penalty_s", "crowd_s"))
    assert for_others > 1.0
    assert abs(told["score_s"] - for_others - told["expected_s"]) < 0.001
    free = decision_body(demand, Router(Random(1)).choose(view(member(2)), demand, 0.0))
    assert told["expected_s"] == free["candidates"][0]["expected_s"]


def test_nobody_chosen_is_said_plainly():
    """With the reason where the choice would have been."""
    demand = demand_of(chat(), MODEL)
    body = decision_body(demand, Router(Random(1)).choose(view(member(1)), demand, 0.0, {"x"}))
    assert body["chosen"] == "node1"
    none = decision_body(
        demand, Router(Random(1)).choose(view(member(1)), demand, 0.0, {member(1).node_id})
    )
    assert none["chosen"] is None
    assert "already tried" in none["reason"]
