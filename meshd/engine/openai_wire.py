"""OpenAI's chat and completion formats, as servers really speak them, to jobs and events and back.

Pure: bodies and payloads in, values out. Decoding is typed, so a chunk costs about a microsecond
and whatever is not needed is never built. Deviations that are known and harmless are taken in:

- `role` in every delta, empty deltas, null where a key could be missing, unknown keys;
- thinking as `reasoning_content` or as `reasoning`; a refusal, which is a text like any other;
- usage in a chunk of its own, in the last chunk, in every chunk, or nowhere (then counts are
  estimated, and say so);
- finish reasons of other dialects.

What cannot be understood is a `WireError`: a broken answer is never passed on as a short one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from meshd.engine.failures import failure_of
from meshd.engine.openai_calls import Calls
from meshd.engine.openai_failures import WireError, failure_of_bare, failure_of_error
from protocol.jobs import (
    FINISH_REASONS,
    NO_WISHES,
    Event,
    Finish,
    Job,
    ReasoningDelta,
    Sampling,
    TextDelta,
)

CALL_ID_MAX_CHARS = 256
"""Tool call ids and names longer than this are nobody's."""

FAILED_REASONS = {"error", "abort"}
"""Finish reasons with which servers say that the answer is not whole."""

TOKENS_MAX = 10_000_000
"""An upstream that counts more than ten of the longest contexts has counted wrong."""

BYTES_PER_TOKEN = 3.6
"""For counts that an upstream does not give."""


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None
    """A JSON text, or where a server is too kind, the object itself."""


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM's: the sequence, or the id of the token, that ended it."""
    logprobs: Any = None


class _Lists(msgspec.Struct, gc=False):
    """Logprobs as text completions have them."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole plain answer: what we read of either."""

    choices: list[Choice] | None = None
    usage: Any = None
    """Looked into at the end, and not too strictly: nobody's answer is worth less for its count."""
    error: Any = None


read_chunk = msgspec.json.Decoder(Chunk).decode
_ENCODER = msgspec.json.Encoder()


PATHS = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}


def request_path(job: Job) -> str:
    """Where a job of this kind is posted, below the base URL."""
    return PATHS[job.kind]


def request_body(job: Job, model: str) -> bytes:
    """The request as the upstream wants it. Extras never override a field that we set. A text that
    another machine went on with is one text."""
    body: dict[str, Any] = {**job.extras} if isinstance(job.extras, dict) else {}
    body["model"] = model
    if job.kind == "chat":
        body["messages"] = job.messages
    else:
        text = f"{job.prompt or ''}{job.prefix_text}"
        body["prompt"] = text if job.prompt_tokens is None else job.prompt_tokens
    if job.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    else:
        body.pop("stream", None)
        body.pop("stream_options", None)
    if job.max_tokens is not None:
        body["max_tokens"] = job.max_tokens
    if job.stop:
        body["stop"] = job.stop
    if job.tools is not None:
        body["tools"] = job.tools
    if job.tool_choice is not None:
        body["tool_choice"] = job.tool_choice
    if job.response_format is not None:
        body["response_format"] = job.response_format
    if job.sampling is not NO_WISHES:
        body |= _wishes(job.sampling)
    if job.logprobs and job.kind == "chat":
        body["logprobs"], body["top_logprobs"] = True, job.top_logprobs
    elif job.logprobs:
        body["logprobs"] = job.top_logprobs
    return _ENCODER.encode(body)


def _wishes(sampling: Sampling) -> dict[str, Any]:
    """How to choose tokens, as far as the client cares."""
    wishes = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
        "logit_bias": {str(int(token)): bias for token, bias in sampling.logit_bias} or None,
    }
    return {name: value for name, value in wishes.items() if value is not None}


