"""The bytes of one answer on its way to the client: whole, or as a stream.

Answers are written to the transport directly: one write per whole reply, one per batch of a
stream. The library's own response objects do the same work in twice the time.

**Silence.** Clients and proxies take a long silence for death. A stream that says nothing for
`heartbeat_s` gets the dialect's heartbeat. A stream whose first word has not come after `early_s`
(a cold model, a long queue) gets its status and a comment; what goes wrong later is then an event
in the stream, as after any first byte, and who answers is said in a comment instead of headers.

**Endings.** No SDK notices a stream that just stops, so one that breaks off says so in its
dialect's words. Where a dialect has none (half a picture), the connection is cut without the end
that HTTP would have, which every client takes for what it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, suppress
from typing import Any, Protocol

from meshd.api import sse
from meshd.api.answers import Stream
from meshd.api.dialect import SSE_LINES, Asked, Dialect, EventEncoder, Opening
from meshd.api.errors import ApiError
from meshd.api.limits import HttpLimits
from meshd.api.raw import RawBrokenOff
from meshd.api.replies import HeadWriter, Refuse, Reply, error_reply
from meshd.api.writing import INCOMPLETE
from meshd.core.ports import AnswerHead
from protocol.jobs import Failure

log = logging.getLogger(__name__)

NO_BODY = frozenset({204, 304})
"""Statuses whose answers have no length either."""


MIN_BEAT_S = 0.01
"""A slow client can make a heartbeat overdue; looking again at once would be a busy loop."""


class Wire(Protocol):
    """A connection, as far as it is written to."""

    @property
    def is_paused(self) -> bool:
        """The client reads more slowly than it is written to."""
        ...

    def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client is gone."""
        ...

    async def drain(self) -> None:
        """Wait until the client has read on. Raises ConnectionError."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...


class Exchange:
    """One request's way back to its client. `request_id` and `method` are the request's."""

    def __init__(
        self,
        wire: Wire,
        heads: HeadWriter,
        limits: HttpLimits,
        request_id: str,
        *,
        loop: asyncio.AbstractEventLoop,
        is_head: bool,
        modern: bool,
        keep: bool,
    ) -> None:
        """`modern` clients take chunks (HTTP/1.1); `keep` says whether the connection may stay.
        `loop` is the running one, which the caller knows without asking the system."""
        self._wire = wire
        self._heads = heads
        self._limits = limits
        self._request_id = request_id
        self._is_head = is_head
        self._modern = modern
        self.keep = keep and modern
        """Whether the connection is of further use once the answer is written."""
        self.lines = f"x-request-id: {request_id}\r\nrequest-id: {request_id}\r\n"
        """Header lines of every answer to this request. Anthropic's SDKs know no `x-` before it."""
        self.told_in_stream = ""
        """Code of a refusal that this client knows as an event only: a stream begins for it."""
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._expected: tuple[Dialect[Any], Asked] | None = None
        self._encoder: EventEncoder | None = None
        self._is_open = False
        self._unsent = b""
        self._wrote_at = 0.0

    def reply(self, reply: Reply) -> None:
        """Writes one whole answer. Raises ConnectionError when the client is gone."""
        self.keep = self.keep and not reply.close
        size = "" if reply.status in NO_BODY else f"content-length: {len(reply.body)}\r\n"
        head = self._head(
            reply.status, f"content-type: {reply.content_type}\r\n{size}{reply.lines}"
        )
        self._wire.write(head if self._is_head else head + reply.body)

    def refuse(self, error: ApiError, refuse: Refuse) -> None:
        """Says no: by status, or in a stream that has begun without an answer. In the middle of an
        answer that cannot even say that it broke off, the connection is cut."""
        if self._encoder is not None:
            self._wire.abort()
            return
        in_stream = self._expected is not None and error.code == self.told_in_stream
        if not self._is_open and not in_stream:
            self.reply(error_reply(error, refuse, self._request_id))
            return
        assert self._expected is not None
        dialect, asked = self._expected
        if not self._is_open:
            self._unsent = self._stream_head(200, dialect.stream_lines + error.lines)
        head = AnswerHead(self._request_id, "", "", asked.job.model, 0, "", 0, 0)
        encoder = dialect.stream(asked, Opening(self._request_id, time.time(), head))
        failure = error.failure or Failure("engine_failed", error.message, elsewhere=False)
        self._send(encoder.encode([failure]), last=True)

    def interim(self) -> None:
        """Tells a client that asks first to go on and send its body."""
        self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def expect(self, dialect: Dialect[Any], asked: Asked) -> None:
        """A stream is asked for: from now on silence is watched, until `close`."""
        self._expected = dialect, asked
        self._timer = self._loop.call_later(self._limits.early_s, self._open_early)

    def close(self) -> None:
        """The answer is written, or never will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def stream(self, stream: Stream) -> None:
        """Writes events as they come. Raises ConnectionError when the client is gone."""
        encoder = self._encoder = stream.encoder
        first = self._open(stream) + stream.first
        try:
            await self._follow(stream, encoder, first)
            if not encoder.ended:
                self._send(encoder.encode([INCOMPLETE]), last=True)
        except RawBrokenOff as broken:
            log.info("cut the connection: %s (%s)", broken, self.lines.strip())
            self._wire.abort()
            raise ConnectionResetError("the answer broke off") from None

    async def _follow(self, stream: Stream, encoder: EventEncoder, first: bytes) -> None:
        try:
            async with aclosing(stream.events) as events:
                self._send(first, last=encoder.ended)
                async for batch in events:
                    if self._wire.is_paused:
                        await self._wire.drain()
                    if not encoder.ended:
                        self._send(encoder.encode(batch), last=encoder.ended)
        except (ConnectionError, RawBrokenOff):
            raise
        except Exception:
            log.exception("stream broke off: %s", self.lines.strip())
            self.keep = False

    def _open(self, stream: Stream) -> bytes:
        """Makes the head ready, or where one is written already, what stands for it."""
        self.close()
        self._timer = self._loop.call_later(self._limits.heartbeat_s, self._beat)
        if not self._is_open:
            self._is_open = True
            self._unsent = self._stream_head(stream.status, stream.lines)
            return b""
        return sse.comment(stream.lines) if SSE_LINES in stream.lines else b""

    def _open_early(self) -> None:
        """The first word is late: says that there will be a stream."""
        assert self._expected is not None
        self._is_open = True
        self._unsent = self._stream_head(200, self._expected[0].stream_lines)
        self._beat()

    def _beat(self) -> None:
        """Says "still here", if nothing was said lately."""
        due = self._wrote_at + self._limits.heartbeat_s
        now = self._loop.time()
        if now >= due and not self._wire.is_paused:
            with suppress(ConnectionError):
                self._send(self._heartbeat())
            due = now + self._limits.heartbeat_s
        self._timer = self._loop.call_later(max(due - now, MIN_BEAT_S), self._beat)

    def _heartbeat(self) -> bytes:
        if self._encoder is not None:
            return b"" if self._encoder.ended else self._encoder.heartbeat()
        assert self._expected is not None
        return sse.PING if self._expected[0].stream_lines == SSE_LINES else b""

    def _stream_head(self, status: int, lines: str) -> bytes:
        framing = "transfer-encoding: chunked\r\n" if self._modern else ""
        return self._head(status, f"{framing}{lines}")

    def _head(self, status: int, lines: str) -> bytes:
        ending = "" if self.keep else "connection: close\r\n"
        return self._heads.head(status, f"{lines}{self.lines}{ending}")

    def _send(self, data: bytes, *, last: bool = False) -> None:
        """`data` in the framing of this connection, after a head that waits to be sent."""
        if self._modern:
            data = sse.http_chunk(data) if data else b""
            if last:
                data += sse.LAST_CHUNK
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if data:
            self._wrote_at = self._loop.time()
            self._wire.write(data)
