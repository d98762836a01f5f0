"""The mesh as JSON: the bodies of `/mesh/v1/members` and `/mesh/v1/status`.

Pure: an immutable view and the time in, plain values out. Every time in a body is an age or a
duration in seconds by this node's own monotonic clock, because no two clocks of a household agree.
A name once published stays; new ones are added, and SCHEMA_VERSION rises when a meaning changes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshd.address import format_host_port
from meshd.core.membership.member import Member, MeshView
from protocol.load import ModelLoad, ModelRecord
from protocol.messages import Endpoint

SCHEMA_VERSION = 1
"""Raised when a published name changes its meaning or goes."""

AGE_DIGITS = 3
"""Ages are rounded to milliseconds: finer digits are noise, and make two readings look unequal."""


def members_body(view: MeshView, now: float) -> dict[str, Any]:
    """Everybody this node knows, itself included and first, the others by name."""
    others = sorted(
        (member for node_id, member in view.members.items() if node_id != view.self_id),
        key=lambda member: (member.name, member.node_id),
    )
    rows = [member_row(member, now) for member in (view.myself, *others)]
    rows[0] |= {"age_s": 0.0, "heard_s": 0.0}
    return {"self": view.self_id, "members": rows}


def status_body(
    view: MeshView,
    now: float,
    *,
    name: str,
    version: str,
    started_at: float,
    label: str,
    counters: Mapping[str, int],
    http: str,
    notices: Sequence[Mapping[str, Any]] = (),
    memory_waits: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """One screen: this node, its mesh, every member, totals and counters.

    `started_at` is monotonic; `http` is the base URL of this node's endpoint; `notices` are its
    latest warnings, newest first; `memory_waits` are its models that requests wait for because
    others keep their memory busy.
    """
    members = members_body(view, now)
    states = [member.state for member in view.members.values()]
    return {
        "schema_version": SCHEMA_VERSION,
        "node": {
            "id": view.self_id,
            "name": name,
            "version": version,
            "uptime_s": _age(now, started_at),
            "http": http,
        },
        "mesh": {
            "label": label,
            "members": len(states),
            **{state: states.count(state) for state in ("alive", "suspect", "dead", "left")},
        },
        "self": view.self_id,
        "members": members["members"],
        "totals": totals(view.members.values()),
        "counters": dict(counters),
        "notices": list(notices),
        "memory_waits": list(memory_waits),
    }


def totals(members: Iterable[Member]) -> dict[str, Any]:
    """Sums over the members that can be given work now."""
    able = [member for member in members if member.routable]
    models = {m.model_id for each in able if each.capacity for m in each.capacity.models}
    loads = [each.load for each in able if each.load]
    rows = [row for load in loads for row in load.models]
    return {
        "nodes": len(able),
        "models": len(models),
        "warm_models": len({row.model_id for row in rows if row.warm}),
        "slots": sum(row.slots for row in rows),
        "in_flight": sum(load.in_flight for load in loads),
        "queued": sum(load.queued for load in loads),
        "memory_total_bytes": sum(e.capacity.memory_total_bytes for e in able if e.capacity),
        "memory_available_bytes": sum(load.memory_available_bytes for load in loads),
    }


def member_row(member: Member, now: float) -> dict[str, Any]:
    """One member. `age_s` is its load record's, `heard_s` since it was heard from directly."""
    return {
        "id": member.node_id,
        "name": member.name,
        "state": member.state,
        "incarnation": member.incarnation,
        "boot_id": member.boot_id,
        "endpoints": [endpoint_text(endpoint) for endpoint in member.endpoints],
        "address": endpoint_text(member.address) if member.address else None,
        "age_s": _age(now, member.load_at) if member.load else None,
        "heard_s": _age(now, member.heard_at),
        "changed_s": _age(now, member.changed_at),
        "reason": member.reason,
        "rtt_s": member.rtt_s,
        "load": plain(member.load),
        "capacity": plain(member.capacity),
        "models": model_rows(member),
    }


def model_rows(member: Member) -> list[dict[str, Any]]:
    """What the member offers, each model with its state now where that is known."""
    records = member.capacity.models if member.capacity else ()
    states = {row.model_id: row for row in member.load.models} if member.load else {}
    return [_model_row(record, states.get(record.model_id)) for record in records]


def _model_row(record: ModelRecord, state: ModelLoad | None) -> dict[str, Any]:
    row = {"id": record.model_id, **plain(record), **(plain(state) or {"warm": False})}
    del row["model_id"]
    return row


def endpoint_text(endpoint: Endpoint) -> str:
    """Where the control socket is reached, as `--peer` would take it."""
    return format_host_port(endpoint.host, endpoint.control_port)


def plain(value: Any) -> Any:
    """A record as JSON values: fields by name, tuples as lists, bytes as hexadecimal."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def _age(now: float, then: float) -> float | None:
    """None for "never", which the member table may write as minus infinity."""
    age = now - then
    return round(max(0.0, age), AGE_DIGITS) if math.isfinite(age) else None
