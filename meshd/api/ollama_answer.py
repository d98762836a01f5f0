"""A job's events as Ollama's answer: JSON objects, one to a line, or one whole object.

Chat and generate differ only in where words stand: in `message.content` and `message.thinking`, or
in `response` and `thinking`. The last object has `done` true, why it ended, and the account:
counts of tokens, and durations in nanoseconds that add up (`load_duration` is all the time before
the prompt was read: waiting and loading).

A tool call crosses whole and with its arguments as an object, so calls are put together here and
written before the last object. What a model wrote as arguments and is no JSON object is an error,
never an empty call.

There are no comments in lines of JSON, so what the gateway remarks on the way (an answer that was
continued on another machine) stands in the last object, as `mesh_notes`.

An error after the first byte is a line `{"error": "..."}`, which the official clients raise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from meshd.api.dialect import Opening
from meshd.api.errors import ApiError, from_failure
from meshd.api.writing import INCOMPLETE, AnswerRoom, encode, quote
from meshd.core.ports import Batch, Note
from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Finish, ReasoningDelta, TextDelta, ToolCallDelta

NANOSECONDS = 1_000_000_000
"""Ollama's durations are whole nanoseconds."""

NOTES_MAX = 16
"""Remarks kept for the last object: an answer has at most two seams, and each says one thing."""

DONE_REASONS = {"stop": "stop", "length": "length", "tool_calls": "stop"}
"""Ollama's words for why an answer ended; others are passed on as they are."""


