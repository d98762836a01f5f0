"""Everybody looks at the same moments, and nobody twice at one."""

import asyncio

import pytest

from meshd.rhythm import FAULTS_MAX, Steady, until_next


@pytest.mark.parametrize(
    ("period_s", "now", "wait_s"),
    [(0.25, 10.0, 0.25), (0.25, 10.1, 0.15), (1.0, 10.25, 0.75), (1.0, 10.999, 1.001)],
)
def test_the_next_look_is_at_a_multiple_of_the_period(period_s, now, wait_s):
    """However late the last one was; a timer that went off early does not go off again."""
    assert until_next(period_s, now) == pytest.approx(wait_s)


def test_different_periods_meet():
    """What looks once a second looks together with what looks four times."""
    now = 1234.567
    second = now + until_next(1.0, now)
    while now < second - 0.2:
        now += until_next(0.25, now)
    assert now == pytest.approx(second)


async def test_a_look_that_fails_costs_no_other_look(caplog):
    """It is said once, with where it happened; the row ends when it is told to, and not before."""
    taken = 0

    async def row():
        nonlocal taken
        steady = Steady("look at the sky")
        while True:
            with steady:
                taken += 1
                await asyncio.sleep(0)
                raise LookupError("clouds")

    task = asyncio.create_task(row())
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken > 3
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = caplog.records
    assert "look at the sky" in record.message
    assert "clouds" in caplog.text
    assert "in row" in caplog.text


def test_what_is_said_of_looks_is_bounded(caplog):
    """Each failure may have words of its own."""
    steady = Steady("look")
    for number in range(3 * FAULTS_MAX):
        with steady:
            raise LookupError(number)
    assert len(caplog.records) == FAULTS_MAX


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_end_of_everything_is_passed_on(end):
    """Nobody keeps a program from ending."""
    with pytest.raises(end), Steady("look"):
        raise end
