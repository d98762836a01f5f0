"""Chat turns as clients send them, checked and brought to one form.

Six normalisations, because the chat templates of local models know no more than this: `developer`
is `system` by its newer name; parts that are all text (or a refusal) become one string, joined by
newlines as llama.cpp and vLLM join them; `function_call` and the role `function` become a tool call
and its answer; a turn that says nothing has an empty text, and a call without arguments an empty
object; and nothing else is touched.

OpenAI's own servers refuse an array without parts, and a tool that answered null. llama-server and
vLLM take both, and agents' histories have them (a tool without output, an assistant that only
called): refused here, they would end a conversation that nobody can mend.

A turn with a picture keeps its parts: whether the model sees is the router's question, and a
picture is never dropped here. Pictures come inside the request, as data URLs. An address on the
Internet is refused: fetching it would tell a stranger what is being looked at, from whichever
machine the question went to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from meshd.api.errors import ApiError, bad_type, bad_value, missing, unsupported
from meshd.api.fields import json_type
from protocol import limits

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

NO_ARGUMENTS = "{}"
"""Of a call that needs none. Servers stream an empty text for them, clients send that back, and
Ollama's server takes no more than JSON."""

_NULLABLE = frozenset({"assistant", "tool", "function"})
"""Roles that may say nothing: an assistant's turn can be calls alone, a tool can be mute."""


def conversation(value: Any) -> list[Any]:
    """`messages` of any dialect, as a list that may hold anything. Raises ApiError (400)."""
    if value is None:
        raise missing("messages", "'messages' is missing. Send the conversation, oldest first.")
    if type(value) is not list:
        raise bad_type("messages", f"'messages' must be an array, not {json_type(value)}.")
    if not value:
        raise bad_value("messages", "'messages' is empty. Send at least one message.")
    if len(value) > limits.MESSAGES_MAX:
        raise bad_value(
            "messages",
            f"'messages' has {len(value)} entries; at most {limits.MESSAGES_MAX} are allowed.",
        )
    return value


def read_messages(value: Any) -> tuple[dict[str, Any], ...]:
    """The turns of a conversation, normalised. Raises ApiError (400)."""
    turns = conversation(value)
    return tuple([_message(turn, f"messages[{index}]") for index, turn in enumerate(turns)])


