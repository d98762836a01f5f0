"""What a machine is and how it does: the records inside Hello, Heartbeat and Capacity.

Rates are measured, never claimed, and 0 until they are; durations are seconds on nobody's wall
clock. Both records are bounded so that the fullest of them fits one control frame beside its
envelope; a sender with more to say leaves out what matters least (`meshd.core.routing.supply`).
"""

from __future__ import annotations

from protocol import limits
from protocol.fields import (
    Bool,
    Bytes,
    Choice,
    Float,
    Hex,
    Int,
    ListOf,
    Record,
    Text,
    record,
    wire,
)

LINE = Text(limits.TEXT_MAX_CHARS)
TPS = Float(0.0, 1e9)
SECONDS = Float(0.0, 1e9)
BYTES = Int()
COUNT = Int(0, 2**31 - 1)
RATIO = Float(0.0, 1.0)

PRESSURE_LEVELS = ("normal", "warn", "critical")


@record
class GpuRecord:
    """One accelerator. `memory_bytes` is what a model may use: VRAM, or the unified share."""

    name: str = wire(LINE)
    memory_bytes: int = wire(BYTES)


@record
class ModelRecord:
    """One model a node offers; changes seldom.

    `fingerprint` identifies the weights file (same fingerprint = same tokens); `context_length`
    is in tokens, 0 when unknown; `size_bytes` counts weights alone.
    """

    model_id: str = wire(Text(limits.TEXT_MAX_CHARS, shortest=1))
    engine: str = wire(LINE)
    aliases: tuple[str, ...] = wire(ListOf(LINE, limits.ALIASES_MAX), default=())
    context_length: int = wire(COUNT, default=0)
    quantisation: str = wire(LINE, default="")
    capabilities: tuple[str, ...] = wire(ListOf(LINE, limits.CAPABILITIES_MAX), default=("chat",))
    size_bytes: int = wire(BYTES, default=0)
    fingerprint: str = wire(LINE, default="")
    emulated: bool = wire(Bool(), default=False)


@record
class CapacityRecord:
    """What a machine is and offers. Sent when it changes; `version` only grows within a boot."""

    version: int = wire(Int())
    software: str = wire(LINE)
    system: str = wire(LINE)
    chip: str = wire(LINE)
    cores: int = wire(COUNT)
    memory_total_bytes: int = wire(BYTES)
    gpus: tuple[GpuRecord, ...] = wire(ListOf(Record(GpuRecord), limits.GPUS_MAX))
    engines: tuple[str, ...] = wire(ListOf(LINE, limits.ENGINES_MAX))
    models: tuple[ModelRecord, ...] = wire(ListOf(Record(ModelRecord), limits.MODELS_MAX))
    persona: str = wire(LINE, default="")


@record
class ModelLoad:
    """One model's state now. Rates are measured on this machine, 0 when not measured yet.

    `backlog_s` is the node's own estimate of the work already accepted; `load_s` is how long a
    cold start takes, 0 when warm. `prefixes` is a Bloom filter of the prompt prefixes it holds
    (SPEC.md, "Cached prefixes"), empty when it does not say. `prompt_tps` is for one prompt read
    alone; `reading` is how many are being read together now, and `unread_tokens` what is left of
    them.
    """

    model_id: str = wire(Text(limits.TEXT_MAX_CHARS, shortest=1))
    warm: bool = wire(Bool())
    slots: int = wire(COUNT)
    in_flight: int = wire(COUNT)
    queued: int = wire(COUNT)
    backlog_s: float = wire(SECONDS)
    prompt_tps: float = wire(TPS)
    generation_tps: float = wire(TPS)
    load_s: float = wire(SECONDS)
    prefixes: bytes = wire(Bytes(limits.PREFIX_DIGEST_MAX_BYTES), default=b"")
    reading: int = wire(COUNT, default=0)
    unread_tokens: int = wire(COUNT, default=0)


@record
class PersonUse:
    """What one person was served here lately, in tokens that fade with time
    (SPEC.md, "Fair shares")."""

    person: str = wire(Hex(limits.PERSON_BYTES))
    tokens: float = wire(Float(0.0, 1e12))


@record
class LoadRecord:
    """One machine's state now. `sequence` only grows within a boot.

    A pressure level from a later version reads as `warn`: less is sent there, and a node that is
    out of memory refuses for itself.

    `prefix_digest` is always empty and nobody reads it: each model tells its own `prefixes`.
    """

    sequence: int = wire(Int())
    in_flight: int = wire(COUNT)
    queued: int = wire(COUNT)
    memory_available_bytes: int = wire(BYTES)
    reserved_bytes: int = wire(BYTES)
    pressure: str = wire(Choice(*PRESSURE_LEVELS, otherwise="warn"))
    accepting: bool = wire(Bool())
    models: tuple[ModelLoad, ...] = wire(ListOf(Record(ModelLoad), limits.MODELS_MAX))
    loop_lag_s: float = wire(SECONDS, default=0.0)
    error_ratio: float = wire(RATIO, default=0.0)
    on_battery: bool = wire(Bool(), default=False)
    hot: bool = wire(Bool(), default=False)
    owner_active: bool = wire(Bool(), default=False)
    draining: bool = wire(Bool(), default=False)
    prefix_digest: bytes = wire(Bytes(limits.PREFIX_DIGEST_MAX_BYTES), default=b"")
    people: tuple[PersonUse, ...] = wire(ListOf(Record(PersonUse), limits.PEOPLE_MAX), default=())
