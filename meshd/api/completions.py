"""A job's events as OpenAI's older text completion: `/v1/completions`, whole or streamed.

The same rules as for chat hold (`meshd.api.openai`), with two differences: text stands in the
choice itself, without a role, and logprobs are four parallel lists instead of a list of objects.
Reasoning has no place in this dialect; it is part of the text, as a completion model wrote it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api import sse
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
from meshd.api.openai import error_event, usage
from meshd.api.prompts import AskedCompletion, read_completion
from meshd.api.replies import refuse
from meshd.api.writing import EMULATED, INCOMPLETE, AnswerRoom, encode, quote
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


class CompletionStream(SseEncoder):
    """Encodes one choice of a stream of text completions."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        *,
        include_usage: bool = False,
        emulated: bool = False,
        index: int | None = None,
        echo: str = "",
    ) -> None:
        """`index` is the choice's number where there are several: then the last word is not said
        here. `echo` is text that comes before the answer."""
        fingerprint = b'"system_fingerprint":"%b",' % EMULATED.encode() if emulated else b""
        identity = (
            b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,%b"choices":['
            % (quote(answer_id), created, quote(model), fingerprint)
        )
        self._usage_head = identity + b'],"usage":'
        self._usage_wanted = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._text_head = identity + b'{"index":%d,"text":' % (index or 0)
        self._text_tail = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._logprobs = Logprobs()
        self._is_alone = index is None
        self._echo = echo
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        for event in batch:
            if self.ended:
                break
            if self._echo and type(event) not in PREAMBLE:
                parts += (self._text_head, quote(self._echo), self._text_tail)
                self._echo = ""
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
                    parts.append(notice(event))
        return b"".join(parts)

    def closing(self, finish: Finish) -> bytes:
        """Usage, where it was asked for, and the last word."""
        if not self._usage_wanted:
            return sse.DONE
        return self._usage_head + _ENCODE(usage(finish)) + b"}\n\n" + sse.DONE

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
        return last + self.closing(finish) if self._is_alone else last


class CompletionAnswer:
    """Builds one choice of a whole text completion, and the answer around it."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        *,
        logprobs: bool = False,
        emulated: bool = False,
        index: int = 0,
        room: AnswerRoom | None = None,
        echo: str = "",
    ) -> None:
        """`room` is shared where there are several choices; `echo` comes before the answer."""
        self._id = answer_id
        self._created = created
        self._model = model
        self._emulated = emulated
        self._index = index
        self._logprobs: list[Any] | None = [] if logprobs else None
        self._text: list[str] = [echo]
        self._room = room or AnswerRoom()
        self.finish: Finish | None = None

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
                    self.finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        if self.finish is None:
            raise from_failure(INCOMPLETE)
        return self.printed([self.choice()], self.finish)

    def choice(self) -> dict[str, Any]:
        """The entry of `choices`, once it has finished."""
        assert self.finish is not None
        logprobs = self._logprobs
        return {
            "index": self._index,
            "text": "".join(self._text),
            "logprobs": None if logprobs is None else Logprobs().convert(logprobs),
            "finish_reason": self.finish.reason,
        }

    def printed(self, choices: list[dict[str, Any]], finish: Finish) -> bytes:
        """The whole answer around `choices`."""
        answer: dict[str, Any] = {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": usage(finish),
        }
        if self._emulated:
            answer["system_fingerprint"] = EMULATED
        return encode(answer)


def _echoes(asked: AskedCompletion) -> list[str]:
    """What comes before each choice."""
    if not asked.echo:
        return [""] * (1 + len(asked.others))
    return [job.prompt or "" for job in (asked.job, *asked.others)]


def _identity(opening: Opening) -> tuple[str, int, str]:
    return f"cmpl-{opening.request_id}", opening.created, opening.head.model


def _stream(asked: AskedCompletion, opening: Opening) -> EventEncoder:
    streams = [
        CompletionStream(
            *_identity(opening),
            include_usage=asked.include_usage,
            emulated=opening.head.emulated,
            index=index if asked.others else None,
            echo=echo,
        )
        for index, echo in enumerate(_echoes(asked))
    ]
    return SeveralStreams(streams, asked.per_prompt) if asked.others else streams[0]


def _whole(asked: AskedCompletion, opening: Opening) -> AnswerBuilder:
    room = AnswerRoom()
    answers = [
        CompletionAnswer(
            *_identity(opening),
            logprobs=asked.job.logprobs,
            emulated=opening.head.emulated,
            index=index,
            room=room,
            echo=echo,
        )
        for index, echo in enumerate(_echoes(asked))
    ]
    return SeveralAnswers(answers, asked.per_prompt) if asked.others else answers[0]


COMPLETION = Dialect(read_completion, _stream, _whole, refuse)
"""OpenAI's older text completions."""
