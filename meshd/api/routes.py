"""One HTTP request: who asks, what for, and what they are told.

Everything a request can do wrong ends in an `ApiError` and is written in the shape of the dialect
that its path belongs to; an exception of ours becomes a 500 in the same shape and a line in the
log, never a dropped connection. A body that does not come and a client that stops reading are
bounded by `HttpLimits`, silent connections by the server; the wait for an answer is the gateway's
to bound.

Who asks again before it has read what it was told waits with that: else a client that only asks
would have all the answers kept for it here.

A client that leaves cancels this handler wherever it waits; closing the event stream on the way
out is what frees the slot, on whichever node it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from random import Random

from aiohttp import HttpVersion11, StreamReader, web

from meshd.api.answers import Answers, Stream
from meshd.api.board import Board
from meshd.api.dialect import Asker
from meshd.api.dialects import refusal_of
from meshd.api.encodings import unpacked
from meshd.api.errors import ApiError, internal_error
from meshd.api.exchange import Exchange
from meshd.api.headers import api_key, priority_wish, sane_request_id, session_hint, told_in_stream
from meshd.api.limits import BODY_MAX_BYTES, DEFAULT, HttpLimits
from meshd.api.origin import (
    check_host,
    check_origin,
    check_owner,
    cors_lines,
    preflight_headers,
)
from meshd.api.paths import BOARD, OWNERS, PUBLIC, find
from meshd.api.replies import TEXT, HeadWriter, Reply

log = logging.getLogger(__name__)

NO_CONTENT = 204

INLINE_MAX_BYTES = 64 * 1024
"""A packed body up to this size is unpacked at once, in a millisecond or so; a larger one in a
thread, because 16 MiB would hold everybody else up for a tenth of a second."""

Auth = Callable[[str | None], str | None]
"""The key that was shown, None without one, to the name of its owner; None lets nobody in."""

Person = Callable[[str | None, str | None], str]
"""The name of a key's owner and the client's address, to `Job.person`."""


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


class ClientWire:
    """The connection that a request came over."""

    __slots__ = ("_request", "_stall_s")

    def __init__(self, request: web.BaseRequest, stall_s: float) -> None:
        """`stall_s` bounds how long the client may leave its socket full."""
        self._request = request
        self._stall_s = stall_s

    @property
    def is_paused(self) -> bool:
        return self._request.protocol.writing_paused

    def write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    async def drain(self) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await self._request.writer.drain()
        except TimeoutError:
            self.abort()
            raise ConnectionResetError("the client stopped reading") from None

    async def taken(self) -> bool:
        """Wait until the client has read most of a whole answer, however slowly; False when it
        went, or read nothing for `stall_s` and was cut off."""
        before = self._unread_bytes + 1
        while self.is_paused and (left := self._unread_bytes) < before:
            before = left
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(self._stall_s):
                    await self._request.writer.drain()
        if self.is_paused:
            self.abort()
        return not self.is_paused

    @property
    def _unread_bytes(self) -> int:
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()


class Routes:
    """Answers every request of one server. `auth` is None where nobody has to show a key."""

    def __init__(
        self,
        answers: Answers,
        *,
        hosts: Collection[str] = (),
        auth: Auth | None = None,
        person: Person = lambda _key, _address: "",
        limits: HttpLimits = DEFAULT,
        board: Board | None = None,
    ) -> None:
        self._answers = answers
        self._board = board
        self._limits = limits
        self._hosts = hosts
        self._auth = auth
        self._person = person
        self._heads = HeadWriter()
        self._numbers = Random()  # noqa: S311 - tells apart, guards nothing
        self._open: set[str] = set()
        self.idle = asyncio.Event()
        """Set while no request is being answered."""
        self.idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request. A client that is gone by then is nobody's fault and in no log."""
        self._heads.tick(time.time())
        request_id = self._begin(request)
        wire = ClientWire(request, self._limits.stall_s)
        exchange = Exchange(
            wire,
            self._heads,
            self._limits,
            request_id,
            loop=request.task.get_loop(),
            is_head=request.method == "HEAD",
            modern=request.version >= HttpVersion11,
            keep=request.keep_alive,
        )
        try:
            await self._answer(request, exchange, request_id)
        except ApiError as error:
            exchange.refuse(error, refusal_of(_target(request)))
        except ConnectionError:
            return CLOSE
        except Exception:
            log.exception("request %s failed inside", request_id)
            exchange.refuse(internal_error(), refusal_of(_target(request)))
        finally:
            exchange.close()
            self._end(request_id)
        if wire.is_paused and not await wire.taken():
            return CLOSE
        return KEEP if exchange.keep else CLOSE

    async def _answer(self, request: web.BaseRequest, exchange: Exchange, request_id: str) -> None:
        headers, method = request.headers, request.method
        host, origin = headers.get("host"), headers.get("origin")
        if self._auth is None:
            check_host(host, self._hosts)
        check_origin(origin, host)
        if origin is not None:
            exchange.lines += cors_lines(origin)
        if method == "OPTIONS":
            exchange.reply(_preflight())
            return
        found = find(method, _target(request))
        key_name, auth = None, self._auth
        if auth is not None and found.route not in PUBLIC:
            key_name = _key_owner(auth, api_key(headers))
        if found.route in OWNERS:
            check_owner(headers, request.remote, vouched=auth is not None)
        if self._board is not None and found.route in BOARD:
            shown = self._board.answer(
                found, headers, lambda: auth is None or bool(auth(api_key(headers)))
            )
            if shown is not None:
                await self._write(exchange, shown, request_id)
                return
        body = b""
        if method == "POST":
            body = await _read_body(request, exchange, self._limits.body_s)
        asker = Asker(
            request_id,
            session_hint(headers),
            self._person(key_name, request.remote),
            priority_wish(headers),
            headers.get("content-type", ""),
        )
        exchange.told_in_stream = told_in_stream(headers)
        result = await self._answers.answer(found, body, asker, exchange.expect)
        await self._write(exchange, result, request_id)

    async def _write(self, exchange: Exchange, result: Reply | Stream, request_id: str) -> None:
        if isinstance(result, Reply):
            exchange.reply(result)
            return
        if result.endless:
            self._end(request_id)
        await exchange.stream(result)

    def _begin(self, request: web.BaseRequest) -> str:
        """The request's id: the client's own, unless it is unfit or already in use here."""
        request_id = sane_request_id(request.headers.get("x-request-id"))
        if request_id is None or request_id in self._open:
            request_id = f"req-{self._numbers.getrandbits(96):024x}"
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


