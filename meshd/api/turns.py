"""Chat turns put together from finer things: items (Responses) or content blocks (Anthropic).

Both newer dialects say one turn in several pieces: a thought, a text and two calls are four items,
but one assistant turn to a chat template; and both may say two turns of one side in a row, which
many templates refuse. So pieces of one side run together here, in the order they came:

- system texts before the conversation are one system turn; later ones stay where they stand,
  because their place is part of what they say;
- pieces of one side in a row are one turn; texts are joined by a line break, as in a chat message;
- a tool's answer is a turn of its own. Chat has no pictures in it, so pictures that a tool gave
  follow in a user turn after the last answer of that row, and are never dropped.

Whatever the newer dialects can say and no chat model can be told is the caller's to refuse, or to
name in the header line that `left_out` makes.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.errors import bad_value, unsupported
from meshd.api.headers import safe
from protocol import limits

Part = dict[str, Any]
"""A content part of OpenAI's chat: text or image_url."""

LEFT_OUT = "x-mesh-left-out"
"""Header that names what was sent and not used: tools nobody here can run, blocks of other
services' own tools."""

LEFT_OUT_MAX = 16
"""Names in that header; a client that sends more of them knows what it sends."""

TEXT_FILES = ("text/", "application/json", "application/xml", "application/yaml")
"""Media types, or their beginnings, whose files are text a model can read."""

BEGUN = {"continue_final_message": True, "add_generation_prompt": False}
"""What engines are told where the answer has begun, in vLLM's words."""


def is_begun(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the assistant has begun to speak last, and called nothing."""
    last = turns[-1] if turns else {}
    return last.get("role") == "assistant" and bool(last["content"]) and "tool_calls" not in last


def text_part(text: str) -> Part:
    """A piece of text."""
    return {"type": "text", "text": text}


def picture_part(url: Any, param: str, detail: Any = None) -> Part:
    """A picture in the request itself. Raises ApiError for any other kind of address."""
    if type(url) is not str or not url.startswith("data:image/"):
        raise unsupported(
            param,
            f"'{param}' must be a data URL (data:image/png;base64,...). The mesh fetches nothing "
            "from the network and keeps no files; send the picture itself.",
        )
    image = {"url": url}
    if type(detail) is str:
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def text_of_file(media_type: str, data: str, param: str) -> str:
    """The text of a base64 file. Raises ApiError where it is none (a PDF, a sound)."""
    if not media_type.lower().startswith(TEXT_FILES):
        raise unsupported(
            param,
            f"'{param}' is a file of type '{media_type[:60]}'; only text files can be read here. "
            "Send its text, or its pages as pictures.",
        )
    try:
        return b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise bad_value(param, f"'{param}' must be base64 of UTF-8 text.") from None


def left_out(names: Iterable[str]) -> str:
    """The header line that says what was not used, `""` when everything was."""
    unique = list(dict.fromkeys(names))[:LEFT_OUT_MAX]
    return f"{LEFT_OUT}: {safe(', '.join(unique))}\r\n" if unique else ""


class Turns:
    """Collects the pieces of a conversation, oldest first."""

    def __init__(self, system: str = "") -> None:
        self._turns: list[dict[str, Any]] = []
        self._head: list[str] = [system] if system else []
        self._pictures: list[Part] = []

    def system(self, text: str) -> None:
        """An instruction."""
        self._show_pictures()
        if not self._turns:
            self._head.append(text)
        elif text:
            self._turns.append({"role": "system", "content": text})

    def user(self, parts: Sequence[Part]) -> None:
        """What the user says."""
        self._show_pictures()
        self._user(parts)

    def assistant(self, text: str = "", thought: str = "", calls: Sequence[Part] = ()) -> None:
        """What the model said, thought or called; `calls` are OpenAI's tool_calls."""
        if not (text or thought or calls):
            return
        self._show_pictures()
        turn = self._going_on("assistant")
        if text:
            turn["content"] = f"{turn['content']}\n{text}" if turn["content"] else text
        if thought:
            turn["reasoning_content"] = turn.get("reasoning_content", "") + thought
        if calls:
            turn.setdefault("tool_calls", []).extend(calls)

    def tool(self, call_id: str, parts: Sequence[Part]) -> None:
        """What a tool answered."""
        self._pictures += [part for part in parts if part["type"] != "text"]
        text = "\n".join([part["text"] for part in parts if part["type"] == "text"])
        self._turns.append({"role": "tool", "tool_call_id": call_id, "content": text})

    @property
    def is_begun(self) -> bool:
        """Whether the conversation so far ends so: `is_begun`."""
        return is_begun(self._turns)

    def messages(self, param: str) -> tuple[dict[str, Any], ...]:
        """The conversation as chat messages. Raises ApiError: nothing said, or too much."""
        self._show_pictures()
        if not self._turns and not self._head:
            raise bad_value(param, f"'{param}' says nothing. Send at least one message with text.")
        head = [{"role": "system", "content": "\n".join(self._head)}] if self._head else []
        turns = [*head, *[_said(turn) for turn in self._turns]]
        if len(turns) > limits.MESSAGES_MAX:
            raise bad_value(
                param,
                f"'{param}' makes {len(turns)} turns; at most {limits.MESSAGES_MAX} are allowed.",
            )
        check_free_form({param: turns})
        return tuple(turns)

    def _user(self, parts: Sequence[Part]) -> None:
        turn = self._going_on("user")
        turn["content"] = [*(turn["content"] or ()), *parts]

    def _going_on(self, role: str) -> dict[str, Any]:
        """The last turn if it is of this side, else a new one."""
        if not self._turns or self._turns[-1]["role"] != role:
            self._turns.append({"role": role, "content": None})
        return self._turns[-1]

    def _show_pictures(self) -> None:
        if self._pictures:
            pictures, self._pictures = self._pictures, []
            self._user(pictures)


def _said(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn whose parts are all text as one string."""
    content = turn["content"]
    if type(content) is list and all(part["type"] == "text" for part in content):
        return {**turn, "content": "\n".join([part["text"] for part in content])}
    if content is None and "tool_calls" not in turn:
        return {**turn, "content": ""}
    return turn
