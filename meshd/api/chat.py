"""The body of `/v1/chat/completions`, read: what is asked, and how it is to be printed.

The fields are OpenAI's of 2026, older spellings included; `meshd.api.job` says what becomes of
those that nobody here knows. What is known and cannot be done by a text model on the owner's own
machines is refused by name: spoken answers, web search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.dialect import Asked, Asker
from meshd.api.errors import bad_value, missing, unsupported
from meshd.api.fields import Fields
from meshd.api.job import (
    TOP_LOGPROBS_MAX,
    drop_own_fields,
    further,
    read_common,
    read_max_tokens,
    read_model,
)
from meshd.api.messages import read_messages
from meshd.api.tools import read_tools
from protocol.jobs import Job


class AskedChat(Asked, frozen=True):
    """A chat request, and what only concerns how it is printed."""

    include_usage: bool = False
    is_legacy: bool = False
    """Functions instead of tools: `meshd.api.tools.Toolbox`."""
    is_parallel: bool = True
    """More than one tool may be called."""


def read_chat(body: Mapping[str, Any], asker: Asker) -> AskedChat:
    """What a chat body asks. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    messages = read_messages(fields.take("messages"))
    _refuse(fields)
    toolbox = read_tools(fields)
    logprobs, top_logprobs = _logprobs(fields)
    common = read_common(fields, asker)
    max_tokens = read_max_tokens(fields)
    response_format = read_response_format(fields)
    drop_own_fields(fields)
    job = Job(
        asker.request_id,
        "chat",
        model,
        messages=messages,
        max_tokens=max_tokens,
        tools=toolbox.tools,
        tool_choice=toolbox.choice,
        response_format=response_format,
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        stop=common.stop,
        sampling=common.sampling,
        stream=common.stream,
        session=common.session,
        priority=common.priority,
        person=asker.person,
        extras=fields.rest or None,
    )
    others = further(job, common.choices) if common.choices > 1 else ()
    is_parallel = fields.rest.get("parallel_tool_calls") is not False
    return AskedChat(job, others, "", common.include_usage, toolbox.is_legacy, is_parallel)


def read_response_format(fields: Fields) -> Any:
    """The form of the answer, None for plain text. llama-server's clients put the schema beside
    `type`."""
    form = fields.mapping("response_format") if "response_format" in fields.rest else None
    if form is None:
        return None
    kind = form.get("type")
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise bad_value(
            "response_format.type",
            "'response_format.type' must be text, json_object or json_schema.",
        )
    if type(form.get("schema")) is dict and "json_schema" not in form:
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form["schema"]}}
    if kind == "json_schema":
        inner = Fields(form, "response_format").mapping("json_schema")
        if inner is None or type(inner.get("schema")) is not dict:
            raise missing(
                "response_format.json_schema",
                "'response_format.json_schema' must be an object with 'name' and 'schema'.",
            )
    return form


def _logprobs(fields: Fields) -> tuple[bool, int]:
    if "logprobs" not in fields.rest and "top_logprobs" not in fields.rest:
        return False, 0
    logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, TOP_LOGPROBS_MAX) or 0
    if top and not logprobs:
        raise bad_value("top_logprobs", "'top_logprobs' needs 'logprobs': true.")
    return logprobs, top


def _refuse(fields: Fields) -> None:
    """What a model here cannot do, whichever it is."""
    if _SPOKEN_OR_FETCHED.isdisjoint(fields.rest):
        return
    modalities = fields.array("modalities")
    if modalities and modalities != ["text"]:
        raise unsupported(
            "modalities", 'Answers are text here. Send "modalities": ["text"], or leave it out.'
        )
    fields.take("audio")
    if fields.take("web_search_options") is not None:
        raise unsupported(
            "web_search_options",
            "Nothing here searches the web. Leave 'web_search_options' out, or offer a search of "
            "your own in 'tools'.",
        )


_SPOKEN_OR_FETCHED = frozenset({"modalities", "audio", "web_search_options"})
