"""`meshctl top`: the mesh as it works, full screen, once a second. Pure below `frame`.

What is drawn is what `status` and `requests` print, with the last minutes of this node as
sparklines between them, cut to the terminal's height from the bottom up: nodes matter more than
requests. Keys: `q` leaves, `w` shows wide rows, `m` sorts nodes by memory in use, `n` by name.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from meshd.ctl import client, exits
from meshd.ctl.console import node_of, screen_now, shaped
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import GAP, Cell, Column, Screen, clean, cut, supports_redraw, table
from meshd.ctl.status import status_lines
from meshd.ctl.words import UNKNOWN, seconds_words

LOOK_EVERY_S = 1.0
"""Pause between frames: loads are gossiped about as often."""

LOOK_LIMIT_S = 3.0
"""A look that takes longer is given up: while it lasts, no key is heard."""

SPARK_CELLS = 40
"""Samples drawn: the last seven minutes at one in ten seconds. Fewer on a narrow terminal."""

SPARK_TITLE_CELLS = 10
SPARK_NOW_CELLS = 8
"""Beside a sparkline: the longest title, and what most figures of now take."""

ROWS_MAX = 30
"""Requests asked for: a tall screen's worth."""

LEVELS = " ▁▂▃▄▅▆▇█"
PLAIN_LEVELS = " .:-=+*#%"

SPARKS = (
    ("tokens/s", "tokens_per_s", ""),
    ("first word", "ttft_p50_s", " s"),
    ("waiting", "queued", ""),
    ("memory", "memory_ratio", ""),
)

COLUMNS = (
    Column("REQUEST"),
    Column("STATE"),
    Column("MODEL", spare=1),
    Column("NODE"),
    Column("AGE", spare=2, right=True),
    Column("FIRST WORD", spare=3, right=True),
    Column("TRIES", spare=4, right=True),
)

Body = Mapping[str, Any]


class View:
    """What the keys have chosen, and why there is nothing new to see."""

    def __init__(self) -> None:
        self.wide = False
        self.order = "name"
        self.trouble = ""

    def press(self, key: str) -> bool:
        """Whether to go on."""
        if key == "w":
            self.wide = not self.wide
        elif key in {"m", "n"}:
            self.order = {"m": "memory", "n": "name"}[key]
        return key not in {"q", "\x03", "\x04", ""}  # nothing: nobody is at the keys any more


def top(args: Namespace) -> int:
    """Look until told to leave. FAILURE where there is no terminal to fill."""
    if not (supports_redraw(sys.stdout) and sys.stdin.isatty()):
        raise Trouble(
            exits.FAILURE,
            "top needs a terminal that can redraw; `meshctl status --watch` needs none",
        )
    node, view = node_of(args, LOOK_LIMIT_S), View()
    looked = _look(node)
    with _full_screen():
        while True:
            height = shutil.get_terminal_size().lines  # a serial line does not know, and says 0
            lines = frame(*looked, view=view, screen=screen_now(), height=height)
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")
            sys.stdout.flush()
            ready, _, _ = select.select([sys.stdin], [], [], LOOK_EVERY_S)
            if ready and not view.press(os.read(sys.stdin.fileno(), 1).decode(errors="replace")):
                return exits.OK
            try:
                looked, view.trouble = _look(node), ""
            except Trouble as trouble:
                view.trouble = str(trouble)


def frame(
    status: Body, requests: Body, trends: Body, *, view: View, screen: Screen, height: int
) -> list[str]:
    """One screenful of at most `height` - 1 lines. Raises Trouble for another version's bodies."""
    lines = shaped(lambda status: _nodes(status, view, screen), status)
    lines += ["", *_sparks(trends, screen), *shaped(lambda body: _work(body, screen), requests)]
    foot = view.trouble or "q leave   w wide   m by memory   n by name"
    if screen.width is not None:
        foot = cut(clean(foot, screen), screen.width, screen)
    foot = screen.paint(foot, "bad" if view.trouble else "dim")
    return [*lines[: max(1, height - 3)], "", foot][: max(1, height - 1)]


def _nodes(status: Body, view: View, screen: Screen) -> list[str]:
    members = sorted(status["members"], key=_memory_used if view.order == "memory" else _name)
    return status_lines({**status, "members": members}, screen, wide=view.wide)


def _work(requests: Body, screen: Screen) -> list[str]:
    running = [row for row in requests["requests"] if row["state"] in {"running", "queued"}]
    rest = [row for row in requests["requests"] if row not in running]
    rows = [_cells(row) for row in (*running, *rest)]
    return ["", *table(COLUMNS, rows, screen)] if rows else []


def sparkline(values: Sequence[float | None], screen: Screen, cells: int = SPARK_CELLS) -> str:
    """The last `cells` values, each as a height; a gap where there is none."""
    levels = LEVELS if screen.unicode else PLAIN_LEVELS
    shown = list(values)[-cells:]
    most = max((value for value in shown if value is not None), default=0.0) or 1.0
    steps = len(levels) - 1
    return "".join(
        levels[0] if value is None else levels[max(1, round(value / most * steps))]
        for value in shown
    )


def _sparks(trends: Body, screen: Screen) -> list[str]:
    beside = SPARK_TITLE_CELLS + SPARK_NOW_CELLS + 2 * len(GAP)
    cells = SPARK_CELLS
    if screen.width is not None:
        cells = max(1, min(cells, screen.width - beside))
    lines = []
    for title, key, unit in SPARKS:
        values = trends.get(key) or []
        last = next((value for value in reversed(values) if value is not None), None)
        now = UNKNOWN if last is None else f"{last:.3g}{unit}"
        spark = sparkline(values, screen, cells)
        line = f"{title:>{SPARK_TITLE_CELLS}}{GAP}{spark:<{cells}}{GAP}{now}"
        lines.append(line if screen.width is None else cut(line, screen.width, screen))
    return lines


def _cells(row: Body) -> Sequence[Cell]:
    styles = {"running": "good", "queued": "warn", "failed": "bad"}
    place = f" ({row['queue_position']}.)" if row.get("queue_position") else ""
    return (
        Cell(row["id"][:16]),
        Cell(row["state"] + place, styles.get(row["state"], "dim")),
        Cell(row["model"]),
        Cell(row["node"] or UNKNOWN),
        Cell(seconds_words(row["age_s"])),
        Cell(seconds_words(row["ttft_s"])),
        Cell(str(row["attempts"])),
    )


def _name(member: Body) -> str:
    return str(member["name"])


def _memory_used(member: Body) -> float:
    load, capacity = member.get("load") or {}, member.get("capacity") or {}
    whole = capacity.get("memory_total_bytes") or 1
    return float(load.get("memory_available_bytes", whole)) / float(whole)


def _look(node: client.Node) -> tuple[Body, Body, Body]:
    return (
        node.get("/mesh/v1/status"),
        node.get(f"/mesh/v1/requests?limit={ROWS_MAX}"),
        node.get("/mesh/v1/trends"),
    )


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # as shells number it


@contextmanager
def _full_screen() -> Iterator[None]:
    """The other screen, no cursor, keys at once; all of it put back whatever happens, also where
    somebody ends it with `kill`. Ctrl-Z would leave the shell on the other screen: it does
    nothing."""
    import termios  # not on every system that meshctl runs on
    import tty

    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    before = termios.tcgetattr(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
