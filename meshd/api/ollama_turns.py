"""Ollama's chat turns, brought to OpenAI's form, which a `Job` carries.

The differences: pictures stand beside the text as bare base64 (here they become data URLs, their
kind told by their first bytes); the arguments of a tool call are an object, not a string; and tool
calls have no ids. OpenAI's form ties an answer to its call by id, so calls without one are numbered
and each `tool` turn is given to the oldest unanswered call of its `tool_name`, or to the oldest
unanswered call where it names none, as Ollama's own templates read it.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

import msgspec

from meshd.api.errors import ApiError, bad_type, bad_value, missing
from meshd.api.fields import Fields, json_type
from protocol import limits

ROLES = ("system", "developer", "user", "assistant", "tool")

_KINDS = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "Qk": "image/bmp",
}
"""The first characters of a picture in base64, and its media type."""


def read_turns(value: Any) -> tuple[dict[str, Any], ...]:
    """The turns of a conversation; empty when there are none. Raises ApiError (400)."""
    if value is None:
        return ()
    if type(value) is not list:
        raise bad_type("messages", f"'messages' must be an array, not {json_type(value)}.")
    if len(value) > limits.MESSAGES_MAX:
        raise bad_value(
            "messages",
            f"'messages' has {len(value)} entries; at most {limits.MESSAGES_MAX} are allowed.",
        )
    open_calls: list[tuple[str, str]] = []
    return tuple([_turn(turn, index, open_calls) for index, turn in enumerate(value)])


def user_turn(text: str, images: Any) -> dict[str, Any]:
    """What a person says, with pictures. Raises ApiError (400)."""
    return {"role": "user", "content": _content(text, images, "images")}


def _turn(turn: Any, index: int, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    where = f"messages[{index}]"
    if type(turn) is not dict:
        raise bad_type(where, f"'{where}' must be an object, not {json_type(turn)}.")
    fields = Fields(turn, where)
    role = fields.text("role", limits.TEXT_MAX_CHARS)
    if role not in ROLES:
        raise _bad_role(role, f"{where}.role")
    text = fields.text("content", limits.JOB_MAX_BYTES) or ""
    images = fields.take("images")
    message: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": _content(text, images, f"{where}.images"),
    }
    if role == "assistant":
        calls = _calls(fields.take("tool_calls"), index, f"{where}.tool_calls")
        if calls:
            message["tool_calls"] = calls
            open_calls[:] = [(call["function"]["name"], call["id"]) for call in calls]
        thought = fields.text("thinking", limits.JOB_MAX_BYTES)
        if thought:
            message["reasoning_content"] = thought
    elif role == "tool":
        name = fields.text("tool_name", limits.TEXT_MAX_CHARS) or fields.text(
            "name", limits.TEXT_MAX_CHARS
        )
        given = fields.text("tool_call_id", limits.TEXT_MAX_CHARS)
        message["tool_call_id"] = given or _answered(name, index, open_calls)
        if name:
            message["name"] = name
    return message


def _bad_role(role: str | None, where: str) -> ApiError:
    if role is None:
        return missing(where, f"'{where}' is missing. It must be one of {', '.join(ROLES)}.")
    return bad_value(where, f"'{where}' is '{role[:40]}'; it must be one of {', '.join(ROLES)}.")


def _answered(name: str | None, index: int, open_calls: list[tuple[str, str]]) -> str:
    """The id of the call that a tool's turn answers; one of its own where there is none."""
    for place, (called, call_id) in enumerate(open_calls):
        if name is None or called == name:
            del open_calls[place]
            return call_id
    return f"call_{index}"


def _calls(value: Any, turn: int, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if type(value) is not list:
        raise bad_type(where, f"'{where}' must be an array, not {json_type(value)}.")
    return [
        _call(call, f"call_{turn}_{index}", f"{where}[{index}]") for index, call in enumerate(value)
    ]


def _call(call: Any, call_id: str, where: str) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise bad_type(where, f"'{where}' must be an object with 'function'.")
    inner = Fields(function, f"{where}.function")
    name = inner.text("name", limits.TEXT_MAX_CHARS)
    if not name:
        raise inner.absent("name", "It says which function was called.")
    given = Fields(call, where).text("id", limits.TEXT_MAX_CHARS)
    arguments = inner.take("arguments")
    if type(arguments) is not str:
        if arguments is not None and type(arguments) is not dict:
            raise inner.wrong("arguments", "an object", arguments)
        arguments = msgspec.json.encode(arguments or {}).decode()
    return {
        "id": given or call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _content(text: str, images: Any, where: str) -> Any:
    """The text alone, or in parts with its pictures."""
    if images is None:
        return text
    if type(images) is not list:
        raise bad_type(where, f"'{where}' must be an array of base64 strings.")
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_url(image, f"{where}[{index}]")}}
        for index, image in enumerate(images)
    ]
    if not pictures:
        return text
    return [{"type": "text", "text": text}, *pictures] if text else pictures


def _data_url(image: Any, where: str) -> str:
    if type(image) is not str:
        raise bad_type(where, f"'{where}' must be a string: a picture in base64.")
    if image.startswith("data:image/"):
        return image
    image = image.replace("\n", "").replace("\r", "")  # as Go's decoder does, which Ollama uses
    kind = next((word for start, word in _KINDS.items() if image.startswith(start)), None)
    try:
        b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        kind = None
    if kind is None:
        raise bad_value(where, f"'{where}' is not a PNG, JPEG, GIF, WebP or BMP picture in base64.")
    return f"data:{kind};base64,{image}"
