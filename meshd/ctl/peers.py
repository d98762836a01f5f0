"""`meshctl peers`: how each other node looks from here, and why. Pure: a members body in.

ADDRESS is the one in use from here, AGE that of the last load report, HEARD the time since the node
itself was heard, CHANGED since its state last changed, and WHY says why it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.ctl.screen import Cell, Column, Row, Screen, table
from meshd.ctl.status import STATE_STYLES, state_words
from meshd.ctl.words import UNKNOWN, seconds_words

COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("ADDRESS", spare=3),
    Column("RTT", spare=2, right=True),
    Column("HEARD", spare=1, right=True),
    Column("CHANGED", spare=4, right=True),
)
WIDE_COLUMNS = (
    Column("WHY", spare=5),
    Column("AGE", spare=6, right=True),
    Column("INCARNATION", spare=8, right=True),
    Column("ENDPOINTS", spare=9),
    Column("ID", spare=7),
)


def peers_lines(
    body: Mapping[str, Any], screen: Screen, *, url: str, wide: bool = False
) -> list[str]:
    """A table of everybody but the node that was asked, or a line that says it is alone."""
    rows = [_cells(row, wide=wide) for row in body["members"] if row["id"] != body["self"]]
    if not rows:
        advice = "`meshctl pair` lets another machine in, and says what to type there"
        return [f"the node at {url} is alone; {advice}"]
    return table(COLUMNS + (WIDE_COLUMNS if wide else ()), rows, screen)


def _cells(row: Mapping[str, Any], *, wide: bool) -> Row:
    cells = [
        Cell(row["name"], "bold"),
        Cell(state_words(row), STATE_STYLES.get(row["state"], "")),
        Cell(row.get("address") or UNKNOWN),
        Cell(seconds_words(row.get("rtt_s"))),
        Cell(seconds_words(row.get("heard_s"))),
        Cell(seconds_words(row.get("changed_s"))),
    ]
    if wide:
        cells += [
            Cell(row.get("reason") or UNKNOWN),
            Cell(seconds_words(row.get("age_s"))),
            Cell(str(row["incarnation"])),
            Cell(", ".join(row["endpoints"]) or UNKNOWN),
            Cell(row["id"]),
        ]
    return cells
