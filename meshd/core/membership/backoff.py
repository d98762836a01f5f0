"""How long to wait before the next attempt, and how to keep attempts apart.

Waits double from a quarter of a second to two seconds and stay there for ten minutes, so that a
split network heals in about two waits, and a machine that restarts is met at once. A peer that has
been away for longer is tried four times a minute, for ever if a person typed it.
"""

from __future__ import annotations

from random import Random

from meshd.core.membership.config import MembershipConfig

DOUBLINGS_MAX = 16
"""Keeps the power small; the cap has long taken over."""


def redial_wait_s(failures: int, failing_s: float, rng: Random, config: MembershipConfig) -> float:
    """Seconds to wait after `failures` attempts in a row, the first of them `failing_s` ago."""
    if failing_s > config.redial_patience_s:
        wait_s = config.redial_idle_s
    else:
        doublings = min(max(0, failures - 1), DOUBLINGS_MAX)
        wait_s = min(config.redial_max_s, config.redial_first_s * 2**doublings)
    return wait_s * rng.uniform(1 - config.redial_jitter_ratio, 1 + config.redial_jitter_ratio)


class Slots:
    """Hands out times that lie at least `apart_s` from each other."""

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self._last = float("-inf")

    def next(self, wanted: float) -> float:
        """The earliest free time at or after the wanted one."""
        self._last = max(wanted, self._last + self._apart_s)
        return self._last
