"""All the engines of one daemon, from what its owner said and what is found on this machine.

In order of preference: what `--engine` names, then servers that run already, then model files on
the disks. Model files, named or found, share one memory and so one `ResidentEngine`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from meshd.config import Settings
from meshd.core.ports import Engine
from meshd.engine.adoption import adopters
from meshd.engine.catalog import usual_stores
from meshd.engine.factory import build, model_file
from meshd.engine.ledger import Ledger
from meshd.engine.lodgers import found_lodgers, wanted_lodgers
from meshd.engine.places import Machine
from meshd.engine.residency import Housing, ResidentEngine
from meshd.engine.spec import EngineSpec, LlamaSpec, UpstreamSpec


def roster(specs: Sequence[EngineSpec], settings: Settings, machine: Machine) -> list[Engine]:
    """Engines that have not been started. Call it before the loop runs.

    Raises EngineError when something that a SPEC needs is not installed.
    """
    engines: list[Engine] = [build(spec) for spec in specs if not isinstance(spec, LlamaSpec)]
    files = [(spec, model_file(spec)) for spec in specs if isinstance(spec, LlamaSpec)]
    if settings.adopt:
        engines += adopters([spec.url for spec in specs if isinstance(spec, UpstreamSpec)])
    if files or (settings.catalog and find_spec("llama_cpp") is not None):
        engines.insert(0, _residence(files, settings, machine))
    return engines


def _residence(
    files: Sequence[tuple[LlamaSpec, Path]], settings: Settings, machine: Machine
) -> ResidentEngine:
    housing = Housing(settings.memory_reserve_bytes, settings.keep_alive_s)
    wanted = partial(wanted_lodgers, files, machine)
    if not settings.catalog:
        return ResidentEngine(machine, Ledger(), housing, wanted=wanted)
    stores = usual_stores(os.environ, Path.home(), settings.model_dirs)
    found = partial(found_lodgers, stores, machine, settings.state_dir)
    return ResidentEngine(machine, Ledger(), housing, wanted=wanted, found=found)
