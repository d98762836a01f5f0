"""SPEC.md's tables, made from the declarations, so that page and code cannot disagree.

The page holds each table between `<!-- table: NAME -->` and `<!-- end -->`; `render` puts the
present tables in. The rest of the page is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from protocol import limits
from protocol.errors import ProtocolError
from protocol.fields import record_fields, required_fields
from protocol.inventory import records
from protocol.jobs import EVENTS
from protocol.messages import CONTROL_KINDS, KINDS, RELAY_KINDS
from protocol.pairing import PAIRING_KINDS

TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with every table up to date. Raises KeyError for a table that nobody makes."""
    tables = {
        "limits": limits_table,
        "errors": errors_table,
        "control": lambda: kinds_table(CONTROL_KINDS),
        "relay": lambda: kinds_table(RELAY_KINDS),
        "door": lambda: kinds_table(PAIRING_KINDS),
        "events": lambda: kinds_table(EVENTS.by_tag),
        "records": records_text,
    }
    return TABLE.sub(lambda hit: hit[1] + "\n".join(tables[hit[2]]()) + "\n" + hit[3], page)


def limits_table() -> Iterator[str]:
    """Every bound: its name, its value and its reason."""
    yield "| name | value | reason |"
    yield "| --- | --- | --- |"
    for name, reason in limit_reasons(inspect.getsource(limits)).items():
        value = getattr(limits, name)
        shown = f"{value:,}" if isinstance(value, int) else f"`{value.decode()}`"
        yield f"| `{name}` | {shown} | {_cell(reason)} |"


def limit_reasons(source: str) -> dict[str, str]:
    """The docstring under each constant of a module, by name; empty where there is none."""
    body = ast.parse(source).body
    reasons = {}
    for statement, after in pairwise([*body, ast.Pass()]):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                reasons[name] = _text(after)
            case _:
                pass
    return reasons


def _text(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return ""


def errors_table() -> Iterator[str]:
    """Every code of the error family."""
    yield "| code | meaning |"
    yield "| --- | --- |"
    for code, meaning in ProtocolError.CODES.items():
        yield f"| `{code}` | {meaning} |"


def kinds_table(kinds: dict[int, type[Any]]) -> Iterator[str]:
    """The ids of a plane's messages, or the tags of a union."""
    yield "| id | name | what it says |"
    yield "| ---: | --- | --- |"
    for number, cls in kinds.items():
        yield f"| {number} | [{cls.__name__}](#{cls.__name__.lower()}) | {_first_line(cls)} |"


def records_text() -> Iterator[str]:
    """A section for each record, in order of first mention, with its fields in wire order."""
    ids = {cls: f"message {kind}" for kind, cls in KINDS.items()}
    ids |= {cls: f"message {kind}" for kind, cls in PAIRING_KINDS.items()}
    ids |= {cls: f"event {tag}" for tag, cls in EVENTS.by_tag.items()}
    for cls in records():
        yield f"### {cls.__name__}"
        yield ""
        if cls in ids:
            yield f"*{ids[cls].capitalize()}.* {inspect.getdoc(cls)}"
        else:
            yield f"{inspect.getdoc(cls)}"
        yield ""
        yield "| # | field | wire | when absent |"
        yield "| ---: | --- | --- | --- |"
        for index, (name, field) in enumerate(record_fields(cls)):
            absent = "refused" if index < required_fields(cls) else _default(cls, name)
            yield f"| {index} | `{name}` | {_cell(str(field))} | {absent} |"
        yield ""


def _default(cls: type[Any], name: str) -> str:
    value = inspect.signature(cls).parameters[name].default
    return f"{type(value).__name__} of defaults" if hasattr(value, "__slots__") else f"`{value!r}`"


def _first_line(cls: type[Any]) -> str:
    return _cell((inspect.getdoc(cls) or "").split("\n\n")[0])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
