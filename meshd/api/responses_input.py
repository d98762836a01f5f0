"""The input items of a Responses request, as chat turns.

This dialect keeps a conversation as a list of items. Nothing is stored here, so clients send all
of it each time (`store: false`, as Codex and Home Assistant do), and what came out of one response
goes into the next: messages, calls and their outputs, and thoughts. What each becomes:

    message                       a turn of its role; developer is system
    function_call, custom_tool_call, and calls of tools trained into OpenAI's models
                                  a call of the assistant's turn
    their ..._output              a tool's turn; pictures in it follow in a user turn
    reasoning                     the thought of the assistant's turn: models that were trained so
                                  think on across their own calls. Thoughts that another service
                                  has encrypted cannot be read and are passed over
    additional_tools              tools, offered like the others (`meshd.api.responses_tools`)
    web_search_call and the like  ran on OpenAI's servers and left no output: named in a header
    item_reference                points into storage. Vercel's AI SDK sends it unless told not to
                                  (`store`): to a thought it is passed over, like one that cannot
                                  be read; without what was said the question is another: refused
    compaction                    holds what another service has encrypted, for what came before:
                                  refused, too
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

from meshd.api.errors import bad_type, bad_value, missing, unsupported
from meshd.api.fields import json_type
from meshd.api.messages import NO_ARGUMENTS
from meshd.api.responses_tools import INPUT, chat_name
from meshd.api.turns import Part, Turns, picture_part, text_of_file, text_part
from protocol import limits

CARRIER = "meshd1."
"""Begins our `encrypted_content`: the thought in base64, for clients that send back nothing else.
It hides nothing, and need not: the same client was given the thought itself."""

THOUGHT_ID = "rs_"
"""Begins the id of a reasoning item, here and at OpenAI."""

ROLES = ("user", "assistant", "system", "developer")


class InputReader:
    """Reads the items of one request."""

    def __init__(self, instructions: str) -> None:
        self.turns = Turns(instructions)
        self.tools: list[Any] = []
        """Tools that stood among the items."""
        self.left_out: list[str] = []

    def read(self, value: Any) -> None:
        """The `input` of a request. Raises ApiError (400)."""
        if value is None:
            raise missing("input", "'input' is missing. Send a string, or an array of items.")
        if type(value) is str:
            self.turns.user([text_part(value)])
            return
        if type(value) is not list:
            raise bad_type(
                "input", f"'input' must be a string or an array, not {json_type(value)}."
            )
        if len(value) > limits.MESSAGES_MAX:
            raise bad_value(
                "input",
                f"'input' has {len(value)} items; at most {limits.MESSAGES_MAX} are allowed.",
            )
        for index, item in enumerate(value):
            where = f"input[{index}]"
            if type(item) is not dict:
                raise bad_type(where, f"'{where}' must be an object, not {json_type(item)}.")
            self._item(item, where)

    def _item(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type")
        if kind is None and "role" in item:
            kind = "message"
        if type(kind) is not str:
            raise bad_value(f"{where}.type", f"'{where}.type' must say what the item is.")
        read = _ITEMS.get(kind)
        if read is not None:
            read(self, item, where)
        elif kind.endswith("_call_output") and "call_id" in item:
            self._output(item, where)
        elif kind.endswith("_call") and "call_id" in item:
            self._trained_call(item, kind, where)
        else:
            self.left_out.append(f"item {kind[:60]}")

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in ROLES:
            raise bad_value(f"{where}.role", f"'{where}.role' must be one of {', '.join(ROLES)}.")
        parts = read_parts(content, f"{where}.content")
        if role == "user":
            self.turns.user(parts)
            return
        if any(part["type"] != "text" for part in parts):
            raise unsupported(
                f"{where}.content", f"'{where}.content': pictures are for user messages only."
            )
        text = "\n".join([part["text"] for part in parts])
        if role == "assistant":
            self.turns.assistant(text)
        else:
            self.turns.system(text)

    def _reasoning(self, item: Mapping[str, Any], where: str) -> None:
        for name in ("content", "summary"):
            listed = item.get(name)
            if type(listed) is list and listed:
                texts = [part.get("text") for part in listed if type(part) is dict]
                thought = "".join([text for text in texts if type(text) is str])
                self.turns.assistant(thought=thought)
                return
        self.turns.assistant(thought=unwrap(item.get("encrypted_content")))

    def _function_call(self, item: Mapping[str, Any], where: str) -> None:
        arguments = _text(item, "arguments", where) or NO_ARGUMENTS
        namespace = item.get("namespace")
        name = chat_name(_text(item, "name", where), namespace if type(namespace) is str else "")
        self._call(item, name, arguments, where)

    def _custom_call(self, item: Mapping[str, Any], where: str) -> None:
        arguments = json.dumps({INPUT: _text(item, "input", where)}, ensure_ascii=False)
        namespace = item.get("namespace")
        name = chat_name(_text(item, "name", where), namespace if type(namespace) is str else "")
        self._call(item, name, arguments, where)

    def _trained_call(self, item: Mapping[str, Any], kind: str, where: str) -> None:
        """A call of local_shell, apply_patch ...: what it did is in `action` or `operation`."""
        done = item.get("action", item.get("operation", item.get("arguments", {})))
        arguments = done if type(done) is str else json.dumps(done, ensure_ascii=False)
        self._call(item, kind.removesuffix("_call"), arguments, where)

    def _call(self, item: Mapping[str, Any], name: str, arguments: str, where: str) -> None:
        function = {"name": name, "arguments": arguments}
        call = {"id": _text(item, "call_id", where), "type": "function", "function": function}
        self.turns.assistant(calls=[call])

    def _output(self, item: Mapping[str, Any], where: str) -> None:
        call_id, output = _text(item, "call_id", where), item.get("output")
        if output is None or type(output) is str:
            parts = [text_part(output or "")]
        elif type(output) is list and not _are_parts(output):
            parts = [text_part(json.dumps(output, ensure_ascii=False))]
        else:
            parts = read_parts(output, f"{where}.output")
        self.turns.tool(call_id, parts)

    def _additional_tools(self, item: Mapping[str, Any], where: str) -> None:
        tools = item.get("tools")
        if type(tools) is not list:
            raise bad_type(f"{where}.tools", f"'{where}.tools' must be an array.")
        self.tools += tools

    def _compacted(self, item: Mapping[str, Any], where: str) -> None:
        """Codex's mark: with a summary in it, or of one that stands in the messages."""
        if item.get("encrypted_content") is not None:
            self._elsewhere(item, where)

    def _reference(self, item: Mapping[str, Any], where: str) -> None:
        item_id = item.get("id")
        if type(item_id) is str and item_id.startswith(THOUGHT_ID):
            self.left_out.append("reference to a thought")
            return
        raise unsupported(
            where,
            f"'{where}' only names an item, and nothing is stored here. Have the client send the "
            'items themselves: with "store": false (providerOptions.openai.store in Vercel\'s AI '
            "SDK), or by /v1/chat/completions.",
        )

    def _elsewhere(self, item: Mapping[str, Any], where: str) -> None:
        raise unsupported(
            where,
            f"'{where}' is of type '{item.get('type')}', which only the service that made it can "
            "read. Nothing is stored here; send the items themselves.",
        )


