"""Who may wait: the queue played through, and what is said to whom it turns away."""

from __future__ import annotations

import pytest

from meshd.core.routing.admission import (
    BATCH_WAIT_FACTOR,
    FREE_PLACES,
    OVERDUE_RATIO,
    QUEUE_MAX,
    RETRY_MAX_S,
    RETRY_MIN_S,
    Pace,
    Verdict,
    is_short,
    judge,
    outlook,
)
from meshd.core.routing.courtesy import QUEUE_WAIT_S
from meshd.core.routing.fairness import FairQueue, Shares, Ticket

ANNA, BEN = "a" * 16, "b" * 16
PACE = Pace(prompt_tps=100.0, generation_tps=10.0)


def ticket(person: str = ANNA, seconds: float = 3.0, *, batch: bool = False) -> Ticket:
    """A job that takes one second to read and the rest to answer, at PACE."""
    return Ticket(person, 100, round((seconds - 1.0) * 10), 0.0, batch)


def queue(*tickets: Ticket, slots: int = 1) -> FairQueue:
    line = FairQueue(Shares(0.0), slots)
    for each in tickets:
        line.arrive(each, 0.0)
    return line


def test_each_takes_the_slot_that_is_free_first() -> None:
    """Two slots, of which one is free in 3 s and one in 5 s."""
    waiting = [ticket(seconds=4.0), ticket(seconds=1.0), ticket(seconds=2.0)]
    line = queue(ticket(seconds=3.0), ticket(seconds=5.0), *waiting, slots=2)
    seen = outlook(line, PACE, 0.0)
    assert seen.waits_s == (3.0, 5.0, 6.0)
    assert seen.backlog_s == 7.0
    assert [seen.of(each) for each in waiting] == [(1, 3.0), (2, 5.0), (3, 6.0)]


def test_what_runs_has_less_to_go_and_never_nothing() -> None:
    """A job that is overdue is not over, and what has lasted long will last."""
    line = queue(ticket(seconds=4.0), ticket())
    assert outlook(line, PACE, 1.5).waits_s == (2.5,)
    assert outlook(line, PACE, 4.0).waits_s == (4.0 * OVERDUE_RATIO,)
    assert outlook(line, PACE, 60.0).waits_s == (60.0 * OVERDUE_RATIO,)


def test_a_free_slot_is_no_wait_but_a_load_is() -> None:
    """A cold model makes even the first one wait."""
    assert outlook(queue(slots=2), PACE, 0.0).backlog_s == 0.0
    assert outlook(queue(slots=2), Pace(load_s=7.0), 0.0).backlog_s == 7.0


def test_speeds_that_nobody_measured_promise_nothing() -> None:
    """Zero seconds rather than a guess that turns people away."""
    assert outlook(queue(ticket(), ticket()), Pace(), 0.0).waits_s == (0.0,)


def test_slots_that_were_taken_back_serve_nobody_new() -> None:
    """Of three that run the first to end is not replaced when only two may run."""
    line = queue(ticket(seconds=2.0), ticket(seconds=3.0), ticket(seconds=4.0), ticket(), slots=3)
    line.slots = 2
    assert outlook(line, PACE, 0.0).waits_s == (3.0,)


def test_a_few_may_always_wait() -> None:
    """However slow the machine: an editor asks for several things at once."""
    line = queue(*(ticket(seconds=600.0) for _ in range(FREE_PLACES)))
    last = ticket()
    line.arrive(last, 0.0)
    seen = outlook(line, PACE, 0.0)
    assert seen.of(last)[1] > QUEUE_WAIT_S
    assert judge(line, last, seen).refusal is None


@pytest.mark.parametrize(("others", "code"), [(False, "overloaded"), (True, "rate_limited")])
def test_too_long_a_wait_is_refused_at_once(others: bool, code: str) -> None:
    """503 where nobody else is in the way, 429 where one's own are, and when to come again."""
    line = queue(*(ticket(seconds=60.0) for _ in range(FREE_PLACES + 1)))
    for _ in range(others):
        line.arrive(ticket(BEN), 0.0)
    last = ticket()
    line.arrive(last, 0.0)
    refusal = judge(line, last, outlook(line, PACE, 0.0)).refusal
    assert refusal is not None
    assert (refusal.code, refusal.elsewhere, refusal.retry_after_s) == (code, True, RETRY_MAX_S)


