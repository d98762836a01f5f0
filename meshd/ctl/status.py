"""`meshctl status`: the whole mesh on one screen. Pure: a status body in, lines out.

A row is one machine. Its models are those that are warm, then how many more it could load; its
memory bar is filled by what is in use and coloured by pressure, because "used" alone says nothing
about whether a machine suffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.ctl.screen import GAP, Cell, Column, Row, Screen, clean, cut, fold, measure, table
from meshd.ctl.words import UNKNOWN, bytes_words, counted, rate_words, seconds_words

STATE_STYLES = {"alive": "good", "suspect": "warn", "dead": "bad", "left": "dim"}
PRESSURE_STYLES = {"normal": "good", "warn": "warn", "critical": "bad"}
BAR_CELLS = 6
MODELS_SHOWN_MAX = 2
"""Warm models named in a row; the rest are counted, and `meshctl models` names them all."""

Body = Mapping[str, Any]

COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("RTT", spare=4, right=True),
    Column("MODELS", spare=2),
    Column("SLOTS", spare=3, right=True),
    Column("QUEUE", spare=6, right=True),
    Column("TOK/S", spare=7, right=True),
    Column("MEMORY FREE", spare=1),
    Column("SEEN", spare=5, right=True),
)
WIDE_COLUMNS = (
    Column("ADDRESS", spare=8),
    Column("CHIP", spare=9),
    Column("GPU", spare=11),
    Column("ENGINES", spare=10),
    Column("VERSION", spare=12),
    Column("WHY", spare=13),
)


def status_lines(body: Body, screen: Screen, *, wide: bool = False) -> list[str]:
    """Head, table and foot."""
    columns = COLUMNS + (WIDE_COLUMNS if wide else ())
    myself = body.get("self")
    rows = [
        [*_cells(member, screen, mine=member["id"] == myself), *(_more(member) if wide else ())]
        for member in body["members"]
    ]
    waits = [clean(_wait_words(wait), screen) for wait in body.get("memory_waits", ())]
    foot = [*_foot(body, screen), *waits]
    return [_head(body, screen), "", *table(columns, rows, screen), "", *foot]


def troubles(body: Body) -> list[str]:
    """What makes the mesh degraded, one line each: a node lost or in doubt, or out of memory."""
    found = []
    for member in body["members"]:
        load = member.get("load") or {}
        if member["state"] in {"suspect", "dead"}:
            found.append(f"{member['name']} is {member['state']}: {member.get('reason') or '?'}")
        elif member["state"] == "alive" and load.get("pressure") == "critical":
            found.append(f"{member['name']} is short of memory and takes no new work")
    return found


def _head(body: Body, screen: Screen) -> str:
    node, mesh = body["node"], body["mesh"]
    name = clean(node["name"], screen)
    rest = f"meshd {node['version']}, up {seconds_words(node['uptime_s'])}, mesh {mesh['label']}"
    rest = clean(rest, screen)
    if screen.width is not None:
        name = cut(name, screen.width, screen)
        rest = cut(rest, screen.width - measure(name) - len(GAP), screen)
    painted = screen.paint(name, "bold"), screen.paint(rest, "dim") if rest else ""
    return GAP.join(part for part in painted if part)


def _wait_words(wait: Body) -> str:
    """What requests wait for that wait for memory here."""
    behind = " and ".join(wait["behind"]) or "others"
    counts = counted(wait["waiting"], "request")
    about = seconds_words(wait["wait_s"])
    return f"{counts} for {wait['model']} wait here for the memory of {behind}, about {about}"


def _foot(body: Body, screen: Screen) -> list[str]:
    mesh, sums = body["mesh"], body["totals"]
    free, whole = sums["memory_available_bytes"], sums["memory_total_bytes"]
    parts = [
        f"{mesh['alive']} of {counted(mesh['members'] - mesh.get('left', 0), 'node')} alive",
        f"{counted(sums['models'], 'model')}, {sums['warm_models']} warm",
        f"{sums['in_flight']} of {sums['slots']} slots busy",
        f"{sums['queued']} queued",
        f"{bytes_words(free)} of {bytes_words(whole)} free",
    ]
    return fold(parts, screen)


def _cells(member: Body, screen: Screen, *, mine: bool) -> Row:
    load = member.get("load") or {}
    models: Sequence[Body] = member.get("models") or ()
    busy, slots = load.get("in_flight", 0), sum(model.get("slots", 0) for model in models)
    speed = max((model.get("generation_tps", 0) for model in models), default=0)
    here = member["state"] == "alive"
    return (
        Cell(member["name"] + ("*" if mine else ""), "bold" if mine else ""),
        Cell(state_words(member), STATE_STYLES.get(member["state"], "")),
        Cell(UNKNOWN if mine or not here else seconds_words(member.get("rtt_s"))),
        Cell(_models_words(models)),
        Cell(f"{busy}/{slots}" if here and models else UNKNOWN),
        Cell(str(load.get("queued", 0)) if here else UNKNOWN),
        Cell(rate_words(speed) if here else UNKNOWN),
        _memory(member, screen) if here else Cell(UNKNOWN),
        Cell("now" if mine else seconds_words(member.get("heard_s"))),
    )


def _more(member: Body) -> Row:
    capacity = member.get("capacity") or {}
    gpus = (f"{g['name']} {bytes_words(g['memory_bytes'])}" for g in capacity.get("gpus", ()))
    return (
        Cell(member.get("address") or UNKNOWN),
        Cell(capacity.get("chip") or UNKNOWN),
        Cell(", ".join(gpus) or UNKNOWN),
        Cell(", ".join(capacity.get("engines", ())) or UNKNOWN),
        Cell(capacity.get("software") or UNKNOWN),
        Cell(member.get("reason") or UNKNOWN),
    )


def state_words(member: Body) -> str:
    """The state, and what else keeps work away."""
    load = member.get("load") or {}
    if member["state"] != "alive":
        return str(member["state"])
    if load.get("draining"):
        return "draining"
    return "alive" if load.get("accepting", True) else "refusing"


def _models_words(models: Sequence[Body]) -> str:
    warm = [model["id"] for model in models if model.get("warm")]
    named = warm[:MODELS_SHOWN_MAX] or [model["id"] for model in models[:1]]
    more = len(models) - len(named)
    return ", ".join(named) + (f" +{more}" if more else "") if models else UNKNOWN


def _memory(member: Body, screen: Screen) -> Cell:
    load, capacity = member.get("load") or {}, member.get("capacity") or {}
    whole, free = capacity.get("memory_total_bytes"), load.get("memory_available_bytes")
    if not whole or free is None:
        return Cell(UNKNOWN)
    pressure = load.get("pressure", "normal")
    words = "" if pressure == "normal" else f" {pressure}"
    text = f"{screen.bar(1 - free / whole, BAR_CELLS)} {bytes_words(free)}{words}"
    return Cell(text, PRESSURE_STYLES.get(pressure, ""))
