"""The items that a Responses answer is made of, as they grow.

An answer is a row of items: a thought, a message, calls. Each item can be printed at any time, and
tells in steps how it came to be, so the whole answer and the stream of events cannot disagree: the
stream is the items' own account, numbered (`meshd.api.responses_answer`).

    message     output_item.added, content_part.added, output_text.delta ..., output_text.done,
                content_part.done, output_item.done
    reasoning   the same with reasoning_text; or reasoning_summary_part and reasoning_summary_text
    call        output_item.added, function_call_arguments.delta ..., .done, output_item.done;
                a custom tool's text can only be read once its JSON is whole, so it is one delta

Items follow each other. A piece of a call that is over already cannot be placed in any event, and
no engine is known to send one; it ends the answer with an error instead of a spoiled call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from meshd.api.dialect import Opening
from meshd.api.errors import ApiError
from meshd.api.responses import AskedResponse
from meshd.api.responses_input import wrap
from meshd.api.responses_tools import INPUT, ToolName
from meshd.api.writing import AnswerRoom
from meshd.core.ports import Note
from protocol.jobs import Event, ReasoningDelta, TextDelta, ToolCallDelta

Step = tuple[str, dict[str, Any]]
"""An event's type, without `response.`, and its own keys."""


class Item:
    """One item. `id` is unique in its response; a status is the item's, in the API's words."""

    def __init__(self, item_id: str) -> None:
        self.id = item_id

    def opening(self) -> Iterator[Step]:
        """How it begins."""
        yield "output_item.added", {"item": self.print("in_progress")}

    def take(self, event: Any) -> Iterator[Step]:
        """How it grows. The event is of the item's own kind."""
        raise NotImplementedError

    def closing(self, status: str) -> Iterator[Step]:
        """How it ends."""
        yield "output_item.done", {"item": self.print(status)}

    def print(self, status: str) -> dict[str, Any]:
        """The item as it is now."""
        raise NotImplementedError


