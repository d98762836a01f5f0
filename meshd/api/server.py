"""The HTTP server: sockets and their limits. What is said over them is `routes`.

aiohttp's low-level server is used without its application layer: routing is a dictionary, there
are no middlewares, and requests that are not HTTP at all get the same error shape as all others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import time
from asyncio import AbstractServer
from contextlib import suppress

from aiohttp import web

from meshd import __version__
from meshd.address import is_loopback
from meshd.api.answers import Answers
from meshd.api.board import Board, Views
from meshd.api.errors import ApiError, internal_error
from meshd.api.housing import ModelDesk
from meshd.api.limits import BACKLOG, DEFAULT, HEADER_LINE_MAX_BYTES, HttpLimits
from meshd.api.routes import Auth, Person, Routes
from meshd.core.ports import Gateway, TrustDesk, WorkDesk

log = logging.getLogger(__name__)


class BindError(Exception):
    """The address cannot be listened on; one line that says why and what to change."""


class Connection(web.RequestHandler):
    """One client connection, which says no in our error shape even to what is not HTTP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(self._manager, Listener):
            self._manager.make_room(self)

    @property
    def is_idle(self) -> bool:
        """It waits for a request, or for the rest of one's head."""
        return self._waiter is not None and not self._force_close

    def close(self) -> None:
        """Close after the answer that is being written; at once where there is none."""
        was_idle = self.is_idle
        super().close()
        if was_idle:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed, or that routes could not catch."""
        reason = (message or "").strip().partition("\n")[0].rstrip(":.") or "it cannot be parsed"
        error = ApiError(400, f"This is not an HTTP/1.1 request: {reason}.", code="invalid_http")
        if status != error.status:
            log.error("request failed outside its route", exc_info=exc)
            error = internal_error()
        response = web.Response(
            status=error.status, body=error.body(), content_type="application/json"
        )
        response.force_close()
        return response


class Listener(web.Server):
    """Makes a Connection of each accepted socket."""

    def __init__(self, routes: Routes, limits: HttpLimits) -> None:
        super().__init__(routes, handler_cancellation=True)
        self._limits = limits
        self._is_crowded = False

    def make_room(self, newest: Connection) -> None:
        """Where there are more connections than may be, close the oldest one on which nothing is
        asked, or else the newest: who opens a thousand and says nothing keeps nobody out."""
        was_crowded = self._is_crowded
        self._is_crowded = len(self._connections) > self._limits.connections_max
        if not self._is_crowded:
            return
        if not was_crowded:
            log.warning("more than %d connections: some are closed", self._limits.connections_max)
        others = (each for each in self._connections if isinstance(each, Connection))
        next((each for each in others if each.is_idle), newest).force_close()

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=self._limits.keepalive_s,
            lingering_time=self._limits.linger_s,
            max_line_size=HEADER_LINE_MAX_BYTES,
            max_field_size=HEADER_LINE_MAX_BYTES,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # what aiohttp's own runner passes
            logger=log,
        )


class HttpServer:
    """The endpoint of one node. `start` once, `close` once.

    `name` is the node's, for the text at `/`; `auth` is given the request's API key (None without
    one) and says whose it is, None for nobody's; without it only loopback is served, under names
    that are surely this machine's. `person` makes `Job.person` of the key's owner and the client's
    address. `trust` answers pairing, joining and revoking, `models` loading and
    unloading, `work` draining and what became of requests. `views` is what the dashboard shows,
    where there is one.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        host: str = "127.0.0.1",
        port: int = 8787,
        name: str = "",
        auth: Auth | None = None,
        person: Person = lambda _key, _address: "",
        trust: TrustDesk | None = None,
        models: ModelDesk | None = None,
        work: WorkDesk | None = None,
        views: Views | None = None,
        limits: HttpLimits = DEFAULT,
    ) -> None:
        self._gateway = gateway
        self._board = None if views is None else Board(views)
        self._host = host
        self._port = port
        self._name = name
        self._auth = auth
        self._person = person
        self._trust = trust
        self._models = models
        self._work = work
        self._limits = limits
        self._routes: Routes | None = None
        self._listener: Listener | None = None
        self._sockets: AbstractServer | None = None

    @property
    def port(self) -> int:
        """The port in use: the one asked for, or the one the system chose for 0."""
        return self._port

    async def start(self) -> None:
        """Begin to serve. Raises BindError."""
        if self._auth is None and not is_loopback(self._host):
            raise BindError(_open_door_words(self._host))
        answers = Answers(
            self._gateway,
            _banner(self._name),
            time.time,
            self._trust,
            self._models,
            work=self._work,
        )
        self._routes = Routes(
            answers,
            hosts=_own_names(),
            auth=self._auth,
            person=self._person,
            limits=self._limits,
            board=self._board,
        )
        self._listener = Listener(self._routes, self._limits)
        loop = asyncio.get_running_loop()
        try:
            self._sockets = await loop.create_server(
                self._listener, self._host, self._port, backlog=BACKLOG
            )
        except OSError as error:
            raise BindError(_bind_words(self._host, self._port, error)) from error
        self._port = self._sockets.sockets[0].getsockname()[1]

    async def close(self, drain_s: float = 0.0) -> None:
        """Accept nothing more, let running answers finish for `drain_s`, then cancel them."""
        if self._sockets is None or self._listener is None or self._routes is None:
            return
        self._sockets.close()
        self._listener.pre_shutdown()
        await _wait(self._routes.idle, drain_s)
        await self._listener.shutdown(0.01)
        await _wait(self._routes.idle, self._limits.cancel_s)
        await self._sockets.wait_closed()
        self._sockets = None


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()


def _banner(name: str) -> str:
    of = f" on {name}" if name else ""
    return (
        f"meshd {__version__}{of}: OpenAI-compatible endpoint at /v1, models at /v1/models, "
        "the mesh at /mesh/v1/status.\n"
        "Ollama's API is at /api; for clients that look for its words: Ollama is running\n"
    )


def _own_names() -> frozenset[str]:
    host = socket.gethostname().lower()
    return frozenset({host, host.partition(".")[0]})


def _open_door_words(host: str) -> str:
    return (
        f"will not listen on {host} without API keys: anybody on the network could ask. Make one "
        "with `meshctl keys add NAME`, or listen on 127.0.0.1."
    )


def _bind_words(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        asker = f"ss -ltnp 'sport = :{port}'"
        if sys.platform == "darwin":
            asker = f"lsof -nP -iTCP:{port} -sTCP:LISTEN"
        return (
            f"cannot listen on {where}: the port is taken. `{asker}` says by whom; stop it, or "
            "choose another port with --http HOST:PORT."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"cannot listen on {where}: not allowed. Ports below 1024 need root; choose another "
            "with --http HOST:PORT."
        )
    return (
        f"cannot listen on {where}: {error.strerror or error}. The address must be one of this "
        "machine's; choose it with --http HOST:PORT."
    )
