"""The blocks that an Anthropic answer is made of, as they grow.

An answer is a row of blocks: a thought, a text, calls of tools. They follow each other. A piece of
a call that is over already cannot be placed in any event, and no engine is known to send one; it
ends the answer with an error instead of a spoiled call.

A thinking block carries a `signature`. Anthropic's servers check theirs; ours says that it proves
nothing, and comes back unread. A text's `citations` are an empty list: the specification requires
the key and allows null, but Vercel's client takes no null there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.anthropic import AskedMessage
from meshd.api.errors import ApiError
from meshd.api.writing import AnswerRoom
from meshd.core.ports import Note
from protocol.jobs import Event, ReasoningDelta, TextDelta, ToolCallDelta

UNSIGNED = "meshd-unsigned"
"""The signature of a thought: clients send it back and want it not empty."""


class Block:
    """One block of an answer."""

    def __init__(self, kind: str, call: ToolCallDelta | None = None, call_id: str = "") -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self._call = call
        self._call_id = call_id

    def begun(self) -> dict[str, Any]:
        """The block before it says anything."""
        return self._print("", "")

    def finished(self) -> dict[str, Any]:
        """The whole block."""
        return self._print("".join(self.pieces), UNSIGNED)

    def delta(self, piece: str) -> dict[str, Any]:
        """The event's own part for one more piece of a thought or of a call's input."""
        if self.kind == "thinking":
            return {"type": "thinking_delta", "thinking": piece}
        return {"type": "input_json_delta", "partial_json": piece}

    def _print(self, said: str, signature: str) -> dict[str, Any]:
        if self._call is not None:
            return {
                "type": "tool_use",
                "id": self._call_id,
                "name": self._call.name,
                "input": _arguments(said),
                "caller": {"type": "direct"},
            }
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": said, "signature": signature}
        return {"type": "text", "text": said, "citations": []}


class Content:
    """The blocks of one answer, in order."""

    def __init__(self, asked: AskedMessage, request_id: str) -> None:
        self.blocks: list[Block] = []
        self._asked = asked
        self._request_id = request_id
        self._calls: dict[int, Block] = {}
        self._room = AnswerRoom()
        self._characters = 0
        self._thought_characters = 0

    def place(self, event: Event | Note) -> tuple[Block, str] | None:
        """The block that takes `event`, a new one where none is open for it, and what it adds;
        None where the event is not to be seen. Raises ApiError: too long, or out of its place."""
        if self._asked.is_silent:
            return None
        match event:
            case TextDelta():
                return (self.text(len(event.text)), event.text) if event.text else None
            case ReasoningDelta():
                return self._thought(event.text)
            case ToolCallDelta():
                return self._call(event)
            case _:
                return None

    def text(self, characters: int = 0) -> Block:
        """The text block that is open, or a new one, with room for so many characters more."""
        self._take(characters)
        return self._open("text")

    def thought_ratio(self) -> float:
        """The thoughts' share of the answer's characters: engines count tokens together."""
        return self._thought_characters / self._characters if self._characters else 0.0

    def _thought(self, text: str) -> tuple[Block, str] | None:
        self._take(len(text))
        self._thought_characters += len(text)
        if not text or not self._asked.shows_thoughts:
            return None
        return self._open("thinking"), "" if self._asked.omits_thoughts else text

    def _call(self, piece: ToolCallDelta) -> tuple[Block, str] | None:
        self._take(len(piece.name) + len(piece.arguments))
        block = self._calls.get(piece.index)
        if block is None:
            if self._calls and not self._asked.is_parallel:
                return None
            call_id = piece.call_id or f"toolu_{self._request_id}_{piece.index}"
            block = Block("tool_use", piece, call_id)
            self._calls[piece.index] = block
            self.blocks.append(block)
        elif block is not self.blocks[-1]:
            raise ApiError(
                502,
                "The model's server mixed the pieces of several tool calls; ask again, or ask for "
                'one call at a time ("disable_parallel_tool_use": true).',
                code="engine_failed",
                kind="server_error",
            )
        return block, piece.arguments

    def _open(self, kind: str) -> Block:
        if not self.blocks or self.blocks[-1].kind != kind:
            self.blocks.append(Block(kind))
        return self.blocks[-1]

    def _take(self, characters: int) -> None:
        self._room.take(characters)
        self._characters += characters


def _arguments(said: str) -> dict[str, Any]:
    """A call's input; what is no JSON object is given as it is, under one key."""
    try:
        value = msgspec.json.decode(said) if said else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = said
    return value if type(value) is dict else {"arguments": said}
