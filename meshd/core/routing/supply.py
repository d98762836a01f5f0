"""What this node tells the others: its capacity record and its load record.

Capacity changes seldom and is versioned; load changes with every request and is sequenced. Both
are built from readings, by pure functions, so a test can state a machine and read the record.

A node under critical memory pressure stops accepting: the request would be the one that makes it
swap. One that is draining says so. Everything else is left to the readers' cost function.

Both records travel in one control frame (Hello), and a heartbeat carries gossip besides, so each
has a share of the frame. A node with more to say leaves out, from its last model to its first: the
names a model also goes by, or what its cache holds; and if that is not enough, whole models. The
same machine always leaves out the same, so that its record does not change by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from meshd.core.ports import HostFacts, HostReading
from protocol import limits
from protocol.load import CapacityRecord, GpuRecord, LoadRecord, ModelLoad, ModelRecord

CAPACITY_MAX_BYTES = 34 * 1024
"""Of a frame's 64 KiB: 64 models of 500 bytes each, three times the usual."""

LOAD_MODELS_MAX_BYTES = 24 * 1024
"""Of the same frame: 64 models of 384 bytes each; with PEOPLE_MAX people it stays below 27 KiB,
and 32 of the largest gossip updates (30 KiB) still fit beside it in a heartbeat."""

NAME_MAX_CHARS = 64
"""Of an accelerator or an engine: there may be 32 of them in the same frame."""

M = TypeVar("M", ModelRecord, ModelLoad)


def capacity_record(
    facts: HostFacts,
    engines: Sequence[str],
    models: Sequence[ModelRecord],
    *,
    software: str,
    version: int,
) -> CapacityRecord:
    """The capacity of this machine; a catalogue beyond MODELS_MAX announces its first entries."""
    gpus = tuple(
        GpuRecord(name[:NAME_MAX_CHARS], max(0, memory_bytes))
        for name, memory_bytes in facts.gpus[: limits.GPUS_MAX]
    )
    bare = CapacityRecord(
        version=version,
        software=_line(software),
        system=_line(facts.system),
        chip=_line(facts.chip),
        cores=facts.cores,
        memory_total_bytes=facts.memory_total_bytes,
        gpus=gpus,
        engines=tuple(name[:NAME_MAX_CHARS] for name in engines[: limits.ENGINES_MAX]),
        models=(),
    )
    left = CAPACITY_MAX_BYTES - size_bytes(bare)
    told = _fitting(models, left, lambda model: dataclasses.replace(model, aliases=()))
    return dataclasses.replace(bare, models=told)


def load_record(
    reading: HostReading,
    models: Sequence[ModelLoad],
    *,
    sequence: int,
    loop_lag_s: float = 0.0,
    error_ratio: float = 0.0,
    draining: bool = False,
    reserved_bytes: int = 0,
) -> LoadRecord:
    """The load of this machine now. `reserved_bytes` is promised to models, loaded or coming."""
    critical = reading.pressure == "critical"
    return LoadRecord(
        sequence=sequence,
        in_flight=sum(model.in_flight for model in models),
        queued=sum(model.queued for model in models),
        memory_available_bytes=max(0, reading.memory_available_bytes),
        reserved_bytes=reserved_bytes,
        pressure=reading.pressure,
        accepting=not draining and not critical,
        models=_fitting(
            models, LOAD_MODELS_MAX_BYTES, lambda model: dataclasses.replace(model, prefixes=b"")
        ),
        loop_lag_s=loop_lag_s,
        error_ratio=error_ratio,
        on_battery=reading.on_battery,
        hot=reading.hot,
        owner_active=reading.owner_active,
        draining=draining,
    )


def _fitting(models: Sequence[M], most_bytes: int, lighten: Callable[[M], M]) -> tuple[M, ...]:
    """As much of these as fits into `most_bytes`: every model if need be without what `lighten`
    takes from it, else the first ones."""
    told = list(models[: limits.MODELS_MAX])
    left = most_bytes - sum(map(size_bytes, told))
    for at in reversed(range(len(told))):
        if left >= 0:
            break
        light = lighten(told[at])
        left += size_bytes(told[at]) - size_bytes(light)
        told[at] = light
    while left < 0:
        left += size_bytes(told.pop())
    return tuple(told)


def size_bytes(value: Any) -> int:
    """The most that a record, or a value in one, takes on the wire."""
    if isinstance(value, str):
        return 5 + len(value.encode())
    if isinstance(value, bytes):
        return 5 + len(value)
    if isinstance(value, tuple):
        return 5 + sum(map(size_bytes, value))
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return 5 + sum(size_bytes(getattr(value, field.name)) for field in fields)
    return 9


def _line(text: str) -> str:
    return text[: limits.TEXT_MAX_CHARS]
