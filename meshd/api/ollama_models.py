"""The mesh's models as Ollama lists and shows them; none of it costs a job.

Names carry a tag, as Ollama's always do: a model without one is `NAME:latest`, and both spellings
are found. A node holds its weights as it likes and does not publish their hash, so `digest`
identifies name and quantisation, no file; `size` is what the nodes say of the weights, 0 when none
does. Family and parameter count are read out of the name, where it tells them. `expires_at` lies
beyond everybody's patience: a model stays until its memory is needed.

Nothing is downloaded, made or deleted over the mesh. `pull` of a model that is there succeeds,
because that is what it means at Ollama too; everything else is a 4xx that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from meshd import __version__
from meshd.api.body import decode_object
from meshd.api.dialect import NDJSON_LINES
from meshd.api.errors import ApiError, from_failure, unsupported
from meshd.api.fields import Fields
from meshd.api.models import find_model
from meshd.api.ollama import read_model
from meshd.api.ollama_answer import timestamp
from meshd.api.replies import Reply, json_reply
from protocol.jobs import Failure

SPOKEN_VERSION = "0.13.5"
"""The version of Ollama whose API this is. Editors refuse servers below the first that had tools in
streams (0.6.4) or thinking (0.9.0)."""

LATEST = ":latest"

NEVER = "2318-01-01T00:00:00Z"
"""About what Ollama itself answers for a model that is kept for ever."""

CAPABILITIES = {
    "chat": "completion",
    "completion": "completion",
    "tools": "tools",
    "vision": "vision",
    "thinking": "thinking",
    "embedding": "embedding",
    "audio": "audio",
    "image": "image",
}
"""Our words for what a model can do, and Ollama's."""

_PARAMETERS = re.compile(r"(?<![a-z0-9.])(\d+(?:x\d+)?(?:\.\d+)?[bm])(?![a-z0-9])", re.IGNORECASE)
_FAMILY = re.compile(r"[a-z]+", re.IGNORECASE)
_GGUF = re.compile(r"(?:I?Q\d|B?F16|F32|MXFP4)", re.IGNORECASE)

Models = Sequence[Mapping[str, Any]]


def version() -> Reply:
    """The body of `/api/version`."""
    return json_reply({"version": SPOKEN_VERSION, "meshd": __version__})


def tags(models: Models) -> Reply:
    """The body of `/api/tags`. A node that looks for servers to adopt sees by our name that this is
    none: it would offer the mesh's models as its own, and ask itself for them without end."""
    return json_reply({"models": [_listed(model) for model in models], "meshd": __version__})


def running(models: Models) -> Reply:
    """The body of `/api/ps`: what is warm on some node."""
    warm = [
        _listed(model)
        | {
            "expires_at": NEVER,
            "size_vram": model.get("size_bytes", 0),
            "context_length": model["context_length"],
        }
        for model in models
        if model["warm"]
    ]
    return json_reply({"models": warm})


def show(body: bytes, models: Models) -> Reply:
    """The body of `/api/show`. Raises ApiError (400, 404)."""
    fields = Fields(decode_object(body))
    model = find(models, read_model(fields))
    context, family = model["context_length"], _family(model["id"])
    info: dict[str, Any] = {"general.architecture": family, "general.basename": model["id"]}
    if context:
        info[f"{family}.context_length"] = context
    return json_reply(
        {
            "modelfile": f"# held by {', '.join(model['nodes'])}\nFROM {model['id']}\n",
            "parameters": f"num_ctx                        {context}" if context else "",
            "template": "{{ .Prompt }}",
            "license": "",
            "details": _details(model),
            "model_info": info,
            "capabilities": sorted(
                {CAPABILITIES[word] for word in model["capabilities"] if word in CAPABILITIES}
            ),
            "modified_at": timestamp(model["created"]),
        }
    )


def pull(body: bytes, models: Models) -> Reply:
    """Success for a model that is there. Raises ApiError (400, 404)."""
    fields = Fields(decode_object(body))
    name = read_model(fields)
    stream = fields.take("stream")
    try:
        find(models, name)
    except ApiError:
        raise ApiError(
            404,
            f"No node offers the model '{name[:100]}', and meshd downloads none by itself. Put its "
            "file into the models folder of a node, or pull it into an Ollama that a node adopts.",
            code="model_not_found",
            param="model",
        ) from None
    done = msgspec.json.encode({"status": "success"})
    if stream is False:
        return Reply(done)
    return Reply(done + b"\n", content_type=_NDJSON)


def refused(path: str) -> ApiError:
    """The answer to what would make, publish or delete models (400)."""
    return unsupported(
        "model",
        f"{path[:100]} is not served: models are added, renamed and deleted on the machine that "
        "holds them, not over the mesh. GET /api/tags lists what there is.",
    )


def find(models: Models, name: str) -> Mapping[str, Any]:
    """The model of that name, with or without `:latest`, in any case. Raises ApiError (404)."""
    found = find_model(models, name)
    if isinstance(found, Failure):
        wanted = _folded(name)
        for model in models:
            if wanted in map(_folded, (model["id"], *model["aliases"])):
                return model
        raise from_failure(found)
    return found


def tagged(model_id: str) -> str:
    """A model's name as Ollama's clients expect it: with a tag."""
    return model_id if ":" in model_id.rpartition("/")[2] else model_id + LATEST


def _listed(model: Mapping[str, Any]) -> dict[str, Any]:
    name = tagged(model["id"])
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(model["created"]),
        "size": model.get("size_bytes", 0),
        "digest": sha256(f"{model['id']}\n{model['quantisation']}".encode()).hexdigest(),
        "details": _details(model),
    }


def _details(model: Mapping[str, Any]) -> dict[str, Any]:
    family = _family(model["id"])
    size = _PARAMETERS.search(model["id"])
    quantisation = model["quantisation"]
    return {
        "parent_model": "",
        "format": "gguf" if _GGUF.match(quantisation) else "",
        "family": family,
        "families": [family],
        "parameter_size": size[1].upper() if size else "",
        "quantization_level": quantisation,
    }


def _family(model_id: str) -> str:
    """The first word of the name itself: `gemma` of `org/Gemma-3-27b:q4`."""
    word = _FAMILY.search(model_id.rpartition("/")[2])
    return word[0].lower() if word else "unknown"


def _folded(name: str) -> str:
    return name.casefold().removesuffix(LATEST)


_NDJSON = NDJSON_LINES.partition(": ")[2].partition("\r\n")[0]
