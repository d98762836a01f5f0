"""What this node tells the others: its capacity record and its load record.

Capacity changes seldom and is versioned; load changes with every request and is sequenced. Both
are built from readings, by pure functions, so a test can state a machine and read the record.

A node under critical memory pressure stops accepting: the request would be the one that makes it
swap. One that is draining says so. Everything else is left to the readers' cost function.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshd.core.ports import HostFacts, HostReading
from protocol import limits
from protocol.load import CapacityRecord, GpuRecord, LoadRecord, ModelLoad, ModelRecord


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
        GpuRecord(_line(name), max(0, size_bytes))
        for name, size_bytes in facts.gpus[: limits.GPUS_MAX]
    )
    return CapacityRecord(
        version=version,
        software=software,
        system=_line(facts.system),
        chip=_line(facts.chip),
        cores=facts.cores,
        memory_total_bytes=facts.memory_total_bytes,
        gpus=gpus,
        engines=tuple(_line(name) for name in engines[: limits.ENGINES_MAX]),
        models=tuple(models[: limits.MODELS_MAX]),
    )


def load_record(
    reading: HostReading,
    models: Sequence[ModelLoad],
    *,
    sequence: int,
    loop_lag_s: float = 0.0,
    error_ratio: float = 0.0,
    draining: bool = False,
) -> LoadRecord:
    """The load of this machine now."""
    critical = reading.pressure == "critical"
    return LoadRecord(
        sequence=sequence,
        in_flight=sum(model.in_flight for model in models),
        queued=sum(model.queued for model in models),
        memory_available_bytes=max(0, reading.memory_available_bytes),
        reserved_bytes=0,
        pressure=reading.pressure,
        accepting=not draining and not critical,
        models=tuple(models[: limits.MODELS_MAX]),
        loop_lag_s=loop_lag_s,
        error_ratio=error_ratio,
        on_battery=reading.on_battery,
        hot=reading.hot,
        owner_active=reading.owner_active,
        draining=draining,
    )


def _line(text: str) -> str:
    return text[: limits.TEXT_MAX_CHARS]
