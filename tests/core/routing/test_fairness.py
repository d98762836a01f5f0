"""Turns and shares: whose job is next, what it is charged, and what the other nodes are told."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.routing.fairness import (
    ACCOUNTS_MAX,
    CREDIT_TOKENS,
    HALF_LIFE_S,
    REBASE_HALF_LIVES,
    FairQueue,
    Shares,
    Ticket,
    asker,
    known_person,
    person_of,
)
from protocol import limits
from protocol.load import PersonUse

ANNA, BEN, CLEO = "a" * 16, "b" * 16, "c" * 16


def ticket(
    person: str = ANNA,
    tokens: int = 100,
    at: float = 0.0,
    *,
    batch: bool = False,
    begun: bool = False,
) -> Ticket:
    """A job whose answer costs `tokens` in all."""
    return Ticket(person, 0, tokens // 2, at, batch=batch, begun=begun)


def queue(slots: int = 1) -> FairQueue:
    return FairQueue(Shares(0.0), slots)


def served(line: FairQueue, now: float = 0.0) -> list[str]:
    """Who starts when each job that runs is over at once, from now until nobody waits."""
    started = []
    while line.running:
        for each in list(line.running.values()):
            line.end(each, each.prompt_tokens, each.output_tokens)
        while (next_one := line.start_next(now)) is not None:
            started.append(next_one.person)
    return started


# Who asks


def test_a_person_is_the_same_on_every_node_of_a_mesh_and_on_no_other() -> None:
    """Sixteen digits of a keyed hash."""
    one = person_of(b"k" * 32, "key anna")
    assert one == person_of(b"k" * 32, "key anna")
    assert len(bytes.fromhex(one)) == limits.PERSON_BYTES
    assert len({one, person_of(b"l" * 32, "key anna"), person_of(b"k" * 32, "key ben")}) == 3


def test_a_key_is_its_owner_wherever_and_a_machine_its_owner() -> None:
    """Two machines' loopbacks are two people, one address seen from two nodes is one."""
    assert asker("anna", "10.0.0.7", "1" * 32) == asker("anna", None, "2" * 32)
    assert asker(None, "10.0.0.7", "1" * 32) == asker(None, "10.0.0.7", "2" * 32)
    assert asker(None, None, "1" * 32) != asker(None, None, "2" * 32)
    assert asker("x", None, "1") != asker(None, "x", "1")


@pytest.mark.parametrize(
    "claimed", ["", "anna", "zz" * 8, "ab" * 7, "ab" * 9, "ａ" * 16, "ab  cd  ef  0123"]
)
def test_a_job_that_names_nobody_is_its_senders(claimed: str) -> None:
    """Anything that is no hash is nobody."""
    assert known_person(claimed, "12" * 16) == "12" * 8
    assert known_person("AB" * 8, "12" * 16) == "ab" * 8


# Turns


def test_a_free_slot_is_taken_at_once() -> None:
    """Without anybody waiting there is nothing to be fair about."""
    line = queue(slots=2)
    assert [line.arrive(ticket(), 0.0) for _ in range(3)] == [True, True, False]
    assert (len(line), len(line.running), line.people, line.waiting_of(ANNA)) == (1, 2, 1, 1)


def test_people_take_turns_however_much_one_sends() -> None:
    """Ten jobs of one and two of another: the two are not behind the ten."""
    line = queue()
    for _ in range(10):
        line.arrive(ticket(ANNA, 4_000), 0.0)
    for _ in range(2):
        line.arrive(ticket(BEN, 4_000), 0.0)
    assert served(line)[:5] == [BEN, ANNA, BEN, ANNA, ANNA]


def test_the_order_that_is_shown_is_the_order_that_comes() -> None:
    """Positions are promises as long as nobody else comes."""
    rng = Random(3)
    line = queue()
    for number in range(60):
        who = rng.choice([ANNA, BEN, CLEO])
        line.arrive(ticket(who, rng.randrange(2, 5_000), batch=number % 5 == 0), 0.0)
    promised = line.order(0.0)
    came = []
    while (running := next(iter(line.running.values()), None)) is not None:
        line.end(running, running.prompt_tokens, running.output_tokens)
        came.extend(filter(None, [line.start_next(0.0)]))
    assert came == promised
    assert len(came) == 59


def test_tokens_count_and_not_jobs() -> None:
    """Who asks for three times as much gets a third as many turns."""
    line = queue()
    line.arrive(ticket(CLEO, 0), 0.0)
    for _ in range(40):
        line.arrive(ticket(ANNA, 30_000), 0.0)
        line.arrive(ticket(BEN, 10_000), 0.0)
    turns = Counter(served(line)[:40])
    assert turns[BEN] == pytest.approx(30, abs=1)


def test_what_was_charged_too_high_is_given_back() -> None:
    """An answer that ends early costs what it was long."""
    line = queue()
    long = ticket(ANNA, 20_000)
    line.arrive(long, 0.0)
    for who in (ANNA, BEN):
        line.arrive(ticket(who, 20_000), 0.0)
    line.end(long, 0, 1)
    first = line.start_next(0.0)
    assert first is not None
    line.end(first, 0, 10_000)
    assert first.person == ANNA
    assert line.start_next(0.0) is not None
    assert {each.person for each in line.running.values()} == {BEN}


