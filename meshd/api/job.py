"""OpenAI's two request bodies, chat completions and completions, to one `Job`.

What is checked here is what would otherwise fail late, on another machine, in an engine's words:
types, ranges, and combinations that cannot be meant. Each error names the field in `param`.

Fields nobody here knows travel on in `Job.extras`, so an engine's own options (`grammar`,
`chat_template_kwargs`, `reasoning_effort` ...) work without this module learning them. Fields that
are known but not served yet (`n` above 1, `echo` ...) are refused rather than ignored: an answer
that silently lacks what was asked for is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.errors import bad_type, bad_value, missing, unsupported
from meshd.api.fields import Fields, json_type
from meshd.api.messages import read_messages
from protocol import limits
from protocol.jobs import Job, Sampling

TEMPERATURE_MAX = 2.0
"""OpenAI's range. Beyond it every sampler returns noise, which is never what was meant."""

PENALTY_MAX = 2.0
"""OpenAI's range for presence and frequency penalties, in both directions."""

LOGIT_BIAS_MAX = 100.0
"""OpenAI's range: 100 forces a token, -100 bans it."""

TOP_LOGPROBS_MAX = 20
"""OpenAI's bound for chat; every alternative costs a sort in the engine and bytes on the wire."""

TOKENS_MAX = 2**31 - 1
"""The largest token count that crosses the relay."""

UNLIMITED_TOKENS = -1
"""What llama.cpp's and LM Studio's clients send for "until the model stops"."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: what to compute, and the one choice that only concerns how it is printed."""

    job: Job
    include_usage: bool


