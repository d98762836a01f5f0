"""Batch jobs in a queue: they wait for everybody else, and not for ever."""

from __future__ import annotations

import pytest

from meshd.core.routing.fairness import BATCH_PATIENCE_S
from tests.core.routing.test_fairness import ANNA, BEN, CLEO, queue, ticket


def test_batch_waits_for_everybody_interactive_and_not_for_ever() -> None:
    """After its patience it is one of them."""
    line = queue()
    line.arrive(ticket(CLEO), 0.0)
    line.arrive(ticket(BEN, batch=True), 0.0)
    line.arrive(ticket(ANNA, 50_000), 1.0)
    line.arrive(ticket(ANNA, 50_000), 1.0)
    assert [each.person for each in line.order(2.0)] == [ANNA, ANNA, BEN]
    later = BATCH_PATIENCE_S + 1.0
    assert next(iter(line.order(later))).person == BEN


def test_ones_own_batch_waits_for_ones_own_questions() -> None:
    """The same within one person's jobs."""
    line = queue()
    line.arrive(ticket(), 0.0)
    batch, question = ticket(batch=True), ticket()
    for each in (batch, question):
        line.arrive(each, 0.0)
    assert line.order(0.0) == [question, batch]
    line.end(next(iter(line.running.values())), 0, 0)
    assert line.start_next(0.0) is question


def test_a_batch_job_that_waits_in_its_engine_keeps_no_interactive_one_out() -> None:
    """Each of them may have a slot beside it, and no other batch job may."""
    line = queue()
    batch, other, questions = ticket(batch=True), ticket(batch=True), [ticket(BEN), ticket(BEN)]
    for each in (batch, other, questions[0]):
        line.arrive(each, 0.0)
    assert line.start_next(0.0) is None
    batch.aside_until = 1.0
    assert line.start_next(0.0) is questions[0]
    assert not line.arrive(questions[1], 0.0)
    assert line.start_next(0.0) is None
    line.end(questions[0], 0, 0)
    assert line.start_next(0.0) is questions[1]
    line.end(questions[1], 0, 0)
    assert line.start_next(0.0) is None
    line.end(batch, 0, 0)
    assert line.start_next(0.0) is other


@pytest.mark.parametrize(("until", "now"), [(1.0, 1.0), (2 * BATCH_PATIENCE_S, BATCH_PATIENCE_S)])
def test_a_batch_job_that_lets_others_in_gets_its_slot_in_the_end(until: float, now: float) -> None:
    """When it has not said any more that it waits, and when its patience ends: else everybody who
    asks keeps it out."""
    line = queue()
    batch = ticket(batch=True)
    line.arrive(batch, 0.0)
    batch.aside_until = until
    assert line.arrive(ticket(BEN), 0.5)
    assert not line.arrive(ticket(BEN), now)
    line.end(line.running[2], 0, 0)
    assert line.start_next(now) is None
