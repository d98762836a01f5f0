"""Whose turn it is to be probed, and when.

Random rotations leave gaps: each node is probed once an interval on average, but now and then not
for six. Detection cannot begin before the first probe, so gaps are its tail. They close when the
nodes take turns:

    order everybody by id, myself at place i of N; in the s-th interval probe place
    i + 1 + (s mod (N - 1)), and do so (N - i)/N of an interval after its beginning

Then each node is probed exactly once in each interval, by each of the others in turn, at most
(N + 1)/N of an interval apart, and not all nodes speak at once. What s is, the wall clock says,
which machines on a home network share to within milliseconds. Nothing depends on that: each node
goes round all others once before it starts anew, whatever its clock says, so with clocks that
disagree (or tables that do, or a node that is slow) the turns are merely as good as random ones.
The offset is taken once; a clock that is stepped later changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection


class Turns:
    """One node's view of the common timetable. Times are its monotonic seconds, `wall_ahead_s` is
    how much the wall clock is ahead of them."""

    def __init__(self, self_id: str, interval_s: float, wall_ahead_s: float) -> None:
        self._self_id = self_id
        self._interval_s = interval_s
        self._ahead_s = wall_ahead_s
        self._phase = 0.0
        """The own place in each interval, in [0, 1)."""

    def order(self, peers: Collection[str], now: float) -> list[str]:
        """All peers, in the order in which they are to be probed from now on."""
        ring = sorted([self._self_id, *peers])
        nodes, place = len(ring), ring.index(self._self_id)
        self._phase = (nodes - place) / nodes
        slot = round(self._slots(now))
        places = [place + 1 + (slot + step) % (nodes - 1) for step in range(nodes - 1)]
        return [ring[each % nodes] for each in places]

    def next(self, now: float, wait_s: float) -> float:
        """The own turn that is nearest to `wait_s` from now; at most half an interval off it."""
        wanted = self._slots(now + wait_s)
        return now + wait_s + (round(wanted) - wanted) * self._interval_s

    def _slots(self, at: float) -> float:
        """Intervals passed until then, counted from the beginning of the own turns."""
        return (at + self._ahead_s) / self._interval_s - self._phase
