"""The content blocks of Anthropic's messages, as chat turns.

This dialect knows two sides, and every turn is a list of blocks. A turn of the user holds what the
user says and what tools answered, which are different turns to a chat model; so one message here
can become several there. What each block becomes:

    text, search_result      text
    tool_reference           the name of a tool that the client's own search found; such tools
                             (`defer_loading`) are offered here from the beginning
    image                    a picture (base64; nothing is fetched, no file is kept)
    document                 its text; a PDF is refused, because no model here reads one. Where the
                             client offers tools, the model is told instead: an agent's history
                             keeps every file that it has opened, and its model may turn to a tool
    tool_use                 a call of the assistant's turn
    tool_result              a tool's turn; one that failed begins with `Error:`, which is the only
                             way that chat has to say so
    thinking                 the thought of the assistant's turn
    redacted_thinking        nothing: it was encrypted by another service, for itself
    compaction               the summary that another service made of what stood before it
    server_tool_use, ...     what another service's tools did (web search ...), and what it noted
                             for itself (ELSEWHERE): left out, and named in a header
                             (`meshd.api.turns.left_out`)

Claude Code also sends messages of the role `system` between the others. They stay where they stand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from meshd.api.errors import ApiError, bad_type, bad_value, unsupported
from meshd.api.fields import json_type
from meshd.api.messages import conversation
from meshd.api.turns import Part, Turns, picture_part, text_of_file, text_part

ROLES = ("user", "assistant", "system")

BILLING = "x-anthropic-billing-header:"
"""Begins a system block of Claude Code's that is meant for Anthropic's accounts. It changes with
every request, so a model that reads it can reuse nothing of the prompt before: it is passed over.
"""

ELSEWHERE = frozenset(
    {
        "browser_state",
        "container_upload",
        "fallback",
        "mcp_tool_listing",
        "tool_addition",
        "tool_removal",
    }
)
"""Blocks that mean something to Anthropic's servers alone. Its SDKs ask programs to send them back
with the history, so a conversation that began there has them for good."""


class MessageReader:
    """Reads the system prompt and the messages of one request."""

    def __init__(self, *, offers_tools: bool = False) -> None:
        self.turns = Turns()
        self.left_out: list[str] = []
        self._offers_tools = offers_tools

    def system(self, value: Any) -> None:
        """The `system` of a request: a text, blocks, or nothing."""
        if value is None:
            return
        parts = self._parts(value, "system")
        _require_text(parts, "system")
        for part in parts:
            if not part["text"].startswith(BILLING):
                self.turns.system(part["text"])

    def messages(self, value: Any) -> None:
        """The `messages` of a request. Raises ApiError (400)."""
        for index, message in enumerate(conversation(value)):
            self._message(message, f"messages[{index}]")

    def _message(self, message: Any, where: str) -> None:
        if type(message) is not dict:
            raise bad_type(where, f"'{where}' must be an object, not {json_type(message)}.")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise bad_value(f"{where}.role", f"'{where}.role' must be one of {', '.join(ROLES)}.")
        inside = f"{where}.content"
        if role == "system":
            parts = self._parts(content, inside)
            _require_text(parts, inside)
            self.turns.system("\n".join([part["text"] for part in parts]))
        elif role == "assistant":
            self._assistant(content, inside)
        else:
            self._user(content, inside)

    def _user(self, content: Any, where: str) -> None:
        """Tools' answers first, as the specification has them, then what the user says."""
        said: list[Part] = []
        for block, here in _blocks(content, where):
            if block.get("type") == "tool_result":
                self._tool_result(block, here)
            else:
                said += self._part(block, here)
        if said:
            self.turns.user(said)

    def _assistant(self, content: Any, where: str) -> None:
        for block, here in _blocks(content, where):
            match block.get("type"):
                case "thinking":
                    self.turns.assistant(thought=_text(block, "thinking", here))
                case "redacted_thinking":
                    pass
                case "tool_use":
                    self.turns.assistant(calls=[_call(block, here)])
                case _:
                    parts = self._part(block, here)
                    _require_text(parts, here)
                    self.turns.assistant("\n".join([part["text"] for part in parts]))

    def _tool_result(self, block: Mapping[str, Any], where: str) -> None:
        call_id = _text(block, "tool_use_id", where)
        content = block.get("content")
        parts = [] if content is None else self._parts(content, f"{where}.content")
        if block.get("is_error") is True:
            parts = [text_part("Error:"), *parts]
        self.turns.tool(call_id, parts)

    def _parts(self, content: Any, where: str) -> list[Part]:
        return [part for block, here in _blocks(content, where) for part in self._part(block, here)]

    def _part(self, block: Mapping[str, Any], where: str) -> list[Part]:
        """What a block says; empty where it says nothing to a model here."""
        kind = block.get("type")
        read = _PARTS.get(kind) if type(kind) is str else None
        if read is not None:
            return read(self, block, where)
        if type(kind) is str and (
            kind in ELSEWHERE or kind.endswith(("_tool_use", "_tool_result"))
        ):
            self.left_out.append(f"block {kind[:60]}")
            return []
        raise unsupported(
            f"{where}.type",
            f"'{where}.type' is {json.dumps(kind)[:60]}; what can be read here is "
            f"{', '.join(_PARTS)}, thinking, tool_use and tool_result.",
        )

    def _text_block(self, block: Mapping[str, Any], where: str) -> list[Part]:
        return [text_part(_text(block, "text", where))]

    def _image(self, block: Mapping[str, Any], where: str) -> list[Part]:
        source = _source(block, where)
        if source.get("type") != "base64":
            raise unsupported(
                f"{where}.source",
                f"'{where}.source' must be of type base64. The mesh fetches nothing from the "
                "network and keeps no files; send the picture itself.",
            )
        media_type, data = _text(source, "media_type", where), _text(source, "data", where)
        return [picture_part(f"data:{media_type};base64,{data}", f"{where}.source.media_type")]

    def _document(self, block: Mapping[str, Any], where: str) -> list[Part]:
        source, inside = _source(block, where), f"{where}.source"
        head = [block[name] for name in ("title", "context") if type(block.get(name)) is str]
        match source.get("type"):
            case "text":
                body = [text_part(_text(source, "data", inside))]
            case "content":
                body = self._parts(source.get("content"), f"{inside}.content")
            case "base64":
                body = [text_part(self._file(source, inside))]
            case _:
                raise unsupported(
                    inside,
                    f"'{inside}' must be of type text, content or base64. The mesh fetches nothing "
                    "from the network and keeps no files.",
                )
        return [*[text_part(line) for line in head], *body]

    def _file(self, source: Mapping[str, Any], where: str) -> str:
        """A file's text, or to an agent's model that it has none."""
        kind, data = _text(source, "media_type", where), _text(source, "data", where)
        try:
            return text_of_file(kind, data, where)
        except ApiError:
            if not self._offers_tools:
                raise
        self.left_out.append(f"document {kind[:60]}")
        return f"(This file of type {kind[:60]} cannot be shown here. A tool may read its text.)"

    def _compaction(self, block: Mapping[str, Any], where: str) -> list[Part]:
        return [] if block.get("content") is None else [text_part(_text(block, "content", where))]

    def _search_result(self, block: Mapping[str, Any], where: str) -> list[Part]:
        head = [block[name] for name in ("title", "source") if type(block.get(name)) is str]
        body = self._parts(block.get("content"), f"{where}.content")
        return [*[text_part(line) for line in head], *body]

    def _reference(self, block: Mapping[str, Any], where: str) -> list[Part]:
        return [text_part(f"Found the tool {_text(block, 'tool_name', where)}")]