def test_a_long_answer_is_charged_as_of_its_start() -> None:
    """What was charged too high then is taken back as it was then, not as it would weigh now."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    long = ticket(ANNA, 10_000)
    line.arrive(long, 0.0)
    line.end(long, 0, 4_000)
    shares.charge(BEN, 1.0, 10 * HALF_LIFE_S)
    assert shares.counter(ANNA) == 8_000


def test_prompts_count_half_of_answers() -> None:
    """A token read is cheaper than a token written."""
    assert Ticket(ANNA, 100, 10, 0.0).cost == 120


def test_whoever_asks_one_thing_at_a_time_passes_the_queue_of_one_who_asks_many() -> None:
    """By some answers' worth, whatever was used before; then they take turns."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    shares.charge(ANNA, 1e6, 0.0)
    for _ in range(20):
        line.arrive(ticket(ANNA, 1_000), 0.0)
    order: list[str] = []
    while len(order) < 16:
        if not line.waiting_of(BEN):
            line.arrive(ticket(BEN, 1_000), 0.0)
        (running,) = line.running.values()
        line.end(running, 0, 500)
        started = line.start_next(0.0)
        assert started is not None
        order.append(started.person)
    assert order.index(ANNA) == CREDIT_TOKENS / 1_000
    assert Counter(order[-10:])[ANNA] == 5


def test_whoever_comes_with_many_at_once_has_no_head_start_for_the_past() -> None:
    """Neither for having used nothing while others worked: from now on they take turns."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    shares.charge(ANNA, 1e6, 0.0)
    for who in (ANNA, BEN):
        for _ in range(20):
            line.arrive(ticket(who, 1_000), 0.0)
    assert Counter(served(line)[:10])[ANNA] == 5


def test_a_flood_that_has_just_begun_does_not_go_before_those_who_asked_all_evening() -> None:
    """Four asked for little, alone; the flood comes to an idle node and has used nothing yet."""
    shares = Shares(0.0)
    line = FairQueue(shares, 4)
    for _ in range(3):
        asked = ticket(BEN, 1_000)
        line.arrive(asked, 0.0)
        line.end(asked, 0, 500)
    for _ in range(40):
        line.arrive(ticket(ANNA, 50), 0.0)
    line.arrive(ticket(BEN, 50), 0.0)
    line.end(next(iter(line.running.values())), 0, 25)
    started = line.start_next(0.0)
    assert started is not None
    assert started.person == BEN


def test_the_first_to_come_to_an_idle_node_starts_where_the_last_one_left() -> None:
    """Using what nobody wanted is not held against anybody."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    work = ticket(ANNA, 1_000_000)
    line.arrive(work, 0.0)
    line.end(work, 0, 500_000)
    line.arrive(ticket(BEN, 10), 0.0)
    assert shares.counter(ANNA) == shares.counter(BEN) - 10
    assert shares.counter(CLEO) == 0


def test_an_answer_that_is_being_read_goes_before_what_nobody_has_begun_to_read() -> None:
    """Whoever asks, whoever else waits, and also before the other jobs of the same person."""
    line = queue()
    line.arrive(ticket(CLEO), 0.0)
    first, second = ticket(ANNA, 50_000, begun=True), ticket(BEN, batch=True, begun=True)
    for each in (ticket(BEN), ticket(ANNA), first, second):
        line.arrive(each, 0.0)
    begun = {each.number for each in line.order(0.0)[:2]}
    assert begun == {first.number, second.number}
    line.end(next(iter(line.running.values())), 0, 0)
    started = line.start_next(0.0)
    assert started is not None
    assert started.begun


