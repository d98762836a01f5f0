"""One timer guards a whole stream."""

import asyncio

import pytest

from meshd.patience import Patience, PatienceEnded
from protocol.jobs import TextDelta

WORD = [TextDelta("word")]


async def paced(*gaps_s, closed):
    """A stream with these gaps before its batches; sets `closed` when it ends, however it does."""
    try:
        for gap_s in gaps_s:
            await asyncio.sleep(gap_s)
            yield WORD
    finally:
        closed.set()


async def test_a_stream_that_keeps_talking_is_never_cut():
    """Each gap is below the limit, their sum far above it."""
    closed = asyncio.Event()
    stream = paced(*[0.02] * 10, closed=closed)
    patience = Patience(0.1, asyncio.get_running_loop())
    batches = 0
    while await patience.next(stream) is not None:
        batches += 1
    patience.close()
    assert batches == 10


async def test_a_silent_stream_is_given_up_and_closed():
    """The generator sees the cancellation and runs its cleanup."""
    closed = asyncio.Event()
    stream = paced(0.0, 60.0, closed=closed)
    patience = Patience(0.05, asyncio.get_running_loop())
    assert await patience.next(stream) == WORD
    with pytest.raises(PatienceEnded):
        await patience.next(stream)
    patience.close()
    assert closed.is_set()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_time_between_waits_does_not_count():
    """A slow reader is not a silent stream."""
    closed = asyncio.Event()
    stream = paced(0.0, 0.0, closed=closed)
    patience = Patience(0.03, asyncio.get_running_loop())
    assert await patience.next(stream) == WORD
    await asyncio.sleep(0.1)
    assert await patience.next(stream) == WORD
    patience.close()
    await stream.aclose()


async def test_time_in_which_nothing_ran_does_not_count(monkeypatch):
    """A process that was stopped has read nothing meanwhile: what came in is read first, and only
    who is silent from then on is given up."""
    loop = asyncio.get_running_loop()
    patience = Patience(0.05, loop)
    stream = paced(0.08, 60.0, closed=asyncio.Event())
    waiting = asyncio.create_task(patience.next(stream))
    await asyncio.sleep(0.0)
    running = loop.time
    monkeypatch.setattr(loop, "time", lambda: running() + 30.0)
    assert await waiting == WORD
    with pytest.raises(PatienceEnded):
        await patience.next(stream)
    patience.close()


async def test_a_hold_up_buys_no_more_time_than_it_took(monkeypatch):
    """Else who is held up now and then, as a machine short of memory is, would give nobody up."""
    loop, away_s = asyncio.get_running_loop(), [0.0]
    running = loop.time
    monkeypatch.setattr(loop, "time", lambda: running() + sum(away_s))
    patience = Patience(10.0, loop)
    waiting = asyncio.create_task(patience.next(paced(60.0, closed=asyncio.Event())))
    for passed_s in (10.6, 2.6):
        await asyncio.sleep(0.01)
        away_s.append(passed_s)
    await asyncio.wait([waiting], timeout=1.0)
    with pytest.raises(PatienceEnded):
        waiting.result()
    patience.close()


async def test_a_cancelled_caller_stays_cancelled():
    """A client that leaves is not mistaken for a stalled stream."""
    closed = asyncio.Event()
    patience = Patience(60.0, asyncio.get_running_loop())
    waiting = asyncio.create_task(patience.next(paced(60.0, closed=closed)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    patience.close()
    assert closed.is_set()


async def test_a_limit_that_shrinks_holds_for_the_present_wait():
    """A timer that was set for the longer limit is not waited for."""
    patience = Patience(60.0, asyncio.get_running_loop())
    waiting = asyncio.create_task(patience.next(paced(60.0, closed=asyncio.Event())))
    await asyncio.sleep(0.01)
    patience.limit(0.02)
    with pytest.raises(PatienceEnded):
        await waiting
    patience.close()


async def test_a_limit_that_shrinks_between_two_waits_holds_for_the_next():
    """The timer that was set for the longer one is not waited for."""
    closed = asyncio.Event()
    patience = Patience(60.0, asyncio.get_running_loop())
    stream = paced(0.0, 30.0, closed=closed)
    assert await patience.next(stream) == WORD
    patience.limit(0.05)
    with pytest.raises(PatienceEnded):
        await asyncio.wait_for(patience.next(stream), 10.0)
    patience.close()


async def test_a_limit_that_grows_in_time_is_kept_to():
    """Whoever knows better may say so until the last moment."""
    closed = asyncio.Event()
    patience = Patience(0.02, asyncio.get_running_loop())
    patience.limit(0.02, lambda: 60.0)
    assert await patience.next(paced(0.1, closed=closed)) == WORD
    patience.close()


async def test_a_limit_that_does_not_grow_ends_the_wait():
    """The last word is asked for once the limit has passed, and it holds."""
    asked = []
    patience = Patience(0.02, asyncio.get_running_loop())
    patience.limit(0.02, lambda: asked.append(1) or 0.02)
    with pytest.raises(PatienceEnded):
        await patience.next(paced(60.0, closed=asyncio.Event()))
    patience.close()
    assert asked == [1]


async def test_a_quiet_wait_is_looked_into():
    """Once it has lasted so long, and not again at once."""
    calls = []
    patience = Patience(60.0, asyncio.get_running_loop())
    patience.when_quiet(0.02, lambda: calls.append(1))
    assert await patience.next(paced(0.2, closed=asyncio.Event())) == WORD
    patience.close()
    assert calls == [1]


async def test_a_stream_that_keeps_talking_is_never_quiet():
    """Each gap is below the bound."""
    calls = []
    stream = paced(*[0.01] * 10, closed=asyncio.Event())
    patience = Patience(60.0, asyncio.get_running_loop())
    patience.when_quiet(5.0, lambda: calls.append(1))
    while await patience.next(stream) is not None:
        pass
    patience.close()
    assert calls == []


async def test_a_wait_can_be_interrupted():
    """As if its limit had passed; the stream is closed."""
    closed = asyncio.Event()
    patience = Patience(60.0, asyncio.get_running_loop())
    waiting = asyncio.create_task(patience.next(paced(60.0, closed=closed)))
    await asyncio.sleep(0.01)
    patience.interrupt()
    with pytest.raises(PatienceEnded):
        await waiting
    patience.close()
    assert closed.is_set()


async def test_an_interrupt_between_waits_changes_nothing():
    """There is no wait that it could end."""
    stream = paced(0.0, 0.0, closed=asyncio.Event())
    patience = Patience(60.0, asyncio.get_running_loop())
    assert await patience.next(stream) == WORD
    patience.interrupt()
    assert await patience.next(stream) == WORD
    patience.close()
    await stream.aclose()


async def test_waits_may_come_from_different_tasks():
    """A second attempt is begun in one task and read in another."""
    stream = paced(0.0, 60.0, closed=asyncio.Event())
    patience = Patience(0.05, asyncio.get_running_loop())
    assert await asyncio.create_task(patience.next(stream)) == WORD
    with pytest.raises(PatienceEnded):
        await patience.next(stream)
    patience.close()
