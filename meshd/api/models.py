"""The models of the mesh, as OpenAI and Anthropic list them and with what local clients look for.

OpenAI's four required keys come first, then Anthropic's, which clash with none of them: one list
serves both SDKs. The rest are de-facto extras, each read by somebody: `max_model_len` (vLLM's, read
by Frigate), `meta.n_ctx`, `architecture` and `status` (llama.cpp's, read by Zed and Open WebUI),
`aliases`; `nodes`, `quantisation` and `emulated` are ours, and so is `second_hand`: another node is
where it comes from, by an address that the owner gave as a server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from meshd.core.routing.names import WORDS, Known, choose, spelt
from protocol.jobs import Failure

OWNER = "meshd"


def model_object(model: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `/v1/models`, from one of `Gateway.models()`."""
    capabilities = list(model["capabilities"])
    context_length = model["context_length"]
    taken = ["text", *_modalities(capabilities, _HEARS_AND_SEES)]
    given = _modalities(capabilities, _SPEAKS_AND_DRAWS)
    if not given or "chat" in capabilities or "completion" in capabilities:
        given = ["text", *given]
    return {
        "id": model["id"],
        "object": "model",
        "created": int(model["created"]),
        "owned_by": OWNER,
        "type": "model",
        "display_name": model["id"],
        "created_at": datetime.fromtimestamp(int(model["created"]), UTC).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": context_length or None,
        "max_model_len": context_length or None,
        "meta": {"n_ctx": context_length or None},
        "architecture": {"input_modalities": taken, "output_modalities": given},
        "status": {"value": "loaded" if model["warm"] else "unloaded"},
        "aliases": list(model["aliases"]),
        "capabilities": capabilities,
        "nodes": list(model["nodes"]),
        "quantisation": model["quantisation"],
        "emulated": model["emulated"],
        "second_hand": model["second_hand"],
    }


def model_list(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of `/v1/models`: all of it is one page."""
    ids = [model["id"] for model in models] or [None]
    return {
        "object": "list",
        "data": [model_object(model) for model in models],
        "has_more": False,
        "first_id": ids[0],
        "last_id": ids[-1],
    }


def find_model(models: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any] | Failure:
    """The model that a name stands for when a request says it, else why there is none."""
    known = [_known(model) for model in models]
    found = wanted if wanted not in WORDS else choose(wanted, known, _CHAT)
    for model in models:
        if model["id"] == found:
            return model
    for model in models:
        if found in model["aliases"]:
            return model
    meant = spelt(wanted, known)
    for model in models:
        if model["id"] == meant:
            return model
    names = ", ".join([model["id"] for model in models[:8]]) or "no model at all"
    return Failure(
        "model_not_found",
        f"No node offers the model '{wanted[:100]}'. The mesh has: {names}.",
        elsewhere=False,
        param="model",
    )


_CHAT = frozenset({"chat"})


def _known(model: Mapping[str, Any]) -> Known:
    return Known(
        model["id"],
        tuple(model["aliases"]),
        model["quantisation"],
        frozenset(model["capabilities"]),
        model.get("size_bytes", 0),
        model["warm"],
        model["emulated"],
    )


def _modalities(capabilities: Sequence[str], table: Mapping[str, str]) -> list[str]:
    """What the capabilities add to text, in the table's order."""
    return [kind for word, kind in table.items() if word in capabilities]


_HEARS_AND_SEES = {"vision": "image", "audio": "audio", "transcription": "audio"}
_SPEAKS_AND_DRAWS = {"speech": "audio", "image": "image", "embedding": "embedding"}
