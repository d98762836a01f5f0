"""The models of the mesh, as OpenAI lists them and with what local clients look for beside it.

The four required keys come first. The rest are de-facto extras, each read by somebody:
`max_model_len` (vLLM's, read by Frigate), `meta.n_ctx`, `architecture` and `status` (llama.cpp's,
read by Zed and Open WebUI), `aliases`; `nodes`, `quantisation` and `emulated` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protocol.jobs import Failure

OWNER = "meshd"


def model_object(model: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `/v1/models`, from one of `Gateway.models()`."""
    capabilities = list(model["capabilities"])
    context_length = model["context_length"]
    seen = ["text", "image"] if "vision" in capabilities else ["text"]
    return {
        "id": model["id"],
        "object": "model",
        "created": int(model["created"]),
        "owned_by": OWNER,
        "max_model_len": context_length or None,
        "meta": {"n_ctx": context_length or None},
        "architecture": {"input_modalities": seen, "output_modalities": ["text"]},
        "status": {"value": "loaded" if model["warm"] else "unloaded"},
        "aliases": list(model["aliases"]),
        "capabilities": capabilities,
        "nodes": list(model["nodes"]),
        "quantisation": model["quantisation"],
        "emulated": model["emulated"],
    }


def model_list(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of `/v1/models`."""
    return {"object": "list", "data": [model_object(model) for model in models]}


def find_model(models: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any] | Failure:
    """The model of that id, else of that alias, else why there is none."""
    for model in models:
        if model["id"] == wanted:
            return model
    for model in models:
        if wanted in model["aliases"]:
            return model
    known = ", ".join([model["id"] for model in models[:8]]) or "no model at all"
    return Failure(
        "model_not_found",
        f"No node offers the model '{wanted[:100]}'. The mesh has: {known}.",
        elsewhere=False,
        param="model",
    )
