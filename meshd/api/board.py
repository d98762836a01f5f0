"""What is served for looking at: the dashboard's files and stream, trends, and the metrics page.

Files are public, as they say nothing; everything else needs the API key where the node does
(`paths.PUBLIC`). At `/` a browser gets the page, and whoever does not ask for HTML the one line of
text that it always was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from meshd.api import sse
from meshd.api.answers import Stream
from meshd.api.dialect import SSE_LINES, SseEncoder
from meshd.api.errors import ApiError
from meshd.api.live import ROWS, Allowed, Live
from meshd.api.pages import FOLDER, PAGE, Pages
from meshd.api.paths import Found, Route
from meshd.api.replies import Reply, json_reply
from meshd.core.ports import EventStream


class Views(Protocol):
    """What a node shows of itself."""

    def status(self) -> Mapping[str, Any]:
        """The body of `/mesh/v1/status`."""
        ...

    def requests(self, limit: int) -> Mapping[str, Any]:
        """The body of `/mesh/v1/requests`."""
        ...

    def trends(self) -> Mapping[str, Any]:
        """The body of `/mesh/v1/trends`."""
        ...

    def metrics(self) -> tuple[str, bytes]:
        """Content type and text of `/metrics`."""
        ...


class _AsTheyAre(SseEncoder):
    """The stream's events are bytes already."""

    def encode(self, batch: Any) -> bytes:
        """One look, as it is."""
        return cast("bytes", batch)


class Board:
    """Answers the routes of `BOARD`."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._pages = Pages()
        self._live = Live({"status": views.status, "requests": lambda: views.requests(ROWS)})

    def answer(
        self, found: Found, headers: Mapping[str, str], allowed: Allowed
    ) -> Reply | Stream | None:
        """The answer; None where it is not this module's to give. An endless one ends when
        `allowed` says no. Raises ApiError."""
        match found.route:
            case Route.ROOT if "text/html" in headers.get("accept", ""):
                return self._pages.reply(PAGE, headers.get("if-none-match"))
            case Route.ASSET:
                return self._file(found.name, headers.get("if-none-match"))
            case Route.EVENTS:
                events = cast("EventStream", self._live.open(allowed))
                return Stream(SSE_LINES, sse.PING, events, _AsTheyAre(), endless=True)
            case Route.TRENDS:
                return json_reply(self._views.trends())
            case Route.METRICS:
                kind, page = self._views.metrics()
                return Reply(page, content_type=kind)
            case _:
                return None

    def _file(self, name: str, seen: str | None) -> Reply:
        reply = self._pages.reply(FOLDER + name, seen)
        if reply is None:
            raise ApiError(404, f"The dashboard has no file '{name[:100]}'.", code="unknown_url")
        return reply
