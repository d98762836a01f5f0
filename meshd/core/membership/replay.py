"""A frame that was seen before has no effect.

Each node numbers its frames within one run. A receiver keeps the highest number heard and a bit map
of those just below it, as IPsec does (RFC 4303, appendix A2): a number above moves the window up, a
number inside it is taken once, a number below it is refused. The window is there because frames
travel over two connections (ours and the peer's) and may overtake each other.
"""

from __future__ import annotations

WINDOW = 1_024
"""Frames that one may be overtaken by. A sender that numbers all its frames together spends up to
MEMBERS_MAX numbers on one broadcast, so consecutive frames to one peer lie that far apart."""

MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """The frames of one run of one sender."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0

    def accept(self, sequence: int) -> bool:
        """Whether this frame is new; it is not from then on."""
        ahead = sequence - self._highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & MASK if ahead < WINDOW else 1
            self._highest = sequence
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self._seen & bit:
            return False
        self._seen |= bit
        return True
