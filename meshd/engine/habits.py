"""What four kinds of servers say of their models, and what it means. Pure: decoded answers come in.

Each has lists of its own beside the OpenAI one, and they tell what that one does not:

- Ollama: `/api/tags` (what there is), `/api/ps` (what is loaded, with which context), `/api/show`
  (context length and capabilities of one model). It cuts a prompt that is longer than its running
  context and says nothing, so a model that is not loaded counts with the context it will be loaded
  with (`num_ctx` of the model, else OLLAMA_CONTEXT_TOKENS), not with what it was made for. What it
  calls its cloud models (`remote_host`) runs on somebody else's machines, and on its owner's
  account: no question of the mesh goes there unless he says so (`--engine openai:URL,model=ID`).
  How much to think it is told as `reasoning_effort` alone, in four words, and refuses any other;
  a model that cannot think refuses all of them;
- LM Studio: `/api/v0/models`, with state, type, and both context lengths;
- llama-server: `/v1/models` and `/props` (slots, context of a slot, template, modalities); as a
  router of several models it says `status.value` in its list;
- vLLM: `/v1/models` with `max_model_len`.

A server is taken for one of these only where its answer has that kind's own marks: on its usual
port may as well be somebody's web server, or a node of this mesh. Models that only make embeddings
are left out, because an adopted server is not asked for those yet.

Everything else about the answers is doubted: types are checked, texts are cut, lists are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from meshd.engine.listing import COLD_STATES, Listed, read_listing
from meshd.engine.names import model_name
from protocol import limits
from protocol.frozen import frozen
from protocol.jobs import Job
from protocol.load import ModelRecord

OLLAMA_CONTEXT_TOKENS = 4_096
"""What Ollama gives a model that says nothing itself (OLLAMA_CONTEXT_LENGTH's default)."""

CAPABILITY_WORDS = {
    "completion": "completion",
    "tools": "tools",
    "tool_use": "tools",
    "vision": "vision",
    "thinking": "thinking",
    "audio": "audio",
}
"""The servers' words for what a model can do, in ours."""

OLLAMA = "ollama"
"""First word of the engine's name of an Ollama's models; its address follows where the owner gave
it."""

OLLAMA_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts that other services have, in Ollama's words (none, low, medium, high)."""

TOOLS = re.compile(r"\btools\b")
NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})$", re.MULTILINE)


@frozen
class Shown:
    """What `/api/show` says of one of Ollama's models."""

    context_length: int = 0
    running_context: int = 0
    """That it will be loaded with, where the model says so."""
    capabilities: tuple[str, ...] = ("chat", "completion")
    is_remote: bool = False
    """It runs on somebody else's machines."""


# Ollama


def ollama_tags(decoded: Any) -> dict[str, tuple[str, ModelRecord]] | None:
    """Digest and record by name, of `/api/tags`; None where it is not Ollama's list, but a node's
    that speaks Ollama's API (`meshd.api.ollama_models`)."""
    listed = decoded.get("models") if isinstance(decoded, Mapping) else None
    if not isinstance(listed, list) or "meshd" in decoded:
        return None
    found = {}
    for entry in _objects(listed):
        name, digest = _word(entry.get("name")), _word(entry.get("digest"))
        if name and digest and not entry.get("remote_host"):
            details = _object(entry.get("details"))
            short = name.removesuffix(":latest")
            found[name] = (
                digest,
                ModelRecord(
                    model_id=short,
                    engine=OLLAMA,
                    aliases=(name,) if short != name else (),
                    quantisation=_word(details.get("quantization_level")),
                    size_bytes=_count(entry.get("size")),
                ),
            )
    return found


def ollama_show(decoded: Any) -> Shown:
    """What is known of a model; nothing from an answer of another shape."""
    body = _object(decoded)
    details = _object(body.get("model_info"))
    own = next((_count(v) for k, v in details.items() if str(k).endswith(".context_length")), 0)
    told = _capabilities(body.get("capabilities"))
    asked = NUM_CTX.search(str(body.get("parameters", "")))
    return Shown(own, int(asked[1]) if asked else 0, told, bool(body.get("remote_host")))


def ollama_running(decoded: Any) -> dict[str, int]:
    """Context length by name of what `/api/ps` calls loaded; 0 where it does not say."""
    listed = _object(decoded).get("models")
    return {
        name: _count(entry.get("context_length"))
        for entry in _objects(listed)
        if (name := _word(entry.get("name")))
    }


def ollama_listed(
    tags: Mapping[str, tuple[str, ModelRecord]],
    shown: Mapping[str, Shown],
    running: Mapping[str, int],
) -> list[Listed]:
    """Ollama's models, from its three answers; `shown` is by digest."""
    found = []
    for name, (digest, record) in tags.items():
        known = shown.get(digest, Shown())
        usual = min(known.context_length or OLLAMA_CONTEXT_TOKENS, OLLAMA_CONTEXT_TOKENS)
        context = running.get(name) or known.running_context or usual
        if "chat" in known.capabilities:
            full = replace(record, context_length=context, capabilities=known.capabilities)
            found.append(Listed(full, name in running, name))
    return found[: limits.MODELS_MAX]


def is_ollama(decoded: Any) -> bool:
    """Whether an OpenAI list is Ollama's: models from its own collection belong to "library"."""
    entries = _objects(_object(decoded).get("data"))
    return any(entry.get("owned_by") == "library" for entry in entries)


