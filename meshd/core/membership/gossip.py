"""Passing on what is new, a bounded number of times.

A rumour is one claim about one node; a newer claim about the same node takes its place. Each is
passed on `mult * ceil(log10(N + 1))` times, riding on probes and heartbeats, and in rounds of its
own when there is nothing to ride on. The first half of the telling is done quickly, which brings
news to a thousand nodes in a fifth of a second; the rest is spread out, against loss. Those told
least often go first, so news overtakes what is nearly finished. When every rumour has been told
often enough the queue is empty and gossip is silent: an idle mesh gossips nothing.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from meshd.core.membership.config import MembershipConfig
from protocol.messages import Update


def retransmit_limit(nodes: int, mult: int) -> int:
    """How often one node passes a rumour on in a mesh of `nodes` (memberlist's formula)."""
    return mult * math.ceil(math.log10(nodes + 1))


def pull_interval_s(nodes: int, base_s: float) -> float:
    """Between two repairs: above 32 nodes it grows with log2 N (memberlist's pushPullScale)."""
    if nodes <= 32:
        return base_s
    return base_s * (math.ceil(math.log2(nodes) - 5) + 1)


@dataclass(slots=True)
class Rumour:
    """A claim and how often it was told."""

    update: Update
    serial: int
    told: int = 0


class Rumours:
    """What there is to tell. Bounded by the size of the member table: one rumour per node."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._queue: dict[str, Rumour] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._queue)

    def young(self, nodes: int) -> bool:
        """Whether some rumour was told less than half as often as it will be."""
        half = retransmit_limit(nodes, self._config.retransmit_mult) / 2
        return any(rumour.told < half for rumour in self._queue.values())

    def add(self, update: Update) -> None:
        """News: replaces what was to be told of the same node."""
        self._serial += 1
        self._queue[update.node_id] = Rumour(update, self._serial)

    def forget(self, node_id: str) -> None:
        """The node's row has expired: there is nothing left to tell."""
        self._queue.pop(node_id, None)

    def take(self, most: int, nodes: int) -> tuple[Update, ...]:
        """Up to `most` claims to tell one more time, least told first, newest before older."""
        if not self._queue:
            return ()
        limit = retransmit_limit(nodes, self._config.retransmit_mult)
        chosen = heapq.nsmallest(most, self._queue.values(), key=lambda r: (r.told, -r.serial))
        for rumour in chosen:
            rumour.told += 1
            if rumour.told >= limit:
                del self._queue[rumour.update.node_id]
        return tuple([rumour.update for rumour in chosen])
