"""`/mesh/v1/events`: what the dashboard shows, pushed as it changes.

    event: status      the body of /mesh/v1/status
    event: requests    the body of /mesh/v1/requests, its newest rows

One look a second serves every open page: the first page to wake makes the bytes, the others send
the same. What has not changed is not sent again; a silent stream still says so with a comment,
which is how a page learns that the node is there. A stream outlives the API key that opened it by
one look at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec

from meshd.api import sse
from meshd.api.errors import ApiError

LOOK_EVERY_S = 1.0
"""Loads are gossiped about as often."""

PAGES_MAX = 32
"""Streams at once: three for each of ten people. One stream costs a write a second."""

ROWS = 50
"""Requests in one event: a screenful and a half."""

Look = Callable[[], Mapping[str, Any]]

Allowed = Callable[[], bool]
"""Whether who watches may still do so."""

_ENCODE = msgspec.json.Encoder().encode


class Live:
    """The looks, and who watches."""

    def __init__(self, looks: Mapping[str, Look], clock: Callable[[], float] = time.monotonic):
        """`looks` gives the body of each event by its name."""
        self._looks = looks
        self._clock = clock
        self._watching = 0
        self._made_at = float("-inf")
        self._made: dict[str, bytes] = {}

    def open(self, allowed: Allowed) -> AsyncGenerator[bytes, None]:
        """A stream for one page, asked before each look; closing it ends it. Raises ApiError
        (429)."""
        if self._watching >= PAGES_MAX:
            raise ApiError(
                429,
                f"{PAGES_MAX} pages watch this node already. Close one, or ask /mesh/v1/status.",
                code="too_many_watchers",
                headers=(("retry-after", "10"),),
            )
        return self._watch(allowed)

    async def _watch(self, allowed: Allowed) -> AsyncGenerator[bytes, None]:
        self._watching += 1
        sent: dict[str, bytes] = {}
        try:
            while allowed():
                fresh = {
                    name: data for name, data in self._look().items() if sent.get(name) != data
                }
                sent |= fresh
                yield b"".join(_event(name, data) for name, data in fresh.items()) or sse.PING
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._watching -= 1

    def _look(self) -> Mapping[str, bytes]:
        """The newest bytes, at most LOOK_EVERY_S old."""
        now = self._clock()
        if now - self._made_at >= LOOK_EVERY_S * 0.9:
            self._made_at = now
            self._made = {name: _ENCODE(look()) for name, look in self._looks.items()}
        return self._made


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
