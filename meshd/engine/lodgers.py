"""From model files and folders to lodgers: what runs them, with how much context, and what that
takes.

Nobody has to choose a context. Where the owner did not, it is as long as the model was made for and
this machine can afford (`footprint.choose_context`), the same at every start. A model that makes
vectors only reads one text at a time, most of them in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from meshd.core.residency.footprint import choose_context, footprint
from meshd.core.residency.plan import reserve_bytes
from meshd.engine.catalog import Entry, Stores, entry_of, scan
from meshd.engine.heads import HeadCache
from meshd.engine.mlx import MlxEngine
from meshd.engine.mlx_head import (
    CONTEXT_DEFAULT_TOKENS,
    KEPT_MAX_BYTES,
    PASS_TOKENS,
    folder_title,
    inspect_folder,
)
from meshd.engine.names import model_name
from meshd.engine.places import Lodger, Machine
from meshd.engine.spec import LlamaSpec, MlxSpec
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.load import ModelRecord

SERVED = frozenset({"chat", "completion", "tools", "embedding"})
"""What the worker can do (`worker` says it of a running model); more, the file may say, and is not
told of a cold one. A model that has none of these is not offered."""

SLOTS = 4
"""Conversations at once of a model that nobody configured: a household."""

VECTORS_ONLY = ("embedding",)

TEXT_TOKENS = 2_048
"""The longest text for a model that makes vectors only, unless configured. With 300 million weights
it is 1.6e12 operations: about half a minute on two cores, of the minute that a pass may take."""


Named = tuple[LlamaSpec | MlxSpec, Path]
"""What the owner named, and where it lies."""


def wanted_lodgers(specs: Sequence[Named], machine: Machine) -> list[Lodger]:
    """The models that the owner named, each under an id of its own. Raises EngineError for a file
    that is none."""
    memory = _memory_bytes(machine)
    heads = HeadCache(None)
    wanted: dict[str, Lodger] = {}
    for spec, path in specs:
        if isinstance(spec, MlxSpec):
            lodger = _mlx_lodger(spec, path)
        else:
            lodger = _wanted(spec, entry_of(path, heads), memory)
        record = lodger.record
        if record.model_id in wanted:
            # Another squeeze of the same model, or MLX's beside llama.cpp's.
            own = f"{record.model_id}:{record.quantisation.lower() or record.engine}"
            lodger = replace(lodger, record=replace(record, model_id=own))
        wanted.setdefault(lodger.record.model_id, lodger)
    return list(wanted.values())


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
    own = record.context_length
    if record.capabilities == VECTORS_ONLY:
        context = min(spec.ctx or TEXT_TOKENS, own or TEXT_TOKENS)
        need = footprint(record.size_bytes, entry.shape, context, 1, pass_tokens=context)
    else:
        context = spec.ctx or choose_context(own, entry.shape, slots, memory_bytes)
        need = footprint(record.size_bytes, entry.shape, context, slots)
    options = WorkerOptions(context, slots, spec.threads, record.model_id)
    told = tuple(word for word in record.capabilities if word in SERVED)
    return Lodger(
        record=replace(record, context_length=context, capabilities=told),
        need=need,
        slots=slots,
        make=lambda layers: LlamaEngine(entry.path, replace(options, gpu_layers=layers)),
        layers=entry.shape.layers,
    )


def _mlx_lodger(spec: MlxSpec, path: Path) -> Lodger:
    """MLX takes a conversation's memory as it grows, so the sum is what it may come to."""
    head, title = inspect_folder(path), folder_title(path)
    model_id = spec.model or model_name(title)
    context = spec.ctx or min(head.context_length or CONTEXT_DEFAULT_TOKENS, CONTEXT_DEFAULT_TOKENS)
    record = ModelRecord(
        model_id=model_id,
        engine=MlxEngine.name,
        aliases=(title,) if title != model_id else (),
        context_length=context,
        quantisation=head.quantisation,
        capabilities=("chat", "completion", *(("tools",) if head.calls_tools else ())),
        size_bytes=head.size_bytes,
        fingerprint=head.fingerprint,
    )
    options = WorkerOptions(context, spec.slots, model_id=model_id)
    need = footprint(
        head.size_bytes,
        head.shape,
        context,
        spec.slots,
        pass_tokens=PASS_TOKENS,
        kept_max_bytes=KEPT_MAX_BYTES,
    )
    return Lodger(
        record, need, spec.slots, lambda _layers: MlxEngine(path, options), is_wanted=True
    )


def _memory_bytes(machine: Machine) -> int:
    total = machine.read().memory_total_bytes
    return total - reserve_bytes(total)