def chat(body: Mapping[str, Any], request_id: str, session: str = "") -> Asked:
    """The body of `/v1/chat/completions`. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = _model(fields)
    messages = read_messages(fields.take("messages"))
    _refuse_chat(fields)
    tools = _tools(fields)
    logprobs, top_logprobs = _chat_logprobs(fields)
    common = _common(fields, session)
    job = Job(
        request_id=request_id,
        kind="chat",
        model=model,
        messages=messages,
        max_tokens=_max_tokens(fields),
        tools=tools,
        tool_choice=_tool_choice(fields, tools),
        response_format=_response_format(fields),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        stop=common.stop,
        sampling=common.sampling,
        stream=common.stream,
        session=common.session,
        extras=fields.rest or None,
    )
    return Asked(job, common.include_usage)


def completion(body: Mapping[str, Any], request_id: str, session: str = "") -> Asked:
    """The body of `/v1/completions`. Raises ApiError (400)."""
    fields = Fields(body)
    prompt, prompt_tokens = _prompt(fields.take("prompt"))
    check_free_form(fields.rest)
    model = _model(fields)
    _refuse_completion(fields)
    top_logprobs = fields.integer("logprobs", 0, TOP_LOGPROBS_MAX)
    common = _common(fields, session)
    job = Job(
        request_id=request_id,
        kind="completion",
        model=model,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(fields),
        logprobs=top_logprobs is not None,
        top_logprobs=top_logprobs or 0,
        stop=common.stop,
        sampling=common.sampling,
        stream=common.stream,
        session=common.session,
        extras=fields.rest or None,
    )
    return Asked(job, common.include_usage)


@dataclass(frozen=True, slots=True)
class _Common:
    stop: tuple[str, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    session: str


def _common(fields: Fields, session: str) -> _Common:
    stream = fields.flag("stream")
    options = Fields(fields.mapping("stream_options") or {}, "stream_options")
    include_usage = options.flag("include_usage")
    n = fields.integer("n", 1, 128)
    if n is not None and n > 1:
        raise unsupported("n", f"'n' is {n}; one choice per request is served. Send {n} requests.")
    return _Common(
        stop=_stop(fields.take("stop")),
        sampling=_sampling(fields),
        stream=stream,
        include_usage=stream and include_usage,
        session=_session(fields, session),
    )


def _model(fields: Fields) -> str:
    model = fields.text("model", limits.TEXT_MAX_CHARS)
    if not model:
        raise missing("model", "'model' is missing. GET /v1/models lists what can be asked for.")
    return model


def _sampling(fields: Fields) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature", 0.0, TEMPERATURE_MAX),
        top_p=fields.number("top_p", 0.0, 1.0),
        top_k=_top_k(fields),
        min_p=fields.number("min_p", 0.0, 1.0),
        presence_penalty=fields.number("presence_penalty", -PENALTY_MAX, PENALTY_MAX),
        frequency_penalty=fields.number("frequency_penalty", -PENALTY_MAX, PENALTY_MAX),
        repeat_penalty=fields.number("repeat_penalty", 0.0, 100.0),
        seed=fields.integer("seed", -(2**63), 2**64 - 1),
        logit_bias=_logit_bias(fields),
    )


def _top_k(fields: Fields) -> int | None:
    """vLLM's clients send -1, llama.cpp's 0, for "all tokens"."""
    top_k = fields.integer("top_k", -1, TOKENS_MAX)
    return 0 if top_k == -1 else top_k


def _max_tokens(fields: Fields) -> int | None:
    """The newer name wins where both are sent, as at OpenAI."""
    older = fields.integer("max_tokens", UNLIMITED_TOKENS, TOKENS_MAX)
    newer = fields.integer("max_completion_tokens", UNLIMITED_TOKENS, TOKENS_MAX)
    tokens, name = (older, "max_tokens") if newer is None else (newer, "max_completion_tokens")
    if tokens == 0:
        raise bad_value(name, f"'{name}' is 0; it must be at least 1. Leave it out for no limit.")
    return None if tokens == UNLIMITED_TOKENS else tokens


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    sequences = [value] if type(value) is str else value
    if type(sequences) is not list:
        raise bad_type(
            "stop", f"'stop' must be a string or an array of strings, not {json_type(value)}."
        )
    if len(sequences) > limits.STOP_SEQUENCES_MAX:
        raise bad_value(
            "stop",
            f"'stop' has {len(sequences)} entries; {limits.STOP_SEQUENCES_MAX} are allowed.",
        )
    for sequence in sequences:
        if type(sequence) is not str:
            raise bad_type("stop", f"'stop' holds {json_type(sequence)}; each must be a string.")
        if not 0 < len(sequence) <= limits.DETAIL_MAX_CHARS:
            raise bad_value(
                "stop",
                f"'stop' holds a string of {len(sequence)} characters; "
                f"each must have 1 to {limits.DETAIL_MAX_CHARS}.",
            )
    return tuple(sequences)


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    biases = fields.mapping("logit_bias")
    if not biases:
        return ()
    if len(biases) > limits.LOGIT_BIAS_MAX:
        raise bad_value(
            "logit_bias",
            f"'logit_bias' has {len(biases)} entries; at most {limits.LOGIT_BIAS_MAX} are allowed.",
        )
    entries = Fields(biases, "logit_bias")
    pairs = []
    for token in biases:
        if not (token.isascii() and token.isdigit() and int(token[:20]) <= TOKENS_MAX):
            raise bad_value(
                "logit_bias", f"'logit_bias' has the key '{token[:40]}'; keys must be token ids."
            )
        bias = entries.number(token, -LOGIT_BIAS_MAX, LOGIT_BIAS_MAX)
        if bias is not None:
            pairs.append((int(token), bias))
    return tuple(pairs)


def _session(fields: Fields, header: str) -> str:
    """What keeps one conversation on one machine: the client's own hints, most telling first."""
    cache_key = fields.text("prompt_cache_key", limits.JOB_MAX_BYTES)
    user = fields.text("user", limits.JOB_MAX_BYTES)
    return session_key(cache_key or header or user or "")


def session_key(hint: str) -> str:
    """A hint of any length in the room a `Job` has; equal hints stay equal, others differ."""
    if len(hint) <= limits.TEXT_MAX_CHARS:
        return hint
    return blake2b(hint.encode(), digest_size=16).hexdigest()


def _chat_logprobs(fields: Fields) -> tuple[bool, int]:
    logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, TOP_LOGPROBS_MAX) or 0
    if top and not logprobs:
        raise bad_value("top_logprobs", "'top_logprobs' needs 'logprobs': true.")
    return logprobs, top


