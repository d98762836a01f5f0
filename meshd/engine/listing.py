"""What an adopted server says of its models.

`GET /models` answers `{"data": [...]}` at most servers, `{"models": [...]}` or a bare list at some.
Only the id is certain. Context length hides under many names, and warmth under `status.value`
(llama.cpp's router) or `state` (LM Studio); where nothing is said a model counts as warm, because
a server that loads on demand does not say so either, and nobody is asked by trying.

A server may be a node of another mesh, or two nodes may have been given each other's address. What
a node only has from such a server it marks as second-hand, and that is not taken up: two nodes that
named each other would otherwise list a model that is gone for ever, and pass a request for it to
and fro.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.core.routing.gates import NODE
from protocol import limits
from protocol.frozen import frozen
from protocol.load import ModelRecord

CONTEXT_KEYS = (
    "loaded_context_length",
    "n_ctx",
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
)
"""LM Studio, llama.cpp, vLLM, several, Groq, LM Studio: what is loaded before what is possible."""

COLD_STATES = {"unloaded", "not-loaded", "sleeping"}

NODE_OWNER = "meshd"
"""Who owns a model in a node's own listing."""

UPSTREAM = "upstream"
"""First word of an engine's name; NODE instead for what another node lists."""

CAPABILITIES = ("chat", "completion")
"""What every OpenAI-compatible server has. More only where it is said."""

KNOWN_CAPABILITIES = {
    "embedding",
    "tools",
    "vision",
    "audio",
    "thinking",
    "transcription",
    "speech",
    "image",
}

TASKS = {
    "automatic-speech-recognition": "transcription",
    "text-to-speech": "speech",
    "text-to-image": "image",
    "feature-extraction": "embedding",
    "sentence-similarity": "embedding",
}
"""The hub's words for what a model is for, which servers of speech and pictures tell as `task`;
such a model does nothing else."""


@frozen
class Listed:
    """One model of an adopted server."""

    record: ModelRecord
    is_warm: bool
    served_name: str = ""
    """What the server itself calls it; empty where that is the id."""


def read_listing(decoded: Any, engine: str) -> list[Listed] | None:
    """The models of a decoded answer, at most MODELS_MAX; None when it is not a list of models."""
    entries = decoded
    if isinstance(decoded, Mapping):
        entries = decoded.get("data", decoded.get("models"))
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        return None
    listed = (_listed(entry, engine) for entry in entries if isinstance(entry, Mapping))
    unique = {each.record.model_id: each for each in listed if each is not None}
    return list(unique.values())[: limits.MODELS_MAX]


def unlisted(model: str, engine: str) -> Listed:
    """A model that the owner named and the server does not list."""
    return Listed(ModelRecord(model_id=model, engine=engine, capabilities=CAPABILITIES), True)


def _listed(entry: Mapping[str, Any], engine: str) -> Listed | None:
    model_id = entry.get("id") or entry.get("name")
    if not isinstance(model_id, str) or not 0 < len(model_id) <= limits.TEXT_MAX_CHARS:
        return None
    if entry.get("owned_by") == NODE_OWNER:
        if entry.get("second_hand") is True:
            return None
        engine = engine.replace(UPSTREAM, NODE, 1)
    status = entry.get("status")
    state = status.get("value") if isinstance(status, Mapping) else entry.get("state")
    record = ModelRecord(
        model_id=model_id,
        engine=engine,
        aliases=_words(entry.get("aliases"))[: limits.ALIASES_MAX],
        context_length=_context(entry),
        capabilities=_capabilities(entry),
    )
    return Listed(record, state not in COLD_STATES)


def _context(entry: Mapping[str, Any]) -> int:
    meta = entry.get("meta")
    for place in (entry, meta if isinstance(meta, Mapping) else {}):
        for key in CONTEXT_KEYS:
            value = place.get(key)
            if type(value) is int and 0 < value < 2**31:
                return value
    return 0


def _capabilities(entry: Mapping[str, Any]) -> tuple[str, ...]:
    task = entry.get("task")
    if isinstance(task, str) and task in TASKS:
        return (TASKS[task],)
    told = [word for word in _words(entry.get("capabilities")) if word in KNOWN_CAPABILITIES]
    return (*CAPABILITIES, *dict.fromkeys(told))


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(
        word for word in value if isinstance(word, str) and 0 < len(word) <= limits.TEXT_MAX_CHARS
    )
