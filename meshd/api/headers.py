"""What is read from request headers, and what every answer says in its own.

Header values are printable ASCII here, whatever a node is called and whatever a client asked for:
anything else is percent-encoded, so a model name with a line break in it cannot write headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from meshd.api.errors import ApiError
from meshd.core.ports import AnswerHead
from protocol import limits
from protocol.jobs import PRIORITIES

REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{limits.REQUEST_ID_MAX_CHARS}}}")
"""Ids that are safe in a header, a log line, a URL and a shell."""

SESSION_HEADERS = (
    "session-id",
    "session_id",
    "x-session-id",
    "x-session-affinity",
    "x-claude-code-session-id",
)
"""Names under which agents say which conversation a request belongs to."""

CODEX = "codex"
"""How all of Codex's programs begin their name in the header `originator`."""

PRIORITY_HEADER = "x-mesh-priority"
"""Says that a request may wait for others."""

SAFE_CACHE_MAX = 1_024
"""Header values remembered as safe: names of nodes and models come again and again."""

_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def sane_request_id(value: str | None) -> str | None:
    """The client's own request id, if it may be repeated, else None."""
    return value if value is not None and REQUEST_ID.fullmatch(value) else None


def session_hint(headers: Mapping[str, str]) -> str:
    """The client's own name of the conversation, `""` when it has none."""
    for name in SESSION_HEADERS:
        value = headers.get(name)
        if value:
            return value
    return ""


def told_in_stream(headers: Mapping[str, str]) -> str:
    """Code of a failure that this client knows as an event only, and not by a status."""
    is_codex = headers.get("originator", "").lower().startswith(CODEX)
    return "context_length_exceeded" if is_codex else ""


def priority_wish(headers: Mapping[str, str]) -> str:
    """`batch` where `x-mesh-priority` says that the answer may wait. Raises ApiError (400)."""
    wish = headers.get(PRIORITY_HEADER)
    if wish is None:
        return PRIORITIES[0]
    if wish not in PRIORITIES:
        raise ApiError(
            400,
            f"'{PRIORITY_HEADER}' is '{wish[:40]}'; it must be {' or '.join(PRIORITIES)}.",
            code="invalid_value",
            param=PRIORITY_HEADER,
        )
    return wish


def api_key(headers: Mapping[str, str]) -> str | None:
    """The key in `authorization: Bearer` or `x-api-key`, None when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")


@lru_cache(maxsize=SAFE_CACHE_MAX)
def safe(value: str) -> str:
    """`value` as printable ASCII: itself, or percent-encoded where it is not."""
    if value.isascii() and value.isprintable():
        return value
    return quote(value, safe=_PRINTABLE, errors="replace")


def answer_lines(head: AnswerHead) -> str:
    """The `x-mesh-*` header lines: who answered, after how many tries, and why."""
    lines = (
        f"x-mesh-node: {safe(head.node_name)}\r\n"
        f"x-mesh-model: {safe(head.model)}\r\n"
        f"x-mesh-attempts: {head.attempts}\r\n"
        f"x-mesh-route-reason: {safe(head.reason)}\r\n"
        f"x-mesh-load-age-ms: {head.load_age_ms}\r\n"
        f"x-mesh-queue-ms: {head.queue_ms}\r\n"
    )
    return lines + "x-mesh-emulated: true\r\n" if head.emulated else lines
