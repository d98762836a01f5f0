"""This node's word about itself: the only one that may raise its incarnation.

The incarnation starts at the wall clock in milliseconds, so that a restarted node is normally ahead
of everything said of its last run. Where it is not (the clock stepped back; peers heard worse), it
learns so from the first peer it meets, because a stale claim is answered with what is held against
it, and raises itself past that. Nobody stays dead after a restart.

    heard of myself                            so
    a higher incarnation, any state            raise past it
    mine, but not alive, or another run        raise past it (refute)
    a lower one, not alive                     tell the teller what is true
    anything else                              nothing

An identity that is heard alive in a run that is not ours, and that keeps getting ahead of us, is
not our past: another machine has a copy of our key.
"""

from __future__ import annotations

from collections import Counter

from meshd.core.membership.precedence import INCARNATION_MAX
from meshd.core.membership.table import Row
from protocol.messages import Update

RAISES_OF_THE_PAST = 3
"""How often a run that is not ours may get ahead of us before it cannot be our own past: peers may
remember a few different incarnations of it, but none can grow."""

FOREIGN_RUNS_MAX = 16
"""Runs that are counted."""


class Owner:
    """Judges claims about this node. `row` is its own row in the table."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._foreign: Counter[int] = Counter()

    def rise(self) -> None:
        """Speak with a new incarnation."""
        self._rise_past(self.row.incarnation)

    def hear(self, claim: Update) -> str:
        """What a claim about this node calls for: `raised` (done), `answer` the teller, `clone`
        (raised, and somebody else uses this identity), or nothing."""
        row = self.row
        if claim.incarnation > INCARNATION_MAX:
            return ""
        foreign = claim.boot_id != row.boot_id
        accused = claim.state != "alive"
        if claim.incarnation < row.incarnation:
            return "answer" if accused else ""
        if claim.incarnation == row.incarnation and not (foreign or accused):
            return ""
        self._rise_past(claim.incarnation)
        return "clone" if foreign and self._is_clone(claim.boot_id) else "raised"

    def _rise_past(self, incarnation: int) -> None:
        self.row.incarnation = min(incarnation + 1, INCARNATION_MAX)

    def _is_clone(self, boot_id: int) -> bool:
        if boot_id in self._foreign or len(self._foreign) < FOREIGN_RUNS_MAX:
            self._foreign[boot_id] += 1
        return self._foreign[boot_id] == RAISES_OF_THE_PAST
