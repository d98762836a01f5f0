"""Looks that are taken again and again, taken together: a machine at rest wakes once for all.

Waking a sleeping process costs a tenth of a millisecond before it does anything. Six parts that
each look around once or a few times a second would wake it a dozen times; when all look at the
same moments, the quarters of a second of one clock, it is four times.
"""

from __future__ import annotations


def until_next(period_s: float, now: float) -> float:
    """Seconds from `now` (monotonic) to the next multiple of the period that is at least half a
    period away, because a timer may go off a little early."""
    left_s = period_s - now % period_s
    return left_s if left_s > period_s / 2 else left_s + period_s