def _tools(fields: Fields) -> list[Any] | None:
    tools = fields.array("tools")
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        function = tool.get("function") if type(tool) is dict else None
        if type(function) is not dict or tool.get("type", "function") != "function":
            raise bad_type(
                where,
                f"'{where}' must be an object with 'type': \"function\" and 'function'.",
            )
        inner = Fields(function, f"{where}.function")
        if not inner.text("name", limits.TEXT_MAX_CHARS):
            raise inner.absent("name", "Every tool needs a name.")
        inner.text("description", limits.JOB_MAX_BYTES)
        inner.mapping("parameters")
    return tools or None


def _tool_choice(fields: Fields, tools: list[Any] | None) -> Any:
    choice = fields.take("tool_choice")
    if choice is None or (not tools and choice in ("auto", "none")):
        return None
    if type(choice) is str:
        if choice not in ("auto", "none", "required"):
            raise bad_value(
                "tool_choice",
                f"'tool_choice' is '{choice[:40]}'; it must be auto, none, required, "
                "or an object that names a function.",
            )
    elif type(choice) is not dict:
        raise fields.wrong("tool_choice", "a string or an object", choice)
    else:
        function = choice.get("function")
        if type(function) is not dict or type(function.get("name")) is not str:
            raise bad_value(
                "tool_choice",
                'A \'tool_choice\' object looks like {"type": "function", '
                '"function": {"name": "..."}}.',
            )
    if not tools:
        raise bad_value("tool_choice", "'tool_choice' asks for a tool, but 'tools' is empty.")
    return choice


def _response_format(fields: Fields) -> Any:
    form = fields.mapping("response_format")
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
    if kind == "json_schema":
        inner = Fields(form, "response_format").mapping("json_schema")
        if inner is None or type(inner.get("schema")) is not dict:
            raise missing(
                "response_format.json_schema",
                "'response_format.json_schema' must be an object with 'name' and 'schema'.",
            )
    return form


def _prompt(value: Any) -> tuple[str | None, tuple[int, ...] | None]:
    """A text, or token ids; OpenAI also allows a list of either, which is served when it is one."""
    if type(value) is list and len(value) == 1 and type(value[0]) in (str, list):
        value = value[0]
    if value is None:
        raise missing("prompt", "'prompt' is missing. Send a string, or an array of token ids.")
    if type(value) is str:
        if not value:
            raise bad_value("prompt", "'prompt' is empty. Send at least one character.")
        return value, None
    if type(value) is not list:
        raise bad_type(
            "prompt", f"'prompt' must be a string or an array of token ids, not {json_type(value)}."
        )
    return None, _token_ids(value)


def _token_ids(value: list[Any]) -> tuple[int, ...]:
    if not value:
        raise bad_value("prompt", "'prompt' is empty. Send at least one token id.")
    kinds = set(map(type, value))
    if kinds <= {str} or kinds <= {list}:
        raise unsupported(
            "prompt",
            f"'prompt' holds {len(value)} prompts; one per request is served. "
            f"Send {len(value)} requests.",
        )
    if kinds != {int} or min(value) < 0 or max(value) > TOKENS_MAX:
        raise bad_type("prompt", "'prompt' must hold token ids only: whole numbers from 0.")
    if len(value) > limits.TOKEN_IDS_MAX:
        raise bad_value(
            "prompt",
            f"'prompt' has {len(value)} tokens; at most {limits.TOKEN_IDS_MAX} are allowed.",
        )
    return tuple(value)


def _refuse_chat(fields: Fields) -> None:
    for name in ("functions", "function_call"):
        if fields.take(name) is not None:
            raise unsupported(name, f"'{name}' is not served. Use 'tools' and 'tool_choice'.")


def _refuse_completion(fields: Fields) -> None:
    if fields.flag("echo"):
        raise unsupported("echo", "'echo' is not served. Prepend the prompt yourself.")
    if fields.text("suffix", limits.JOB_MAX_BYTES):
        raise unsupported(
            "suffix",
            "'suffix' is not served. Put your model's own fill-in-the-middle marks in 'prompt'.",
        )
    best_of = fields.integer("best_of", 1, 20)
    if best_of is not None and best_of > 1:
        raise unsupported("best_of", "'best_of' is not served above 1. Send several requests.")
