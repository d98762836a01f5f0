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
    INVITE = auto()
    INVITATIONS = auto()
    WITHDRAW = auto()
    JOIN = auto()
    REVOKE = auto()
    LOAD_MODEL = auto()
    UNLOAD_MODEL = auto()
    PIN_MODEL = auto()
    UNPIN_MODEL = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """A route, and the model id in its path (`""` for routes without one)."""

    route: Route
    model: str = ""


PUBLIC = frozenset({Route.ROOT, Route.HEALTH})
"""Answered without a key: they say that something runs here, and no more."""

TRUST = frozenset({Route.INVITE, Route.INVITATIONS, Route.WITHDRAW, Route.JOIN, Route.REVOKE})
HOUSING = frozenset({Route.LOAD_MODEL, Route.UNLOAD_MODEL, Route.PIN_MODEL, Route.UNPIN_MODEL})
OWNERS = TRUST | HOUSING
"""For the machine's owner alone: `meshd.api.origin.check_owner`."""


def _read(route: Route) -> dict[str, Route]:
    return {"GET": route, "HEAD": route}


def _write(route: Route) -> dict[str, Route]:
    return {"POST": route}


_ROUTES: dict[str, dict[str, Route]] = {
    "/": _read(Route.ROOT),
    "/health": _read(Route.HEALTH),
    "/chat/completions": _write(Route.CHAT),
    "/completions": _write(Route.COMPLETION),
    "/embeddings": _write(Route.EMBEDDING),
    "/models": _read(Route.MODELS),
    "/mesh/v1/status": _read(Route.STATUS),
    "/mesh/v1/members": _read(Route.MEMBERS),
    "/mesh/v1/explain": _write(Route.EXPLAIN),
    "/mesh/v1/pair": _read(Route.INVITATIONS) | _write(Route.INVITE) | {"DELETE": Route.WITHDRAW},
    "/mesh/v1/join": _write(Route.JOIN),
    "/mesh/v1/revoke": _write(Route.REVOKE),
    "/mesh/v1/models/load": _write(Route.LOAD_MODEL),
    "/mesh/v1/models/unload": _write(Route.UNLOAD_MODEL),
    "/mesh/v1/models/pin": _write(Route.PIN_MODEL),
    "/mesh/v1/models/unpin": _write(Route.UNPIN_MODEL),
}

_MODEL_PREFIX = "/models/"

_KNOWN = {
    (method, prefix + path): Found(route)
    for path, methods in _ROUTES.items()
    for method, route in methods.items()
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
    model = ""
    if path.startswith(_MODEL_PREFIX):
        model, methods = unquote(path.removeprefix(_MODEL_PREFIX)), _read(Route.MODEL)
    elif path in _ROUTES:
        methods = _ROUTES[path]
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
    return Found(methods[method], model)


def _canonical(path: str) -> str:
    """Without leading `/v1`s, doubled slashes in front, and slashes at the end."""
    path = "/" + path.strip("/")
    while path.startswith("/v1/"):
        path = "/" + path[3:].lstrip("/")
    return "/" if path == "/v1" else path
