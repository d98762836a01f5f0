"""An answer that is whole, and the bytes of an HTTP/1.1 head.

Written here rather than by the HTTP library because a head is the same few lines each time: made
as one string, it costs a third of what a header map costs.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import msgspec

from meshd.api.errors import ApiError
from meshd.api.headers import safe

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

Refuse = Callable[[ApiError, str], tuple[int, bytes]]
"""An error and the request id to HTTP status and JSON body, in the shape of one dialect."""

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    499: "Client Closed Request",
    529: "Overloaded",
}


class Reply(msgspec.Struct, frozen=True):
    """One whole answer. `lines` are header lines that are already safe, each ending in CRLF."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    lines: str = ""
    close: bool = False


def json_reply(value: Any) -> Reply:
    """200 with `value` as JSON."""
    return Reply(msgspec.json.encode(value))


def refuse(error: ApiError, _request_id: str) -> tuple[int, bytes]:
    """Status and body of an error in OpenAI's shape."""
    return error.status, error.body()


def error_reply(error: ApiError, refuse: Refuse = refuse, request_id: str = "") -> Reply:
    """An error in the shape that `refuse` gives it, with its headers."""
    status, body = refuse(error, request_id)
    more = "".join([f"{name}: {safe(value)}\r\n" for name, value in error.headers])
    return Reply(body, status, lines=error.lines + more, close=error.close)


class HeadWriter:
    """Makes heads. Holds the `date` line, which changes once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._date = ""

    def head(self, status: int, lines: str) -> bytes:
        """A head up to and with the empty line. `lines` are header lines, each ending in CRLF."""
        return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{self._date}{lines}\r\n".encode("ascii")

    def tick(self, now_s: float) -> None:
        """Tell it the time (Unix seconds) before each head."""
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._date = f"date: {formatdate(second, usegmt=True)}\r\n"
