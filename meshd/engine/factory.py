"""From a SPEC to an engine. Each kind is imported only when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from meshd.core.ports import Engine, EngineError
from meshd.engine.spec import EmulatedSpec, EngineSpec, LlamaSpec, MlxSpec, UpstreamSpec

BUNDLED = "bundled"
"""The PATH that stands for the model that comes with the `llama` extra."""


def build(spec: EngineSpec) -> Engine:
    """An engine that has not been started. It looks for packages on the disk, so call it before
    the loop runs.

    Raises EngineError when something that this kind needs is not installed.
    """
    match spec:
        case EmulatedSpec():
            from meshd.engine.emulated import EmulatedEngine

            return EmulatedEngine(spec)
        case UpstreamSpec():
            from meshd.engine.keyring import upstream_key
            from meshd.engine.upstream import UpstreamEngine

            key = upstream_key(spec, os.environ)
            return UpstreamEngine(spec.url, spec.model, spec.slots, key=key, can=spec.can)
        case LlamaSpec():
            return _llamacpp(spec)
        case MlxSpec():
            return _mlx(spec)


def model_file(spec: LlamaSpec) -> Path:
    """The file that a SPEC names, which may not be there. Raises EngineError where llama.cpp or the
    bundled model is not installed."""
    from importlib.util import find_spec

    from meshd.engine.bundled import bundled_gguf

    if find_spec("llama_cpp") is None:
        raise EngineError("llama.cpp is not installed: install meshd-llm with the extra `llama`")
    return bundled_gguf() if spec.path == BUNDLED else Path(spec.path).expanduser()


def model_folder(spec: MlxSpec) -> Path:
    """The folder that a SPEC names, which may not be there. Raises EngineError where mlx-lm is not
    installed."""
    from importlib.util import find_spec

    if find_spec("mlx_lm") is None:
        raise EngineError("mlx-lm is not installed: install meshd-llm with the extra `mlx`")
    return Path(spec.path).expanduser()


def _llamacpp(spec: LlamaSpec) -> Engine:
    from meshd.engine.supervisor import LlamaEngine, WorkerOptions

    options = WorkerOptions(spec.ctx, spec.slots, spec.threads, spec.model)
    return LlamaEngine(model_file(spec), options)


def _mlx(spec: MlxSpec) -> Engine:
    from meshd.engine.mlx import MlxEngine
    from meshd.engine.supervisor import WorkerOptions

    options = WorkerOptions(spec.ctx, spec.slots, model_id=spec.model)
    return MlxEngine(model_folder(spec), options)