@frozen
class Words:
    """Where one of the two verbs puts what a model says."""

    text: tuple[bytes, bytes]
    """What stands before and behind a piece of text."""
    thought: tuple[bytes, bytes]
    """The same for a piece of thinking."""
    is_chat: bool

    def object(self, text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """All that a model said, in one object."""
        thinking = {"thinking": thought} if thought else {}
        if not self.is_chat:
            return {"response": text, **thinking}
        tool_calls = {"tool_calls": calls} if calls else {}
        return {"message": {"role": "assistant", "content": text, **thinking, **tool_calls}}


CHAT_WORDS = Words(
    (b'"message":{"role":"assistant","content":', b"}"),
    (b'"message":{"role":"assistant","content":"","thinking":', b"}"),
    is_chat=True,
)
GENERATE_WORDS = Words((b'"response":', b""), (b'"response":"","thinking":', b""), is_chat=False)


class OllamaStream:
    """Encodes one stream."""

    def __init__(self, opening: Opening, words: Words) -> None:
        self._words = words
        self._identity = identity(opening)
        self._is_emulated = opening.head.emulated
        self._head = encode(self._identity)[:-1] + b","
        self._text_head = self._head + words.text[0]
        self._text_tail = words.text[1] + b',"done":false}\n'
        self._thought_head = self._head + words.thought[0]
        self._thought_tail = words.thought[1] + b',"done":false}\n'
        self._calls = Calls()
        self._notes: list[str] = []
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The lines of one batch."""
        parts: list[bytes] = []
        for event in batch:
            if self.ended:
                break
            if type(event) is TextDelta and event.logprobs is None:
                if event.text:
                    parts += (self._text_head, quote(event.text), self._text_tail)
            else:
                parts.append(self._rare(event))
        return b"".join(parts)

    def heartbeat(self) -> bytes:
        """Nothing: every line must be an object of the answer."""
        return b""

    def _rare(self, event: Event | Note) -> bytes:
        match event:
            case TextDelta():
                piece = self._words.object(event.text, "", [])
                return self._line(piece | {"logprobs": event.logprobs, "done": False})
            case ReasoningDelta():
                return self._thought_head + quote(event.text) + self._thought_tail
            case ToolCallDelta():
                return self._called(event)
            case Finish():
                return self._finish(event)
            case Failure():
                return self._fail(from_failure(event))
            case Note():
                self._notes = [*self._notes, event.text][-NOTES_MAX:]
            case _:
                pass
        return b""

    def _called(self, piece: ToolCallDelta) -> bytes:
        try:
            self._calls.add(piece)
        except ApiError as error:
            return self._fail(error)
        return b""

    def _finish(self, finish: Finish) -> bytes:
        try:
            calls = self._calls.whole()
        except ApiError as error:
            return self._fail(error)
        self.ended = True
        said = b""
        if calls:
            said = self._line(self._words.object("", "", calls) | {"done": False})
        last = self._words.object("", "", []) | account(finish)
        if self._is_emulated:
            last["emulated"] = True
        if self._notes:
            last["mesh_notes"] = self._notes
        return said + self._line(last)

    def _fail(self, error: ApiError) -> bytes:
        self.ended = True
        return encode({"error": error.message}) + b"\n"

    def _line(self, rest: dict[str, Any]) -> bytes:
        return encode(self._identity | rest) + b"\n"


class OllamaAnswer:
    """Builds one whole answer. With `loads` it is about the model being loaded, and says nothing
    of what was said."""

    def __init__(self, opening: Opening, words: Words, *, loads: bool = False) -> None:
        self._words = words
        self._loads = loads
        self._identity = identity(opening)
        self._is_emulated = opening.head.emulated
        self._text: list[str] = []
        self._thought: list[str] = []
        self._logprobs: list[Any] = []
        self._calls = Calls()
        self._room = AnswerRoom()
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        for event in batch:
            match event:
                case TextDelta():
                    self._room.take(len(event.text))
                    self._text.append(event.text)
                    self._logprobs.extend(event.logprobs or ())
                case ReasoningDelta():
                    self._room.take(len(event.text))
                    self._thought.append(event.text)
                case ToolCallDelta():
                    self._calls.add(event)
                case Finish():
                    self._finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished or a call cannot be read."""
        if self._finish is None:
            raise from_failure(INCOMPLETE)
        if self._loads:
            said = self._words.object("", "", [])
            return encode(self._identity | said | {"done": True, "done_reason": "load"})
        answer = self._identity | self._words.object(
            "".join(self._text), "".join(self._thought), self._calls.whole()
        )
        if self._logprobs:
            answer["logprobs"] = self._logprobs
        if self._is_emulated:
            answer["emulated"] = True
        return encode(answer | account(self._finish))


class Calls:
    """Tool calls, put together from their pieces."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[ToolCallDelta]] = {}
        self._room = AnswerRoom()

    def add(self, piece: ToolCallDelta) -> None:
        """Take in a piece. Raises ApiError (502) when there is no more room."""
        self._room.take(len(piece.name) + len(piece.arguments) + 1)
        self._pieces.setdefault(piece.index, []).append(piece)

    def whole(self) -> list[dict[str, Any]]:
        """The calls in order. Raises ApiError (502) for arguments that are no JSON object."""
        return [
            {
                "id": pieces[0].call_id,
                "function": {
                    "index": index,
                    "name": pieces[0].name,
                    "arguments": _arguments(pieces),
                },
            }
            for index, pieces in sorted(self._pieces.items())
        ]


def identity(opening: Opening) -> dict[str, Any]:
    """What every object of an answer begins with."""
    return {"model": opening.head.model, "created_at": timestamp(opening.created_s)}


def timestamp(unix_s: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def account(finish: Finish) -> dict[str, Any]:
    """How an answer ended, what it took (ns), and of how many tokens."""
    waited, read, written = [
        round(spent_s * NANOSECONDS)
        for spent_s in (finish.queue_s, finish.prompt_s, finish.generation_s)
    ]
    return {
        "done": True,
        "done_reason": DONE_REASONS.get(finish.reason, finish.reason),
        "total_duration": waited + read + written,
        "load_duration": waited,
        "prompt_eval_count": finish.prompt_tokens,
        "prompt_eval_duration": read,
        "eval_count": finish.completion_tokens,
        "eval_duration": written,
    }


def _arguments(pieces: list[ToolCallDelta]) -> dict[str, Any]:
    text = "".join([piece.arguments for piece in pieces])
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text.encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if type(arguments) is not dict:
        raise ApiError(
            502,
            f"The model called '{pieces[0].name[:100]}' with arguments that are not a JSON object. "
            "Ask again, or ask a larger model.",
            code="engine_failed",
            kind="server_error",
        )
    return arguments
