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

from typing import Any

import msgspec

from meshd.api import sse
from meshd.api.chat import AskedChat, read_chat
from meshd.api.choices import SeveralAnswers, SeveralStreams
from meshd.api.dialect import (
    PREAMBLE,
    AnswerBuilder,
    Dialect,
    EventEncoder,
    Opening,
    SseEncoder,
    notice,
)
from meshd.api.errors import from_failure
from meshd.api.replies import refuse
from meshd.api.writing import EMULATED, INCOMPLETE, AnswerRoom, encode, quote, quotes
from meshd.core.ports import Batch, Note
from protocol.jobs import Event, Failure, Finish, ReasoningDelta, TextDelta, ToolCallDelta

_ENCODE = msgspec.json.Encoder().encode


def usage(finish: Finish, thought_ratio: float = 0.0) -> dict[str, Any]:
    """OpenAI's usage object. No engine counts thoughts apart, so their tokens are told by their
    share of the characters, and only where there were any."""
    account: dict[str, Any] = {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.cached_tokens},
    }
    if thought_ratio:
        thoughts = round(finish.completion_tokens * thought_ratio)
        account["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return account


def error_event(failure: Failure) -> bytes:
    """A failure after the first byte."""
    return sse.event(from_failure(failure).body())


def finish_reason(finish: Finish, *, has_called: bool, is_legacy: bool) -> str:
    """Why it ended, in the words in which the tools were offered. Some servers say "stop" after a
    call, and there are editors that make no call then."""
    reason = "tool_calls" if has_called and finish.reason == "stop" else finish.reason
    return "function_call" if is_legacy and reason == "tool_calls" else reason


def call_id(answer_id: str, piece: ToolCallDelta) -> str:
    """What a call is known by, also where its server gave it no name."""
    return piece.call_id or f"call_{answer_id}_{piece.index}"


class ChatStream(SseEncoder):
    """Encodes one choice of a chat stream; with `is_legacy` its call in the words of 2023."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        *,
        include_usage: bool = False,
        emulated: bool = False,
        is_legacy: bool = False,
        is_parallel: bool = True,
        index: int | None = None,
    ) -> None:
        """`index` is the choice's number where there are several: then the last word is not said
        here. Unless `is_parallel`, only the first call is told."""
        identity = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,%b"choices":['
            % (quote(answer_id), created, quote(model), _fingerprint(emulated))
        )
        self._id = answer_id
        self._usage_head = identity + b'],"usage":'
        self._usage_wanted = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._delta_head = identity + b'{"index":%d,"delta":' % (index or 0)
        self._text_head = self._delta_head + b'{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._end
        self._is_legacy = is_legacy
        self._is_parallel = is_parallel
        self._is_alone = index is None
        self._begun = False
        self._calls: set[int] = set()
        self._thought_chars = 0
        self._said_chars = 0
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        texts: list[str] = []
        for event in batch:
            if type(event) is TextDelta and event.logprobs is None:
                texts.append(event.text)
                continue
            if texts:
                parts.append(self._said(texts))
                texts = []
            parts.append(self._rare(event))
        if texts:
            parts.append(self._said(texts))
        return b"".join(parts)

    def closing(self, finish: Finish) -> bytes:
        """Usage, where it was asked for, and the last word."""
        if not self._usage_wanted:
            return sse.DONE
        ratio = _ratio(self._thought_chars, self._said_chars)
        return self._usage_head + _ENCODE(usage(finish, ratio)) + b"}\n\n" + sse.DONE

    def _said(self, texts: list[str]) -> bytes:
        """A chunk for each text that is not empty, all at once."""
        if self.ended:
            return b""
        role = b"" if self._begun else self._begin()
        said = quotes(texts)
        if not said:
            return role
        self._said_chars += sum(map(len, texts))
        between = self._text_tail + self._text_head
        return b"%b%b%b%b" % (role, self._text_head, between.join(said), self._text_tail)

    def _begin(self) -> bytes:
        self._begun = True
        return self._chunk(b'{"role":"assistant","content":"","refusal":null}')

    def _rare(self, event: Event | Note) -> bytes:
        if self.ended:
            return b""
        role = b"" if self._begun or type(event) in PREAMBLE else self._begin()
        return role + self._told(event)

    def _told(self, event: Event | Note) -> bytes:
        match event:
            case TextDelta():
                logprobs = encode({"content": event.logprobs, "refusal": None})
                return self._chunk(b'{"content":%b}' % quote(event.text), logprobs)
            case ReasoningDelta():
                self._thought_chars += len(event.text)
                return self._chunk(b'{"reasoning_content":%b}' % quote(event.text))
            case ToolCallDelta():
                return self._tool_call(event)
            case Finish():
                self.ended = True
                called = bool(self._calls)
                reason = finish_reason(event, has_called=called, is_legacy=self._is_legacy)
                last = self._chunk(b"{}", reason=quote(reason))
                return last + self.closing(event) if self._is_alone else last
            case Failure():
                self.ended = True
                return error_event(event)
            case _:
                return notice(event)

    def _chunk(self, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        return b'%b%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._delta_head,
            delta,
            logprobs,
            reason,
            self._end,
        )

    def _tool_call(self, piece: ToolCallDelta) -> bytes:
        """Id, type and name go into the first piece of a call only: SDKs concatenate them."""
        self._said_chars += len(piece.name) + len(piece.arguments)
        function = {"arguments": piece.arguments}
        is_new = piece.index not in self._calls
        if is_new and self._calls and not self._is_parallel:
            return b""
        self._calls.add(piece.index)
        if is_new:
            function = {"name": piece.name, "arguments": piece.arguments}
        if self._is_legacy:
            return b"" if piece.index else self._chunk(encode({"function_call": function}))
        call: dict[str, Any] = {"index": piece.index}
        if is_new:
            call |= {"id": call_id(self._id, piece), "type": "function"}
        return self._chunk(encode({"tool_calls": [call | {"function": function}]}))


class ChatAnswer:
    """Builds one choice of a whole chat completion, and the answer around it."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        *,
        logprobs: bool = False,
        emulated: bool = False,
        is_legacy: bool = False,
        is_parallel: bool = True,
        index: int = 0,
        room: AnswerRoom | None = None,
    ) -> None:
        """`room` is shared where there are several choices. Unless `is_parallel`, only the first
        call is told."""
        self._id = answer_id
        self._created = created
        self._model = model
        self._emulated = emulated
        self._is_legacy = is_legacy
        self._is_parallel = is_parallel
        self._index = index
        self._logprobs: list[Any] | None = [] if logprobs else None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._call_chars = 0
        self._room = room or AnswerRoom()
        self.finish: Finish | None = None

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

    def _rare(self, event: Event | Note) -> int:
        """Takes in anything but text; its size in characters."""
        match event:
            case ReasoningDelta():
                self._reasoning.append(event.text)
                return len(event.text)
            case ToolCallDelta():
                self._tool_call(event)
                size = len(event.name) + len(event.arguments)
                self._call_chars += size
                return size
            case Finish():
                self.finish = event
            case Failure():
                raise from_failure(event)
            case _:
                pass
        return 0

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        if self.finish is None:
            raise from_failure(INCOMPLETE)
        return self.printed([self.choice()], self.finish)

    def choice(self) -> dict[str, Any]:
        """The entry of `choices`, once it has finished."""
        assert self.finish is not None
        logprobs, called = self._logprobs, bool(self._calls)
        return {
            "index": self._index,
            "message": self._message(),
            "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
            "finish_reason": finish_reason(
                self.finish, has_called=called, is_legacy=self._is_legacy
            ),
        }

    def printed(self, choices: list[dict[str, Any]], finish: Finish) -> bytes:
        """The whole answer around `choices`."""
        answer = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": usage(finish, self._thought_ratio()),
        }
        if self._emulated:
            answer["system_fingerprint"] = EMULATED
        return encode(answer)

    def _thought_ratio(self) -> float:
        return _ratio(sum(map(len, self._reasoning)), sum(map(len, self._text)) + self._call_chars)

    def _message(self) -> dict[str, Any]:
        text = "".join(self._text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self._calls else ""),
            "refusal": None,
            "annotations": [],
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            calls = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for _, call in sorted(self._calls.items())
            ]
            if self._is_legacy:
                message["function_call"] = calls[0]["function"]
            else:
                message["tool_calls"] = calls
        return message

    def _tool_call(self, piece: ToolCallDelta) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            if self._calls and not self._is_parallel:
                return
            self._calls[piece.index] = call = {
                "id": call_id(self._id, piece),
                "name": piece.name,
                "arguments": [],
            }
        call["arguments"].append(piece.arguments)


