"""Requests that are passed on as they are: speech, pictures, whatever an adopted server has below
`/v1` that nobody here reads.

Method POST, the path, the content type and the body go to the server unchanged, and its status,
content type and body come back. One thing is put right on the way: where a JSON body names the
model by another of its names (the router has found out whose), the server's own is written there.

A path comes from whoever asked, perhaps through a peer, and this request carries the server's key:
so it is a plain path below `/v1`, without dots that climb and without escapes, and none of those
that are answered here in their own right.

A refusal of the server's that another node may do better with (it is busy, it has no such model, it
broke) becomes a failure. Any other answer is the answer, whatever its status.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from meshd.engine.failures import failure_of
from protocol import limits
from protocol.jobs import Event, Failure, Finish, RawHead, RawPart, RawRequest

PATH = re.compile(r"/v1(?:/[A-Za-z0-9_-][A-Za-z0-9._~-]*)+")
"""Plain segments: no dots in front, no escapes, no query."""

SERVED_HERE = frozenset(
    f"/v1/{name}"
    for name in ("chat/completions", "completions", "embeddings", "messages", "models", "responses")
)
"""Paths with a dialect of their own, whose jobs are understood, counted and bounded."""

CONTENT_TYPE = re.compile(r"[\x21-\x7e][\x20-\x7e]*")
"""One header line."""


def refusal_of(raw: RawRequest | None) -> Failure | None:
    """Why a request is not passed on; None when it is."""
    if raw is None:
        return failure_of("bad_request", "a raw job without a request", elsewhere=False)
    if not PATH.fullmatch(raw.path) or raw.path in SERVED_HERE:
        return failure_of(
            "bad_request",
            f"{raw.path!r:.80} is not passed on to adopted servers: only plain paths below /v1 "
            "that this node does not serve itself are",
            elsewhere=False,
        )
    if not CONTENT_TYPE.fullmatch(raw.content_type):
        return failure_of(
            "bad_request", "the content type is not one line of ASCII text", elsewhere=False
        )
    return None


def body_for(raw: RawRequest, served_name: str) -> bytes:
    """The body for a server that calls the model `served_name`."""
    if raw.content_type.partition(";")[0].strip().lower() != "application/json":
        return raw.body
    try:
        decoded: Any = msgspec.json.decode(raw.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw.body
    named = decoded.get("model") if isinstance(decoded, dict) else None
    if not isinstance(named, str) or named == served_name:
        return raw.body
    return msgspec.json.encode({**decoded, "model": served_name})


class RawAnswer:
    """One answer, as it comes. Parts are bounded, and the server waits for their reader."""

    def __init__(self, status: int, content_type: str, began: float) -> None:
        """`began` is when the request was sent, on the clock of `take`."""
        self.is_over = False
        self._head: RawHead | None = RawHead(status, content_type[: limits.TEXT_MAX_CHARS])
        self._began = began
        self._first = 0.0

    def take(self, received: bytes, now: float) -> list[Event]:
        """What `received` adds; empty bytes are the end of the body."""
        self._first = self._first or now
        events: list[Event] = [self._head] if self._head else []
        self._head = None
        size = limits.RELAY_CHUNK_BYTES
        events += [RawPart(received[at : at + size]) for at in range(0, len(received), size)]
        if not received:
            self.is_over = True
            events.append(_account(self._first - self._began, now - self._first))
        return events


def _account(prompt_s: float, generation_s: float) -> Finish:
    """Nobody counted tokens."""
    return Finish(
        "stop",
        prompt_tokens=0,
        completion_tokens=0,
        prompt_s=prompt_s,
        generation_s=generation_s,
        counted=False,
    )
