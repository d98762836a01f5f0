"""Server-sent events, and the HTTP/1.1 chunks that carry them.

One batch of events becomes one HTTP chunk, written once: the cost of a stream is the number of
writes, not of tokens. A client sees no difference; chunk borders mean nothing to it.
"""

from __future__ import annotations

DONE = b"data: [DONE]\n\n"
"""OpenAI's last word; absent after an error, because then the answer is not done."""

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body: the client knows the stream was not cut off."""

HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
"""Without the last one nginx holds events back until its buffer is full."""


def event(payload: bytes) -> bytes:
    """One unnamed event. `payload` is JSON, so it holds no line break."""
    return b"data: %b\n\n" % payload


def comment(text: str) -> bytes:
    """A line that clients skip. Line breaks, which would end it, become spaces."""
    return f": {' '.join(text.split())}\n\n".encode(errors="replace")


PING = comment("ping")
"""Keeps proxies and clients from taking silence for death."""


def http_chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body. `payload` is not empty: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
