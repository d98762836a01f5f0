"""`meshctl explain`: where a question would go and why. Pure: an `/mesh/v1/explain` body in.

A node that may not answer is shown with the gate that keeps it out; one that may, with the time to
the end of the answer that is expected there, and its score, by which is chosen: the terms add up to
it, those that are zero everywhere left out. It holds more than the asker waits: what others pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.ctl.screen import Cell, Column, Row, Screen, clean, table
from meshd.ctl.words import UNKNOWN, seconds_words

TOTAL = "total_s"
"""The sum, which a body may also list among its terms."""

ASSUMED = "~ never measured there: what this kind of machine usually takes"

Body = Mapping[str, Any]


def explain_lines(body: Body, screen: Screen) -> list[str]:
    """The choice in one line, then a row for each candidate."""
    candidates: Sequence[Body] = body["candidates"]
    head = f"{body['model']}: " + (
        f"{body['chosen']} - {body['reason']}"
        if body.get("chosen")
        else f"no node can answer - {body['reason']}"
    )
    lines = [screen.paint(clean(head, screen), "bold" if body.get("chosen") else "bad")]
    if not candidates:
        return lines
    terms = _terms_that_count(candidates)
    columns = (
        Column("NODE"),
        Column("EXPECTED", right=True),
        Column("SCORE", spare=1, right=True),
        *(Column(name.removesuffix("_s").upper(), spare=2, right=True) for name in terms),
        Column("KEPT OUT BY", spare=1),
    )
    rows = [_cells(candidate, terms, body.get("chosen_id")) for candidate in candidates]
    lines += ["", *table(columns, rows, screen)]
    if any(_is_assumed(candidate) for candidate in candidates):
        lines.append(screen.paint(ASSUMED, "dim"))
    return lines


def _terms_that_count(candidates: Sequence[Body]) -> list[str]:
    names = dict.fromkeys(name for each in candidates for name in each["terms"] if name != TOTAL)
    return [name for name in names if any(each["terms"].get(name) for each in candidates)]


def _cells(candidate: Body, terms: Sequence[str], chosen_id: object) -> Row:
    mine = candidate["id"] == chosen_id
    eligible = candidate["eligible"]
    style = "bold" if mine else ("" if eligible else "dim")
    shut = [gate for gate in candidate["gates"] if not gate["ok"]]
    why = "; ".join(f"{gate['name']}: {gate['detail']}" for gate in shut)
    score_s = candidate["score_s"]
    expected_s = candidate.get("expected_s", score_s)  # not told by a daemon from before
    expected = ("~" if _is_assumed(candidate) else "") + seconds_words(expected_s)
    return (
        Cell(candidate["node"] + ("*" if mine else ""), style),
        Cell(expected if eligible else UNKNOWN, style),
        Cell(seconds_words(score_s) if eligible else UNKNOWN, style),
        *(Cell(_term(candidate, name), style) for name in terms),
        Cell(why or UNKNOWN, "warn" if why else "dim"),
    )


def _is_assumed(candidate: Body) -> bool:
    """A daemon from before it said so measured everybody, as far as it tells."""
    return bool(candidate["eligible"] and not candidate.get("measured", True))


def _term(candidate: Body, name: str) -> str:
    value = candidate["terms"].get(name)
    return seconds_words(value) if candidate["eligible"] and value else UNKNOWN
