"""Claims of meshd.engine.mailbox."""

from __future__ import annotations

import asyncio

from meshd.engine.mailbox import Mailbox
from protocol.jobs import TextDelta

A, B, C = TextDelta("a"), TextDelta("b"), TextDelta("c")


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
