"""What several engines offer together, without saying anything twice.

The same model may be offered by two engines of one node: Ollama has it in memory, and its file lies
in the catalog. Peers must see one offer, and a job must go where the offer said it would. So of
engines with the same id the one that has it warm speaks for it, else the first; and a node that has
more models than the wire carries speaks of its warm ones first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.core.ports import Engine
from meshd.engine.residency import ResidentEngine
from protocol import limits
from protocol.load import ModelLoad, ModelRecord


class Offers:
    """The engines of a node, seen as one. It asks them each time; only who answers for a model is
    remembered, from one `stats()` to the next, because every job asks that."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        """The earlier of two engines is preferred: what the owner named, then what was found."""
        self._engines = engines
        self._answering: dict[str, Engine] = {}

    def models(self) -> tuple[ModelRecord, ...]:
        """One record for each id."""
        return tuple(record for _, record, _ in self._chosen())

    def stats(self) -> tuple[ModelLoad, ...]:
        """The states of `models()`, in the same order."""
        chosen = self._chosen()
        self._answering = {record.model_id: engine for engine, record, _ in chosen}
        return tuple(load for _, _, load in chosen)

    def engine_of(self, model_id: str) -> Engine | None:
        """Who answers for a model now; None when nobody offers it."""
        engine = self._answering.get(model_id)
        if engine is None:
            chosen = self._chosen()
            engine = next((each for each, record, _ in chosen if record.model_id == model_id), None)
        return engine

    def why_aside(self, model: str) -> str:
        """Why a model of this machine's own is not offered for a while; empty where it is."""
        resident = (each for each in self._engines if isinstance(each, ResidentEngine))
        return next(filter(None, (engine.why_aside(model) for engine in resident)), "")

    def waits(self) -> list[Mapping[str, Any]]:
        """Which models wait for memory of this machine that others keep busy, for people."""
        resident = (each for each in self._engines if isinstance(each, ResidentEngine))
        return [row for engine in resident for row in engine.waits()]

    def names(self) -> tuple[str, ...]:
        """What runs the models that are offered, each once."""
        told = (record.engine for engine in self._engines for record in engine.models())
        return tuple(dict.fromkeys(told))

    @property
    def reserved_bytes(self) -> int:
        """Memory promised to the models that live in this machine's own."""
        resident = (each for each in self._engines if isinstance(each, ResidentEngine))
        return sum(engine.reserved_bytes for engine in resident)

    def _chosen(self) -> list[tuple[Engine, ModelRecord, ModelLoad]]:
        chosen: dict[str, tuple[Engine, ModelRecord, ModelLoad]] = {}
        for engine in self._engines:
            # Paired by id: between the two questions a moment may pass that changes the answers.
            loads = {load.model_id: load for load in engine.stats()}
            for record in engine.models():
                load, known = loads.get(record.model_id), chosen.get(record.model_id)
                if load is not None and (known is None or (load.warm and not known[2].warm)):
                    chosen[record.model_id] = (engine, record, load)
        told = list(chosen.values())
        if len(told) > limits.MODELS_MAX:
            told.sort(key=lambda offer: not offer[2].warm)
        return told[: limits.MODELS_MAX]
