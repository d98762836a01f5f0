"""A model that may be in memory, and what has become of it there.

A lodger is what is known before anything is loaded: how the model is announced, what it takes, how
its engine is made. A place is a lodger with its life: cold, loading, warm, leaving, set aside. What
a place says of itself is what the mesh hears: the running engine's word where there is one, else
the catalog's, with the rates it had when it was last warm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from meshd.core.ports import Batch, Engine, EngineError, HostReading
from meshd.core.residency.footprint import Footprint
from meshd.core.residency.offload import Card, Split
from meshd.core.residency.plan import Refused
from meshd.core.residency.residents import Resident
from meshd.core.stats import load_guess_s
from protocol.frozen import frozen
from protocol.jobs import Finish
from protocol.load import ModelLoad, ModelRecord

SET_ASIDE_S = 60.0
"""A model that could not be loaded is not tried again by requests for so long."""


class ModelEngine(Engine, Protocol):
    """An engine for one model, which it holds in a process of its own."""

    @property
    def worker_pid(self) -> int | None:
        """The process; None while there is none, or where the model takes none of its own."""
        ...

    @property
    def trouble(self) -> str:
        """Why it answers nothing until it is loaded again; empty while it does."""
        ...

    def cached_prefixes(self, model_id: str) -> bytes:
        """What the model's cache holds, as `core.routing.prefix` tells it; empty for nothing."""
        ...


@frozen
class Machine:
    """The eyes on this machine. They never raise; the first two are cheap."""

    read: Callable[[], HostReading]
    settled_bytes: Callable[[int], int | None]
    """What a process holds for itself alone; None where the system does not say."""
    cards: Callable[[], Sequence[Card]] = tuple
    """Graphics cards with memory of their own that llama.cpp can use. May take seconds."""


@frozen
class Lodger:
    """One model that may be loaded: how it is announced, what it takes, and how it is made."""

    record: ModelRecord
    need: Footprint
    slots: int
    make: Callable[[int], ModelEngine]
    """With so many layers on graphics cards, `offload.ALL_LAYERS` for whatever there is."""
    layers: int | None = None
    """Of the model, 0 when unknown; None: its engine cannot divide it."""
    is_wanted: bool = False
    """The owner named it: it is loaded at the start, and keep-alive does not apply."""


