"""`meshctl requests [ID]`: what became of requests. The shapes are pure: bodies in, lines out.

A node knows the requests that entered it, each with its attempts at other nodes, and separately
what it answers at this moment, for itself and for others. People are hashes, prompts are nowhere.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from meshd.ctl import exits
from meshd.ctl.console import node_of, show
from meshd.ctl.explain import explain_lines
from meshd.ctl.screen import Cell, Column, Row, Screen, clean, fold, table
from meshd.ctl.words import UNKNOWN, seconds_words

Body = Mapping[str, Any]

STATE_STYLES = {
    "queued": "warn",
    "running": "good",
    "done": "",
    "failed": "bad",
    "cancelled": "dim",
}

COLUMNS = (
    Column("REQUEST", spare=3),
    Column("STATE"),
    Column("MODEL", spare=2),
    Column("NODE"),
    Column("PERSON", spare=6),
    Column("AGE", right=True),
    Column("TTFT", spare=1, right=True),
    Column("TOOK", spare=4, right=True),
    Column("TOKENS", spare=5, right=True),
    Column("TRIES", spare=7, right=True),
)

SERVED_COLUMNS = (
    Column("ANSWERED HERE FOR OTHERS", spare=2),
    Column("STATE"),
    Column("MODEL", spare=1),
    Column("PERSON", spare=3),
    Column("AGE", right=True),
)

ATTEMPT_COLUMNS = (
    Column("TRY", right=True),
    Column("NODE"),
    Column("WHY", spare=1),
    Column("OUTCOME"),
    Column("STARTED", right=True),
    Column("FIRST WORD", spare=2, right=True),
    Column("ENDED", right=True),
    Column("SAID", spare=3),
)


def requests(args: Namespace) -> int:
    """FAILURE for a request that the node does not know."""
    node = node_of(args)
    if args.request is None:
        show(args, node.get("/mesh/v1/requests"), requests_lines)
    else:
        show(args, node.get(f"/mesh/v1/requests/{quote(args.request, safe='')}"), request_lines)
    return exits.OK


def requests_lines(body: Body, screen: Screen) -> list[str]:
    """A row for each request that entered the node, newest first, and for each that it answers for
    others."""
    rows = body["requests"]
    mine = {row["id"] for row in rows}
    served = [row for row in body["served"] if row["id"].rpartition(".")[0] not in mine]
    served = [row for row in served if row["id"] not in mine]
    lines = [clean(f"{body['node']} takes no work now", screen)] if body["draining"] else []
    if rows:
        lines += table(COLUMNS, [_cells(row) for row in rows], screen)
    if served:
        lines += ["", *table(SERVED_COLUMNS, [_served_cells(row) for row in served], screen)]
    return lines or [f"no request has entered {clean(body['node'], screen)} since it started"]


def request_lines(body: Body, screen: Screen) -> list[str]:
    """One request: its fate in a line or two, its attempts, and the choices with their reasons."""
    fate = [
        f"{body['id']}: {_state(body)}",
        body["model"],
        f"{body['priority']} {body['kind']}",
        f"{seconds_words(body['age_s'])} ago",
    ]
    if body["duration_s"] is not None:
        fate.append(f"took {seconds_words(body['duration_s'])}")
    if body["completion_tokens"] is not None:
        fate.append(f"{body['prompt_tokens']}+{body['completion_tokens']} tokens")
    lines = [screen.paint(line, STATE_STYLES.get(body["state"], "")) for line in fold(fate, screen)]
    if body["message"]:
        lines.append(clean(body["message"], screen))
    attempts = body["attempts"]
    if attempts:
        rows = [_attempt_cells(number, each) for number, each in enumerate(attempts, 1)]
        lines += ["", *table(ATTEMPT_COLUMNS, rows, screen)]
    choices = body["decisions"]
    if not choices:
        lines += ["", "the reasons of its choices are not kept any more"]
    for number, choice in enumerate(choices, 1):
        lines += ["", f"choice {number} of {len(choices)}", *explain_lines(choice, screen)]
    return lines


def _cells(row: Body) -> Row:
    tokens = row["completion_tokens"]
    return (
        Cell(row["id"], "bold"),
        Cell(_state(row), STATE_STYLES.get(row["state"], "")),
        Cell(row["model"]),
        Cell(row["node"] or UNKNOWN),
        Cell(row["person"][:8] or UNKNOWN, "dim"),
        Cell(seconds_words(row["age_s"])),
        Cell(seconds_words(row["ttft_s"])),
        Cell(seconds_words(row["duration_s"])),
        Cell(UNKNOWN if tokens is None else f"{row['prompt_tokens']}+{tokens}"),
        Cell(str(row["attempts"])),
    )


def _served_cells(row: Body) -> Row:
    return (
        Cell(row["id"], "bold"),
        Cell(_state(row), STATE_STYLES.get(row["state"], "")),
        Cell(row["model"]),
        Cell(row["person"][:8] or UNKNOWN, "dim"),
        Cell(seconds_words(row["age_s"])),
    )


def _attempt_cells(number: int, row: Body) -> Row:
    style = {"failed": "bad", "finished": "good"}.get(row["outcome"], "")
    said = f"{row['code']}: {row['message']}" if row["code"] else UNKNOWN
    return (
        Cell(str(number)),
        Cell(row["node"], "bold"),
        Cell(row["why"]),
        Cell(row["outcome"], style),
        Cell(seconds_words(row["started_s"])),
        Cell(seconds_words(row["first_byte_s"])),
        Cell(seconds_words(row["ended_s"])),
        Cell(said, "dim"),
    )


def _state(row: Body) -> str:
    """The state, and where it stands or why it failed."""
    if row["state"] == "queued":
        return f"queued {row['queue_position']}, about {seconds_words(row['queue_wait_s'])}"
    if row.get("error"):
        return f"failed: {row['error']}"
    return str(row["state"])