def _blocks(content: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """A content's blocks, and how each would be named; a text is one block."""
    if type(content) is str:
        return [({"type": "text", "text": content}, where)]
    if type(content) is not list:
        raise bad_type(
            where, f"'{where}' must be a string or an array of blocks, not {json_type(content)}."
        )
    for index, block in enumerate(content):
        if type(block) is not dict:
            here = f"{where}[{index}]"
            raise bad_type(here, f"'{here}' must be an object, not {json_type(block)}.")
    return [(block, f"{where}[{index}]") for index, block in enumerate(content)]


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    arguments = block.get("input")
    if type(arguments) is not dict:
        raise bad_type(
            f"{where}.input", f"'{where}.input' must be an object, not {json_type(arguments)}."
        )
    function = {
        "name": _text(block, "name", where),
        "arguments": json.dumps(arguments, ensure_ascii=False),
    }
    return {"id": _text(block, "id", where), "type": "function", "function": function}


def _source(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    source = block.get("source")
    if type(source) is not dict:
        raise bad_type(
            f"{where}.source", f"'{where}.source' must be an object, not {json_type(source)}."
        )
    return source


def _require_text(parts: list[Part], where: str) -> None:
    if any(part["type"] != "text" for part in parts):
        raise unsupported(where, f"'{where}': pictures are for user messages and tool results.")


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    value = values.get(name)
    if type(value) is not str:
        raise bad_type(
            f"{where}.{name}", f"'{where}.{name}' must be a string, not {json_type(value)}."
        )
    return value


_PARTS: dict[str, Callable[[MessageReader, Mapping[str, Any], str], list[Part]]] = {
    "text": MessageReader._text_block,
    "image": MessageReader._image,
    "document": MessageReader._document,
    "search_result": MessageReader._search_result,
    "tool_reference": MessageReader._reference,
    "compaction": MessageReader._compaction,
}
"""What a model here can be shown."""
