"""A small HTTP/1.1 client for one server: connections that are kept, answers that are streamed.

An `Exchange` is one request and its answer, and owns a connection while it lasts. A connection goes
back to the pool when its answer was read to the end; an answer that nobody wants to the end closes
its connection, which is how a model server learns that it can stop.

A kept connection may have died unnoticed. If it is lost before a single byte of the answer, the
request is sent once more on a new one; servers drop idle connections and say nothing.

No timer runs for each request: `sweep`, called every few seconds, closes connections that were idle
too long or silent too long.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from base64 import b64encode
from collections import deque
from time import monotonic
from typing import cast
from urllib.parse import unquote, urlsplit

from meshd.engine.http1 import HttpError, ResponseReader

CONNECT_TIMEOUT_S = 2.0
"""For the TCP connection and TLS: it is this machine or this network."""

SILENCE_MAX_S = 600.0
"""Between two reads: the longest prefill that anybody waits for. The router is less patient."""

KEEP_ALIVE_S = 4.0
"""Idle connections are dropped before the 5 s after which common servers drop theirs."""

CONNECTIONS_MAX = 1_024
"""Requests at one server at a time."""

UNREAD_MAX_BYTES = 1024 * 1024
"""Of an answer, waiting for its reader; beyond it the server is made to wait."""


CRLF = "\r\n"

JSON = b"accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"
"""Headers of the usual request."""


class ConnectionFailed(Exception):
    """The server cannot be reached, or the connection was lost; the text is a clause."""


class HttpClient:
    """Requests to one origin. Use it on one loop."""

    def __init__(self, url: str, key: str = "") -> None:
        """`url` is http or https with a host; its path is not used. `key` is sent as a bearer
        token with every request; without one, a name and password in the address are sent."""
        parts = urlsplit(url)
        trusted = f"Bearer {key}" if key else _basic(parts.username, parts.password)
        self._host = parts.hostname or "127.0.0.1"
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._context: ssl.SSLContext | None = None
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._headers = (
            f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
            f"{f'authorization: {trusted}{CRLF}' if trusted else ''}"
            "user-agent: meshd\r\naccept-encoding: identity\r\n"
        ).encode()

    async def request(
        self, method: str, path: str, body: bytes = b"", content_type: str = ""
    ) -> Exchange:
        """Send a request; returns when the answer's head is here. Without `content_type` it is JSON
        that is sent, and JSON or events that are wanted; with one (a single line), anything is.

        Raises ConnectionFailed and HttpError.
        """
        kind = f"accept: */*\r\ncontent-type: {content_type}\r\n".encode() if content_type else JSON
        head = b"%b%b%bcontent-length: %d\r\n\r\n" % (
            f"{method} {path}".encode(),
            self._headers,
            kind,
            len(body),
        )
        sent = head + body
        connection = self._take_idle()
        if connection is not None:
            self._busy.add(connection)
            try:
                return await Exchange(self, connection).begin(sent)
            except ConnectionFailed:
                if connection.has_answered or connection.is_given_up:
                    raise
        connection = await self._connect()
        self._busy.add(connection)
        return await Exchange(self, connection).begin(sent)

    def sweep(self) -> None:
        """Close what has been idle or silent for too long. Call every few seconds."""
        now = monotonic()
        while self._idle and now - self._idle[0].active_at > KEEP_ALIVE_S:
            self._idle.popleft().close()
        for connection in list(self._busy):
            if now - connection.active_at > SILENCE_MAX_S:
                connection.fail(f"the server was silent for {SILENCE_MAX_S:.0f} s")

    def close(self) -> None:
        """Close every connection; what is under way fails."""
        for connection in (*self._idle, *self._busy):
            connection.fail("the client was closed")
        self._idle.clear()

    def give_back(self, connection: Connection) -> None:
        """An exchange is over: keep its connection if it can serve again."""
        self._busy.discard(connection)
        if connection.is_reusable:
            connection.active_at = monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def _take_idle(self) -> Connection | None:
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.active_at < KEEP_ALIVE_S:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        if len(self._busy) >= CONNECTIONS_MAX:
            raise ConnectionFailed(f"{CONNECTIONS_MAX} requests are under way there already")
        if self._is_tls and self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    Connection, self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise ConnectionFailed(f"no connection within {CONNECT_TIMEOUT_S:.0f} s") from None
        except OSError as error:
            raise ConnectionFailed(_words(error)) from None
        return connection


def _basic(name: str | None, password: str | None) -> str:
    """What a reverse proxy with a password wants, as every other client sends it from an address;
    empty where it holds no name."""
    if name is None:
        return ""
    pair = f"{unquote(name)}:{unquote(password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _words(error: OSError) -> str:
    """The system's own words where there are any; asyncio puts its own in their place. The numbers
    of OpenSSL are others."""
    if isinstance(error, ssl.SSLError):
        return str(error)
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


class Connection(asyncio.Protocol):
    """One TCP connection, with at most one answer being read from it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reader = ResponseReader()
        self.active_at = monotonic()
        self.has_answered = False
        self.is_given_up = False
        """Closed by us: whoever was asked over it may still be at work."""
        self._transport: asyncio.Transport | None = None
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._is_paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_reusable(self) -> bool:
        """Alive, and with nothing of an answer outstanding."""
        reader = self.reader
        is_between = reader.is_whole and reader.keep_alive and not self._unread
        return self._transport is not None and self._error is None and is_between

    def send(self, request: bytes) -> None:
        """Begin a request."""
        self.reader = ResponseReader()
        self.has_answered = False
        self.active_at = monotonic()
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> None:
        """Wait for the answer's status and headers."""
        while not self.reader.status:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body; empty at its end."""
        while not self._unread:
            if self.reader.is_whole:
                return b""
            await self._more()
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return unread[0] if len(unread) == 1 else b"".join(unread)

    def fail(self, why: str) -> None:
        """Close the connection; whoever reads from it is told why."""
        self.is_given_up = True
        self._end(ConnectionFailed(why))
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.active_at = monotonic()
        self.has_answered = True
        try:
            body = self.reader.feed(data)
        except HttpError as error:
            self._end(error)
            self.close()
            return
        if body:
            self._unread.append(body)
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_MAX_BYTES and self._transport is not None:
                self._is_paused = True
                self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.has_answered or (exc is not None and not self.reader.is_whole):
            self._end(ConnectionFailed(str(exc) if exc else "it closed the connection"))
        else:
            try:
                self.reader.close()
            except HttpError as error:
                self._end(error)
        self._wake()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _end(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """One request and its answer. `end` it, always."""

    def __init__(self, client: HttpClient, connection: Connection) -> None:
        self._client = client
        self._connection = connection

    async def begin(self, request: bytes) -> Exchange:
        """Send, and wait for the head. Ends the exchange itself when that fails."""
        try:
            self._connection.send(request)
            await self._connection.head()
        except BaseException:
            self.end()
            raise
        return self

    @property
    def status(self) -> int:
        """The answer's HTTP status."""
        return self._connection.reader.status

    def header(self, name: str) -> str:
        """A header's value by its lower-case name; empty where there is none."""
        return self._connection.reader.headers.get(name.encode(), b"").decode("latin-1")

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises ConnectionFailed, HttpError."""
        return await self._connection.read()

    async def read_at_most(self, most: int) -> bytes:
        """The rest of the body, cut after `most` bytes. Raises ConnectionFailed, HttpError."""
        body = bytearray()
        while len(body) < most and (received := await self.read()):
            body += received
        return bytes(body[:most])

    def end(self) -> None:
        """Let the connection go. An answer that was not read to its end is cut off."""
        self._client.give_back(self._connection)
