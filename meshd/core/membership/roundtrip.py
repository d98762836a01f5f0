"""How long to wait for an answer, learned from the answers so far.

The wait is a few times the 95th percentile of the last round trips of all peers, within bounds: a
wired LAN gets its verdicts faster than the default, a sleepy Wi-Fi is given the time it needs. One
estimate for all peers, because each peer alone is probed too seldom for a percentile; the smoothed
round trip per peer, for people and for routing, lives in the member's row.
"""

from __future__ import annotations

from collections import deque

from meshd.core.membership.config import MembershipConfig

SAMPLES = 64
"""Round trips remembered: half a minute of probes."""

PERCENTILE = 0.95
"""Leaves out the four longest: a peer whose cable was out for a moment answers very late, once,
and does not make everybody wait ten times as long for half a minute."""

ENOUGH = 16
"""Below this many samples a percentile means nothing, and the default holds."""

SMOOTHING = 0.125
"""Weight of a new sample in the per-peer average (RFC 6298)."""


class RoundTrips:
    """The last round trips, and the timeout that follows from them."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._timeout_s = config.ack_timeout_s

    def add(self, rtt_s: float) -> None:
        """A direct probe was answered after so long."""
        self._samples.append(rtt_s)
        if len(self._samples) >= ENOUGH:
            ordered = sorted(self._samples)
            usual_s = ordered[int(PERCENTILE * (len(ordered) - 1))]
            wanted_s = self._config.ack_timeout_mult * usual_s
            self._timeout_s = min(
                self._config.ack_timeout_max_s, max(self._config.ack_timeout_min_s, wanted_s)
            )

    @property
    def ack_timeout_s(self) -> float:
        """How long a direct probe waits, in seconds."""
        return self._timeout_s


def smooth(held_s: float | None, sample_s: float) -> float:
    """The moving average of one peer's round trip, in seconds."""
    return sample_s if held_s is None else held_s + SMOOTHING * (sample_s - held_s)
