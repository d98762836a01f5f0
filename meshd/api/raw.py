"""Requests that nobody here reads: speech, pictures, and whatever `/v1` path comes next.

They go, byte for byte, to a server that some node has adopted, and its answer comes back the same
way with its status and content type: nothing is known of either, so nothing can be lost. Three
things are needed on the way and found out here:

- the *path*, of which only plain segments pass: what a node posts to its own servers must not be
  steered elsewhere by dots and escapes;
- the *model*, which the router needs: a field of the JSON body, or of the form (multipart), which
  is searched in place because the file beside it may be 16 MiB. Where no model is named and one
  alone can do what the path asks for, it is meant;
- what the model must be able to do: `meshd.core.routing.demand.RAW_CAPABILITIES`.

An answer that breaks off has no error of its own form (half a picture is no place for JSON), so the
connection is closed without an end, which every client takes for what it is; a stream of events
gets an error event as elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from meshd.api import sse
from meshd.api.dialect import Asked, Asker
from meshd.api.errors import ApiError, bad_value, from_failure, missing
from meshd.api.headers import safe
from meshd.api.job import session_key
from meshd.api.writing import INCOMPLETE
from meshd.core.ports import Batch
from meshd.core.routing.demand import RAW_CAPABILITIES
from protocol import limits
from protocol.jobs import Failure, Finish, Job, RawHead, RawPart, RawRequest

PATH = re.compile(r"/v1(?:/[A-Za-z0-9_-][A-Za-z0-9._~-]*)+")
"""Paths that are passed on: no dots in front, no escapes, no empty segments."""

FORM_PARTS_MAX = 64
"""Fields of one form that are looked at; OpenAI's longest has about a dozen."""

PART_HEAD_MAX_BYTES = 4_096
"""Header lines of one form field: a name, a file's name, a type."""

BOUNDARY_MAX_CHARS = 70
"""RFC 2046, 5.1.1."""

EVENT_STREAM = "text/event-stream"

_BOUNDARY = re.compile(r"boundary=(?:\"([^\"]+)\"|([^\s;\"]+))", re.IGNORECASE)
_NAME = re.compile(rb"(?:^|[;\s])name=(?:\"([^\"]*)\"|([^\s;\"]+))", re.IGNORECASE)

WORDS = {
    "transcription": "turn speech into text",
    "speech": "turn text into speech",
    "image": "make pictures",
}


class _Named(msgspec.Struct):
    """All that is read of a JSON body."""

    model: str | None = None


class RawBrokenOff(Exception):
    """An answer ended in the middle: the connection must be closed without an end."""


def read_raw(
    path: str,
    content_type: str,
    body: bytes,
    asker: Asker,
    models: Sequence[Mapping[str, Any]],
) -> Asked:
    """A POST to `path`, which begins with `/v1/`. Raises ApiError (400, 404)."""
    if not PATH.fullmatch(path):
        raise _nothing_at(path)
    if len(path) > limits.TEXT_MAX_CHARS or len(content_type) > limits.TEXT_MAX_CHARS:
        raise bad_value(
            "path", f"Path and content type may have {limits.TEXT_MAX_CHARS} characters each."
        )
    capability = RAW_CAPABILITIES.get(path)
    model = model_of(content_type, body) or _only(capability, models)
    if model is None:
        raise _nothing_at(path) if capability is None else _model_needed(capability, models)
    if len(model) > limits.TEXT_MAX_CHARS:
        raise bad_value("model", f"'model' has more than {limits.TEXT_MAX_CHARS} characters.")
    job = Job(
        request_id=asker.request_id,
        kind="raw",
        model=model,
        raw=RawRequest(path, content_type or _told_type(body), body),
        stream=True,
        session=session_key(asker.session),
        person=asker.person,
        priority=asker.priority,
    )
    return Asked(job)


