"""OpenAI's Responses: `/v1/responses`, read into a `Job`.

Built to OpenAI's specification of 2026 and to Open Responses, which asks for more keys. Codex
speaks nothing else; Home Assistant, n8n and agents' frameworks speak it too.

**Stateless.** No answer is kept on any machine, so `store` is always false in what comes back, and
whatever points into storage (`previous_response_id`, `conversation`, `prompt`, `background`) is
refused with the way round it: send the items again. `meshd.api.responses_input` reads them.

**What is tolerated.** Fields that nobody here knows are passed over, unlike in chat, where they
travel on to engines: this dialect's unknown fields belong to OpenAI's own house (`client_metadata`,
`context_management`, `include` ...). Options of local engines do travel (`ENGINE_FIELDS`).
`truncation` may say `auto`, but nothing is ever cut here: a prompt that is too long is refused, and
the answer says `disabled`.

**Thoughts** go into a reasoning item: as `summary` where a summary was asked for, because clients
that ask show nothing else, and as `content` otherwise. They are never shortened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from meshd.api.body import check_free_form, decode_object
from meshd.api.dialect import Asked, Asker
from meshd.api.errors import ApiError, bad_type, bad_value, missing, unsupported
from meshd.api.fields import Fields, json_type
from meshd.api.job import (
    SERVICE_TIERS,
    TOKENS_MAX,
    TOP_LOGPROBS_MAX,
    read_model,
    read_sampling,
    read_stop,
    session_key,
)
from meshd.api.replies import Reply, json_reply
from meshd.api.responses_input import InputReader
from meshd.api.responses_tools import Tools, read_tools
from meshd.api.turns import left_out
from meshd.core.routing.demand import prompt_tokens_of
from protocol import limits
from protocol.jobs import Job

ENGINE_FIELDS = ("chat_template_kwargs", "grammar", "ignore_eos", "reasoning_format", "think")
"""Options of local engines that are passed on as they are."""

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"

STORED = {
    "previous_response_id": "Send the earlier items in 'input' again.",
    "conversation": "Send the earlier items in 'input' again.",
    "prompt": "Send the prompt's text in 'instructions' or 'input'.",
}
"""Fields that point into storage, and what to do instead."""


class AskedResponse(Asked, frozen=True):
    """A request, and what its answer repeats."""

    tools: Tools = msgspec.field(default_factory=Tools)
    echo: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Keys of the response object that say what was asked."""
    wants_summary: bool = False
    wants_encrypted: bool = False
    is_parallel: bool = True
    """More than one call may be made."""


def read_response(body: Mapping[str, Any], asker: Asker) -> AskedResponse:
    """What a Responses body asks. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    _refuse(fields)
    instructions = fields.text("instructions", limits.JOB_MAX_BYTES)
    reader = InputReader(instructions or "")
    reader.read(fields.take("input"))
    tools = read_tools([*(fields.array("tools") or ()), *reader.tools], fields.take("tool_choice"))
    text = fields.mapping("text") or {}
    include = _include(fields)
    top_logprobs = fields.integer("top_logprobs", 0, TOP_LOGPROBS_MAX) or 0
    reasoning = _reasoning(fields)
    session, priority, own = _own_fields(fields, asker)
    is_parallel = _parallel(fields)
    job = Job(
        request_id=asker.request_id,
        kind="chat",
        model=model,
        messages=reader.turns.messages("input"),
        max_tokens=fields.integer("max_output_tokens", 1, TOKENS_MAX),
        tools=tools.offered or None,
        tool_choice=tools.choice,
        response_format=_response_format(text),
        logprobs=LOGPROBS in include or top_logprobs > 0,
        top_logprobs=top_logprobs,
        stop=read_stop(fields.take("stop")),
        sampling=read_sampling(fields),
        stream=fields.flag("stream"),
        session=session,
        priority=priority,
        person=asker.person,
        extras=_extras(fields, reasoning, may_call_twice=is_parallel or not tools.offered),
    )
    echo = {
        "instructions": instructions,
        "parallel_tool_calls": is_parallel,
        "reasoning": reasoning,
        "text": {"format": {"type": "text"}, **text},
    }
    return AskedResponse(
        job,
        lines=left_out([*tools.left_out, *reader.left_out]),
        tools=tools,
        echo={**echo, **own, **_repeated(job, tools)},
        wants_summary=reasoning["summary"] is not None,
        wants_encrypted=ENCRYPTED in include,
        is_parallel=is_parallel,
    )


def page(name: str, body: bytes, asker: Asker) -> Reply:
    """What lies below `/v1/responses/`: `input_tokens` counts (an estimate, and a header says so),
    and no response is ever found there. Raises ApiError (400, 404)."""
    if name != COUNT or not body:
        raise not_stored(name)
    asked = read_response(decode_object(body), asker)
    counted = {"object": "response.input_tokens", "input_tokens": prompt_tokens_of(asked.job)}
    return Reply(json_reply(counted).body, lines=f"{ESTIMATE}{asked.lines}")


COUNT = "input_tokens"


ESTIMATE = "x-mesh-token-count: estimate\r\n"
"""No tokenizer was asked: the node a request enters need not have the model."""


def not_stored(response_id: str) -> ApiError:
    """404: the answer to everything that names a response."""
    return ApiError(
        404,
        f"Response '{response_id[:100]}' is not kept: nothing is stored here. Keep what you need, "
        "and send earlier items in 'input' again.",
        code="response_not_found",
        param="response_id",
    )


def _refuse(fields: Fields) -> None:
    for name, instead in STORED.items():
        if fields.take(name) is not None:
            raise unsupported(name, f"'{name}' is not served: nothing is stored here. {instead}")
    if fields.flag("background"):
        raise unsupported(
            "background",
            "'background' is not served: nothing is stored here. Ask for a stream instead, and "
            'send "service_tier": "flex" where the answer may wait.',
        )


def _include(fields: Fields) -> frozenset[str]:
    """What is to be included; what nobody here has is passed over."""
    include = fields.array("include") or []
    return frozenset([entry for entry in include if type(entry) is str])


def _reasoning(fields: Fields) -> dict[str, Any]:
    """Effort and summary, both keys always there."""
    given = Fields(fields.mapping("reasoning") or {}, "reasoning")
    effort = given.text("effort", limits.TEXT_MAX_CHARS)
    older = given.text("generate_summary", limits.TEXT_MAX_CHARS)
    summary = given.text("summary", limits.TEXT_MAX_CHARS) or older
    return {"effort": effort, "summary": None if summary == "none" else summary}


def _parallel(fields: Fields) -> bool:
    value = fields.take("parallel_tool_calls")
    if value is None:
        return True
    if type(value) is not bool:
        raise fields.wrong("parallel_tool_calls", "true or false", value)
    return value


def _extras(
    fields: Fields, reasoning: Mapping[str, Any], *, may_call_twice: bool
) -> dict[str, Any] | None:
    """What an engine may want to know beyond a job's own fields."""
    extras = {name: fields.rest[name] for name in ENGINE_FIELDS if fields.rest.get(name)}
    if reasoning["effort"]:
        extras["reasoning_effort"] = reasoning["effort"]
    if not may_call_twice:
        extras["parallel_tool_calls"] = False
    return extras or None


