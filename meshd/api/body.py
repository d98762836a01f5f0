"""Request bytes to one JSON object, or a 400 that says where they stop making sense.

The bytes are bounded before they come here (16 MiB). Depth is bounded twice: the interpreter's own
guard stops a bomb (at a thousand levels in Python 3.11, at ten thousand in later ones), and
`check_free_form` then holds values to what can cross the relay (64 levels, 64-bit integers, lists
of bounded length), so that nothing that is accepted here is refused by a peer.

JavaScript counts a text in halves of characters and writes half an emoji, where it was cut, as an
escape of its own. That is JSON and no Unicode: it becomes a question mark, as in answers, because
an agent that has cut a text so would send it again with every request of that conversation. A byte
order mark in front, which editors on Windows write into files that are then sent, is passed over.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from contextlib import suppress
from typing import Any

import msgspec

from meshd.api.errors import ApiError
from meshd.api.writing import cleaned
from protocol import limits
from protocol.errors import ProtocolError
from protocol.freeform import check_json

_DEPTH = (
    f"The request body is nested deeper than {limits.NESTING_MAX_DEPTH} levels. "
    "Flatten it; tool schemas and messages need about 12."
)


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""Perhaps half of a pair; the standard library reads what has one."""


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises ApiError (400)."""
    if not body:
        raise _malformed("The request body is empty. Send a JSON object.")
    value = _decode(body.removeprefix(BOM_UTF8))
    if type(value) is not dict:
        raise _malformed("The request body must be a JSON object, in braces.")
    return value


def check_free_form(values: dict[str, Any]) -> None:
    """Raises ApiError (400) when a value anywhere inside is out of the relay's bounds."""
    try:
        check_json(values)
    except ProtocolError as error:
        raise ApiError(
            400,
            f"The request body holds something out of bounds: {error.detail}.",
            code="invalid_value",
        ) from None


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise _malformed(_DEPTH) from None
    except UnicodeDecodeError:
        raise _malformed(f"The request body is not UTF-8{_bad_byte(body)}.") from None
    except msgspec.DecodeError as error:
        if _HALF.search(body):
            with suppress(ValueError, RecursionError):
                return cleaned(json.loads(body.decode()))
        words = str(error).removeprefix("JSON is malformed: ")
        if words == "Input data was truncated":
            words = f"it ends too early, after {len(body)} bytes"
        raise _malformed(f"The request body is not valid JSON: {words}.") from None


def _bad_byte(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f" (byte {error.start})"
    return ""  # pragma: no cover - msgspec and Python agree on UTF-8


def _malformed(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")
