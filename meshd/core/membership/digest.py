"""Repair: two nodes compare what they hold, and each sends what the other lacks.

Gossip loses a rumour now and then, and a node that slept or was cut off has missed them all. So
each node now and then sends a random peer its digest, one line per row, and gets back what that
peer holds newer; if the digest shows that the asker knows better, the peer asks in turn. Discovery,
gossip and repair each make the mesh converge alone; this one even if every rumour were lost.

Tombstones are not pressed on those who never knew the node: the dead of one half of the mesh are
not news to a newcomer.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshd.core.membership.precedence import rank
from meshd.core.membership.table import LIVING, Table
from protocol import limits
from protocol.messages import DigestEntry, Update


def digest_of(table: Table) -> tuple[DigestEntry, ...]:
    """One line per row, this node's own first."""
    rows = list(table.rows.values())[: limits.DIGEST_ENTRIES_MAX]
    return tuple([DigestEntry(row.node_id, row.state, row.incarnation) for row in rows])


def compare(table: Table, digest: tuple[DigestEntry, ...]) -> tuple[list[Update], bool]:
    """What is held newer here than in the digest, and whether the digest holds anything newer."""
    theirs = {entry.node_id: rank(entry.incarnation, entry.state) for entry in digest}
    missing = [
        row.claim()
        for row in table.rows.values()
        if rank(row.incarnation, row.state) > theirs.get(row.node_id, NOTHING)
        and (row.state in LIVING or row.node_id in theirs)
    ]
    return missing, any(_is_news(table, entry) for entry in digest)


def chunks(updates: list[Update]) -> Iterator[tuple[Update, ...]]:
    """Updates in pieces that fit one frame."""
    for start in range(0, len(updates), limits.UPDATES_MAX):
        yield tuple(updates[start : start + limits.UPDATES_MAX])


NOTHING = (-1, -1)


def _is_news(table: Table, entry: DigestEntry) -> bool:
    row = table.rows.get(entry.node_id)
    if row is None:
        return entry.state in LIVING
    return rank(entry.incarnation, entry.state) > rank(row.incarnation, row.state)
