"""Whose turn it is in memory: `a` is busy all day, and `b` needs its place."""

from __future__ import annotations

import pytest

from meshd.core.residency.residents import Resident
from meshd.core.residency.turns import (
    DRAIN_GUESS_S,
    GRACE_S,
    LULL_S,
    STRETCH_S,
    Turns,
    Waiting,
)
from meshd.core.routing.fairness import BATCH_PATIENCE_S

GB = 10**9
A_BUSY = Resident("a", 6 * GB, 0.0, busy=True)
A_IDLE = Resident("a", 6 * GB, 0.0)


def load_s(_model_id: str) -> float:
    """Of every model."""
    return 2.0


@pytest.fixture
def turns() -> Turns:
    return Turns()


def waits(turns: Turns, model_id: str, *behind: str, at: float = 0.0) -> Waiting:
    """A job came at that time, and its load was refused because these are busy."""
    waiting = turns.enter(model_id, at)
    waiting.behind = behind
    return waiting


def test_the_busy_model_gives_way_after_a_while(turns: Turns) -> None:
    """A short wait stops nobody; a longer one stops new jobs of the model in the way and of no
    other, until nobody waits."""
    waiting = waits(turns, "b", "a")
    assert turns.gives_way_to("a", GRACE_S - 0.1) == ""
    assert turns.gives_way_to("a", GRACE_S) == "b"
    assert turns.gives_way_to("other", GRACE_S) == turns.gives_way_to("b", GRACE_S) == ""
    turns.leave(waiting)
    assert (turns.gives_way_to("a", GRACE_S), len(turns)) == ("", 0)


def test_who_came_in_by_waiting_has_a_stretch(turns: Turns) -> None:
    """So long it gives way to nobody, then it does as the other did: two alternate."""
    waits(turns, "b", "a")
    turns.came_in("b", 10.0)
    assert turns.gives_way_to("a", 10.0) == ""
    waits(turns, "a", "b", at=10.0)
    assert turns.gives_way_to("b", 10.0 + STRETCH_S - 0.1) == ""
    assert turns.gives_way_to("b", 10.0 + STRETCH_S) == "a"


def test_who_came_in_without_waiting_has_none(turns: Turns) -> None:
    """It stood in nobody's way so far."""
    turns.enter("a", 0.0)
    turns.came_in("a", 0.0)
    waits(turns, "b", "a")
    assert turns.gives_way_to("a", GRACE_S) == "b"


def test_a_stretch_ends_when_the_model_goes(turns: Turns) -> None:
    """By the owner's word or for want of jobs."""
    waits(turns, "b", "a")
    turns.came_in("b", 0.0)
    turns.went("b")
    waits(turns, "a", "b")
    assert turns.gives_way_to("b", GRACE_S) == "a"


def test_a_lull_in_a_stretch_does_not_put_a_model_out(turns: Turns) -> None:
    """A longer one does, and so does a short one after the stretch."""
    waits(turns, "a", "b")
    turns.came_in("a", 0.0)

    def is_kept(used: float, now: float) -> bool:
        (seen,) = turns.kept([Resident("a", GB, used)], now)
        return seen.busy

    assert is_kept(5.0, 5.0 + LULL_S / 2)
    assert not is_kept(5.0, 5.0 + LULL_S)
    assert not is_kept(STRETCH_S, STRETCH_S + LULL_S / 2)


def test_who_waits_tries_again_when_something_changed(turns: Turns) -> None:
    """At first, and when a model in the way became idle or is gone; not while all are busy."""
    first = turns.enter("b", 0.0)
    assert turns.may_try(first, [A_BUSY], 0.0)
    first.behind = ("a",)
    assert not turns.may_try(first, [A_BUSY], 1.0)
    assert turns.may_try(first, [A_IDLE], 1.0)
    assert turns.may_try(first, [], 1.0)


def test_another_place_may_be_enough(turns: Turns) -> None:
    """Of a model that was busy when the load was refused, and is not any more."""
    waiting = waits(turns, "b", "a")
    waiting.busy = ("a", "c")
    assert not turns.may_try(waiting, [A_BUSY, Resident("c", GB, 0.0, busy=True)], 1.0)
    assert turns.may_try(waiting, [A_BUSY, Resident("c", GB, 0.0)], 1.0)


