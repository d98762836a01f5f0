"""From model files to lodgers: what runs them, with how much context, and what that takes.

Nobody has to choose a context. Where the owner did not, it is as long as the model was made for and
this machine can afford (`footprint.choose_context`), the same at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from meshd.core.residency.footprint import choose_context, footprint
from meshd.core.residency.plan import reserve_bytes
from meshd.engine.catalog import Entry, Stores, entry_of, scan
from meshd.engine.heads import HeadCache
from meshd.engine.places import Lodger, Machine
from meshd.engine.spec import LlamaSpec
from meshd.engine.supervisor import LlamaEngine, LlamaOptions

SERVED = frozenset({"chat", "completion", "tools", "embedding"})
"""What the worker can do (`worker` says it of a running model); more, the file may say, and is not
told of a cold one. A model that has none of these is not offered."""

SLOTS = 4
"""Conversations at once of a model that nobody configured: a household."""


def wanted_lodgers(specs: Sequence[tuple[LlamaSpec, Path]], machine: Machine) -> list[Lodger]:
    """The models that the owner named. Raises EngineError for a file that is none."""
    memory = _memory_bytes(machine)
    heads = HeadCache(None)
    return [_wanted(spec, entry_of(path, heads), memory) for spec, path in specs]


def found_lodgers(stores: Stores, machine: Machine, state_dir: Path | None) -> list[Lodger]:
    """The models that lie on the disks and can be run here. Never raises."""
    memory = _memory_bytes(machine)
    spec = LlamaSpec("", slots=SLOTS)
    found = scan(stores, HeadCache(state_dir))
    return [_lodger(spec, each, memory) for each in found if SERVED & {*each.record.capabilities}]


def _wanted(spec: LlamaSpec, entry: Entry, memory_bytes: int) -> Lodger:
    record = entry.record
    if spec.model and spec.model != record.model_id:
        aliases = (record.model_id, *(name for name in record.aliases if name != spec.model))
        entry = replace(entry, record=replace(record, model_id=spec.model, aliases=aliases))
    return replace(_lodger(spec, entry, memory_bytes), is_wanted=True)


def _lodger(spec: LlamaSpec, entry: Entry, memory_bytes: int) -> Lodger:
    record, slots = entry.record, spec.slots
    context = spec.ctx or choose_context(record.context_length, entry.shape, slots, memory_bytes)
    options = LlamaOptions(context, slots, spec.threads, record.model_id)
    make: Callable[[], LlamaEngine] = partial(LlamaEngine, entry.path, options)
    told = tuple(word for word in record.capabilities if word in SERVED)
    return Lodger(
        record=replace(record, context_length=context, capabilities=told),
        need=footprint(record.size_bytes, entry.shape, context, slots),
        slots=slots,
        make=make,
    )


def _memory_bytes(machine: Machine) -> int:
    total = machine.read().memory_total_bytes
    return total - reserve_bytes(total)
