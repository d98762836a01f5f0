"""Anthropic's messages: `/v1/messages`, read into a `Job`.

Built to Anthropic's specification of 2026; Claude Code speaks nothing else, with `?beta=true`.
Versions and beta flags in headers are not looked at: there is one version here, the newest.

Fields that nobody here knows are passed over: they concern Anthropic's own house (`container`,
`context_management`, `mcp_servers`, `diagnostics` ...). What would change the answer's meaning is
refused: the rest of a conversation that is stored nowhere here (`thread`), and a summary in place
of an answer (`compaction`). Tools that run on Anthropic's servers or
that its models were trained on without a schema (`web_search_...`, `bash_...`) are not offered to
the model, and a header names them (`meshd.api.turns.left_out`); forcing one is an error.

**Thoughts** are shown only to whom asks for them (`thinking`), because programs that do not ask
take the first block for the answer. Where a request says that it wants none, models that can leave
them out are told so (`enable_thinking`, which llama.cpp's and vLLM's servers pass to the template).

**A begun answer.** Where the last message is the assistant's own text, the model goes on from it,
and only what is new comes back. `BEGUN` says so, in vLLM's words; llama.cpp's and Ollama's servers
do it unasked.

**Warming up.** `max_tokens` 0 asks for the prompt to be read and nothing to be said: the model says
one token, the least there is, and it is not shown.

**Counting tokens** without a tokenizer is an estimate, and a header says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.anthropic_blocks import MessageReader
from meshd.api.body import check_free_form, decode_object
from meshd.api.dialect import Asked, Asker
from meshd.api.errors import ApiError, bad_type, bad_value, missing, unsupported
from meshd.api.fields import Fields, json_type
from meshd.api.job import TOKENS_MAX, read_model, read_sampling, read_stop, session_key
from meshd.api.replies import Reply, json_reply
from meshd.api.responses import ESTIMATE
from meshd.api.tools import TOOLS_MAX
from meshd.api.turns import BEGUN, left_out
from meshd.core.routing.demand import prompt_tokens_of
from protocol import limits
from protocol.frozen import frozen
from protocol.jobs import Job

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Anthropic's words for effort, to those that local engines know."""

WARMING_TOKENS = 1
"""What a model says at the least: its first word comes when the prompt has been read."""

COUNTED = 1
"""`max_tokens` of a request that is only counted, where it is not given."""


class AskedMessage(Asked, frozen=True):
    """A request, and what only concerns how its answer is printed."""

    prompt_tokens: int = 0
    """An estimate, said at the beginning of a stream; the end has the engine's count."""
    shows_thoughts: bool = False
    omits_thoughts: bool = False
    """The thinking block is wanted, but not its text."""
    is_parallel: bool = True
    """More than one tool may be called."""
    is_silent: bool = False
    """Nothing of the answer is wanted but that its prompt was read."""


@frozen
class _Toolbox:
    tools: list[dict[str, Any]]
    choice: Any
    is_parallel: bool
    left_out: list[str]


@frozen
class _Thinking:
    wanted: bool | None = None
    """None where nothing is said."""
    omitted: bool = False