def test_who_gives_way_does_not_try(turns: Turns) -> None:
    """Though its model may be in memory."""
    waits(turns, "b", "a")
    assert not turns.may_try(turns.enter("a", GRACE_S), [A_BUSY], GRACE_S)


def test_first_come_first_served(turns: Turns) -> None:
    """Who waits for the same place as an earlier one tries after it; all jobs of a model try
    together, and another place may be had before."""
    early, late = waits(turns, "b", "a"), waits(turns, "c", "a", at=1.0)
    again, aside = waits(turns, "b", "a", at=2.0), waits(turns, "d", "e", at=3.0)
    tries = [turns.may_try(each, [A_IDLE], 4.0) for each in (early, late, again, aside)]
    assert tries == [True, False, True, True]
    assert [turns.position(each, 4.0) for each in (early, late, again, aside)] == [1, 2, 3, 4]


def test_a_batch_job_stops_nobody_until_its_patience_ends(turns: Turns) -> None:
    """As in any queue; then it counts as the others do. Who asks for its model would not wait as
    long."""
    batch = turns.enter("b", 0.0, batch=True)
    batch.behind = ("a",)
    assert turns.gives_way_to("a", BATCH_PATIENCE_S - 0.1) == ""
    assert turns.wait_s("b", ("a",), 10.0, load_s) == GRACE_S + DRAIN_GUESS_S
    assert turns.gives_way_to("a", BATCH_PATIENCE_S) == "b"


def test_an_interactive_job_goes_before_a_batch_job(turns: Turns) -> None:
    """Whoever came first, until the patience of the batch job ends."""
    batch = turns.enter("b", 0.0, batch=True)
    batch.behind = ("a",)
    question = waits(turns, "c", "a", at=1.0)
    later = BATCH_PATIENCE_S
    for now, tries in ((1.0, [False, True]), (later, [True, False])):
        assert [turns.may_try(each, [A_IDLE], now) for each in (batch, question)] == tries
        assert [turns.position(each, now) == 1 for each in (batch, question)] == tries
    assert [turns.interactive(model_id) for model_id in "abc"] == [0, 0, 1]


def test_who_came_in_for_batch_jobs_has_no_stretch(turns: Turns) -> None:
    """It came in at a moment when nobody asked, and somebody asks again."""
    turns.enter("b", 0.0, batch=True).behind = ("a",)
    turns.came_in("b", 10.0)
    waits(turns, "a", "b", at=10.0)
    assert turns.gives_way_to("b", 10.0 + GRACE_S) == "a"


def test_who_is_next_is_known(turns: Turns) -> None:
    """The first for whom all the models in its way have stopped."""
    first, second = waits(turns, "b", "a"), waits(turns, "c", "a", "d")
    assert not turns.is_next(first, GRACE_S - 0.1)
    assert [turns.is_next(each, GRACE_S) for each in (first, second)] == [True, False]
    first.behind = ()
    assert not turns.is_next(first, GRACE_S)
    assert turns.is_next(second, GRACE_S)


def test_the_wait_is_told(turns: Turns) -> None:
    """What is left of a stretch, what runs, the load of who is first and its stretch."""
    assert turns.wait_s("b", (), 0.0, load_s) == 0.0
    assert turns.wait_s("b", ("a",), 0.0, load_s) == GRACE_S + DRAIN_GUESS_S
    waits(turns, "b", "a")
    assert turns.wait_s("b", ("a",), 1.0, load_s) == GRACE_S - 1.0 + DRAIN_GUESS_S
    assert turns.wait_s("b", ("a",), 60.0, load_s) == DRAIN_GUESS_S
    whole_s = DRAIN_GUESS_S + 2.0 + STRETCH_S + DRAIN_GUESS_S
    assert turns.wait_s("a", (), 60.0, load_s) == whole_s
    turns.came_in("b", 60.0)
    assert turns.wait_s("a", ("b",), 70.0, load_s) == STRETCH_S - 10.0 + DRAIN_GUESS_S
