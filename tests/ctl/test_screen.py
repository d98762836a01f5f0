"""Tables that fit, and text from other machines that cannot harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.ctl.screen import Cell, Column, Screen, clean, cut, measure, table

COLUMNS = (
    Column("NAME"),
    Column("LESS", spare=2),
    Column("LEAST", spare=9),
    Column("N", right=True),
)
ROWS = [[Cell("kitchen"), Cell("some"), Cell("extra"), Cell("1")]]


def test_a_pipe_gets_everything() -> None:
    """No width: no column goes, no cell is cut."""
    assert table(COLUMNS, ROWS, Screen()) == ["NAME     LESS  LEAST  N", "kitchen  some  extra  1"]


@pytest.mark.parametrize(
    ("width", "titles"),
    [(23, "NAME     LESS  LEAST  N"), (22, "NAME     LESS  N"), (15, "NAME     N")],
)
def test_columns_go_by_their_number(width: int, titles: str) -> None:
    """The least needed first, and only as many as must."""
    assert table(COLUMNS, ROWS, Screen(width))[0] == titles


def test_what_stays_is_cut_with_a_mark() -> None:
    """Down to six characters, and no further."""
    rows = [[Cell("a-very-long-name"), Cell(""), Cell(""), Cell("1")]]
    assert table(COLUMNS, rows, Screen(12))[1] == "a-very-l…  1"
    assert table(COLUMNS, rows, Screen(3))[1] == "a-ver…  1"


def test_colour_does_not_count_as_width() -> None:
    """Painted and plain tables line up alike."""
    rows = [[Cell("kitchen", "good"), Cell("x"), Cell("y"), Cell("22")]]
    painted = table(COLUMNS, rows, Screen(colour=True))[1]
    assert painted == "\x1b[32mkitchen\x1b[0m  x     y      22"


def test_control_characters_of_strangers_are_shown_not_obeyed() -> None:
    """A node's name cannot clear the screen, move the cursor or hide text."""
    assert clean("a\x1b[2Jb\r\n\u202ec\x9b", Screen()) == "a?[2Jb???c?"
    assert clean("naïve·…", Screen(unicode=False)) == "na?ve-~"


def test_wide_characters_take_two_columns() -> None:
    """So a table with Chinese model names still lines up."""
    assert measure("千問") == 4
    assert measure("e\u0301") == 1
    assert cut("千問千問", 5, Screen()) == "千問…"


@given(
    st.lists(st.lists(st.text(max_size=30), min_size=4, max_size=4), max_size=5),
    st.integers(20, 60),
)
def test_any_text_fits_any_width(cells: list[list[str]], width: int) -> None:
    """From 20 columns up, no line of a table of four columns is wider than asked."""
    rows = [[Cell(text) for text in row] for row in cells]
    columns = (Column("A"), Column("B", spare=1), Column("C", spare=2), Column("D"))
    lines = table(columns, rows, Screen(width))
    assert all(measure(line) <= width for line in lines)
    assert len(lines) == len(rows) + 1


def test_bars_fill_by_ratio_and_never_overflow() -> None:
    """Ratios outside [0, 1] are clamped."""
    screen = Screen(unicode=False)
    assert [screen.bar(r, 4) for r in (-1, 0, 0.5, 1, 9)] == [
        "....",
        "....",
        "##..",
        "####",
        "####",
    ]