def read_message(body: Mapping[str, Any], asker: Asker) -> AskedMessage:
    """What a messages body asks. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    _refuse(fields)
    max_tokens = fields.integer("max_tokens", 0, TOKENS_MAX)
    if max_tokens is None:
        raise fields.absent("max_tokens", "Say how long the answer may become, in tokens.")
    reader = MessageReader(offers_tools=bool(fields.rest.get("tools")))
    reader.system(fields.take("system"))
    reader.messages(fields.take("messages"))
    box = _read_tools(fields)
    thinking = _read_thinking(fields)
    effort, form = _read_output(fields)
    metadata = Fields(fields.mapping("metadata") or {}, "metadata")
    user = metadata.text("user_id", limits.JOB_MAX_BYTES)
    job = Job(
        request_id=asker.request_id,
        kind="chat",
        model=model,
        messages=reader.turns.messages("messages"),
        max_tokens=max_tokens or WARMING_TOKENS,
        tools=box.tools or None,
        tool_choice=box.choice,
        response_format=form,
        stop=_read_stop(fields),
        sampling=read_sampling(fields),
        stream=fields.flag("stream"),
        session=session_key(asker.session or user or ""),
        priority=asker.priority,
        person=asker.person,
        extras=_extras(fields, thinking, effort, box, is_begun=reader.turns.is_begun) or None,
    )
    return AskedMessage(
        job,
        lines=left_out([*box.left_out, *reader.left_out]),
        prompt_tokens=prompt_tokens_of(job),
        shows_thoughts=bool(thinking.wanted),
        omits_thoughts=thinking.omitted,
        is_parallel=box.is_parallel,
        is_silent=not max_tokens,
    )


def count_tokens(body: bytes, asker: Asker) -> Reply:
    """`/v1/messages/count_tokens`: an estimate, and a header says so. Raises ApiError (400)."""
    asked = read_message({"max_tokens": COUNTED, **decode_object(body), "compaction": None}, asker)
    counted = json_reply({"input_tokens": asked.prompt_tokens})
    return Reply(counted.body, lines=f"{ESTIMATE}{asked.lines}")


def _refuse(fields: Fields) -> None:
    """What would be answered as if nobody had asked for it."""
    thread = fields.mapping("thread") or {}
    if thread.get("type") == "continue":
        raise unsupported(
            "thread",
            "'thread' of type continue is not served: nothing is stored here. Send the earlier "
            "messages again.",
        )
    if fields.mapping("compaction") is not None:
        raise unsupported(
            "compaction",
            "'compaction' is not served. Ask for a summary in a message of your own.",
        )


def _read_tools(fields: Fields) -> _Toolbox:
    tools: list[dict[str, Any]] = []
    passed_over: list[str] = []
    for index, tool in enumerate(fields.array("tools") or ()):
        where = f"tools[{index}]"
        if type(tool) is not dict:
            raise bad_type(where, f"'{where}' must be an object, not {json_type(tool)}.")
        kind = tool.get("type") or "custom"
        if kind == "custom":
            tools.append(_tool(tool, where))
        else:
            passed_over.append(f"tool {str(kind)[:60]}")
    if len(tools) > TOOLS_MAX:
        raise bad_value("tools", f"'tools' has {len(tools)} entries; at most {TOOLS_MAX} are.")
    choice = fields.mapping("tool_choice") or {}
    is_parallel = choice.get("disable_parallel_tool_use") is not True
    return _Toolbox(tools, _choice(choice, tools), is_parallel, passed_over)


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    inner = Fields(tool, where)
    name = inner.text("name", limits.TEXT_MAX_CHARS)
    if not name:
        raise inner.absent("name", "Every tool needs a name.")
    function: dict[str, Any] = {"name": name}
    description = inner.text("description", limits.JOB_MAX_BYTES)
    if description:
        function["description"] = description
    schema = inner.mapping("input_schema")
    if schema is None:
        raise inner.absent("input_schema", "Give the JSON schema of the tool's input.")
    function["parameters"] = schema
    if inner.flag("strict"):
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: Mapping[str, Any], tools: list[dict[str, Any]]) -> Any:
    """Chat's tool_choice."""
    kind = choice.get("type", "auto")
    if kind in ("auto", "none"):
        return kind if tools and choice else None
    if kind not in ("any", "tool"):
        raise bad_value("tool_choice.type", "'tool_choice.type' must be auto, any, tool or none.")
    if not tools:
        raise bad_value(
            "tool_choice", "'tool_choice' asks for a tool, but 'tools' has none to run."
        )
    if kind == "any":
        return "required"
    names = [tool["function"]["name"] for tool in tools]
    if choice.get("name") not in names:
        raise bad_value(
            "tool_choice.name",
            f"'tool_choice.name' must be one of the tools: {', '.join(names[:8])[:400]}.",
        )
    return {"type": "function", "function": {"name": choice["name"]}}


def _read_thinking(fields: Fields) -> _Thinking:
    config = fields.mapping("thinking")
    if config is None:
        return _Thinking()
    kind = config.get("type")
    if kind == "disabled":
        return _Thinking(wanted=False)
    if type(kind) is not str:
        raise missing("thinking.type", "'thinking.type' must be enabled, adaptive or disabled.")
    return _Thinking(wanted=True, omitted=config.get("display") == "omitted")


def _read_output(fields: Fields) -> tuple[str | None, Any]:
    """Effort, and the form of the answer as chat's response_format."""
    config = Fields(fields.mapping("output_config") or {}, "output_config")
    effort = config.text("effort", limits.TEXT_MAX_CHARS)
    older = fields.mapping("output_format")
    form = config.mapping("format") or older
    if form is None:
        return effort, None
    if form.get("type") != "json_schema" or type(form.get("schema")) is not dict:
        raise bad_value(
            "output_config.format",
            "'output_config.format' must be an object with 'type': \"json_schema\" and 'schema'.",
        )
    schema = {"name": "answer", "schema": form["schema"], "strict": True}
    return effort, {"type": "json_schema", "json_schema": schema}


def _read_stop(fields: Fields) -> tuple[str, ...]:
    try:
        return read_stop(fields.array("stop_sequences"))
    except ApiError as error:
        message = error.message.replace("'stop'", "'stop_sequences'")
        raise ApiError(400, message, code=error.code, param="stop_sequences") from None


def _extras(
    fields: Fields, thinking: _Thinking, effort: str | None, box: _Toolbox, *, is_begun: bool
) -> dict[str, Any]:
    """What an engine may want to know beyond a job's own fields."""
    extras: dict[str, Any] = {}
    template = fields.mapping("chat_template_kwargs") or {}
    if thinking.wanted is not None:
        template = {"enable_thinking": thinking.wanted, **template}
    if template:
        extras["chat_template_kwargs"] = template
    if effort is not None:
        extras["reasoning_effort"] = EFFORTS.get(effort, effort)
    if box.tools and not box.is_parallel:
        extras["parallel_tool_calls"] = False
    if is_begun:
        extras |= BEGUN
    return extras