def model_of(content_type: str, body: bytes) -> str | None:
    """The model that a body names, None where it names none. Raises ApiError (400)."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return form_field(body, _boundary(content_type), b"model")
    try:
        return msgspec.json.decode(body, type=_Named).model or None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if kind == "application/json":
            raise bad_value(
                "model", "The request body is no JSON object with a 'model' in it."
            ) from None
        return None


def form_field(body: bytes, boundary: bytes, wanted: bytes) -> str | None:
    """The text of one field of a form, found without a copy of the others. Raises ApiError (400).

    The bound on parts is also the bound on work: one search through the body, whatever is in it.
    """
    line = b"--" + boundary
    at = 0 if body.startswith(line) else body.find(b"\r\n" + line) + 2
    if not body.startswith(line, at):
        raise _broken_form("it does not begin with its boundary")
    for _ in range(FORM_PARTS_MAX):
        at += len(line)
        if body.startswith(b"--", at):
            return None
        head_end = body.find(b"\r\n\r\n", at, at + PART_HEAD_MAX_BYTES)
        end = body.find(b"\r\n" + line, head_end + 2) if head_end >= 0 else -1
        if end < 0:
            raise _broken_form("a field of it does not end")
        name = _NAME.search(body[at:head_end])
        if name is not None and (name[1] or name[2]) == wanted:
            return _text(body[head_end + 4 : min(end, head_end + 4 + limits.TEXT_MAX_CHARS * 4)])
        at = end + 2
    raise _broken_form(f"none of its first {FORM_PARTS_MAX} fields is '{wanted.decode()}'")


class RawStream:
    """Passes one answer on. `status` and `lines` are the server's own, from its first event."""

    def __init__(self, first: Batch) -> None:
        """Raises ApiError when the batch holds no head."""
        head = next((event for event in first if isinstance(event, RawHead | Failure)), INCOMPLETE)
        if isinstance(head, Failure):
            raise from_failure(head)
        self.status = _writable(head.status)
        self.lines = f"content-type: {safe(head.content_type) or 'application/octet-stream'}\r\n"
        self._is_events = head.content_type.partition(";")[0].strip().lower() == EVENT_STREAM
        self.ended = False

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch. Raises RawBrokenOff for a failure that cannot be written."""
        parts: list[bytes] = []
        for event in batch:
            if self.ended:
                break
            match event:
                case RawPart():
                    parts.append(event.data)
                case Finish():
                    self.ended = True
                case Failure():
                    self.ended = True
                    if not self._is_events:
                        raise RawBrokenOff(event.message)
                    parts.append(sse.event(from_failure(event).body()))
                case _:
                    pass
        return b"".join(parts)

    def heartbeat(self) -> bytes:
        """Nothing, unless it is a stream of events."""
        return sse.PING if self._is_events else b""


def _only(capability: str | None, models: Sequence[Mapping[str, Any]]) -> str | None:
    """The one model that can do it, None where it is not one."""
    able = [str(model["id"]) for model in models if capability in model["capabilities"]]
    return able[0] if len(able) == 1 else None


def _told_type(body: bytes) -> str:
    """The content type of a body whose sender named none."""
    return "application/json" if body[:1] == b"{" else "application/octet-stream"


def _writable(status: int) -> int:
    """A status that can stand over an answer with a body: the server's own, if HTTP knows it."""
    if status in _BODILESS:
        return HTTPStatus.OK
    return status if status in _STATUSES else HTTPStatus.BAD_GATEWAY


_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED})
_STATUSES = frozenset(status.value for status in HTTPStatus if status >= HTTPStatus.OK)


def _nothing_at(path: str) -> ApiError:
    return ApiError(
        404,
        f"Nothing is served at {path[:200]} by this node itself. To pass it on to a server that "
        "a node has adopted, name one of its models: 'model' in a JSON object or a form.",
        code="unknown_url",
    )


def _model_needed(capability: str, models: Sequence[Mapping[str, Any]]) -> ApiError:
    able = [str(model["id"]) for model in models if capability in model["capabilities"]]
    if able:
        return missing("model", f"'model' is missing. It can be: {', '.join(able[:10])}.")
    return ApiError(
        404,
        f"No node of the mesh has a model that can {WORDS[capability]}. Start a server that can on "
        "one of them, and let its node adopt it: `meshd run --engine openai:URL`.",
        code="model_not_found",
        param="model",
    )


def _boundary(content_type: str) -> bytes:
    found = _BOUNDARY.search(content_type)
    boundary = (found[1] or found[2]) if found else ""
    if not 0 < len(boundary) <= BOUNDARY_MAX_CHARS or not boundary.isascii():
        raise _broken_form("its content type names no boundary of 1 to 70 characters")
    return boundary.encode()


def _text(value: bytes) -> str | None:
    try:
        return value.decode().strip() or None
    except UnicodeDecodeError:
        raise _broken_form("'model' is not UTF-8") from None


def _broken_form(why: str) -> ApiError:
    return ApiError(
        400,
        f"The request body is not a form as its content type says: {why}.",
        code="invalid_form",
    )
