"""From a method and a path to what is asked, as forgiving as clients are careless.

Every route answers with and without `/v1`, with `/v1` twice (a base URL that already had it), with
trailing slashes, and with any query string. Model ids keep their slashes and colons.
"""

from __future__ import annotations

from enum import Enum, auto
from urllib.parse import unquote

from meshd.api.errors import ApiError
from meshd.core.routing.demand import RAW_CAPABILITIES
from protocol.frozen import frozen


class Route(Enum):
    """What can be asked over HTTP."""

    __hash__ = object.__hash__
    """Of the member, of which there is one: an Enum's own hash is that of its name, in Python."""

    ROOT = auto()
    HEALTH = auto()
    CHAT = auto()
    COMPLETION = auto()
    EMBEDDING = auto()
    RESPONSES = auto()
    RESPONSE = auto()
    MESSAGES = auto()
    COUNT_TOKENS = auto()
    OLLAMA_CHAT = auto()
    OLLAMA_GENERATE = auto()
    OLLAMA_EMBED = auto()
    OLLAMA_EMBEDDINGS = auto()
    OLLAMA_TAGS = auto()
    OLLAMA_SHOW = auto()
    OLLAMA_PS = auto()
    OLLAMA_VERSION = auto()
    OLLAMA_PULL = auto()
    OLLAMA_REFUSED = auto()
    RAW = auto()
    MODELS = auto()
    MODEL = auto()
    STATUS = auto()
    MEMBERS = auto()
    EXPLAIN = auto()
    ASSET = auto()
    EVENTS = auto()
    TRENDS = auto()
    METRICS = auto()
    INVITE = auto()
    INVITATIONS = auto()
    WITHDRAW = auto()
    JOIN = auto()
    REVOKE = auto()
    LOAD_MODEL = auto()
    UNLOAD_MODEL = auto()
    PIN_MODEL = auto()
    UNPIN_MODEL = auto()
    REQUESTS = auto()
    REQUEST = auto()
    DUTY = auto()
    DRAIN = auto()
    RESUME = auto()


@frozen
class Found:
    """A route, the id at the end of its path (`""` for routes without one), and the path itself
    without spelling mistakes (`""` where nobody asks)."""

    route: Route
    name: str = ""
    path: str = ""


PUBLIC = frozenset({Route.ROOT, Route.HEALTH, Route.ASSET})
"""Answered without a key: they say that something runs here, and no more."""

BOARD = frozenset({Route.ROOT, Route.ASSET, Route.EVENTS, Route.TRENDS, Route.METRICS})
"""What `meshd.api.board` shows."""

TRUST = frozenset({Route.INVITE, Route.INVITATIONS, Route.WITHDRAW, Route.JOIN, Route.REVOKE})
HOUSING = frozenset({Route.LOAD_MODEL, Route.UNLOAD_MODEL, Route.PIN_MODEL, Route.UNPIN_MODEL})
WORK = frozenset({Route.REQUESTS, Route.REQUEST, Route.DUTY, Route.DRAIN, Route.RESUME})
"""What `meshd.api.work` answers."""

