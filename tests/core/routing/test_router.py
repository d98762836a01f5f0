"""The choice as a whole."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from meshd.core.routing import breaker
from meshd.core.routing.demand import demand_of
from meshd.core.routing.lengths import EXPECTED_OUTPUT_TOKENS
from meshd.core.routing.prefix import CachedPrefixes, cuts_of
from meshd.core.routing.router import Completion, Router
from tests.core.routing.fleet import MODEL, chat, load, member, model, model_load, view

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
    assert decision.reason.startswith("peer; best of 2, expected ")


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
    """One request tries it after the pause; its first word opens the door at once, and after some
    whole answers the faster node wins as before."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    first = router.choose(house, DEMAND, 0.0).chosen
    assert first is not None
    lease = router.dispatch(first, 0.0)
    router.failed(lease, "unreachable", now=0.0)
    assert chosen(router, house, now=0.1) == "node1"
    later = breaker.OPEN_FIRST_S + 0.1
    router.dispatch(first, later)
    assert chosen(router, house, now=later) == "node1"
    for _ in range(20):
        router.spoke(lease)
        router.succeeded(lease)
    assert chosen(router, house, now=later) == "node2"


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


def test_the_catalogue_follows_the_view():
    """A new record replaces an offer; a new node adds one."""
    router = Router(Random(1))
    router.catalogue(view(member(1)))
    busy = member(1, load=load(model_load(in_flight=1)), load_at=2.0)
    assert router.catalogue(view(busy)).offers(MODEL)[0].member is busy
    assert len(router.catalogue(view(busy, member(2))).offers(MODEL)) == 2


def test_new_records_are_priced_for_the_next_choice():
    """The node that was the slower one becomes the faster one."""
    router = Router(Random(1))
    assert chosen(router, view(member(1), member(2, load=FAST))) == "node2"
    faster = member(1, load=load(model_load(generation_tps=200.0)), load_at=1.0)
    assert chosen(router, view(faster, member(2, load=FAST)), now=1.0) == "node1"


def test_a_path_that_failed_is_not_used_whatever_the_model():
    """Membership may still call the node alive; one answer from it clears the path."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    router.unreachable(member(2).node_id, now=0.0)
    assert chosen(router, house, now=0.1) == "node1"
    router.reachable(member(2).node_id)
    assert chosen(router, house, now=0.2) == "node2"


def test_a_node_that_fails_fast_is_tried_ever_more_seldom():
    """20 failures at once, then two minutes of a request a second: hardly one goes there."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    sinkhole = member(2).node_id
    sent: Counter[str] = Counter()
    for second in range(140):
        decision = router.choose(house, DEMAND, float(second))
        assert decision.chosen is not None
        lease = router.dispatch(decision.chosen, float(second))
        sent[lease.node_id] += second >= 20
        outcome = {sinkhole: lambda lease: router.failed(lease, "engine_failed", lease.at)}
        outcome.get(lease.node_id, router.succeeded)(lease)
        router.release(lease)
    assert sent[sinkhole] <= 2


