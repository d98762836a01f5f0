"""What the terminal can show, and tables laid out for it.

Own code rather than rich: importing rich takes 105-120 ms on two cores, a third of what a command
may take to its first words; these tables need widths, a few colours and a rule for narrow
terminals.

The rule: every cell is on one line. When a table is wider than the terminal, columns go in the
order of their `spare` number, highest first, and those with `spare` 0 stay; if that is not enough,
the widest cells are cut with an ellipsis. Into a pipe nothing is dropped or cut.

Everything shown came from other machines, so control characters, which could move the cursor or
rewrite the title of the window, are replaced before anything is measured.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TextIO
from unicodedata import category, east_asian_width

from protocol.frozen import frozen

GAP = "  "
CELL_MIN_CHARS = 6
"""A cell is never cut below this: four letters and an ellipsis still tell two names apart."""

COLOURS = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "": ""}


@frozen
class Screen:
    """Where output goes: columns (None for a pipe), and what it understands."""

    width: int | None = None
    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{COLOURS[style]}m{text}\x1b[0m" if self.colour and style else text

    def bar(self, ratio: float, cells: int) -> str:
        """A gauge of `cells` characters, filled to `ratio`."""
        full, empty = ("█", "░") if self.unicode else ("#", ".")
        filled = round(max(0.0, min(1.0, ratio)) * cells)
        return full * filled + empty * (cells - filled)


def screen_of(stream: TextIO, env: Mapping[str, str]) -> Screen:
    """Colour only on a terminal, and not where NO_COLOR (no-color.org) or TERM=dumb asks for none;
    CLICOLOR_FORCE turns it on anywhere."""
    terminal = stream.isatty()
    forced = env.get("CLICOLOR_FORCE", "0") not in {"", "0"}
    muted = bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb"
    return Screen(
        width=shutil.get_terminal_size().columns if terminal else None,
        colour=(terminal or forced) and not muted,
        unicode="utf" in (stream.encoding or "").lower(),
    )


@frozen
class Column:
    """A column's title; `spare` says how soon it goes on a narrow terminal (0: never)."""

    title: str
    spare: int = 0
    right: bool = False


@frozen
class Cell:
    """One line of text in one style of COLOURS."""

    text: str
    style: str = ""


Row = Sequence[Cell]


def table(columns: Sequence[Column], rows: Sequence[Row], screen: Screen) -> list[str]:
    """The table as lines, its titles first; never wider than the screen where it has a width."""
    grid = [[clean(cell.text, screen) for cell in row] for row in rows]
    widths = [
        max([measure(column.title), *(measure(row[index]) for row in grid)])
        for index, column in enumerate(columns)
    ]
    shown = _fit(columns, widths, screen.width)
    _squeeze(widths, shown, screen.width)
    titles = [Cell(column.title, "dim") for column in columns]
    lines = []
    for row in (titles, *rows):
        cells = [_cell(row[i], widths[i], columns[i].right, screen) for i in shown]
        lines.append(GAP.join(cells).rstrip())
    return lines


def _fit(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> list[int]:
    shown = list(range(len(columns)))
    while width is not None and _total(widths, shown) > width:
        spare = [index for index in shown if columns[index].spare]
        if not spare:
            break
        shown.remove(max(spare, key=lambda index: columns[index].spare))
    return shown


def _squeeze(widths: list[int], shown: Sequence[int], width: int | None) -> None:
    while width is not None and _total(widths, shown) > width:
        widest = max(shown, key=lambda index: widths[index])
        if widths[widest] <= CELL_MIN_CHARS:
            return
        widths[widest] -= 1


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + len(GAP) * (len(shown) - 1)


def _cell(cell: Cell, width: int, right: bool, screen: Screen) -> str:
    text = cut(clean(cell.text, screen), width, screen)
    room = " " * (width - measure(text))
    painted = screen.paint(text, cell.style)
    return room + painted if right else painted + room


def fold(parts: Sequence[str], screen: Screen) -> list[str]:
    """The parts in one line, or in as many as a narrow terminal needs."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and (screen.width is None or measure(longer) <= screen.width):
            lines[-1] = longer
        else:
            lines.append(part)
    return [clean(line, screen) for line in lines]


def clean(text: str, screen: Screen) -> str:
    """One printable line: control and format characters become question marks."""
    visible = "".join("?" if category(char)[0] == "C" else char for char in text)
    if screen.unicode:
        return visible
    plain = visible.replace("…", "~").replace("·", "-").replace("—", "-")
    return plain.encode("ascii", "replace").decode()


def harmless(text: str) -> str:
    """The text, its lines kept, without control characters: what another machine said."""
    return "".join("?" if category(char) == "Cc" and char not in "\n\t" else char for char in text)


def cut(text: str, width: int, screen: Screen) -> str:
    """At most `width` columns of `text`; what is missing is marked."""
    if measure(text) <= width:
        return text
    if width < 1:
        return ""
    while text and measure(text) > width - 1:
        text = text[:-1]
    return text + ("…" if screen.unicode else "~")


def measure(text: str) -> int:
    """Columns that `text` takes: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if category(char) in {"Mn", "Me"}:
        return 0
    return 2 if east_asian_width(char) in {"W", "F"} else 1


def supports_redraw(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether `--watch` can repaint in place rather than print one screen after another."""
    return stream.isatty() and env.get("TERM") != "dumb"


REDRAW = "\x1b[H\x1b[2J\x1b[3J"
"""Cursor home, clear the screen and what scrolled off it."""