class LoadRefused(EngineError):
    """The memory cannot be had. `code` is one of protocol.jobs.FAILURES."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.code = refused.code
        self.behind = refused.behind
        """The busy models whose place it needs."""
        self.busy = refused.busy
        """All the busy ones whose place might be had."""


@dataclass(slots=True)
class Place:
    """One lodger and what became of it."""

    lodger: Lodger
    engine: ModelEngine | None = None
    loading: asyncio.Task[None] | None = None
    loading_since: float = 0.0
    is_leaving: bool = False
    is_pinned: bool = False
    jobs: int = 0
    """That hold the model, or wait for it."""
    held: int = 0
    """Those of them that wait for their turn in memory (`foyer`): they do not keep it there."""
    behind: tuple[str, ...] = ()
    """The busy models that were in the way when it was last asked for; empty once it came in."""
    split: Split | None = None
    """How it was divided when it was last loaded."""
    last_used_s: float = 0.0
    trouble: str = ""
    """Why the last load failed; empty after one that did not."""
    failed_at_s: float = 0.0
    load_s: float = 0.0
    """What the last load took; 0 before the first."""
    last: ModelLoad | None = None
    """Its state when it was last warm, for its rates."""

    @property
    def model_id(self) -> str:
        """The id it is announced under."""
        return self.lodger.record.model_id

    @property
    def is_warm(self) -> bool:
        """It can be asked at once."""
        return self.engine is not None and self.loading is None and not self.is_leaving

    @property
    def is_broken(self) -> bool:
        """Its worker ended again and again: nothing of it is in memory."""
        return self.engine is not None and bool(self.engine.trouble)

    def begin_loading(self, task: asyncio.Task[None], now: float) -> None:
        """This task loads it from now on. Who waits for it sees how it ends."""
        self.loading, self.loading_since = task, now
        task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self.loading = None
        if not task.cancelled():
            task.exception()

    def hold(self, engine: ModelEngine) -> None:
        """Its engine is warm. Where its file was replaced since it was looked at, it is announced
        as what it is now: who counts on equal weights must not go on here with other ones."""
        self.engine, self.trouble = engine, ""
        self.lodger = replace(self.lodger, record=self._found())

    def _found(self) -> ModelRecord:
        """The catalog's record, of the weights that the engine has read."""
        record = self.lodger.record
        told = self.engine.models() if self.engine is not None else ()
        # Of a split model the engine reads the first part only, and the catalog adds its size.
        if not told or record.fingerprint.startswith(told[0].fingerprint):
            return record
        return replace(
            record,
            fingerprint=told[0].fingerprint,
            quantisation=told[0].quantisation,
            size_bytes=told[0].size_bytes,
        )

    def resident(self) -> Resident:
        """As the rules see it."""
        return Resident(
            self.model_id,
            self.needs_bytes,
            self.last_used_s,
            busy=self.jobs > self.held or self.loading is not None or self.is_leaving,
            pinned=self.is_pinned and not self.is_broken,
            kept=self.lodger.is_wanted,
            card_bytes=self.split.card_bytes if self.split is not None else 0,
        )

    @property
    def needs_bytes(self) -> int:
        """What is promised for it of the machine's memory while it is in it."""
        need = self.split.host if self.split is not None else self.lodger.need
        return need.total_bytes

    @property
    def worker_pid(self) -> int | None:
        """The process that holds it, where it has one."""
        return self.engine.worker_pid if self.engine is not None else None

    def is_set_aside(self, now: float) -> bool:
        """It could not be loaded just now, or its worker ended again and again."""
        if self.engine is not None:
            return self.is_broken
        return bool(self.trouble) and now - self.failed_at_s < SET_ASIDE_S

    def why_aside(self, now: float) -> str:
        """Why it is set aside; empty where it is not."""
        if not self.is_set_aside(now):
            return ""
        return self.trouble if self.engine is None else self.engine.trouble

    def record(self) -> ModelRecord:
        """As the catalog tells it, with what the running engine knows better."""
        record = self._found()
        told = self.engine.models() if self.engine is not None else ()
        if not told:
            return record
        return replace(
            record,
            context_length=told[0].context_length or record.context_length,
            capabilities=told[0].capabilities,
        )

    def load(self) -> ModelLoad:
        """Its state now."""
        told = next(iter(self.engine.stats()), None) if self.engine is not None else None
        if self.is_warm and told is not None:
            return replace(told, model_id=self.model_id)
        size_bytes = self.lodger.record.size_bytes
        return ModelLoad(
            model_id=self.model_id,
            warm=False,
            slots=self.lodger.slots,
            in_flight=0,
            queued=self.jobs,
            backlog_s=0.0,
            prompt_tps=self.last.prompt_tps if self.last else 0.0,
            generation_tps=self.last.generation_tps if self.last else 0.0,
            load_s=self.load_s or load_guess_s(size_bytes),
        )

    def own_id(self) -> str:
        """What the model's running engine calls it."""
        told = self.engine.models() if self.engine is not None else ()
        return told[0].model_id if told else self.model_id

    def cached_prefixes(self) -> bytes:
        """What the running engine's cache holds; empty for nothing."""
        return self.engine.cached_prefixes(self.own_id()) if self.engine is not None else b""


def accounted(batch: Batch, waited_s: float) -> Batch:
    """Of an answer whose model had to be loaded: its account says how long that took."""
    last = batch[-1]
    if not isinstance(last, Finish):
        return batch
    return [*batch[:-1], replace(last, queue_s=last.queue_s + waited_s)]
