"""From a method and a path to what is asked, as forgiving as clients are careless.

Every route answers with and without `/v1`, with `/v1` twice (a base URL that already had it), with
trailing slashes, and with any query string. Model ids keep their slashes and colons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import unquote

from meshd.api.errors import ApiError


class Route(Enum):
    """What can be asked over HTTP."""

    ROOT = auto()
    HEALTH = auto()
    CHAT = auto()
    COMPLETION = auto()
    EMBEDDING = auto()
    MODELS = auto()
    MODEL = auto()
    STATUS = auto()
    MEMBERS = auto()
    EXPLAIN = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """A route, and the model id in its path (`""` for routes without one)."""

    route: Route
    model: str = ""


PUBLIC = frozenset({Route.ROOT, Route.HEALTH})
"""Answered without a key: they say that something runs here, and no more."""

_READ: tuple[str, ...] = ("GET", "HEAD")
_WRITE: tuple[str, ...] = ("POST",)

_ROUTES: dict[str, tuple[Route, tuple[str, ...]]] = {
    "/": (Route.ROOT, _READ),
    "/health": (Route.HEALTH, _READ),
    "/chat/completions": (Route.CHAT, _WRITE),
    "/completions": (Route.COMPLETION, _WRITE),
    "/embeddings": (Route.EMBEDDING, _WRITE),
    "/models": (Route.MODELS, _READ),
    "/mesh/v1/status": (Route.STATUS, _READ),
    "/mesh/v1/members": (Route.MEMBERS, _READ),
    "/mesh/v1/explain": (Route.EXPLAIN, _WRITE),
}

_MODEL_PREFIX = "/models/"

_KNOWN = {
    (method, prefix + path): Found(route)
    for path, (route, methods) in _ROUTES.items()
    for method in methods
    for prefix in ("", "/v1")
}
"""The spellings that nearly every request uses, found in one step."""

SERVED = "/v1/chat/completions, /v1/completions, /v1/models, /health, /mesh/v1/status"


def find(method: str, target: str) -> Found:
    """The route of a request. `target` is the raw path with its query. Raises ApiError."""
    found = _KNOWN.get((method, target))
    if found is not None:
        return found
    path = _canonical(target.partition("?")[0])
    if path.startswith(_MODEL_PREFIX):
        found, methods = Found(Route.MODEL, unquote(path.removeprefix(_MODEL_PREFIX))), _READ
    elif path in _ROUTES:
        route, methods = _ROUTES[path]
        found = Found(route)
    else:
        raise ApiError(
            404,
            f"Nothing is served at {target[:200]}. This node serves {SERVED}.",
            code="unknown_url",
        )
    if method not in methods:
        raise ApiError(
            405,
            f"{target[:200]} does not take {method[:20]}; use {' or '.join(methods)}.",
            code="method_not_allowed",
            headers=(("allow", ", ".join((*methods, "OPTIONS"))),),
        )
    return found


def _canonical(path: str) -> str:
    """Without leading `/v1`s, doubled slashes in front, and slashes at the end."""
    path = "/" + path.strip("/")
    while path.startswith("/v1/"):
        path = "/" + path[3:].lstrip("/")
    return "/" if path == "/v1" else path
