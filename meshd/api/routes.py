"""One HTTP exchange: who asks, what for, and the bytes of the answer.

Everything a request can do wrong ends in an `ApiError` and is written here in OpenAI's shape; an
exception of ours becomes a 500 in the same shape and a line in the log, never a dropped
connection. A body that does not come and a client that stops reading are bounded by `HttpLimits`,
silent connections by the server; the wait for an answer is the gateway's to bound.

A client that leaves cancels this handler wherever it waits; closing the event stream on the way
out is what frees the slot, on whichever node it is.

Answers are written to the transport directly: one write per whole reply, one per batch of a
stream. The library's own response objects do the same work in twice the time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import aclosing

from aiohttp import HttpVersion11, StreamReader, web

from meshd.api import sse
from meshd.api.answers import Answers, Stream
from meshd.api.errors import ApiError, internal_error
from meshd.api.headers import api_key, sane_request_id, session_hint
from meshd.api.limits import BODY_MAX_BYTES, DEFAULT, HttpLimits
from meshd.api.openai import INCOMPLETE, error_event
from meshd.api.origin import (
    check_host,
    check_origin,
    check_owner,
    cors_lines,
    preflight_headers,
)
from meshd.api.paths import OWNERS, PUBLIC, find
from meshd.api.replies import TEXT, HeadWriter, Reply, error_reply

log = logging.getLogger(__name__)

SSE_LINES = "".join([f"{name}: {value}\r\n" for name, value in sse.HEADERS])
NO_CONTENT = 204


class Written(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already, and whether to keep the connection."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to do: the head has been written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to do: the body has been written."""


KEEP = Written(keep=True)
CLOSE = Written(keep=False)


class Exchange:
    """One request's way back to its client."""

    def __init__(
        self, request: web.BaseRequest, heads: HeadWriter, limits: HttpLimits, lines: str
    ) -> None:
        self._request = request
        self._heads = heads
        self._limits = limits
        self._modern = request.version >= HttpVersion11
        self._keep = self._modern and request.keep_alive
        self.lines = lines
        """Header lines of every answer to this request."""

    def reply(self, reply: Reply) -> web.StreamResponse:
        """Writes one whole answer. Raises ConnectionError when the client is gone."""
        self._keep = self._keep and not reply.close
        size = "" if reply.status == NO_CONTENT else f"content-length: {len(reply.body)}\r\n"
        head = self._head(
            reply.status, f"content-type: {reply.content_type}\r\n{size}{reply.lines}"
        )
        self._write(head if self._request.method == "HEAD" else head + reply.body)
        return KEEP if self._keep else CLOSE

    async def stream(self, stream: Stream) -> web.StreamResponse:
        """Writes events as they come. Raises ConnectionError when the client is gone."""
        encoder = stream.encoder
        framing = "transfer-encoding: chunked\r\n" if self._modern else ""
        head = self._head(200, f"{SSE_LINES}{framing}{stream.lines}")
        try:
            async with aclosing(stream.events) as events:
                self._write(head + self._part(stream.first, last=encoder.ended))
                async for batch in events:
                    if self._request.protocol.writing_paused:
                        await self._drain()
                    data = b"" if encoder.ended else encoder.encode(batch)
                    if data:
                        self._write(self._part(data, last=encoder.ended))
        except ConnectionError:
            raise
        except Exception:
            log.exception("stream broke off: %s", self.lines.strip())
            self._keep = False
        if not encoder.ended:
            self._write(self._part(error_event(INCOMPLETE), last=True))
        return KEEP if self._keep else CLOSE

    def interim(self) -> None:
        """Tells a client that asks first to go on and send its body."""
        self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _head(self, status: int, lines: str) -> bytes:
        ending = "" if self._keep else "connection: close\r\n"
        return self._heads.head(status, f"{lines}{self.lines}{ending}")

    def _part(self, data: bytes, *, last: bool) -> bytes:
        """`data` in the framing of this connection."""
        if not self._modern:
            return data
        framed = sse.http_chunk(data) if data else b""
        return framed + sse.LAST_CHUNK if last else framed

    def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_s):
                await self._request.writer.drain()
        except TimeoutError:
            transport = self._request.transport
            if transport is not None:
                transport.abort()
            raise ConnectionResetError("the client stopped reading") from None