def _ratio(thought_chars: int, said_chars: int) -> float:
    return thought_chars / (thought_chars + said_chars) if thought_chars else 0.0


def _fingerprint(emulated: bool) -> bytes:
    return b'"system_fingerprint":"%b",' % EMULATED.encode() if emulated else b""


def _stream(asked: AskedChat, opening: Opening) -> EventEncoder:
    if not asked.others:
        return _chat_stream(asked, opening, None)
    count = 1 + len(asked.others)
    return SeveralStreams([_chat_stream(asked, opening, index) for index in range(count)], count)


def _chat_stream(asked: AskedChat, opening: Opening, index: int | None) -> ChatStream:
    return ChatStream(
        f"chatcmpl-{opening.request_id}",
        opening.created,
        opening.head.model,
        include_usage=asked.include_usage,
        emulated=opening.head.emulated,
        is_legacy=asked.is_legacy,
        is_parallel=asked.is_parallel,
        index=index,
    )


def _whole(asked: AskedChat, opening: Opening) -> AnswerBuilder:
    room = AnswerRoom()
    if not asked.others:
        return _chat_answer(asked, opening, 0, room)
    count = 1 + len(asked.others)
    answers = [_chat_answer(asked, opening, index, room) for index in range(count)]
    return SeveralAnswers(answers, count)


def _chat_answer(asked: AskedChat, opening: Opening, index: int, room: AnswerRoom) -> ChatAnswer:
    return ChatAnswer(
        f"chatcmpl-{opening.request_id}",
        opening.created,
        opening.head.model,
        logprobs=asked.job.logprobs,
        emulated=opening.head.emulated,
        is_legacy=asked.is_legacy,
        is_parallel=asked.is_parallel,
        index=index,
        room=room,
    )


CHAT = Dialect(read_chat, _stream, _whole, refuse)
"""OpenAI's chat completions."""
