"""A frame counts once, in whatever order frames come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.membership.replay import WINDOW, ReplayWindow


def test_each_number_is_taken_once() -> None:
    """The second time it is a replay."""
    window = ReplayWindow()
    assert [window.accept(n) for n in (0, 1, 1, 0)] == [True, True, False, False]


def test_frames_may_overtake_each_other_within_the_window() -> None:
    """Two connections carry one numbering, so the order is not exact."""
    window = ReplayWindow()
    assert window.accept(WINDOW)
    assert window.accept(1)
    assert not window.accept(0)


def test_a_jump_forgets_the_old_window() -> None:
    """After a gap wider than the window, nothing from before it is taken."""
    window = ReplayWindow()
    assert window.accept(5)
    assert window.accept(5 + 2 * WINDOW)
    assert not window.accept(5)
    assert window.accept(6 + WINDOW + 1)


@given(st.lists(st.integers(0, WINDOW - 1), max_size=200))
def test_within_a_window_it_is_a_set(numbers: list[int]) -> None:
    """Any order, any repetition: exactly the first of each is taken."""
    window, seen = ReplayWindow(), set[int]()
    for number in numbers:
        assert window.accept(number) is (number not in seen)
        seen.add(number)


def test_memory_is_bounded() -> None:
    """The bit map never outgrows the window."""
    window = ReplayWindow()
    for number in range(0, 50 * WINDOW, 3):
        window.accept(number)
    assert window._seen.bit_length() <= WINDOW
