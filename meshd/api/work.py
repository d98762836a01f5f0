"""What the node does and whether it takes more, over HTTP: bodies in and out of the work desk.

    GET  /mesh/v1/requests        what entered here, newest first, and what is answered here now
    GET  /mesh/v1/requests/ID     one request: every decision, attempt and time
    GET  /mesh/v1/drain           {"node", "draining", "running", "waiting"}
    POST /mesh/v1/drain           take nothing more; the same body, at once
    POST /mesh/v1/resume          take work again

Whoever may ask may look: nothing here holds a prompt, and people are hashes. Draining is for the
machine's owner alone (`meshd.api.origin.check_owner`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.errors import ApiError
from meshd.api.paths import Found, Route
from meshd.core.ports import WorkDesk

ROWS = 100
"""Requests listed: two screens."""


def answer_work(desk: WorkDesk | None, found: Found) -> Mapping[str, Any]:
    """The JSON object that answers one of `paths.WORK`. Raises ApiError."""
    if desk is None:
        raise ApiError(
            501,
            "This server keeps no record of requests and cannot be drained.",
            code="not_implemented",
            kind="server_error",
            headers=(("x-should-retry", "false"),),
        )
    match found.route:
        case Route.DRAIN:
            return desk.drain()
        case Route.RESUME:
            return desk.resume()
        case Route.DUTY:
            return desk.duty()
        case Route.REQUEST:
            return _one(desk, found.name)
        case _:
            return desk.requests(ROWS)


def _one(desk: WorkDesk, request_id: str) -> Mapping[str, Any]:
    body = desk.request(request_id)
    if body is None:
        raise ApiError(
            404,
            f"No request '{request_id[:100]}' is known here. A node knows the requests that "
            "entered it, and forgets the oldest; `meshctl requests` lists them.",
            code="request_not_found",
        )
    return body
