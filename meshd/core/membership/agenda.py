"""When to do what: one alarm per key, earliest first.

Everything in membership that waits, waits here: the next probe, each probe's timeouts, each
suspicion, each redial, each tombstone. One number, `next()`, tells the shell when to come back.

A heap with lazy deletion: setting an alarm again leaves the old entry behind, which is recognised
and skipped when it surfaces. The heap is rebuilt before the left-behind outnumber the living, so
its size is bounded by the number of keys. Equal times ring in the order in which they were set,
which keeps a simulation's replay exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container

Key = tuple[str, str]
"""What is to be done, and about whom."""

SLACK = 64
"""Left-behind entries that are not worth a rebuild."""


class Agenda:
    """Alarms by key. Times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._alarms: dict[Key, tuple[float, int]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._alarms)

    def set(self, key: Key, at: float) -> None:
        """Ring at `at`, and not when it was set before."""
        self._serial += 1
        self._alarms[key] = (at, self._serial)
        heapq.heappush(self._heap, (at, self._serial, key))
        if len(self._heap) > 2 * len(self._alarms) + SLACK:
            self._rebuild()

    def cancel(self, key: Key) -> None:
        """Do not ring. No harm when nothing is set."""
        self._alarms.pop(key, None)

    def at(self, key: Key) -> float | None:
        """When the key rings, None when it does not."""
        alarm = self._alarms.get(key)
        return None if alarm is None else alarm[0]

    def next(self) -> float:
        """When the first alarm rings, infinity when none is set."""
        self._skip()
        return self._heap[0][0] if self._heap else math.inf

    def pop(self, now: float) -> Key | None:
        """The first alarm that is due, taken off the agenda; None when none is."""
        self._skip()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._alarms[key]
        return key

    def delay(self, kinds: Container[str], by_s: float) -> None:
        """Put every alarm of these kinds back."""
        for key, (at, serial) in self._alarms.items():
            if key[0] in kinds:
                self._alarms[key] = (at + by_s, serial)
        self._rebuild()

    def _skip(self) -> None:
        while self._heap and self._alarms.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)

    def _rebuild(self) -> None:
        self._heap = [(at, serial, key) for key, (at, serial) in self._alarms.items()]
        heapq.heapify(self._heap)
