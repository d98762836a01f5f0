"""Waiting for the next batch of a stream, but not for ever.

`asyncio.timeout` arms and disarms a timer for each wait, which at one wait per token costs as much
as encoding the token. Here one timer serves a whole stream: each wait only notes when it began, and
the timer, when it fires, looks how long the present wait has lasted. A wait that has become long
without being over is a *quiet* one, which somebody may want to look into; and anybody may end the
present wait, because the answer has come from elsewhere.

Only time in which this process ran counts. A lid that was shut, a container that was paused, a loop
that was held up: whoever was away has read nothing meanwhile, and must not call the others silent.
As much time as it was away, and the whole limit at most, it has afterwards to read what came in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from meshd.core.ports import Batch, EventStream

QUIET_AGAIN_S = 0.5
"""Time between two looks into one quiet wait: a few pings, not a stream of them."""

LATE_S = 0.5
"""A timer that goes off so much too late was not served: shorter hold-ups are a busy loop, and too
short to be taken for silence by any limit."""


class PatienceEnded(Exception):
    """The stream said nothing for the whole limit, or was interrupted. It has been closed."""


class Patience:
    """A limit on each gap of one stream. Waits may come from different tasks, one at a time."""

    __slots__ = (
        "_again", "_asked", "_due", "_ended", "_limit_s", "_loop", "_on_quiet", "_quiet_s",
        "_since", "_soonest_s", "_task", "_timer", "_waiting",
    )  # fmt: skip

    def __init__(self, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the running one; asking for it costs a system call, so the caller keeps it."""
        self._limit_s = limit_s
        self._again: Callable[[], float] | None = None
        self._quiet_s = math.inf
        self._soonest_s = limit_s
        """The shorter of the two."""
        self._on_quiet: Callable[[], None] | None = None
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        self._waiting = False
        self._since = loop.time()
        self._asked = 0.0
        self._due = 0.0
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def silent_s(self) -> float:
        """How long ago the present wait began, or the last one."""
        return self._loop.time() - self._since

    def limit(self, limit_s: float, again: Callable[[], float] | None = None) -> None:
        """The longest gap from now on, seconds; the present wait counts from its beginning.

        When it has passed, `again` is asked once more, and its answer holds.
        """
        self._limit_s, self._again = limit_s, again
        self._hasten()

    def when_quiet(self, quiet_s: float, call: Callable[[], None]) -> None:
        """`call` once a wait has lasted `quiet_s`, and now and then while it lasts."""
        self._quiet_s, self._on_quiet = quiet_s, call
        self._hasten()

    async def next(self, stream: EventStream) -> Batch | None:
        """The next batch, None at the end of the stream. Raises PatienceEnded."""
        self._since = now = self._loop.time()
        self._task = asyncio.current_task(self._loop)
        self._waiting = True
        if self._timer is None:
            self._arm(self._soonest_s)
        elif self._due - now > self._soonest_s:
            self._timer.cancel()
            self._arm(self._soonest_s)
        try:
            return await anext(stream, None)
        except asyncio.CancelledError:
            if self._ended and self._task is not None and self._task.uncancel() == 0:
                raise PatienceEnded from None
            raise
        finally:
            self._waiting = False

    def interrupt(self) -> None:
        """End the present wait, if there is one, as if the limit had passed."""
        if self._waiting and not self._ended:
            self._ended = True
            assert self._task is not None
            self._task.cancel()

    def close(self) -> None:
        """Disarm, and forget whom to ask. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._again = self._on_quiet = None

    def _hasten(self) -> None:
        """A timer that is due too late for the present wait is set anew, and without one the next
        wait does so: many an answer is over by then. One that is due early looks and goes on."""
        self._soonest_s = min(self._limit_s, self._quiet_s)
        if self._waiting and self._timer is not None and self._due - self._since > self._soonest_s:
            self._timer.cancel()
            self._look()

    def _arm(self, after_s: float) -> None:
        self._due = self._loop.time() + after_s
        self._timer = self._loop.call_later(after_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        late_s = now - self._due
        if late_s > LATE_S:
            self._since = min(now, max(self._since, now - self._limit_s) + late_s)
        silent_s = now - self._since if self._waiting else 0.0
        if silent_s >= self._limit_s and self._again is not None:
            self._limit_s = self._again()
        if silent_s >= self._limit_s:
            self._timer = None
            self.interrupt()
            return
        if silent_s < self._soonest_s:
            self._arm(max(self._soonest_s - silent_s, self._soonest_s / 4))
            return
        self._arm(min(self._limit_s - silent_s, QUIET_AGAIN_S))
        if self._on_quiet is not None and now - self._asked >= QUIET_AGAIN_S:
            self._asked = now
            self._on_quiet()
