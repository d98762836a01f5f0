"""Rows, tombstones, and views that cost little."""

from __future__ import annotations

from meshd.core.membership.table import PAST_BOOTS_MAX, Change, Table, row_from
from tests.core.membership.builders import ME, A, B, C, claim, load


def _table(*node_ids: str, members_max: int = 100) -> Table:
    table = Table(ME, members_max)
    for node_id in (ME, *node_ids):
        assert table.add(row_from(claim(node_id), 1.0, "test"))
    table.changes.clear()
    return table


def test_peers_are_the_living_others() -> None:
    """This node, the dead and the left are not among those that are talked to."""
    table = _table(A, B, C)
    table.move(table.rows[A], "suspect", "quiet", 2.0)
    table.move(table.rows[B], "dead", "gone", 2.0)
    assert sorted(table.peers) == [A, C]
    assert list(table.suspects) == [A]
    assert table.nodes == 3


def test_a_move_says_what_it_was_before_and_why_it_changed() -> None:
    """Whoever draws consequences needs both states; people need the reason and the time."""
    table = _table(A)
    row = table.rows[A]
    table.move(row, "dead", "gone", 5.0)
    assert table.changes == [Change(row, "alive")]
    assert (row.reason, row.changed_at) == ("gone", 5.0)


def test_a_view_is_the_same_object_until_something_changes() -> None:
    """Readers may compare by identity."""
    table = _table(A)
    view = table.view()
    assert table.view() is view
    assert not table.stale
    table.touch(table.rows[A])
    assert table.stale
    assert table.view() is not view
    assert table.view().version == view.version + 1


def test_an_old_view_does_not_change() -> None:
    """A reader that keeps one sees the past, never half a change."""
    table = _table(A)
    view = table.view()
    table.move(table.rows[A], "dead", "gone", 2.0)
    assert view.members[A].state == "alive"
    assert table.view().members[A].state == "dead"


def test_unchanged_rows_are_not_made_again() -> None:
    """A view of a thousand rows after one change builds one member."""
    table = _table(A, B)
    before = table.view()
    table.touch(table.rows[A])
    after = table.view()
    assert after.members[B] is before.members[B]
    assert after.members[A] is not before.members[A]


def test_a_dropped_row_is_gone_from_the_view() -> None:
    """Also when it never was in one."""
    table = _table(A)
    table.drop(A)
    assert A not in table.view().members
    assert table.add(row_from(claim(B), 1.0, "test"))
    table.view()
    table.drop(B)
    assert B not in table.view().members
    assert table.dropped == [A, B]


def test_a_full_table_gives_the_oldest_tombstone_s_place_away() -> None:
    """Newcomers matter more than the dead, and the living more than newcomers."""
    table = _table(A, B, members_max=3)
    assert not table.add(row_from(claim(C), 1.0, "test"))
    table.move(table.rows[B], "left", "bye", 2.0)
    table.move(table.rows[A], "dead", "gone", 3.0)
    assert table.add(row_from(claim(C), 4.0, "test"))
    assert sorted(table.rows) == sorted([ME, A, C])


def test_a_new_run_forgets_what_the_last_one_said() -> None:
    """A restarted node's load, capacity and frame numbers are its own."""
    row = row_from(claim(A), 1.0, "test")
    row.load = load()
    for boot_id in range(10, 20):
        row.new_run(boot_id)
    assert [row.load, row.capacity, row.window] == [None] * 3
    assert row.past_boots == tuple(range(19 - PAST_BOOTS_MAX, 19))


def test_a_row_says_what_it_was_told() -> None:
    """The claim made from a row is the claim the row was made from."""
    assert row_from(claim(A), 1.0, "test").claim() == claim(A)
