"""All the engines of one daemon, from what its owner said and what is found on this machine.

In order of preference: what `--engine` names, then servers that run already, then model files on
the disks. Models that run here, named or found, llama.cpp's and MLX's, share one memory and so one
`ResidentEngine`.
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
from meshd.engine.factory import build, model_file, model_folder
from meshd.engine.housing import housing_of
from meshd.engine.ledger import Ledger
from meshd.engine.lodgers import Named, found_lodgers, wanted_lodgers
from meshd.engine.mlx import MlxEngine
from meshd.engine.places import Machine
from meshd.engine.residency import Find, ResidentEngine
from meshd.engine.spec import EngineSpec, LlamaSpec, MlxSpec, UpstreamSpec


def roster(specs: Sequence[EngineSpec], settings: Settings, machine: Machine) -> list[Engine]:
    """Engines that have not been started. Call it before the loop runs.

    Raises EngineError when something that a SPEC needs is not installed.
    """
    engines: list[Engine] = []
    files: list[Named] = []
    for spec in specs:
        match spec:
            case LlamaSpec():
                files.append((spec, model_file(spec)))
            case MlxSpec():
                files.append((spec, model_folder(spec)))
            case _:
                engines.append(build(spec))
    if settings.adopt:
        engines += adopters([spec.url for spec in specs if isinstance(spec, UpstreamSpec)])
    if files or (settings.catalog and find_spec("llama_cpp") is not None):
        engines.insert(0, _residence(files, settings, machine))
    return engines


def _residence(files: Sequence[Named], settings: Settings, machine: Machine) -> ResidentEngine:
    wanted = partial(wanted_lodgers, files, machine)
    find: Find = tuple
    if settings.catalog:
        stores = usual_stores(os.environ, Path.home(), settings.model_dirs)
        find = partial(found_lodgers, stores, machine, settings.state_dir)
    ledger = Ledger(group=machine.read().group)
    engine = ResidentEngine(machine, ledger, housing_of(settings), wanted=wanted, found=find)
    if files and all(isinstance(spec, MlxSpec) for spec, _ in files) and not settings.catalog:
        engine.name = MlxEngine.name
    return engine
