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
