"""The owner's words about this node's models, brought to the engine that has them.

Pins and force are for models that live in this machine's own memory; a server that was adopted
keeps house itself, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.core.ports import Engine, EngineError, RequestFailed
from meshd.engine.failures import failure_of
from meshd.engine.housing import Housing
from meshd.engine.places import LoadRefused
from meshd.engine.residency import ResidentEngine


class Desk:
    """Changes what is in memory here."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    async def change(self, action: str, model: str, *, force: bool) -> Mapping[str, Any]:
        """`load`, `unload`, `pin` or `unpin` a model; its state afterwards: `{"model", "warm",
        "pinned", "reserved_bytes"}`. Raises RequestFailed."""
        engine = self._having(model)
        try:
            await _carry_out(engine, action, model, force=force)
        except LoadRefused as refused:
            raise RequestFailed(failure_of(refused.code, str(refused), elsewhere=False)) from None
        except EngineError as error:
            raise RequestFailed(failure_of("bad_request", str(error), elsewhere=False)) from None
        return _state(engine, model)

    def rehouse(self, housing: Housing) -> None:
        """The owner's new wishes for this machine's own memory."""
        for engine in self._engines:
            if isinstance(engine, ResidentEngine):
                engine.rehouse(housing)

    def _having(self, model: str) -> Engine:
        """The engine in whose memory the model is or would be."""
        for engine in sorted(self._engines, key=lambda each: not isinstance(each, ResidentEngine)):
            if _has(engine, model):
                return engine
        unknown = f"this node has no model {model!r}; `meshctl models` lists who has which"
        raise RequestFailed(failure_of("model_not_found", unknown, elsewhere=False, param="model"))


async def _carry_out(engine: Engine, action: str, model: str, *, force: bool) -> None:
    match action, engine:
        case "load", ResidentEngine():
            await engine.load(model, force=force)
        case "load", _:
            await engine.load(model)
        case "unload", _:
            await engine.unload(model)
        case _, ResidentEngine():
            await engine.pin(model, pinned=action == "pin")
        case _:
            raise EngineError(f"{model} belongs to {engine.name}; only models here are pinned")


def _has(engine: Engine, model: str) -> bool:
    if isinstance(engine, ResidentEngine):
        return engine.knows(model)
    return any(record.model_id == model for record in engine.models())


def _state(engine: Engine, model: str) -> Mapping[str, Any]:
    resident = engine if isinstance(engine, ResidentEngine) else None
    model_id = resident.id_of(model) if resident else model
    return {
        "model": model_id,
        "warm": any(load.warm for load in engine.stats() if load.model_id == model_id),
        "pinned": model_id in resident.pinned if resident else False,
        "reserved_bytes": resident.reserved_bytes if resident else 0,
    }
