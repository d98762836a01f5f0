"""When everybody falls silent at once, it is probably us.

A pulled cable, a Wi-Fi card that roams, a firewall that reloads: seen from the machine it happens
to, all others die together. If more than half of the peers are suspect at the same time, this node
doubts its own uplink and holds its verdicts back. A real split into halves looks the same from the
inside, so the doubt ends: soon if some peer is still heard (then the uplink works, and the silent
ones are to be judged), later if none is.

What is known for certain, a closed and refused connection, is not held back: a machine without a
network gets no refusals.
"""

from __future__ import annotations

from meshd.core.membership.config import MembershipConfig


class Uplink:
    """The doubt in our own network, if there is one."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._doubted_at: float | None = None

    def observe(self, suspects: int, peers: int, now: float) -> bool:
        """Take in how many of the living peers are suspect; whether a doubt begins with this."""
        if suspects < self._config.uplink_suspects_min or 2 * suspects <= peers:
            self._doubted_at = None
            return False
        begins = self._doubted_at is None
        if begins:
            self._doubted_at = now
        return begins

    def frozen(self, heard_at: float, now: float) -> bool:
        """Whether verdicts wait; `heard_at` is when any peer was last heard directly."""
        if self._doubted_at is None:
            return False
        heard = heard_at > self._doubted_at
        patience_s = self._config.uplink_seen_s if heard else self._config.uplink_blind_s
        return now - self._doubted_at < patience_s
