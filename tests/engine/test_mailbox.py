"""Claims of meshd.engine.mailbox."""

from __future__ import annotations

import asyncio

from meshd.engine.mailbox import Mailbox
from protocol.jobs import Failure, Finish, TextDelta

A, B, C = TextDelta("a"), TextDelta("b"), TextDelta("c")
DONE = Finish("stop", 1, 1)


async def test_what_gathered_leaves_as_one_batch():
    """A slow asker gets fewer, larger batches."""
    mailbox = Mailbox()
    mailbox.put([A])
    mailbox.put([B, C])
    assert await mailbox.take() == [A, B, C]


async def test_an_asker_waits_for_the_next_event():
    """An empty mailbox is never a batch."""
    mailbox = Mailbox()
    waiting = asyncio.ensure_future(mailbox.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.put([A])
    assert await waiting == [A]


async def test_nothing_comes_after_the_last_word():
    """A worker that dies after an answer was whole has not failed it."""
    mailbox = Mailbox()
    mailbox.put([A, DONE])
    mailbox.put([Failure("engine_failed", "the worker died", elsewhere=True)])
    assert await mailbox.take() == [A, DONE]