def _preflight() -> Reply:
    lines = "".join([f"{name}: {value}\r\n" for name, value in preflight_headers()])
    return Reply(b"", NO_CONTENT, TEXT, lines + "allow: GET, HEAD, POST, OPTIONS\r\n")


def _key_owner(auth: Auth, key: str | None) -> str:
    owner = auth(key)
    if not owner:
        problem = "This API key is not known here" if key else "This node asks for an API key"
        raise ApiError(
            401,
            f"{problem}. Send it as 'Authorization: Bearer KEY'; its owner can make you one.",
            code="invalid_api_key",
            kind="authentication_error",
            headers=(("www-authenticate", "Bearer"),),
        )
    return owner


async def _read_body(request: web.BaseRequest, exchange: Exchange, longest_s: float) -> bytes:
    """The whole body, unpacked. Raises ApiError: 408, 413, 415, or 400 when its framing is
    broken."""
    headers, content = request.headers, request.content
    if int(headers.get("content-length", "0")) > BODY_MAX_BYTES:
        raise _too_large()
    if content.is_eof():
        body: bytes = content.read_nowait()
        if len(body) > BODY_MAX_BYTES:
            raise _too_large()
    else:
        if headers.get("expect", "").lower() == "100-continue":
            exchange.interim()
        body = await _slow_body(content, longest_s)
    encoding = headers.get("content-encoding")
    if encoding is None:
        return body
    if len(body) <= INLINE_MAX_BYTES:
        return unpacked(body, encoding, BODY_MAX_BYTES)
    return await asyncio.to_thread(unpacked, body, encoding, BODY_MAX_BYTES)


async def _slow_body(content: StreamReader, longest_s: float) -> bytes:
    """A body that is still on its way."""
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
