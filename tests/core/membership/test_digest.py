"""Two tables compare notes."""

from __future__ import annotations

from meshd.core.membership.digest import chunks, compare, digest_of
from meshd.core.membership.table import Table, row_from
from protocol import limits
from protocol.messages import Update
from tests.core.membership.builders import ME, A, B, C, claim


def _table(*claims: Update) -> Table:
    table = Table(ME, 100)
    for said in claims:
        table.add(row_from(said, 0.0, "test"))
    return table


def test_equal_tables_have_nothing_to_say() -> None:
    """Repair is silent when there is nothing to repair."""
    table = _table(claim(A), claim(B, "dead"))
    assert compare(table, digest_of(table)) == ([], False)


def test_what_the_asker_lacks_is_sent() -> None:
    """A node it does not know, a higher incarnation, and a later state."""
    ours = _table(claim(A, incarnation=7), claim(B, "suspect"), claim(C))
    theirs = _table(claim(A, incarnation=6), claim(B))
    missing, behind = compare(ours, digest_of(theirs))
    assert [(u.node_id, u.state, u.incarnation) for u in missing] == [
        (A, "alive", 7),
        (B, "suspect", 100),
        (C, "alive", 100),
    ]
    assert not behind


def test_what_the_asker_knows_better_is_noticed() -> None:
    """Then this node asks in turn."""
    ours = _table(claim(A))
    assert compare(ours, digest_of(_table(claim(A, "suspect"))))[1]
    assert compare(ours, digest_of(_table(claim(A), claim(B))))[1]


def test_tombstones_are_not_pressed_on_strangers() -> None:
    """The dead are news only to those who knew them, in both directions."""
    dead = _table(claim(A), claim(B, "dead"), claim(C, "left"))
    empty = _table(claim(A))
    assert compare(dead, digest_of(empty)) == ([], False)
    assert compare(empty, digest_of(dead)) == ([], False)


def test_chunks_fit_frames_and_lose_nothing() -> None:
    """A thousand updates go out in frames of the wire's limit."""
    updates = [claim(f"{number:032x}") for number in range(3 * limits.UPDATES_MAX + 1)]
    pieces = list(chunks(updates))
    assert [len(piece) for piece in pieces] == [limits.UPDATES_MAX] * 3 + [1]
    assert [update for piece in pieces for update in piece] == updates