def test_the_owner_says_how_long_a_wait_is_begun() -> None:
    """Shorter, or for ever."""
    line = queue(*(ticket(seconds=4.0) for _ in range(FREE_PLACES + 1)))
    last = ticket()
    line.arrive(last, 0.0)
    seen = outlook(line, PACE, 0.0)
    assert judge(line, last, seen).refusal is None
    assert judge(line, last, seen, wait_max_s=10.0).refusal is not None


def test_batch_has_time() -> None:
    """The same wait that an interactive job is refused for."""
    line = queue(*(ticket(seconds=60.0) for _ in range(FREE_PLACES + 1)))
    patient = ticket(batch=True)
    line.arrive(patient, 0.0)
    assert judge(line, patient, outlook(line, PACE, 0.0)).refusal is None
    for _ in range(round(BATCH_WAIT_FACTOR * QUEUE_WAIT_S / 60.0)):
        line.arrive(ticket(seconds=60.0), 0.0)
    assert judge(line, patient, outlook(line, PACE, 0.0)).refusal is not None


def test_more_than_ones_share_of_the_places_is_429() -> None:
    """Half of the places, when two people wait."""
    line = queue(ticket(), ticket(BEN), *(ticket() for _ in range(QUEUE_MAX // 2 + 1)))
    last = ticket()
    line.arrive(last, 0.0)
    refusal = judge(line, last, outlook(line, Pace(), 0.0)).refusal
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("rate_limited", RETRY_MIN_S)
    assert f"{QUEUE_MAX // 2 + 2} requests of yours" in refusal.message


def test_a_full_queue_makes_room_for_whoever_has_little_in_it() -> None:
    """The newest job of the one with most is to go; that one's own next job is refused."""
    line = queue(ticket(), *(ticket() for _ in range(QUEUE_MAX)))
    newest = line.last_of_longest()
    light = ticket(BEN)
    line.arrive(light, 0.0)
    verdict = judge(line, light, outlook(line, Pace(), 0.0))
    assert (verdict.refusal, verdict.instead) == (None, newest)


def test_a_full_queue_of_ones_own_is_503() -> None:
    """Nobody else is there to be fair to."""
    line = queue(ticket(), *(ticket() for _ in range(QUEUE_MAX)))
    last = ticket()
    line.arrive(last, 0.0)
    refusal = judge(line, last, outlook(line, Pace(), 0.0)).refusal
    assert refusal is not None
    assert refusal.code == "overloaded"
    assert f"number {QUEUE_MAX + 1} in the queue" in refusal.message


def test_a_queue_full_of_many_people_says_whose_share_is_used() -> None:
    """Each has as much as the others, so the next of anybody is over it."""
    people = [f"{number:016x}" for number in range(64)]
    line = queue(ticket(), *(ticket(each) for each in people for _ in range(4)))
    last = ticket(people[0])
    line.arrive(last, 0.0)
    refusal = judge(line, last, outlook(line, Pace(), 0.0)).refusal
    assert refusal is not None
    assert refusal.code == "rate_limited"


def test_a_queue_that_is_over_in_a_moment_needs_no_calculation() -> None:
    """Whoever is let in so would also have been by `judge`; a slow or a long one is played."""
    fast = Pace(prompt_tps=100_000.0, generation_tps=10_000.0)
    line = queue(*(ticket() for _ in range(9)))
    last = ticket()
    line.arrive(last, 0.0)
    assert is_short(line, fast)
    assert judge(line, last, outlook(line, fast, 0.0)) == Verdict()
    assert not is_short(line, PACE)
    assert not is_short(line, Pace())
    assert not is_short(line, Pace(fast.prompt_tps, fast.generation_tps, load_s=7.0))
    crowd = queue(*(ticket(seconds=1.0) for _ in range(QUEUE_MAX + 2)))
    assert not is_short(crowd, fast)


def test_the_tokens_of_a_queue_are_those_of_all_that_is_in_it() -> None:
    """Whichever way it left."""
    one, two, three = ticket(), ticket(), ticket()
    line = queue(one, two, three)
    assert (line.prompt_tokens, line.output_tokens) == (300, 60)
    line.abandon(three)
    line.end(one, 5, 5)
    assert (line.prompt_tokens, line.output_tokens) == (100, 20)
