"""A job's events as a Responses answer: one response object, or the stream of events behind it.

The order of a stream is fixed: `response.created`, `response.in_progress`, each item's own steps
(`meshd.api.responses_items`), then one of `response.completed`, `response.incomplete` or
`response.failed`, which carries the whole answer once more. Every event has its name in an `event:`
line and a `sequence_number` that counts from 0. `[DONE]` follows a good end: Open Responses asks
for it, and OpenAI's SDKs read it as the end.

After the first byte a failure is an `error` event and then `response.failed`, as OpenAI sends them:
the first is what makes an SDK raise, the second is what Codex and other readers of events wait for.
Codex is told of a prompt that is too long in this way only: by it, it shortens the conversation and
goes on, where a 400 ends both the turn and the shortening. SDKs tell more of a 400, and get one.

`completed_at` is the beginning plus the engine's own time: dialects read no clock.
"""

from __future__ import annotations

from typing import Any

from meshd.api import sse
from meshd.api.dialect import (
    AnswerBuilder,
    Dialect,
    EventEncoder,
    Opening,
    SseEncoder,
    notice,
)
from meshd.api.errors import ApiError, from_failure
from meshd.api.replies import refuse
from meshd.api.responses import AskedResponse, read_response
from meshd.api.responses_items import Item, MessageItem, Output, Step
from meshd.api.writing import INCOMPLETE, encode, quote
from meshd.core.ports import Batch, Note
from protocol.jobs import Event, Failure, Finish, TextDelta

REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons for which an answer counts as incomplete."""

ERROR_CODES = frozenset({"rate_limit_exceeded", "context_length_exceeded"})
"""Codes of failures that clients act on; every other one is a `server_error` to them."""


class ResponseObject:
    """The response as it is printed, at its beginning and at its end."""

    def __init__(self, asked: AskedResponse, opening: Opening) -> None:
        self._created = opening.created
        self._base: dict[str, Any] = {
            "id": f"resp_{opening.request_id}",
            "object": "response",
            "created_at": opening.created,
            "completed_at": None,
            "status": "in_progress",
            "incomplete_details": None,
            "error": None,
            "model": opening.head.model,
            "previous_response_id": None,
            "output": [],
            "usage": None,
            "truncation": "disabled",
            "store": False,
            "background": False,
            **asked.echo,
        }

    def begun(self) -> dict[str, Any]:
        """Before anything was said."""
        return self._base

    def finished(self, output: Output, finish: Finish) -> dict[str, Any]:
        """Whole, or cut at a limit, which makes the last item incomplete too."""
        status = status_of(finish)
        because = REASONS.get(finish.reason)
        seconds = round(finish.queue_s + finish.prompt_s + finish.generation_s)
        return {
            **self._base,
            "status": status,
            "completed_at": None if because else self._created + seconds,
            "incomplete_details": {"reason": because} if because else None,
            "output": _printed(output, status),
            "usage": _usage(finish, output.thought_ratio()),
        }

    def failed(self, output: Output, error: ApiError) -> dict[str, Any]:
        """Broken off, with what there was until then."""
        code = error.code if error.code in ERROR_CODES else "server_error"
        return {
            **self._base,
            "status": "failed",
            "error": {"code": code, "message": error.message},
            "output": _printed(output, "incomplete"),
        }


class ResponseAnswer:
    """Builds one whole response."""

    def __init__(self, asked: AskedResponse, opening: Opening) -> None:
        self._object = ResponseObject(asked, opening)
        self._output = Output(asked, opening)
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        for event in batch:
            if isinstance(event, Finish):
                self._finish = event
            elif isinstance(event, Failure):
                raise from_failure(event)
            else:
                item = self._output.place(event)
                if item is not None:
                    for _ in item.take(event):
                        pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        if self._finish is None:
            raise from_failure(INCOMPLETE)
        if not self._output.items:
            self._output.message()
        return encode(self._object.finished(self._output, self._finish))


class ResponseStream(SseEncoder):
    """Encodes one stream of events."""

    def __init__(self, asked: AskedResponse, opening: Opening) -> None:
        self._object = ResponseObject(asked, opening)
        self._output = Output(asked, opening)
        self._item: Item | None = None
        self._index = 0
        self._number = 0
        self._text_head = b""

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        if not self._number:
            parts += [self._state("created"), self._state("in_progress")]
        for event in batch:
            if self.ended:
                break
            try:
                if type(event) is TextDelta and event.logprobs is None:
                    parts += self._text(event.text)
                else:
                    parts += self._rare(event)
            except ApiError as error:
                parts += self._failed(error)
        return b"".join(parts)

    def _text(self, text: str) -> list[bytes]:
        """The common case: all bytes but the text and the number are made once per message."""
        if not text:
            return []
        item = self._output.message(len(text))
        parts = self._turn_to(item)
        item.texts.append(text)
        parts += (self._text_head, quote(text), b',"sequence_number":%d}\n\n' % self._number)
        self._number += 1
        return parts

    def _rare(self, event: Event | Note) -> list[bytes]:
        match event:
            case Finish():
                return self._finished(event)
            case Failure():
                raise from_failure(event)
            case _:
                item = self._output.place(event)
                if item is None:
                    return [notice(event)]
                parts = self._turn_to(item)
                return parts + [self._step(step) for step in item.take(event)]

    def _turn_to(self, item: Item) -> list[bytes]:
        """Closes the item that was open and opens `item`, where it is another one."""
        if item is self._item:
            return []
        parts = self._close("completed")
        self._item, self._index = item, len(self._output.items) - 1
        parts += [self._step(step) for step in item.opening()]
        if isinstance(item, MessageItem):
            self._text_head = (
                b"event: response.output_text.delta\ndata: "
                b'{"type":"response.output_text.delta","item_id":%b,"output_index":%d,'
                b'"content_index":0,"logprobs":[],"delta":' % (quote(item.id), self._index)
            )
        return parts

    def _close(self, status: str) -> list[bytes]:
        if self._item is None:
            return []
        return [self._step(step) for step in self._item.closing(status)]

    def _finished(self, finish: Finish) -> list[bytes]:
        self.ended = True
        status = status_of(finish)
        parts = [] if self._output.items else self._turn_to(self._output.message())
        parts += self._close(status)
        response = self._object.finished(self._output, finish)
        return [*parts, self._event(f"response.{status}", {"response": response}), sse.DONE]

    def _failed(self, error: ApiError) -> list[bytes]:
        self.ended = True
        said = {"code": error.code, "message": error.message, "param": error.param}
        response = self._object.failed(self._output, error)
        return [
            self._event("error", {**said, "error": {"type": error.kind, **said}}),
            self._event("response.failed", {"response": response}),
        ]

    def _state(self, state: str) -> bytes:
        return self._event(f"response.{state}", {"response": self._object.begun()})

    def _step(self, step: Step) -> bytes:
        name, keys = step
        return self._event(f"response.{name}", {"output_index": self._index, **keys})

    def _event(self, name: str, keys: dict[str, Any]) -> bytes:
        payload = encode({"type": name, "sequence_number": self._number, **keys})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), payload)


def status_of(finish: Finish) -> str:
    """`incomplete` where a limit ended the answer, else `completed`."""
    return "incomplete" if finish.reason in REASONS else "completed"


def _printed(output: Output, last: str) -> list[dict[str, Any]]:
    """The items; all but the last are over."""
    before = [item.print("completed") for item in output.items[:-1]]
    return before + [item.print(last) for item in output.items[-1:]]


def _usage(finish: Finish, thought_ratio: float) -> dict[str, Any]:
    """Token counts; the thoughts' are the share that they have in the answer's characters."""
    return {
        "input_tokens": finish.prompt_tokens,
        "input_tokens_details": {"cached_tokens": finish.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": finish.completion_tokens,
        "output_tokens_details": {
            "reasoning_tokens": round(finish.completion_tokens * thought_ratio)
        },
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
    }


def _stream(asked: AskedResponse, opening: Opening) -> EventEncoder:
    return ResponseStream(asked, opening)


def _whole(asked: AskedResponse, opening: Opening) -> AnswerBuilder:
    return ResponseAnswer(asked, opening)


RESPONSES = Dialect(read_response, _stream, _whole, refuse)
"""`POST /v1/responses`."""
