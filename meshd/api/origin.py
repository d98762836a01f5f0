"""Which browser pages may talk to this node, and under which names it may be addressed.

A page on any web site can send requests to `localhost`, and by DNS rebinding can even read the
answers: its own host name is made to point at 127.0.0.1, and the browser then sees one origin. Two
checks stop both. `Host` must be an address or a local name (rebinding needs a name of the
attacker's; a bare address cannot be rebound), and `Origin`, which browsers always send across
sites, must be a local page, a desktop application, or this server itself.

Programs that are not browsers send no `Origin` and a local `Host`, and notice nothing. Where API
keys are asked for, any `Host` will do, a proxy's or a router's name for this machine among them:
what a rebound page lacks there is a key.

Who may be in the mesh is asked by the machine's owner alone, and there the checks are stricter. No
page may ask but one that this server itself serves. Who shows no API key must be on this machine,
not behind a proxy on it, and have used an address or `localhost`: a `.local` name can be rebound by
anybody on the network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from meshd.address import is_loopback
from meshd.api.errors import ApiError
from meshd.api.headers import safe

LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
"""Names that no public DNS server can give out."""

APP_SCHEMES = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})
"""Origins of desktop applications: no web site can have them."""

PAGE_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104
"""Hosts of pages served on this machine, on any port."""

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""What a proxy adds: then the connection's address is the proxy's, not the asker's."""

_ALLOW_HEADERS = (
    "authorization",
    "content-type",
    "user-agent",
    "accept",
    "x-requested-with",
    "x-request-id",
    "x-mesh-priority",
    "x-api-key",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "anthropic-version",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "session-id",
    "x-session-id",
    "x-session-affinity",
    "x-claude-code-session-id",
    "x-stainless-lang",
    "x-stainless-package-version",
    "x-stainless-os",
    "x-stainless-arch",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-async",
    "x-stainless-helper",
    "x-stainless-helper-method",
    "x-stainless-poll-helper",
    "x-stainless-custom-poll-interval",
    "x-stainless-timeout",
)

_EXPOSE_HEADERS = (
    "x-request-id",
    "request-id",
    "x-mesh-node",
    "x-mesh-model",
    "x-mesh-attempts",
    "x-mesh-route-reason",
    "x-mesh-load-age-ms",
    "x-mesh-queue-ms",
    "x-mesh-emulated",
    "x-mesh-left-out",
    "x-mesh-token-count",
    "retry-after",
)

PREFLIGHT_MAX_AGE_S = 600
"""How long a browser may remember a preflight: Chromium's own ceiling is two hours."""

_PREFLIGHT = (
    ("access-control-allow-methods", "GET, HEAD, POST, OPTIONS"),
    ("access-control-allow-headers", ", ".join(_ALLOW_HEADERS)),
    ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
    ("access-control-allow-private-network", "true"),
)


def check_host(host: str | None, hosts: Collection[str]) -> None:
    """Raises ApiError (403) for a name that could be somebody else's; `hosts` are our own."""
    if host is None or _is_local(host):
        return
    name = _host_name(host)
    if name not in hosts:
        raise ApiError(
            403,
            f"This node does not answer as '{host[:100]}': a web page could have made that name "
            "point here. Use an address, this machine's own name, or a .local name.",
            code="host_not_allowed",
            kind="permission_error",
        )


def check_origin(origin: str | None, host: str | None) -> None:
    """Raises ApiError (403) for a browser page of another site. `host` has passed `check_host`."""
    if origin is None or _is_local_page(origin) or _is_own_page(origin, host):
        return
    raise ApiError(
        403,
        f"Pages of '{origin[:100]}' may not use this node: only pages on this machine and "
        "desktop applications may.",
        code="origin_not_allowed",
        kind="permission_error",
    )


def check_owner(headers: Mapping[str, str], remote: str | None, *, vouched: bool) -> None:
    """Raises ApiError (403) unless the machine's owner asks: see the module's head.

    `remote` is the address at the other end of the connection; `vouched` says that a valid API key
    was shown. The headers have passed `check_host` and `check_origin`.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if origin is not None and not _is_own_page(origin, host):
        raise _not_the_owner(f"not for pages of '{origin[:100]}'")
    if vouched:
        return
    if remote is None or not is_loopback(remote):
        raise _not_the_owner(f"and {remote or 'whoever asks'} is another machine")
    if any(name in headers for name in PROXY_HEADERS):
        raise _not_the_owner("and a proxy passed this request on from somebody else")
    if host is not None and not _is_fixed(_host_name(host)):
        raise _not_the_owner(f"who calls it 127.0.0.1 or localhost, not '{host[:100]}'")


def _not_the_owner(why: str) -> ApiError:
    return ApiError(
        403,
        f"Who may be in the mesh is asked by the owner of this machine, {why}. Run meshctl on "
        "this machine itself.",
        code="owner_only",
        kind="permission_error",
    )


def cors_lines(origin: str) -> str:
    """Header lines that let a page of `origin`, which has passed `check_origin`, read an answer."""
    return (
        f"access-control-allow-origin: {safe(origin)}\r\nvary: origin\r\n"
        f"access-control-expose-headers: {', '.join(_EXPOSE_HEADERS)}\r\n"
    )


def preflight_headers() -> tuple[tuple[str, str], ...]:
    """What a preflight request asks to know."""
    return _PREFLIGHT


@lru_cache(maxsize=256)
def _is_local(host: str) -> bool:
    name = _host_name(host)
    return name == "localhost" or name.endswith(LOCAL_SUFFIXES) or _is_address(name)


def _is_own_page(origin: str, host: str | None) -> bool:
    return host is not None and origin.partition("://")[2].lower() == host.lower()


def _is_fixed(name: str) -> bool:
    """Whether no DNS or mDNS server can make this name point elsewhere."""
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


@lru_cache(maxsize=256)
def _is_local_page(origin: str) -> bool:
    scheme, separator, host = origin.partition("://")
    if not separator:
        return False
    if scheme.lower() in APP_SCHEMES:
        return True
    if scheme.lower() not in ("http", "https"):
        return False
    name = _host_name(host)
    return name in PAGE_HOSTS or name.endswith(".localhost")


def _host_name(host: str) -> str:
    """The name in `name:port` or `[address]:port`, lower case, `""` when it is neither."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
