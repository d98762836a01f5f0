"""Where the events of one job wait for its asker.

Not a queue of batches but one growing batch: an asker that was busy takes everything at once, so a
slow client costs fewer writes and not more memory. The bound is the job's own: an answer has no
more tokens than its context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from meshd.core.ports import ENDINGS
from protocol.jobs import Event


class Mailbox:
    """One writer, one reader."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_over = False
        self._filled = asyncio.Event()

    def put(self, events: Sequence[Event]) -> None:
        """Add events; the reader wakes. Nothing comes after a last word: a worker that dies once
        an answer is whole, but not yet taken, has not failed it."""
        if events and not self._is_over:
            self._events.extend(events)
            self._is_over = type(events[-1]) in ENDINGS
            self._filled.set()

    async def take(self) -> list[Event]:
        """Everything that came since the last call; waits until there is something."""
        await self._filled.wait()
        self._filled.clear()
        taken, self._events = self._events, []
        return taken