class Translation:
    """One answer, payload by payload. `is_whole` is true once the upstream said why it ended,
    `has_failed` once the last event was a Failure."""

    __slots__ = (
        "_calls", "_made_bytes", "_reason", "_stop", "_usage", "has_failed", "is_whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.is_whole = False
        self.has_failed = False
        self._reason = "stop"
        self._stop = ""
        self._usage: Any = None
        self._calls = Calls()
        self._made_bytes = 0

    def read(self, payload: bytes, events: list[Event]) -> None:
        """Adds what one payload says to `events`. Raises WireError."""
        try:
            chunk = read_chunk(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"it is not a chat answer ({error})") from None
        failure = None
        if chunk.error is not None:
            failure = failure_of_error(chunk.error)
        elif chunk.choices is None and chunk.usage is None:
            failure = failure_of_bare(payload)
        if failure is not None:
            events.append(failure)
            self.has_failed = True
            return
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        delta = choice.delta or choice.message
        if delta is not None:
            self._speak(delta, choice.logprobs, events)
        elif choice.text:
            logprobs = None if choice.logprobs is None else _entries(choice.logprobs)
            events.append(TextDelta(choice.text, (), logprobs))
            self._made_bytes += len(choice.text)
        if choice.finish_reason:
            if type(choice.stop_reason) is str:
                self._stop = choice.stop_reason
            self._end(choice.finish_reason, events)

    def rest(self) -> Sequence[Event]:
        """What was read and not told, when the answer is over."""
        return self._calls.rest()

    def finish(self, job: Job, prompt_s: float, generation_s: float, poured: int = 0) -> Finish:
        """The account. Times are as seen from here, in seconds; `poured` are characters of the
        answer that were not read here."""
        usage = usage_of(self._usage)
        prompt, made = usage.prompt_tokens, usage.completion_tokens
        counted = is_count(prompt) and is_count(made)
        if not counted:
            made = round((self._made_bytes + poured) / BYTES_PER_TOKEN)
            prompt = _estimate(job)
        assert prompt is not None
        assert made is not None
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        cached = min(max(0, cached), prompt) if cached else 0
        stop = self._stop if self._stop in job.stop else ""
        queue_s = 0.0
        return Finish(
            self._reason, prompt, made, cached, prompt_s, generation_s, queue_s, counted, stop
        )

    def _speak(self, delta: Delta, logprobs: Any, events: list[Event]) -> None:
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            events.append(ReasoningDelta(thought))
            self._made_bytes += len(thought)
        text = delta.content or delta.refusal
        if text:
            content = logprobs.get("content") if logprobs.__class__ is dict else None
            events.append(TextDelta(text, (), content))
            self._made_bytes += len(text)
        if delta.tool_calls:
            self._call(delta.tool_calls, events)

    def _call(self, calls: Sequence[_ToolCall], events: list[Event]) -> None:
        for place, call in enumerate(calls):
            function = call.function or _Function()
            arguments = "" if function.arguments is None else function.arguments
            if type(arguments) is not str:
                arguments = _ENCODER.encode(arguments).decode()
            given = place if call.index is None else call.index
            call_id = (call.id or "")[:CALL_ID_MAX_CHARS]
            name = (function.name or "")[:CALL_ID_MAX_CHARS]
            events += self._calls.take(given, call_id, name, arguments)
            self._made_bytes += len(arguments)

    def _end(self, reason: str, events: list[Event]) -> None:
        if reason in FAILED_REASONS:
            message = f"the upstream server broke its answer off (finish_reason {reason!r})"
            events.append(failure_of("engine_failed", message, elsewhere=True))
            self.has_failed = True
            return
        self.is_whole = True
        if reason in FINISH_REASONS:
            self._reason = reason
        elif reason == "function_call":
            self._reason = "tool_calls"
        elif reason in {"max_tokens", "max_length"}:
            self._reason = "length"


def _entries(logprobs: Any) -> list[dict[str, Any]] | None:
    """Chat's list of logprob objects, made of the four lists of a text completion."""
    try:
        lists = msgspec.convert(logprobs, _Lists)
    except msgspec.ValidationError:
        return None
    tops = lists.top_logprobs or [None] * len(lists.tokens)
    return [
        {
            **_entry(token, logprob),
            "top_logprobs": [_entry(*other) for other in (top or {}).items()],
        }
        for token, logprob, top in zip(lists.tokens, lists.token_logprobs, tops, strict=False)
        if logprob is not None
    ]


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def usage_of(told: Any) -> _Usage:
    """What a server counted; also where it wrote its numbers as texts or as fractions."""
    try:
        return msgspec.convert(told or {}, _Usage, strict=False)
    except msgspec.ValidationError:
        return _Usage()


def is_count(tokens: int | None) -> bool:
    """Whether it can be believed."""
    return tokens is not None and 0 <= tokens <= TOKENS_MAX


def _estimate(job: Job) -> int:
    size = len(job.prompt or "") + sum(_length(message) for message in job.messages)
    return round(size / BYTES_PER_TOKEN) + len(job.prompt_tokens or ())


def _length(message: Any) -> int:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Sequence):
        return sum(
            len(text)
            for part in content
            if isinstance(part, Mapping) and isinstance(text := part.get("text"), str)
        )
    return 0