def _message(turn: Any, where: str) -> dict[str, Any]:
    if type(turn) is not dict:
        raise bad_type(where, f"'{where}' must be an object, not {json_type(turn)}.")
    role = turn.get("role")
    if role not in ROLES:
        raise _bad_role(role, where)
    message: dict[str, Any] = turn
    if role == "developer":
        message = {**turn, "role": "system"}
    elif role == "function" or "function_call" in turn:
        message = _modern(turn, role, where)
    content = turn.get("content")
    if type(content) is list:
        message = {**message, "content": _content(content, f"{where}.content")}
    elif content is None:
        _check_silent(turn, role, where)
        if not message.get("tool_calls"):
            message = {**message, "content": ""}
    elif type(content) is not str:
        raise bad_type(
            f"{where}.content",
            f"'{where}.content' must be a string or an array of parts, not {json_type(content)}.",
        )
    for name in ("name", "tool_call_id"):
        _check_type(turn, name, str, where)
    if message.get("tool_calls") is not None:
        calls = message["tool_calls"]
        _check_tool_calls(calls, f"{where}.tool_calls")
        if any(not call["function"]["arguments"] for call in calls):
            message = {**message, "tool_calls": [_with_arguments(call) for call in calls]}
    return message


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments are JSON also where there are none."""
    function = call["function"]
    return {**call, "function": {**function, "arguments": function["arguments"] or NO_ARGUMENTS}}


def _modern(turn: dict[str, Any], role: str, where: str) -> dict[str, Any]:
    """A turn of 2023 in today's words: its call is known by the function's name."""
    if role == "function":
        name = turn.get("name")
        if type(name) is not str:
            raise missing(f"{where}.name", f"'{where}.name' must name the function that answered.")
        rest = {key: value for key, value in turn.items() if key != "name"}
        return {**rest, "role": "tool", "tool_call_id": _call_id(name)}
    call = turn["function_call"]
    rest = {key: value for key, value in turn.items() if key != "function_call"}
    if call is None:
        return rest
    if type(call) is not dict or type(call.get("name")) is not str:
        raise bad_type(
            f"{where}.function_call",
            f"'{where}.function_call' must be an object with 'name' and 'arguments'.",
        )
    modern = {"id": _call_id(call["name"]), "type": "function", "function": call}
    return {"content": None, **rest, "tool_calls": [modern]}


def _call_id(name: str) -> str:
    return f"call_{name}"


def _bad_role(role: Any, where: str) -> ApiError:
    param = f"{where}.role"
    if role is None:
        return missing(param, f"'{param}' is missing. It must be one of {', '.join(ROLES)}.")
    if type(role) is not str:
        return bad_type(param, f"'{param}' must be a string, not {json_type(role)}.")
    return bad_value(param, f"'{param}' is '{role[:40]}'; it must be one of {', '.join(ROLES)}.")


def _check_silent(turn: dict[str, Any], role: str, where: str) -> None:
    if role not in _NULLABLE:
        raise missing(
            f"{where}.content", f"'{where}.content' is missing. A {role} message needs content."
        )
    if role == "assistant" and not (
        turn.get("tool_calls") or turn.get("function_call") or "content" in turn
    ):
        raise missing(
            f"{where}.content",
            f"'{where}.content' is missing, and there are no tool_calls in its place.",
        )


def _content(parts: list[Any], where: str) -> Any:
    """One string when every part is text or a refusal, else the parts as they came."""
    for index, part in enumerate(parts):
        _check_part(part, f"{where}[{index}]")
    if all(part["type"] in _SPOKEN for part in parts):
        return "\n".join([part[part["type"]] for part in parts])
    return parts


def _check_part(part: Any, where: str) -> None:
    if type(part) is not dict:
        raise bad_type(where, f"'{where}' must be an object, not {json_type(part)}.")
    kind = part.get("type")
    check = _PARTS.get(kind) if type(kind) is str else None
    if check is None:
        raise bad_value(f"{where}.type", f"'{where}.type' must be one of {', '.join(_PARTS)}.")
    check(part, where)


def _check_text(part: dict[str, Any], where: str) -> None:
    if type(part.get("text")) is not str:
        raise bad_type(f"{where}.text", f"'{where}.text' must be a string.")


def _check_refusal(part: dict[str, Any], where: str) -> None:
    if type(part.get("refusal")) is not str:
        raise bad_type(f"{where}.refusal", f"'{where}.refusal' must be a string.")


def _check_image(part: dict[str, Any], where: str) -> None:
    image = part.get("image_url")
    if type(image) is not dict or type(image.get("url")) is not str:
        raise bad_type(
            f"{where}.image_url", f"'{where}.image_url' must be an object with 'url' in it."
        )
    url = image["url"]
    if _IMAGE_URL.match(url) is None:
        raise unsupported(
            f"{where}.image_url.url",
            f"'{where}.image_url.url' begins with '{url[:20]}'; pictures come inside the request "
            "and are never fetched. Send 'data:image/png;base64,' and the picture.",
        )


def _check_audio(part: dict[str, Any], where: str) -> None:
    if type(part.get("input_audio")) is not dict:
        raise bad_type(
            f"{where}.input_audio",
            f"'{where}.input_audio' must be an object with 'data' and 'format'.",
        )


def _check_file(_part: dict[str, Any], where: str) -> None:
    raise unsupported(
        f"{where}.file",
        f"'{where}' is a file, which models here cannot read. Put its text into a text part, or "
        "its pages into pictures.",
    )


_IMAGE_URL = re.compile(r"data:image/[A-Za-z0-9.+-]{1,40};base64,", re.IGNORECASE)

_SPOKEN = frozenset({"text", "refusal"})
"""Parts that are text, under a key of their own name."""

_PARTS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "text": _check_text,
    "image_url": _check_image,
    "input_audio": _check_audio,
    "file": _check_file,
    "refusal": _check_refusal,
}


def _check_tool_calls(calls: Any, where: str) -> None:
    if type(calls) is not list:
        raise bad_type(where, f"'{where}' must be an array, not {json_type(calls)}.")
    for index, call in enumerate(calls):
        here = f"{where}[{index}]"
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict:
            raise bad_type(here, f"'{here}' must be an object with 'id', 'type' and 'function'.")
        _check_type(call, "id", str, here)
        if type(function.get("name")) is not str:
            raise bad_type(f"{here}.function.name", f"'{here}.function.name' must be a string.")
        if type(function.get("arguments")) is not str:
            raise bad_type(
                f"{here}.function.arguments",
                f"'{here}.function.arguments' must be a string that holds JSON.",
            )


def _check_type(turn: dict[str, Any], name: str, wanted: type[Any], where: str) -> None:
    value = turn.get(name)
    if value is not None and type(value) is not wanted:
        param = f"{where}.{name}"
        raise bad_type(param, f"'{param}' must be a string, not {json_type(value)}.")
