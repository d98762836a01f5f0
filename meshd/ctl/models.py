"""`meshctl models`: what can be asked for, and who has it. Pure: a `/v1/models` body in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.ctl.screen import Cell, Column, Row, Screen, table
from meshd.ctl.words import UNKNOWN

COLUMNS = (
    Column("MODEL"),
    Column("STATE", spare=1),
    Column("NODES", spare=2),
    Column("CONTEXT", spare=3, right=True),
    Column("QUANT", spare=4),
    Column("CAN", spare=5),
)


def models_lines(body: Mapping[str, Any], screen: Screen) -> list[str]:
    """A table, or a line that says how to get a model."""
    rows = [_cells(row) for row in body.get("data", ())]
    if not rows:
        return ["no node of this mesh offers a model; start one with --engine llamacpp:bundled"]
    return table(COLUMNS, rows, screen)


def _cells(row: Mapping[str, Any]) -> Row:
    warm = (row.get("status") or {}).get("value") == "loaded"
    state = ("warm" if warm else "cold") + (", emulated" if row.get("emulated") else "")
    return (
        Cell(row["id"], "bold"),
        Cell(state, "good" if warm else "dim"),
        Cell(", ".join(row.get("nodes", ())) or UNKNOWN),
        Cell(str(row.get("max_model_len") or UNKNOWN)),
        Cell(row.get("quantisation") or UNKNOWN),
        Cell(", ".join(row.get("capabilities", ())) or UNKNOWN),
    )