class Routes:
    """Answers every request of one server."""

    def __init__(
        self,
        answers: Answers,
        *,
        hosts: Collection[str] = (),
        auth: Callable[[str | None], bool] | None = None,
        limits: HttpLimits = DEFAULT,
    ) -> None:
        self._answers = answers
        self._limits = limits
        self._hosts = hosts
        self._auth = auth
        self._heads = HeadWriter()
        self._open: set[str] = set()
        self.idle = asyncio.Event()
        """Set while no request is being answered."""
        self.idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request. Raises ConnectionError when the client is gone."""
        self._heads.tick(time.time())
        request_id = self._begin(request)
        lines = f"x-request-id: {request_id}\r\n"
        exchange = Exchange(request, self._heads, self._limits, lines)
        try:
            result = await self._answer(request, exchange, request_id)
            if isinstance(result, Stream):
                return await exchange.stream(result)
            return exchange.reply(result)
        finally:
            self._end(request_id)

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, request_id: str
    ) -> Reply | Stream:
        try:
            headers = request.headers
            host, origin = headers.get("host"), headers.get("origin")
            check_host(host, self._hosts)
            check_origin(origin, host)
            if origin is not None:
                exchange.lines += cors_lines(origin)
            if request.method == "OPTIONS":
                return _preflight(request)
            found = find(request.method, _target(request))
            if self._auth is not None and found.route not in PUBLIC:
                _check_key(self._auth, api_key(headers))
            if found.route in OWNERS:
                check_owner(headers, request.remote, vouched=self._auth is not None)
            body = b""
            if request.method == "POST":
                body = await _read_body(request, exchange, self._limits.body_s)
            return await self._answers.answer(found, body, request_id, session_hint(headers))
        except ApiError as error:
            return error_reply(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request %s failed inside", request_id)
            return error_reply(internal_error())

    def _begin(self, request: web.BaseRequest) -> str:
        """The request's id: the client's own, unless it is unfit or already in use here."""
        request_id = sane_request_id(request.headers.get("x-request-id"))
        if request_id is None or request_id in self._open:
            request_id = f"req-{os.urandom(12).hex()}"
        self._open.add(request_id)
        self.idle.clear()
        return request_id

    def _end(self, request_id: str) -> None:
        self._open.discard(request_id)
        if not self._open:
            self.idle.set()


def _target(request: web.BaseRequest) -> str:
    """Path and query, also where a client asks as if through a proxy (`GET http://host/path`)."""
    target = request.raw_path
    return str(request.rel_url) if "://" in target.partition("?")[0] else target


def _preflight(request: web.BaseRequest) -> Reply:
    lines = "".join([f"{name}: {value}\r\n" for name, value in preflight_headers()])
    return Reply(b"", NO_CONTENT, TEXT, lines + "allow: GET, HEAD, POST, OPTIONS\r\n")


def _check_key(auth: Callable[[str | None], bool], key: str | None) -> None:
    if not auth(key):
        problem = "This API key is not known here" if key else "This node asks for an API key"
        raise ApiError(
            401,
            f"{problem}. Send it as 'Authorization: Bearer KEY'; its owner can make you one.",
            code="invalid_api_key",
            kind="authentication_error",
            headers=(("www-authenticate", "Bearer"),),
        )


async def _read_body(request: web.BaseRequest, exchange: Exchange, longest_s: float) -> bytes:
    """The whole body. Raises ApiError: 408, 413, 415, or 400 when its framing is broken."""
    headers, content = request.headers, request.content
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(
            415,
            f"Bodies with content-encoding '{encoding[:40]}' are not served. Send plain JSON.",
            code="unsupported_encoding",
            close=True,
        )
    if int(headers.get("content-length", "0")) > BODY_MAX_BYTES:
        raise _too_large()
    if content.is_eof():
        body: bytes = content.read_nowait()
        if len(body) > BODY_MAX_BYTES:
            raise _too_large()
        return body
    if headers.get("expect", "").lower() == "100-continue":
        exchange.interim()
    try:
        async with asyncio.timeout(longest_s):
            return await _collect(content)
    except TimeoutError:
        raise ApiError(
            408,
            f"The request body did not arrive within {longest_s:g} s.",
            code="body_timeout",
            close=True,
        ) from None
    except web.RequestPayloadError as error:
        raise ApiError(
            400,
            f"The request body is not framed as HTTP asks: {error}",
            code="invalid_http",
            close=True,
        ) from None


async def _collect(content: StreamReader) -> bytes:
    """Reads to the end, stopping as soon as it is too much."""
    parts: list[bytes] = []
    size = 0
    while not content.at_eof():
        part = await content.readany()
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _too_large() -> ApiError:
    return ApiError(
        413,
        f"The request body is larger than {BODY_MAX_BYTES // 1024 // 1024} MiB "
        f"({BODY_MAX_BYTES} bytes). Send less text, or smaller pictures.",
        code="body_too_large",
        close=True,
    )