def read_parts(content: Any, where: str) -> list[Part]:
    """A message's content as chat parts. Raises ApiError (400)."""
    if type(content) is str:
        return [text_part(content)]
    if type(content) is not list:
        raise bad_type(
            where, f"'{where}' must be a string or an array of parts, not {json_type(content)}."
        )
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def wrap(thought: str) -> str:
    """A thought as `encrypted_content`."""
    return CARRIER + b64encode(thought.encode(errors="replace")).decode()


def unwrap(carried: Any) -> str:
    """The thought in our own `encrypted_content`, `""` in anybody else's."""
    if type(carried) is not str or not carried.startswith(CARRIER):
        return ""
    try:
        return b64decode(carried.removeprefix(CARRIER), validate=True).decode()
    except ValueError:
        return ""


def _part(part: Any, where: str) -> Part:
    if type(part) is not dict:
        raise bad_type(where, f"'{where}' must be an object, not {json_type(part)}.")
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        return text_part(_text(part, "text", where))
    if kind == "refusal":
        return text_part(_text(part, "refusal", where))
    if kind == "input_image":
        return picture_part(part.get("image_url"), f"{where}.image_url", part.get("detail"))
    if kind == "input_file":
        return _file(part, where)
    known = "input_text, output_text, refusal, input_image, input_file"
    raise unsupported(f"{where}.type", f"'{where}.type' must be one of {known}.")


def _file(part: Mapping[str, Any], where: str) -> Part:
    data = part.get("file_data")
    if type(data) is not str or not data.startswith("data:"):
        raise unsupported(
            where,
            f"'{where}' must hold 'file_data', a data URL of a text file. The mesh fetches nothing "
            "from the network and keeps no files.",
        )
    media_type, _, payload = data.removeprefix("data:").partition(";base64,")
    name = part.get("filename")
    text = text_of_file(media_type, payload, f"{where}.file_data")
    return text_part(f"{name}:\n{text}" if type(name) is str else text)


def _are_parts(output: list[Any]) -> bool:
    """Content parts, and not the chunks of a shell's output."""
    return all(type(part) is dict and "type" in part for part in output)


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    value = values.get(name)
    if type(value) is not str:
        raise bad_type(
            f"{where}.{name}", f"'{where}.{name}' must be a string, not {json_type(value)}."
        )
    return value


_ITEMS: dict[str, Callable[[InputReader, Mapping[str, Any], str], None]] = {
    "message": InputReader._message,
    "reasoning": InputReader._reasoning,
    "function_call": InputReader._function_call,
    "custom_tool_call": InputReader._custom_call,
    "additional_tools": InputReader._additional_tools,
    "item_reference": InputReader._reference,
    "compaction": InputReader._elsewhere,
    "compaction_summary": InputReader._elsewhere,
    "compaction_trigger": InputReader._elsewhere,
    "context_compaction": InputReader._compacted,
}
