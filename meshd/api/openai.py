"""A job's events as OpenAI's chat completion: one JSON object, or a stream of chunks.

What the specification and the official SDKs insist on, and most engines get wrong: `logprobs` and
`refusal` are present even when null; `role` stands in the first delta only; exactly one chunk has
a finish reason; with `include_usage` every chunk has `usage`, null until a last one without
choices; one `id` and one `created` per stream. After the first byte an error is an event with a
top-level `error`, which every SDK raises, and then the stream ends without `[DONE]`.

A stream's text chunk differs from the one before in nothing but its text, so all other bytes are
made once per stream: a token costs one JSON string, not one JSON object.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from meshd.api import sse
from meshd.api.errors import ApiError, from_failure
from meshd.core.ports import Batch
from protocol import limits
from protocol.jobs import Event, Failure, Finish, ReasoningDelta, TextDelta, ToolCallDelta

EMULATED = "emulated"
"""`system_fingerprint` of an answer that no model gave."""

_ENCODE = msgspec.json.Encoder().encode

INCOMPLETE = Failure(
    "engine_failed", "The answer broke off without an end; ask again.", elsewhere=False
)
"""Said when events stop without a Finish: no SDK notices a stream that just stops."""


class EventEncoder(Protocol):
    """Batches of events to the bytes of one dialect's stream."""

    ended: bool
    """A Finish or a Failure has been written: nothing may follow."""

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch, `b""` when it holds nothing to show."""
        ...


class AnswerBuilder(Protocol):
    """Batches of events to one whole answer of one dialect."""

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        ...

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        ...


def quote(text: str) -> bytes:
    """A JSON string. Lone surrogates, which UTF-8 cannot carry, become question marks."""
    try:
        return _ENCODE(text)
    except UnicodeEncodeError:
        return _ENCODE(text.encode(errors="replace").decode())


def usage(finish: Finish) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.cached_tokens},
    }


def error_event(failure: Failure) -> bytes:
    """A failure after the first byte."""
    return sse.event(from_failure(failure).body())


class ChatStream:
    """Encodes one chat stream."""

    def __init__(
        self, answer_id: str, created: int, model: str, *, include_usage: bool, emulated: bool
    ) -> None:
        identity = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,%b"choices":['
            % (quote(answer_id), created, quote(model), _fingerprint(emulated))
        )
        self._usage_head = identity + b'],"usage":'
        self._usage_wanted = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._delta_head = identity + b'{"index":0,"delta":'
        self._text_head = self._delta_head + b'{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._end
        self._begun = False
        self._calls: set[int] = set()
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        if not self._begun:
            self._begun = True
            if type(batch[0]) is not Failure:
                parts.append(self._chunk(b'{"role":"assistant","content":"","refusal":null}'))
        for event in batch:
            if self.ended:
                break
            if type(event) is TextDelta and event.logprobs is None:
                if event.text:
                    parts += (self._text_head, quote(event.text), self._text_tail)
            else:
                parts.append(self._rare(event))
        return b"".join(parts)

    def _rare(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                logprobs = encode({"content": event.logprobs, "refusal": None})
                return self._chunk(b'{"content":%b}' % quote(event.text), logprobs)
            case ReasoningDelta():
                return self._chunk(b'{"reasoning_content":%b}' % quote(event.text))
            case ToolCallDelta():
                return self._chunk(encode({"tool_calls": [self._tool_call(event)]}))
            case Finish():
                return self._finish(event)
            case Failure():
                self.ended = True
                return error_event(event)
            case _:
                return b""

    def _chunk(self, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        return b'%b%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._delta_head,
            delta,
            logprobs,
            reason,
            self._end,
        )

    def _tool_call(self, piece: ToolCallDelta) -> dict[str, Any]:
        """Id, type and name go into the first piece of a call only: SDKs concatenate them."""
        if piece.index in self._calls:
            return {"index": piece.index, "function": {"arguments": piece.arguments}}
        self._calls.add(piece.index)
        return {
            "index": piece.index,
            "id": piece.call_id,
            "type": "function",
            "function": {"name": piece.name, "arguments": piece.arguments},
        }

    def _finish(self, finish: Finish) -> bytes:
        self.ended = True
        last = self._chunk(b"{}", reason=quote(finish.reason))
        if self._usage_wanted:
            last += self._usage_head + _ENCODE(usage(finish)) + b"}\n\n"
        return last + sse.DONE


class ChatAnswer:
    """Builds one whole chat completion."""

    def __init__(
        self, answer_id: str, created: int, model: str, *, logprobs: bool, emulated: bool
    ) -> None:
        self._id = answer_id
        self._created = created
        self._model = model
        self._emulated = emulated
        self._logprobs: list[Any] | None = [] if logprobs else None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._room = AnswerRoom()
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        size = 0
        for event in batch:
            if type(event) is TextDelta:
                size += len(event.text)
                self._text.append(event.text)
                if self._logprobs is not None and event.logprobs:
                    self._logprobs.extend(event.logprobs)
            else:
                size += self._rare(event)
        self._room.take(size)

    def _rare(self, event: Event) -> int:
        """Takes in anything but text; its size in characters."""
        match event:
            case ReasoningDelta():
                self._reasoning.append(event.text)
                return len(event.text)
            case ToolCallDelta():
                self._tool_call(event)
                return len(event.name) + len(event.arguments)
            case Finish():
                self._finish = event
            case Failure():
                raise from_failure(event)
            case _:
                pass
        return 0

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        if self._finish is None:
            raise from_failure(INCOMPLETE)
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": None
            if self._logprobs is None
            else {"content": self._logprobs, "refusal": None},
            "finish_reason": self._finish.reason,
        }
        answer = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": usage(self._finish),
        }
        if self._emulated:
            answer["system_fingerprint"] = EMULATED
        return encode(answer)

    def _message(self) -> dict[str, Any]:
        text = "".join(self._text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self._calls else ""),
            "refusal": None,
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for _, call in sorted(self._calls.items())
            ]
        return message

    def _tool_call(self, piece: ToolCallDelta) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            self._calls[piece.index] = call = {
                "id": piece.call_id,
                "name": piece.name,
                "arguments": [],
            }
        call["arguments"].append(piece.arguments)


class AnswerRoom:
    """Bounds what one whole answer may hold in memory before it is written."""

    def __init__(self) -> None:
        self._left = limits.JOB_MAX_BYTES

    def take(self, characters: int) -> None:
        """Raises ApiError (502) when the answer has outgrown its room."""
        self._left -= characters
        if self._left < 0:
            raise ApiError(
                502,
                f"The answer is longer than {limits.JOB_MAX_BYTES} characters. "
                "Set 'max_tokens', or stream it.",
                code="answer_too_long",
                kind="server_error",
            )


def encode(answer: dict[str, Any]) -> bytes:
    """A whole answer as JSON; lone surrogates become question marks."""
    try:
        return _ENCODE(answer)
    except UnicodeEncodeError:
        return _ENCODE(_cleaned(answer))


def _cleaned(value: Any) -> Any:
    if type(value) is str:
        return value.encode(errors="replace").decode()
    if type(value) is list:
        return [_cleaned(item) for item in value]
    if type(value) is dict:
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


def _fingerprint(emulated: bool) -> bytes:
    return b'"system_fingerprint":"%b",' % EMULATED.encode() if emulated else b""