class MessageItem(Item):
    """What the model says."""

    def __init__(self, item_id: str) -> None:
        super().__init__(item_id)
        self.texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def opening(self) -> Iterator[Step]:
        yield from super().opening()
        yield "content_part.added", self._at(part=self._part())

    def take(self, event: TextDelta) -> Iterator[Step]:
        logprobs = [_logprob(entry) for entry in event.logprobs or ()]
        self.texts.append(event.text)
        self._logprobs += logprobs
        yield "output_text.delta", self._at(delta=event.text, logprobs=logprobs)

    def closing(self, status: str) -> Iterator[Step]:
        text = "".join(self.texts)
        yield "output_text.done", self._at(text=text, logprobs=self._logprobs)
        yield "content_part.done", self._at(part=self._part())
        yield from super().closing(status)

    def print(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [] if status == "in_progress" else [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": "".join(self.texts),
            "annotations": [],
            "logprobs": self._logprobs,
        }

    def _at(self, **keys: Any) -> dict[str, Any]:
        return {"item_id": self.id, "content_index": 0, **keys}


class ReasoningItem(Item):
    """What the model thinks."""

    def __init__(self, item_id: str, *, is_summary: bool, is_carried: bool) -> None:
        super().__init__(item_id)
        self._is_summary = is_summary
        self._is_carried = is_carried
        self._texts: list[str] = []
        self._part_name = "reasoning_summary_part" if is_summary else "content_part"
        self._text_name = "reasoning_summary_text" if is_summary else "reasoning_text"

    def opening(self) -> Iterator[Step]:
        yield from super().opening()
        yield f"{self._part_name}.added", self._at(part=self._part())

    def take(self, event: ReasoningDelta) -> Iterator[Step]:
        self._texts.append(event.text)
        yield f"{self._text_name}.delta", self._at(delta=event.text)

    def closing(self, status: str) -> Iterator[Step]:
        yield f"{self._text_name}.done", self._at(text="".join(self._texts))
        yield f"{self._part_name}.done", self._at(part=self._part())
        yield from super().closing(status)

    def print(self, status: str) -> dict[str, Any]:
        is_over = status != "in_progress"
        item = {
            "id": self.id,
            "type": "reasoning",
            "status": status,
            "summary": [self._part()] if is_over and self._is_summary else [],
        }
        if not self._is_summary:
            item["content"] = [self._part()] if is_over else []
        if self._is_carried and is_over:
            item["encrypted_content"] = wrap("".join(self._texts))
        return item

    def _part(self) -> dict[str, Any]:
        kind = "summary_text" if self._is_summary else "reasoning_text"
        return {"type": kind, "text": "".join(self._texts)}

    def _at(self, **keys: Any) -> dict[str, Any]:
        place = "summary_index" if self._is_summary else "content_index"
        return {"item_id": self.id, place: 0, **keys}


class CallItem(Item):
    """A call that the client is to make."""

    def __init__(self, item_id: str, call_id: str, tool: ToolName) -> None:
        super().__init__(item_id)
        self._call_id = call_id
        self._tool = tool
        self._arguments: list[str] = []

    def take(self, event: ToolCallDelta) -> Iterator[Step]:
        self._arguments.append(event.arguments)
        if event.arguments and not self._tool.is_custom:
            keys = {"item_id": self.id, "delta": event.arguments}
            yield "function_call_arguments.delta", keys

    def closing(self, status: str) -> Iterator[Step]:
        arguments = "".join(self._arguments)
        if self._tool.is_custom:
            text = _input(arguments)
            yield "custom_tool_call_input.delta", {"item_id": self.id, "delta": text}
            yield "custom_tool_call_input.done", {"item_id": self.id, "input": text}
        else:
            keys = {"item_id": self.id, "name": self._tool.name, "arguments": arguments}
            yield "function_call_arguments.done", keys
        yield from super().closing(status)

    def print(self, status: str) -> dict[str, Any]:
        arguments = "" if status == "in_progress" else "".join(self._arguments)
        item = {"id": self.id, "status": status, "call_id": self._call_id, "name": self._tool.name}
        if self._tool.namespace:
            item["namespace"] = self._tool.namespace
        if self._tool.is_custom:
            return {"type": "custom_tool_call", **item, "input": arguments and _input(arguments)}
        return {"type": "function_call", **item, "arguments": arguments}


class Output:
    """The items of one answer, in order."""

    def __init__(self, asked: AskedResponse, opening: Opening) -> None:
        self.items: list[Item] = []
        self._asked = asked
        self._request_id = opening.request_id
        self._calls: dict[int, CallItem] = {}
        self._room = AnswerRoom()
        self._characters = 0
        self._thought_characters = 0

    def place(self, event: Event | Note) -> Item | None:
        """The item that takes `event`, a new one where none is open for it; None where the event
        is no part of an answer. Raises ApiError: too long, or a piece out of its place."""
        match event:
            case TextDelta():
                return self.message(len(event.text)) if event.text else None
            case ReasoningDelta():
                return self._reasoning(len(event.text)) if event.text else None
            case ToolCallDelta():
                return self._call(event)
            case _:
                return None

    def message(self, characters: int = 0) -> MessageItem:
        """The message that is open, or a new one, with room for so many characters more."""
        self._take(characters)
        last = self.items[-1] if self.items else None
        if not isinstance(last, MessageItem):
            last = MessageItem(self._id("msg"))
            self.items.append(last)
        return last

    def thought_ratio(self) -> float:
        """The thoughts' share of the answer's characters: engines count tokens together."""
        return self._thought_characters / self._characters if self._characters else 0.0

    def _reasoning(self, characters: int) -> ReasoningItem:
        self._take(characters)
        self._thought_characters += characters
        last = self.items[-1] if self.items else None
        if not isinstance(last, ReasoningItem):
            last = ReasoningItem(
                self._id("rs"),
                is_summary=self._asked.wants_summary,
                is_carried=self._asked.wants_encrypted,
            )
            self.items.append(last)
        return last

    def _call(self, piece: ToolCallDelta) -> CallItem | None:
        self._take(len(piece.name) + len(piece.arguments))
        call = self._calls.get(piece.index)
        if call is None:
            if self._calls and not self._asked.is_parallel:
                return None
            call_id = piece.call_id or f"call_{self._request_id}_{piece.index}"
            call = CallItem(self._id("fc"), call_id, self._asked.tools.named(piece.name))
            self._calls[piece.index] = call
            self.items.append(call)
        elif call is not self.items[-1]:
            raise ApiError(
                502,
                "The model's server mixed the pieces of several tool calls; ask again, or ask for "
                'one call at a time ("parallel_tool_calls": false).',
                code="engine_failed",
                kind="server_error",
            )
        return call

    def _take(self, characters: int) -> None:
        self._room.take(characters)
        self._characters += characters

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._request_id}_{len(self.items)}"


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's chat logprob, with every key that this dialect requires."""
    return {**_token(entry), "top_logprobs": [_token(top) for top in entry["top_logprobs"] or ()]}


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    spelled = entry.get("bytes")
    token = entry["token"]
    return {
        "token": token,
        "logprob": entry["logprob"],
        "bytes": list(token.encode(errors="replace")) if spelled is None else spelled,
    }


def _input(arguments: str) -> str:
    """A custom tool's text; arguments that are not what was asked for are given as they are."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
    text = value.get(INPUT) if type(value) is dict else value
    return text if type(text) is str else arguments