def test_who_leaves_the_queue_is_not_charged() -> None:
    """And is gone from it."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    line.arrive(ticket(BEN), 0.0)
    waiting = ticket(ANNA, 5_000)
    line.arrive(waiting, 0.0)
    line.abandon(waiting)
    assert (len(line), line.people, shares.counter(ANNA)) == (0, 0, shares.counter(BEN))
    assert [use.person for use in shares.report(0.0)] == [BEN]
    assert line.start_next(0.0) is None


def test_fewer_slots_hold_for_the_next_start() -> None:
    """What runs runs on."""
    line = queue(slots=2)
    jobs = [ticket() for _ in range(4)]
    for each in jobs:
        line.arrive(each, 0.0)
    line.slots = 1
    line.end(jobs[0], 0, 0)
    assert line.start_next(0.0) is None
    line.end(jobs[1], 0, 0)
    assert line.start_next(0.0) is jobs[2]


def test_the_last_of_the_longest_line_goes_first() -> None:
    """Of whoever has most waiting, the newest."""
    line = queue()
    jobs = [ticket(who) for who in (CLEO, ANNA, ANNA, BEN)]
    for each in jobs:
        line.arrive(each, 0.0)
    assert line.last_of_longest() is jobs[2]


# Shares


def test_counters_fade_and_keep_their_order() -> None:
    """Half in a half-life; who was ahead stays ahead."""
    shares = Shares(0.0)
    shares.charge(ANNA, 4_096.0, 0.0)
    shares.charge(BEN, 2_048.0 * 1.5, HALF_LIFE_S)
    assert shares.report(0.0)[-1] == PersonUse(ANNA, 4_096.0)
    assert [use.person for use in shares.report(HALF_LIFE_S)] == [BEN, ANNA]
    assert shares.report(HALF_LIFE_S)[1].tokens == 2_048.0
    assert shares.report(HALF_LIFE_S * 30) == ()


def test_a_report_changes_seldom() -> None:
    """Rounded to half an octave: an idle node does not say something new with every look."""
    shares = Shares(0.0)
    shares.charge(ANNA, 100_000.0, 0.0)
    said = {shares.report(second / 4) for second in range(int(4 * HALF_LIFE_S))}
    assert len(said) == 3


def test_what_others_served_counts_here() -> None:
    """Nobody gains by spreading over nodes."""
    shares = Shares(0.0)
    line = FairQueue(shares, 1)
    shares.heard("peer", (PersonUse(ANNA, 50_000.0), PersonUse(CLEO, 1.0)), 0.0)
    line.arrive(ticket(CLEO), 0.0)
    line.arrive(ticket(ANNA), 0.0)
    line.arrive(ticket(BEN), 0.0)
    assert [each.person for each in line.order(0.0)] == [BEN, ANNA]
    assert shares.told_by() == ("peer",)
    assert [use.person for use in shares.report(0.0)] == [CLEO]


def test_a_nodes_word_replaces_its_last_one_and_goes_with_it() -> None:
    """No word is counted twice, and none outlives its node."""
    shares = Shares(0.0)
    for tokens in (10_000.0, 20_000.0):
        shares.heard("peer", (PersonUse(ANNA, tokens),), 0.0)
    shares.heard("other", (PersonUse(ANNA, 5_000.0),), 0.0)
    assert shares.counter(ANNA) == 25_000.0
    shares.heard("peer", (), 0.0)
    assert shares.counter(ANNA) == 5_000.0
    assert shares.told_by() == ("other",)


def test_months_pass_without_a_number_growing_out_of_bounds() -> None:
    """The moment that everything is counted in moves on."""
    shares = Shares(0.0)
    shares.heard("peer", (PersonUse(ANNA, 1_000.0),), 0.0)
    shares.charge(BEN, 1_000.0, 0.0)
    later = HALF_LIFE_S * (REBASE_HALF_LIVES + 1)
    shares.charge(CLEO, 1_024.0, later)
    assert shares.counter(ANNA) < 1e-6
    assert shares.counter(BEN) < 1e-6
    assert shares.report(later) == (PersonUse(CLEO, 1_024.0),)
    shares.charge(CLEO, 1.0, later * 1e6)
    assert shares.counter(CLEO) == 1.0


def test_people_are_bounded_and_the_busy_are_kept() -> None:
    """Whoever used least and has nothing here is forgotten; a word about them later is harmless."""
    shares = Shares(0.0)
    shares.heard("peer", (PersonUse(BEN, 0.5),), 0.0)
    shares.enter(ANNA)
    for number in range(ACCOUNTS_MAX + 10):
        shares.charge(f"{number:016x}", 1.0 + number, 0.0)
    shares.enter(CLEO)
    shares.charge(ANNA, 1.0, 0.0)
    assert shares.counter(BEN) == 0.0
    assert shares.counter(f"{0:016x}") == 0.0
    assert shares.counter(ANNA) == 1.0
    shares.heard("peer", (), 0.0)
    assert shares.counter(BEN) == 0.0
    assert len(shares.report(0.0)) == 64 == limits.PEOPLE_MAX


def test_when_everybody_is_busy_nobody_is_forgotten() -> None:
    """The bound is on memories; work is bounded by its queues."""
    shares = Shares(0.0)
    for number in range(ACCOUNTS_MAX + 1):
        shares.enter(f"{number:016x}")
    for number in range(ACCOUNTS_MAX + 1):
        shares.leave(f"{number:016x}")


@given(st.lists(st.tuples(st.sampled_from([ANNA, BEN, CLEO]), st.integers(0, 9_999)), max_size=60))
def test_the_gap_between_two_who_always_wait_is_bounded(jobs: list[tuple[str, int]]) -> None:
    """The paper's promise: twice the largest job, and our credit."""
    line = queue()
    got = Counter[str]()
    for person, tokens in jobs:
        line.arrive(ticket(person, tokens), 0.0)
    while line.running:
        both = line.waiting_of(ANNA) > 0 and line.waiting_of(BEN) > 0
        (running,) = line.running.values()
        got[running.person] += running.cost
        line.end(running, running.prompt_tokens, running.output_tokens)
        line.start_next(0.0)
        assert not both or abs(got[ANNA] - got[BEN]) <= 2 * 9_999 + CREDIT_TOKENS
