"""When to start a worker again, and when to give up on it.

A crash is answered with a restart after a pause that doubles. `CRASHES_MAX` crashes within
`WINDOW_S` set the model aside: a model that keeps falling over costs every request that is sent to
it, and its neighbours do better. A person's `load` clears the record.
"""

from __future__ import annotations

from collections import deque

CRASHES_MAX = 3
"""Crashes within the window that set a model aside."""

WINDOW_S = 600.0
"""Crashes further apart than this have nothing to do with one another."""

PAUSE_FIRST_S = 0.25
"""Before the first restart: long enough for the kernel to take the dead worker's memory back."""


class CrashRecord:
    """The crashes of one model; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=CRASHES_MAX)

    def crashed(self, now: float) -> float | None:
        """Seconds to wait before the next start; None when the model is to be set aside."""
        while self._at and now - self._at[0] > WINDOW_S:
            self._at.popleft()
        self._at.append(now)
        if len(self._at) >= CRASHES_MAX:
            return None
        return float(PAUSE_FIRST_S * 2 ** (len(self._at) - 1))

    def clear(self) -> None:
        """Forget everything: somebody asked for another try."""
        self._at.clear()