def _own_fields(fields: Fields, asker: Asker) -> tuple[str, str, dict[str, Any]]:
    """Session, priority, and the fields that only come back as they were sent."""
    cache_key = fields.text("prompt_cache_key", limits.JOB_MAX_BYTES)
    user = fields.text("user", limits.JOB_MAX_BYTES)
    safety = fields.text("safety_identifier", limits.JOB_MAX_BYTES)
    tier = fields.text("service_tier", limits.TEXT_MAX_CHARS) or "auto"
    may_wait = asker.priority == "batch" or SERVICE_TIERS.get(tier) == "batch"
    own = {
        "max_tool_calls": fields.integer("max_tool_calls", 0, TOKENS_MAX),
        "metadata": _metadata(fields),
        "prompt_cache_key": cache_key,
        "safety_identifier": safety,
        "service_tier": "flex" if may_wait else "default",
    }
    if user is not None:
        own["user"] = user
    session = session_key(cache_key or asker.session or user or "")
    return session, "batch" if may_wait else "interactive", own


def _metadata(fields: Fields) -> dict[str, str]:
    """At most 16 short texts, as OpenAI bounds them."""
    metadata = fields.mapping("metadata") or {}
    if len(metadata) > METADATA_MAX:
        raise bad_value(
            "metadata",
            f"'metadata' has {len(metadata)} entries; at most {METADATA_MAX} are allowed.",
        )
    for key, value in metadata.items():
        if type(value) is not str:
            raise bad_type(
                f"metadata.{key[:60]}",
                f"'metadata.{key[:60]}' must be a string, not {json_type(value)}.",
            )
    return metadata


METADATA_MAX = 16
"""OpenAI's bound; the answer repeats them three times in a stream."""


def _response_format(text: Mapping[str, Any]) -> Any:
    """`text.format` as chat's response_format; None for plain text."""
    form = text.get("format")
    if form is None:
        return None
    kind = form.get("type") if type(form) is dict else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise bad_value(
            "text.format.type", "'text.format.type' must be text, json_object or json_schema."
        )
    if type(form.get("schema")) is not dict:
        raise missing(
            "text.format.schema",
            "'text.format.schema' is missing. A json_schema format needs 'name' and 'schema'.",
        )
    schema = {name: value for name, value in form.items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": {"name": "answer", **schema}}


def _repeated(job: Job, tools: Tools) -> dict[str, Any]:
    """What the answer says was asked. The specification wants numbers where nothing was asked;
    OpenAI's defaults stand for the engine's own."""
    sampling = job.sampling
    return {
        "max_output_tokens": job.max_tokens,
        "tools": tools.echo,
        "tool_choice": tools.echo_choice,
        "top_logprobs": job.top_logprobs,
        "temperature": 1.0 if sampling.temperature is None else sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "presence_penalty": sampling.presence_penalty or 0.0,
        "frequency_penalty": sampling.frequency_penalty or 0.0,
    }
