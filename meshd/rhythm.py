"""Looks that are taken again and again, taken together: a machine at rest wakes once for all.

Waking a sleeping process costs a tenth of a millisecond before it does anything. Six parts that
each look around once or a few times a second would wake it a dozen times; when all look at the
same moments, the quarters of a second of one clock, it is four times.

What is looked at for as long as a daemon lives must not end with the first thing that nobody
foresaw: a node that says nothing of itself any more, or no longer hears that a member was revoked,
is worse off than one that missed a look.
"""

from __future__ import annotations

import logging
from types import TracebackType

log = logging.getLogger(__name__)

FAULTS_MAX = 8
"""Different faults of one row of looks that are logged: each look may fail in words of its own."""


class Steady:
    """Keeps a row of looks going where one fails: `with steady:` around each.

    Such a failure is a fault of this program. It is logged, with where it happened and each
    different one once; the look is lost, and the next one is taken.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[str] = set()

    def __enter__(self) -> None:
        """Begin a look."""

    def __exit__(self, _: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Whether the looks go on: but for a cancellation, or the end of the program."""
        if not isinstance(error, Exception):
            return False
        text = repr(error)
        if text not in self._said and len(self._said) < FAULTS_MAX:
            self._said.add(text)
            log.error("%s: a fault of meshd, please report it", self._name, exc_info=error)
        return True


def until_next(period_s: float, now: float) -> float:
    """Seconds from `now` (monotonic) to the next multiple of the period that is at least half a
    period away, because a timer may go off a little early."""
    left_s = period_s - now % period_s
    return left_s if left_s > period_s / 2 else left_s + period_s
