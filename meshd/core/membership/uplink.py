"""When everybody falls silent at once, it is probably us.

A pulled cable, a Wi-Fi card that roams, a firewall that reloads: seen from the machine it happens
to, all others die together. If more than half of the peers are suspect at the same time, this node
doubts its own uplink and holds its verdicts back. A real split into halves looks the same from the
inside, so the doubt ends: soon if some peer is heard all along (then the uplink works, and the
silent ones are to be judged), later if none is.

When a cable is put back, the first peer is heard a little before the last. So the short wait begins
anew when somebody is heard after nobody was, and a doubt that had been blind outlasts by as much
the moment when most are back: until then the rest have had no fair chance to answer.

What is known for certain, a closed and refused connection, is not held back: a machine without a
network gets no refusals.
"""

from __future__ import annotations

from meshd.core.membership.config import MembershipConfig

NEVER = float("-inf")


class Uplink:
    """The doubt in our own network, if there is one."""

    def __init__(self, config: MembershipConfig, now: float) -> None:
        self._config = config
        self._doubted_at: float | None = None
        self._held_until = NEVER
        self._heard_at = self._hearing_since = now

    def heard(self, now: float) -> None:
        """Some peer was heard directly."""
        if self._deaf(now):
            self._hearing_since = now
        self._heard_at = now

    def observe(self, suspects: int, peers: int, now: float) -> bool:
        """Take in how many of the living peers are suspect; whether a doubt begins with this."""
        doubted_at = self._doubted_at
        if suspects < self._config.uplink_suspects_min or 2 * suspects <= peers:
            if doubted_at is not None and self._hearing_since > doubted_at:
                self._held_until = self._hearing_since + self._config.uplink_seen_s
            self._doubted_at = None
            return False
        if doubted_at is None:
            self._doubted_at = now
        return doubted_at is None

    def frozen(self, now: float) -> bool:
        """Whether verdicts wait."""
        if self._doubted_at is None:
            return now < self._held_until
        if self._deaf(now):
            return now - self._doubted_at < self._config.uplink_blind_s
        since = max(self._doubted_at, self._hearing_since)
        return now - since < self._config.uplink_seen_s

    def _deaf(self, now: float) -> bool:
        return now - self._heard_at > self._config.uplink_deaf_s