def is_of_ollama(record: ModelRecord) -> bool:
    """Whether an Ollama server runs this model."""
    return record.engine.split(" ")[0] == OLLAMA


def ollama_job(job: Job, record: ModelRecord) -> Job:
    """The job as an Ollama server is asked it: what is said of thinking, in its words."""
    if not isinstance(job.extras, dict) or _THINKING.isdisjoint(job.extras):
        return job
    extras = {name: value for name, value in job.extras.items() if name not in _THINKING}
    switches = _object(job.extras.get("chat_template_kwargs"))
    is_off = switches.get("enable_thinking") is False
    effort = "none" if is_off else _word(job.extras.get("reasoning_effort"))
    if effort and "thinking" in record.capabilities:
        extras["reasoning_effort"] = OLLAMA_EFFORTS.get(effort, effort)
    return replace(job, extras=extras)


_THINKING = frozenset({"reasoning_effort", "chat_template_kwargs"})


# The others


def lm_studio(decoded: Any) -> list[Listed] | None:
    """The models of `/api/v0/models`; None where it is not LM Studio's list."""
    body = _object(decoded)
    entries = _objects(body.get("data"))
    if not isinstance(body.get("data"), list) or any("state" not in entry for entry in entries):
        return None
    found = []
    for entry in entries:
        model_id, kind = _word(entry.get("id")), entry.get("type")
        if not model_id or kind not in {"llm", "vlm"}:
            continue
        words = _capabilities(["completion", *_words(entry.get("capabilities"))])
        loaded = entry.get("state") not in COLD_STATES
        context = _count(entry.get("loaded_context_length")) if loaded else 0
        record = ModelRecord(
            model_id=model_id,
            engine="lm-studio",
            aliases=_publisher(entry, model_id),
            context_length=context or _count(entry.get("max_context_length")),
            quantisation=_word(entry.get("quantization")),
            capabilities=(*words, "vision") if kind == "vlm" else words,
        )
        found.append(Listed(record, loaded))
    return found[: limits.MODELS_MAX]


def vllm(decoded: Any) -> list[Listed] | None:
    """The models of vLLM's `/v1/models`; None where it is not vLLM's."""
    return read_listing(decoded, "vllm") if _owner(decoded) == "vllm" else None


def llama_server(decoded: Any) -> list[Listed] | None:
    """The models of llama-server's `/v1/models`; None where it is not llama-server's. One that is
    called by the path of its file gets the name that people use, and the path as an alias."""
    if _owner(decoded) != "llamacpp":
        return None
    return [_with_plain_name(each) for each in read_listing(decoded, "llama-server") or ()]


def llama_props(listed: Sequence[Listed], decoded: Any) -> tuple[list[Listed], int]:
    """What `/props` adds for a server of one model, and its slots (0: not said)."""
    body = _object(decoded)
    running = _count(_object(body.get("default_generation_settings")).get("n_ctx"))
    template = body.get("chat_template")
    has_tools = isinstance(template, str) and bool(TOOLS.search(template))
    modalities = _object(body.get("modalities"))
    senses = [word for word in ("vision", "audio") if modalities.get(word) is True]
    more = [*(["tools"] if has_tools else []), *senses]
    if len(listed) != 1:
        return list(listed), 0
    (one,) = listed
    words = tuple(dict.fromkeys((*one.record.capabilities, *more)))
    context = running or one.record.context_length
    record = replace(one.record, capabilities=words, context_length=context)
    return [replace(one, record=record)], _count(body.get("total_slots"))


def _with_plain_name(listed: Listed) -> Listed:
    record = listed.record
    if not record.model_id.lower().endswith(".gguf"):
        return listed
    stem = PurePath(record.model_id).stem
    names = dict.fromkeys((record.model_id, stem, *record.aliases))
    plain = model_name(stem)
    aliases = tuple(name for name in names if name != plain)[: limits.ALIASES_MAX]
    return Listed(replace(record, model_id=plain, aliases=aliases), listed.is_warm, record.model_id)


def _publisher(entry: Mapping[str, Any], model_id: str) -> tuple[str, ...]:
    owner = _word(entry.get("publisher"))
    return (f"{owner}/{model_id}",) if owner and "/" not in model_id else ()


def _capabilities(told: Any) -> tuple[str, ...]:
    """In our words, chat first; without chat for a model that writes nothing. Older servers say
    nothing, and have text models mostly."""
    if not isinstance(told, list):
        return ("chat", "completion")
    words = [CAPABILITY_WORDS[word] for word in _words(told) if word in CAPABILITY_WORDS]
    if "completion" in words:
        return tuple(dict.fromkeys(("chat", *words)))
    return ("embedding",) if "embedding" in told else ()


def _owner(decoded: Any) -> str:
    """Who all models of an OpenAI list belong to; empty where they differ or none is there."""
    owners = {_word(entry.get("owned_by")) for entry in _objects(_object(decoded).get("data"))}
    return owners.pop() if len(owners) == 1 else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    listed = value[: limits.MODELS_MAX] if isinstance(value, list) else []
    return [entry for entry in listed if isinstance(entry, Mapping)]


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _word(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= limits.TEXT_MAX_CHARS else ""


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < 2**53 else 0
