"""A job's events as Anthropic's message: one JSON object, or a stream of named events.

The order of a stream is fixed: `message_start`, `ping`, then block by block `content_block_start`,
`content_block_delta` ... and `content_block_stop`, at last `message_delta` with the reason and the
counts, and `message_stop`. The SDKs skip events that have no name in an `event:` line. After the
first byte a failure is an `error` event, which they raise.

Blocks follow each other and are numbered (`meshd.api.anthropic_content`). An answer that says
nothing at all has one empty text block, because programs read the first block without asking.

The counts at the beginning are an estimate (the engine counts at the end), and `input_tokens`
leaves out what was read from the cache, as Anthropic counts.
"""

from __future__ import annotations

from typing import Any

from meshd.api.anthropic import AskedMessage, read_message
from meshd.api.anthropic_content import UNSIGNED, Block, Content
from meshd.api.dialect import AnswerBuilder, Dialect, EventEncoder, Opening, SseEncoder, notice
from meshd.api.errors import ApiError, from_failure
from meshd.api.writing import INCOMPLETE, encode, quote
from meshd.core.ports import Batch, Note
from protocol.jobs import Event, Failure, Finish, TextDelta

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; other statuses below 500 are the caller's (`invalid_request_error`), the rest ours
(`api_error`)."""

OVERLOADED = 529
"""Anthropic's own status for what HTTP calls 503."""

TOO_LONG = "prompt is too long"
"""How Anthropic's servers begin to say so. There is no code for it: coding agents look for these
words, and shorten the conversation and go on, where any other 400 ends their turn."""


class MessageAnswer:
    """Builds one whole message."""

    def __init__(self, asked: AskedMessage, opening: Opening) -> None:
        self._asked = asked
        self._opening = opening
        self._content = Content(asked, opening.request_id)
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        for event in batch:
            match event:
                case Finish():
                    self._finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    placed = self._content.place(event)
                    if placed is not None:
                        placed[0].pieces.append(placed[1])

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        finish = self._finish
        if finish is None:
            raise from_failure(INCOMPLETE)
        if not self._content.blocks:
            self._content.text()
        return encode(
            {
                **_message(self._opening),
                "content": [block.finished() for block in self._content.blocks],
                **_stop(finish, self._content),
                "usage": _usage(self._asked, finish, self._content.thought_ratio()),
            }
        )


