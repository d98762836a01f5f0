"""The MLX engine, daemon side: `WorkerEngine` for a model folder. Imports no MLX."""

from __future__ import annotations

from pathlib import Path

from meshd.engine.heads import ModelHead
from meshd.engine.mlx_head import folder_title, inspect_folder
from meshd.engine.supervisor import WorkerEngine


class MlxEngine(WorkerEngine):
    """`Engine` for one MLX model folder: config.json, *.safetensors and a tokenizer."""

    name = "mlx"
    module = "meshd.engine.mlx_worker"

    def inspect(self, path: Path) -> ModelHead:
        """Read the folder's config and the heads of its weights. Raises EngineError."""
        return inspect_folder(path)

    def title(self, path: Path) -> str:
        """The folder's name, or the model's where the Hugging Face cache keeps it."""
        return folder_title(path)