OWNERS = TRUST | HOUSING | {Route.DRAIN, Route.RESUME}
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
    "/responses": _write(Route.RESPONSES),
    "/messages": _write(Route.MESSAGES),
    "/messages/count_tokens": _write(Route.COUNT_TOKENS),
    "/models": _read(Route.MODELS),
    "/api/chat": _write(Route.OLLAMA_CHAT),
    "/api/generate": _write(Route.OLLAMA_GENERATE),
    "/api/embed": _write(Route.OLLAMA_EMBED),
    "/api/embeddings": _write(Route.OLLAMA_EMBEDDINGS),
    "/api/tags": _read(Route.OLLAMA_TAGS),
    "/api/show": _write(Route.OLLAMA_SHOW),
    "/api/ps": _read(Route.OLLAMA_PS),
    "/api/version": _read(Route.OLLAMA_VERSION),
    "/api/pull": _write(Route.OLLAMA_PULL),
    "/api/push": _write(Route.OLLAMA_REFUSED),
    "/api/create": _write(Route.OLLAMA_REFUSED),
    "/api/copy": _write(Route.OLLAMA_REFUSED),
    "/api/delete": _write(Route.OLLAMA_REFUSED) | {"DELETE": Route.OLLAMA_REFUSED},
    "/metrics": _read(Route.METRICS),
    "/mesh/v1/events": _read(Route.EVENTS),
    "/mesh/v1/trends": _read(Route.TRENDS),
    **{path.removeprefix("/v1"): _write(Route.RAW) for path in RAW_CAPABILITIES},
    "/mesh/v1/status": _read(Route.STATUS),
    "/mesh/v1/members": _read(Route.MEMBERS),
    "/mesh/v1/explain": _write(Route.EXPLAIN),
    "/mesh/v1/requests": _read(Route.REQUESTS),
    "/mesh/v1/drain": _read(Route.DUTY) | _write(Route.DRAIN),
    "/mesh/v1/resume": _write(Route.RESUME),
    "/mesh/v1/pair": _read(Route.INVITATIONS) | _write(Route.INVITE) | {"DELETE": Route.WITHDRAW},
    "/mesh/v1/join": _write(Route.JOIN),
    "/mesh/v1/revoke": _write(Route.REVOKE),
    "/mesh/v1/models/load": _write(Route.LOAD_MODEL),
    "/mesh/v1/models/unload": _write(Route.UNLOAD_MODEL),
    "/mesh/v1/models/pin": _write(Route.PIN_MODEL),
    "/mesh/v1/models/unpin": _write(Route.UNPIN_MODEL),
}

_NAMED: dict[str, dict[str, Route]] = {
    "/models/": _read(Route.MODEL),
    "/mesh/v1/requests/": _read(Route.REQUEST),
    "/ui/": _read(Route.ASSET),
    "/responses/": dict.fromkeys(("GET", "HEAD", "POST", "DELETE"), Route.RESPONSE),
    "/api/blobs/": dict.fromkeys(("HEAD", "POST"), Route.OLLAMA_REFUSED),
}
"""Paths that end in an id, which keeps its slashes and colons."""


def _forwarded(path: str) -> str:
    """A path as the server that it is passed on to knows it."""
    return f"/v1{path}"


_KNOWN = {
    (method, prefix + path): Found(route, path=_forwarded(path) if route is Route.RAW else path)
    for path, methods in _ROUTES.items()
    for method, route in methods.items()
    for prefix in ("", "/v1")
}
"""The spellings that nearly every request uses, found in one step."""

SERVED = (
    "/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/messages, "
    "/v1/models, /api/chat, /health, /mesh/v1/status"
)


class Family(Enum):
    """Whose error shape a path's clients read."""

    OPENAI = auto()
    ANTHROPIC = auto()
    OLLAMA = auto()


def family(target: str) -> Family:
    """Whose words to say no in, also where nothing is served."""
    path = canonical(target)
    if path.startswith("/messages"):
        return Family.ANTHROPIC
    if path.startswith("/api/"):
        return Family.OLLAMA
    return Family.OPENAI


def find(method: str, target: str) -> Found:
    """The route of a request. `target` is the raw path with its query. Raises ApiError."""
    found = _KNOWN.get((method, target))
    if found is not None:
        return found
    path = canonical(target)
    name, methods = "", _ROUTES.get(path)
    if methods is None:
        for prefix, named in _NAMED.items():
            if path.startswith(prefix):
                name, methods = unquote(path.removeprefix(prefix)), named
    if methods is None:
        if method == "POST" and target.startswith("/v1/"):
            return Found(Route.RAW, path=_forwarded(path))
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
    route = methods[method]
    return Found(route, name, _forwarded(path) if route is Route.RAW else path)


def canonical(target: str) -> str:
    """The path of a target without its query, leading `/v1`s, doubled slashes in front, and
    slashes at the end."""
    path = "/" + target.partition("?")[0].strip("/")
    while path.startswith("/v1/"):
        path = "/" + path[3:].lstrip("/")
    return "/" if path == "/v1" else path