def test_a_half_open_breaker_lets_one_request_through():
    """Of several requests after the pause, one tries; the others go where it is known to work."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=load(model_load(generation_tps=10_000.0))))
    first = router.choose(house, DEMAND, 0.0).chosen
    assert first is not None
    router.failed(router.dispatch(first, 0.0), "timeout", now=0.0)
    names = []
    for _ in range(3):
        decision = router.choose(house, DEMAND, 30.0)
        assert decision.chosen is not None
        names.append(decision.chosen.offer.member.name)
        router.dispatch(decision.chosen, 30.0)
    assert names == ["node2", "node1", "node1"]


def finished(router, house, total_s, times):
    """So many answers of 100 + 20 tokens from whoever is chosen, each as late as said."""
    for _ in range(times):
        decision = router.choose(house, DEMAND, 0.0)
        assert decision.chosen is not None
        lease = router.dispatch(decision.chosen, 0.0)
        router.finished(lease, Completion(0.1, total_s, 100, 0, 20, 0.0), 0.0)
        router.release(lease)


def test_a_node_that_became_slow_loses_its_place_at_once():
    """It says that 100 + 20 tokens take 1.2 s; they take twenty times as long."""
    router = Router(Random(1))
    house = view(member(1), member(2, load=FAST))
    assert chosen(router, house) == "node2"
    finished(router, house, total_s=24.0, times=1)
    assert chosen(router, house) == "node1"


def test_what_ends_before_anything_was_chosen_changes_nothing():
    """A node whose model nobody has asked for since the last rebuild."""
    router, other = Router(Random(1)), Router(Random(1))
    decision = other.choose(view(member(1)), DEMAND, 0.0)
    assert decision.chosen is not None
    lease = other.dispatch(decision.chosen, 0.0)
    router.finished(lease, Completion(0.1, 9.0, 100, 0, 20, 0.0), 0.0)
    assert router.reconsider(decision, {member(1).node_id: model_load()}, 0.0) is decision
    assert len(router.experiences) == 1


def test_lengths_of_answers_are_learnt_by_class():
    """After a score of 20-token answers, 20 tokens are expected of an unbounded one."""
    router = Router(Random(1))
    unbounded = chat(max_tokens=None)
    assert router.demand(unbounded, MODEL).output_tokens == EXPECTED_OUTPUT_TOKENS
    finished(router, view(member(1)), total_s=1.0, times=20)
    assert router.demand(unbounded, MODEL).output_tokens == 20
    assert router.demand(chat(max_tokens=5), MODEL).output_tokens == 5


def conversation(*turns):
    """A chat of so many turns, with a session that is of no matter here."""
    return chat(messages=tuple({"role": "user", "content": turn * 200} for turn in turns))


def holding(job):
    """The load of a machine that has read this job's prompt."""
    held = CachedPrefixes(4)
    held.served(cuts_of(job))
    return load(model_load(prefixes=held.digest()))


def test_the_machine_that_has_the_conversation_gets_its_next_turn():
    """It has half of the prompt; an equal one has nothing."""
    house = view(member(1), member(2, load=holding(conversation("a"))))
    router = Router(Random(1))
    demand = demand_of(conversation("a", "b"), MODEL)
    decision = router.choose(house, demand, 0.0)
    assert decision.chosen is not None
    assert decision.chosen.offer.member.name == "node2"
    assert decision.chosen.cached_ratio == pytest.approx(0.5, abs=0.05)
    assert "% cached" in decision.reason


def test_a_busy_machine_loses_its_conversations():
    """What is saved on the prompt is less than the wait: cost decides, not loyalty."""
    busy = holding(conversation("a"))
    busy = replace(busy, models=(replace(busy.models[0], backlog_s=30.0, in_flight=2),))
    house = view(member(1), member(2, load=busy))
    decision = Router(Random(1)).choose(house, demand_of(conversation("a", "b"), MODEL), 0.0)
    assert decision.chosen is not None
    assert decision.chosen.offer.member.name == "node1"


def test_a_session_stays_where_it_is_among_equals():
    """From whichever router; other sessions go elsewhere."""
    house = view(*(member(number, rtt_s=0.0) for number in range(1, 5)))
    homes = set()
    for session in "abcdefgh":
        demand = demand_of(chat(session=session), MODEL)
        names = {chosen_for(Router(Random(seed)), house, demand) for seed in range(5)}
        assert len(names) == 1
        homes |= names
    assert len(homes) > 1


def chosen_for(router, house, demand):
    """The name of the chosen node."""
    decision = router.choose(house, demand, 0.0)
    assert decision.chosen is not None
    return decision.chosen.offer.member.name


def close_pair(age_s=1.0):
    """A router, a house of two near-equals and one slow node, and a decision on old records."""
    near = load(model_load(generation_tps=11.0))
    slow = load(model_load(generation_tps=1.0))
    house = view(member(1), member(2, load=near), member(3, load=slow))
    router = Router(Random(1))
    return router, house, router.choose(house, DEMAND, age_s)


def test_near_equals_on_old_records_are_worth_a_probe():
    """The best two, the chosen one first."""
    _, _, decision = close_pair()
    assert decision.probe is not None
    assert [each.offer.member.name for each in decision.probe] == ["node2", "node1"]


def test_a_probe_is_not_worth_its_time_on_fresh_records():
    """They say what the answer would say."""
    _, _, decision = close_pair(age_s=0.05)
    assert decision.probe is None