class MessageStream(SseEncoder):
    """Encodes one stream of events."""

    def __init__(self, asked: AskedMessage, opening: Opening) -> None:
        self._asked = asked
        self._opening = opening
        self._content = Content(asked, opening.request_id)
        self._block: Block | None = None
        self._index = 0
        self._begun = False
        self._text_head = b""
        self._is_silent = asked.is_silent

    def heartbeat(self) -> bytes:
        """This dialect has an event for it."""
        return PING

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch."""
        parts: list[bytes] = []
        for event in batch:
            if self.ended:
                break
            if not self._begun and type(event) is not Failure:
                self._begun = True
                parts += [self._start(), PING]
            try:
                if type(event) is TextDelta:
                    parts += self._text(event.text)
                else:
                    parts += self._rare(event)
            except ApiError as error:
                parts.append(self._failed(error))
        return b"".join(parts)

    def _text(self, text: str) -> list[bytes]:
        """The common case: all bytes but the text are made once per block."""
        if not text or self._is_silent:
            return []
        parts = self._turn_to(self._content.text(len(text)))
        parts += (self._text_head, quote(text), b"}}\n\n")
        return parts

    def _rare(self, event: Event | Note) -> list[bytes]:
        match event:
            case Finish():
                return self._finished(event)
            case Failure():
                raise from_failure(event)
            case _:
                placed = self._content.place(event)
                if placed is None:
                    return [notice(event)]
                block, piece = placed
                parts = self._turn_to(block)
                if piece:
                    parts.append(self._delta(block.delta(piece)))
                return parts

    def _turn_to(self, block: Block) -> list[bytes]:
        """Closes the block that was open and begins `block`, where it is another one."""
        if block is self._block:
            return []
        parts = self._close()
        self._block, self._index = block, len(self._content.blocks) - 1
        started = {"index": self._index, "content_block": block.begun()}
        parts.append(_event("content_block_start", started))
        self._text_head = (
            b"event: content_block_delta\ndata: {"
            b'"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'
            % self._index
        )
        return parts

    def _close(self) -> list[bytes]:
        if self._block is None:
            return []
        parts = []
        if self._block.kind == "thinking":
            parts.append(self._delta({"type": "signature_delta", "signature": UNSIGNED}))
        parts.append(_event("content_block_stop", {"index": self._index}))
        return parts

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def _start(self) -> bytes:
        asked = self._asked
        message = {
            **_message(self._opening),
            "content": [],
            **_NOT_STOPPED,
            "usage": _usage(asked, Finish("stop", asked.prompt_tokens, 0), 0.0),
        }
        return _event("message_start", {"message": message})

    def _finished(self, finish: Finish) -> list[bytes]:
        self.ended = True
        parts = [] if self._content.blocks else self._turn_to(self._content.text())
        parts += self._close()
        usage = _usage(self._asked, finish, self._content.thought_ratio())
        delta = {**_stop(finish, self._content), "container": None}
        return [
            *parts,
            _event("message_delta", {"delta": delta, "usage": usage}),
            _event("message_stop", {}),
        ]

    def _failed(self, error: ApiError) -> bytes:
        self.ended = True
        _, body = refuse(error, self._opening.request_id)
        return b"event: error\ndata: %b\n\n" % body


def refuse(error: ApiError, request_id: str) -> tuple[int, bytes]:
    """Status and body of an error in Anthropic's shape."""
    kind = ERROR_TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message
    if error.code == "context_length_exceeded" and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    said = {"type": kind, "message": message}
    status = OVERLOADED if kind == "overloaded_error" else error.status
    return status, encode({"type": "error", "error": said, "request_id": request_id})


_NOT_STOPPED = {"stop_reason": None, "stop_sequence": None, "stop_details": None}


def _message(opening: Opening) -> dict[str, Any]:
    return {
        "id": f"msg_{opening.request_id}",
        "type": "message",
        "role": "assistant",
        "model": opening.head.model,
        "container": None,
    }


def _stop(finish: Finish, content: Content) -> dict[str, Any]:
    """Why it ended. A call that was asked for by name ends, with OpenAI's servers, in a plain
    "stop"; with Anthropic it is a call like any other."""
    if finish.stop and finish.reason == "stop":
        stopped = {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
    elif finish.reason == "stop" and any(block.kind == "tool_use" for block in content.blocks):
        stopped = {"stop_reason": STOP_REASONS["tool_calls"]}
    else:
        stopped = {"stop_reason": STOP_REASONS[finish.reason]}
    return {**_NOT_STOPPED, **stopped}


def _usage(asked: AskedMessage, finish: Finish, thought_ratio: float) -> dict[str, Any]:
    """Anthropic's counts; the thoughts' are the share that they have in the answer's characters."""
    thoughts = round(finish.completion_tokens * thought_ratio)
    return {
        "input_tokens": max(0, finish.prompt_tokens - finish.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": finish.cached_tokens,
        "cache_creation": None,
        "output_tokens": finish.completion_tokens,
        "output_tokens_details": {"thinking_tokens": thoughts} if thoughts else None,
        "server_tool_use": None,
        "service_tier": "batch" if asked.job.priority == "batch" else "standard",
        "inference_geo": None,
    }


def _event(name: str, keys: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode({"type": name, **keys}))


def _stream(asked: AskedMessage, opening: Opening) -> EventEncoder:
    return MessageStream(asked, opening)


def _whole(asked: AskedMessage, opening: Opening) -> AnswerBuilder:
    return MessageAnswer(asked, opening)


MESSAGES = Dialect(read_message, _stream, _whole, refuse)
"""`POST /v1/messages`."""
