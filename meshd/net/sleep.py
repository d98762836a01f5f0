"""Has this process been away? A closed lid, a paused machine, a stopped process.

Whoever was away holds ages that mean nothing: every peer seems silent for as long as the nap took.
Membership must hear of it before it judges anybody.

Two signs, from two clocks. `time.monotonic` stands still while the machine sleeps; another clock
does not (CLOCK_BOOTTIME on Linux; on macOS CLOCK_MONOTONIC, where Python's own `monotonic` is
`mach_absolute_time`). If the second runs ahead of the first, the machine slept. And if the first
ran on for much longer than the loop meant to wait, the process was stopped or starved. On systems
without a second clock only the second sign is left.
"""

from __future__ import annotations

import sys
import time

NAP_MIN_S = 2.0
"""Shorter absences look like a slow network, which membership copes with by itself."""


def steady_clock() -> float:
    """Seconds on a clock that runs on while the machine sleeps, where there is one."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    elif sys.platform == "darwin":  # noqa: RET505 - as mypy reads platforms
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    else:
        return time.monotonic()


class SleepWatch:
    """Compares two clocks from turn to turn."""

    def __init__(self, awake_s: float, steady_s: float) -> None:
        self._awake_s = awake_s
        self._steady_s = steady_s

    def away_s(self, awake_s: float, steady_s: float, meant_s: float) -> float:
        """How long the process was away since the last call, 0 when it was not.

        `awake_s` is the clock that stops in sleep, `steady_s` the one that does not, `meant_s` how
        long the caller meant to wait.
        """
        awake = awake_s - self._awake_s
        asleep = (steady_s - self._steady_s) - awake
        self._awake_s, self._steady_s = awake_s, steady_s
        away = max(asleep, awake - meant_s)
        return away if away >= NAP_MIN_S else 0.0
