"""Clients of the failover benchmark: raw HTTP/1.1, one connection a request, every time noted."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.daemons import Daemon

TIMEOUT_S = 120.0


@dataclass(slots=True)
class Heard:
    """What one client saw. Times are monotonic seconds."""

    sent_at: float
    status: int = 0
    attempts: int = 0
    node: str = ""
    error: str = ""
    pieces: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """When each piece came."""
    done_at: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_good(self) -> bool:
        """Answered, and to its end."""
        return bool(self.at) and not self.error

    @property
    def first_s(self) -> float:
        """From the question to the first word."""
        return self.at[0] - self.sent_at

    @property
    def took_s(self) -> float:
        return self.done_at - self.sent_at

    @property
    def gap_s(self) -> float:
        """The longest pause inside the answer."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)


def body(model: str, text: str, **more: Any) -> dict[str, Any]:
    """A streamed chat of one turn."""
    turn = {"role": "user", "content": text}
    return {"model": model, "messages": [turn], "stream": True, **more}


def ask(entry: Daemon, asked: dict[str, Any], request_id: str = "", words: int = 0) -> Heard:
    """Read a stream to its end; with `words`, leave after so many pieces."""
    heard = Heard(time.monotonic())
    connection = http.client.HTTPConnection("127.0.0.1", entry.http_port, timeout=TIMEOUT_S)
    headers = {"x-request-id": request_id} if request_id else {}
    try:
        with contextlib.closing(connection):
            connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
            response = connection.getresponse()
            heard.status = response.status
            heard.attempts = int(response.headers.get("x-mesh-attempts", "0"))
            heard.node = response.headers.get("x-mesh-node", "")
            if response.status != 200:
                heard.error = f"{response.status}: {response.read(500)!r}"
            elif _read(response, heard, words):
                heard.error = heard.error or ("" if words else "the stream has no end")
    except (OSError, http.client.HTTPException) as error:
        heard.error = repr(error)
    heard.done_at = time.monotonic()
    return heard


def _read(response: Iterator[bytes], heard: Heard, words: int) -> bool:
    """Pieces as they come; whether the stream stopped before its last word."""
    for line in response:
        if line.startswith(b"data: [DONE]"):
            return False
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line.removeprefix(b"data: "))
        if "error" in chunk:
            heard.error = str(chunk["error"])
            return False
        text = "".join(each["delta"].get("content") or "" for each in chunk["choices"])
        if text:
            heard.pieces.append(text)
            heard.at.append(time.monotonic())
        if words and len(heard.pieces) >= words:
            return True
    return True
