"""A job's events as OpenAI's older text completion: `/v1/completions`, whole or streamed.

The same rules as for chat hold (`meshd.api.openai`), with two differences: text stands in the
choice itself, without a role, and logprobs are four parallel lists instead of a list of objects.
Reasoning has no place in this dialect; it is part of the text, as a completion model wrote it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api import sse
from meshd.api.errors import from_failure
from meshd.api.openai import (
    EMULATED,
    INCOMPLETE,
    AnswerRoom,
    encode,
    error_event,
    quote,
    usage,
)
from meshd.core.ports import Batch
from protocol.jobs import Failure, Finish, ReasoningDelta, TextDelta

_ENCODE = msgspec.json.Encoder().encode


class Logprobs:
    """Chat's list of logprob objects, turned into the older four lists, piece by piece."""

    def __init__(self) -> None:
        self._offset = 0

    def convert(self, entries: list[dict[str, Any]]) -> dict[str, list[Any]]:
        """The four lists of one piece; `text_offset` counts from the start of the answer."""
        offsets = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in entry.get("top_logprobs") or ()}
                for entry in entries
            ],
            "text_offset": offsets,
        }


class CompletionStream:
    """Encodes one stream of text completions."""

    def __init__(
        self, answer_id: str, created: int, model: str, *, include_usage: bool, emulated: bool
    ) -> None:
        fingerprint = b'"system_fingerprint":"%b",' % EMULATED.encode() if emulated else b""
        identity = (
            b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,%b"choices":['
            % (quote(answer_id), created, quote(model), fingerprint)
        )
        self._usage_head = identity + b'],"usage":'
        self._usage_wanted = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._text_head = identity + b'{"index":0,"text":'
        self._text_tail = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._logprobs = Logprobs()
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        for event in batch:
            if self.ended:
                break
            match event:
                case TextDelta(text=text, logprobs=None) | ReasoningDelta(text=text):
                    if text:
                        parts += (self._text_head, quote(text), self._text_tail)
                case TextDelta():
                    parts.append(self._with_logprobs(event))
                case Finish():
                    parts.append(self._finish(event))
                case Failure():
                    self.ended = True
                    parts.append(error_event(event))
                case _:
                    pass
        return b"".join(parts)

    def _with_logprobs(self, event: TextDelta) -> bytes:
        lists = encode(self._logprobs.convert(event.logprobs))
        return self._chunk(quote(event.text), lists, b"null")

    def _chunk(self, text: bytes, logprobs: bytes, reason: bytes) -> bytes:
        return b'%b%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._text_head,
            text,
            logprobs,
            reason,
            self._end,
        )

    def _finish(self, finish: Finish) -> bytes:
        self.ended = True
        last = self._chunk(b'""', b"null", quote(finish.reason))
        if self._usage_wanted:
            last += self._usage_head + _ENCODE(usage(finish)) + b"}\n\n"
        return last + sse.DONE


class CompletionAnswer:
    """Builds one whole text completion."""

    def __init__(
        self, answer_id: str, created: int, model: str, *, logprobs: bool, emulated: bool
    ) -> None:
        self._id = answer_id
        self._created = created
        self._model = model
        self._emulated = emulated
        self._logprobs: list[Any] | None = [] if logprobs else None
        self._text: list[str] = []
        self._room = AnswerRoom()
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        for event in batch:
            match event:
                case TextDelta() | ReasoningDelta():
                    self._room.take(len(event.text))
                    self._text.append(event.text)
                    if type(event) is TextDelta and event.logprobs and self._logprobs is not None:
                        self._logprobs.extend(event.logprobs)
                case Finish():
                    self._finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        if self._finish is None:
            raise from_failure(INCOMPLETE)
        choice = {
            "index": 0,
            "text": "".join(self._text),
            "logprobs": None if self._logprobs is None else Logprobs().convert(self._logprobs),
            "finish_reason": self._finish.reason,
        }
        answer: dict[str, Any] = {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": usage(self._finish),
        }
        if self._emulated:
            answer["system_fingerprint"] = EMULATED
        return encode(answer)
