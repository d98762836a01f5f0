"""Waiting for the next batch of a stream, but not for ever.

`asyncio.timeout` arms and disarms a timer for each wait, which at one wait per token costs as much
as encoding the token. Here one timer serves a whole stream: each wait only notes when it began, and
the timer, when it fires, looks whether the present wait is overdue and otherwise sleeps on.
"""

from __future__ import annotations

import asyncio

from meshd.core.ports import Batch, EventStream


class PatienceEnded(Exception):
    """The stream said nothing for the whole limit. It has been closed."""


class Patience:
    """A limit on each gap of one stream. Belongs to the task that waits first; `close` it."""

    def __init__(self, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the running one; asking for it costs a system call, so the caller keeps it."""
        self.limit_s = limit_s
        """Longest gap, seconds; may be changed between waits."""
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        self._waiting = False
        self._since = self._loop.time()
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, stream: EventStream) -> Batch | None:
        """The next batch, None at the end of the stream. Raises PatienceEnded."""
        self._since = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task(self._loop)
        self._waiting = True
        if self._timer is None:
            self._timer = self._loop.call_later(self.limit_s, self._look)
        try:
            return await anext(stream, None)
        except asyncio.CancelledError:
            if self._ended and self._task is not None and self._task.uncancel() == 0:
                raise PatienceEnded from None
            raise
        finally:
            self._waiting = False

    def close(self) -> None:
        """Disarm. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left_s = self._since + self.limit_s - self._loop.time()
        if not self._waiting or left_s > 0:
            self._timer = self._loop.call_later(max(left_s, self.limit_s / 4), self._look)
            return
        self._timer = None
        self._ended = True
        assert self._task is not None
        self._task.cancel()