def test_a_clear_or_a_short_choice_needs_no_probe():
    """Ten times faster is faster whatever happened since; a tenth of a second is not worth it."""
    clear = view(member(1), member(2, load=FAST))
    assert Router(Random(1)).choose(clear, DEMAND, 5.0).probe is None
    quick = load(model_load(generation_tps=1e5, prompt_tps=1e5))
    short = view(member(1, load=quick), member(2, load=quick))
    assert Router(Random(1)).choose(short, DEMAND, 5.0).probe is None


def test_fresh_loads_turn_the_choice_and_are_kept():
    """Node 2 has filled up since its record; later choices know it until its next record."""
    router, house, decision = close_pair()
    full = model_load(generation_tps=11.0, in_flight=2, backlog_s=9.0)
    again = router.reconsider(decision, {member(2).node_id: full}, 1.0)
    assert again.chosen is not None
    assert again.chosen.offer.member.name == "node1"
    assert again.probe is None
    assert chosen(router, house, now=1.1) == "node1"
    newer = member(2, load=load(model_load(generation_tps=11.0)), load_at=2.0)
    assert chosen(router, view(member(1), newer, member(3)), now=2.0) == "node2"


def test_probes_that_nobody_answered_change_nothing():
    """The decision stands as it was."""
    router, _, decision = close_pair()
    assert router.reconsider(decision, {}, 1.0) is decision
    stranger = router.reconsider(decision, {"f" * 32: model_load()}, 1.0)
    assert stranger.chosen is decision.chosen


def test_a_row_without_news_keeps_what_a_probe_told():
    """Its round trip was measured anew; its record is still the old one."""
    router, house, decision = close_pair()
    full = model_load(generation_tps=11.0, in_flight=2, backlog_s=9.0)
    router.reconsider(decision, {member(2).node_id: full}, 1.0)
    same = replace(house.members[member(2).node_id], rtt_s=0.002)
    assert chosen(router, view(member(1), same, member(3)), now=1.1) == "node1"


def test_a_thousand_nodes_are_sifted_to_the_same_choice():
    """Scoring only those near the best finds what scoring all of them would."""
    rng = Random(3)
    crowd = [
        member(number, rtt_s=0.0, load=load(model_load(generation_tps=rng.uniform(1.0, 50.0))))
        for number in range(1, 400)
    ]
    best = member(400, rtt_s=0.0, load=load(model_load(generation_tps=70.0)))
    decision = Router(Random(1)).choose(view(*crowd, best), DEMAND, 0.0)
    assert decision.chosen is not None
    assert decision.chosen.offer.member.name == "node400"
    assert (decision.alternatives, len(decision.candidates)) == (8, 400)
    few = {each.node_id for each in crowd[3:]}
    assert Router(Random(1)).choose(view(*crowd, best), DEMAND, 0.0, few).alternatives == 3


def test_sifting_passes_over_nodes_that_a_gate_holds_back():
    """The best two of many were tried already or accept nothing."""
    crowd = [member(number, rtt_s=0.0) for number in range(1, 60)]
    tried = member(60, load=FAST)
    shut = member(61, load=load(model_load(generation_tps=100.0), accepting=False))
    router = Router(Random(1))
    house = view(*crowd, tried, shut)
    assert chosen(router, house, excluded={tried.node_id}) not in {"node60", "node61"}
    closed = view(*(replace(each, load=load(accepting=False)) for each in crowd))
    assert chosen(router, closed) is None


def test_many_near_equals_are_sampled():
    """Routers with other chances take others of two hundred equal machines."""
    house = view(*(member(number, rtt_s=0.0) for number in range(1, 201)))
    names = {chosen(Router(Random(seed)), house) for seed in range(20)}
    assert len(names) > 5


def test_what_nobody_has_memory_for_is_said_so():
    """507 for the client, not 503: waiting will not help."""
    tight = load(model_load(warm=False), memory_available_bytes=1 << 30)
    house = view(member(1, model(size_bytes=9 << 30), load=tight))
    decision = Router(Random(1)).choose(house, DEMAND, 0.0)
    assert decision.chosen is None
    assert decision.failure_code == "insufficient_memory"
    assert "needs 9.7 GB" in decision.reason
