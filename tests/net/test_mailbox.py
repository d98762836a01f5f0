"""The latest letter of each subject, in order, and never too many."""

from __future__ import annotations

from meshd.net.mailbox import Mailbox


def test_letters_come_out_in_the_order_they_came_in() -> None:
    """Oldest first, each once."""
    box: Mailbox[str] = Mailbox()
    box.post("a", "one")
    box.post("b", "two")
    assert box.take() == ["one", "two"]
    assert box.take() == []


def test_newer_letter_replaces_an_unread_one() -> None:
    """What is no longer true is not read."""
    box: Mailbox[str] = Mailbox()
    box.post("load", "old")
    box.post("other", "between")
    box.post("load", "new")
    assert box.take() == ["between", "new"]


def test_subjects_are_bounded() -> None:
    """Beyond the limit letters are refused and counted, except on subjects already there."""
    box: Mailbox[int] = Mailbox(subjects_max=2)
    assert [box.post(number, number) for number in range(4)] == [True, True, False, False]
    assert box.post(1, 11)
    assert box.take() == [0, 11]
    assert box.dropped == 2
