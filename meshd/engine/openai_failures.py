"""What goes wrong at an OpenAI-compatible server, in our words and with its own message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from meshd.engine.failures import failure_of
from protocol.jobs import Failure

MESSAGE_MAX_CHARS = 1_000
"""Of an upstream's own words, in the message that we pass on."""

PARAM_MAX_CHARS = 256
"""The name of a field that is longer is nobody's."""


class WireError(ValueError):
    """Not what an OpenAI-compatible server would send."""


def failure_of_error(error: Any) -> Failure:
    """An `error` object in the middle of an answer, or of an answer with status 200."""
    message, code = _error_words(error)
    if _is_context(message, code):
        return failure_of("context_length_exceeded", message, elsewhere=False, param="messages")
    return failure_of("engine_failed", f"the upstream server failed: {message}", elsewhere=True)


def failure_of_bare(payload: bytes) -> Failure | None:
    """A JSON object that is an error and has none inside (older vLLM, FastAPI); None for others."""
    try:
        said = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # only what nobody looked into
    if said.get("object") == "error" or isinstance(said.get("message", said.get("detail")), str):
        return failure_of_error(said)
    return None


def failure_of_status(
    status: int,
    body: bytes,
    retry_after: str = "",
    location: str = "",
    *,
    server: str = "the upstream server",
) -> Failure:
    """An HTTP error of the upstream, in our words and with its own message. `retry_after` and
    `location` are its headers."""
    error = _error_of(status, body, location)
    message, word = _error_words(error)
    param = error.get("param") if isinstance(error, dict) else None
    if _is_context(message, word):
        return failure_of("context_length_exceeded", message, elsewhere=False, param="messages")
    code, elsewhere = STATUS_CODES.get(
        status, ("bad_request", False) if 400 <= status < 500 else ("engine_failed", True)
    )
    if status == HTTPStatus.FORBIDDEN and MODERATED.search(f"{message} {word}"):
        code = "bad_request"
    said = message if code == "bad_request" else f"the upstream server says: {message}"
    if code == "unauthorized":
        said = (
            f"{server} refuses the node that asked it, not you (HTTP status {status}): "
            f"{message.rstrip('.')}. Its owner gives it a key with key_env or key_file"
        )
    if status == HTTPStatus.NOT_FOUND and "model" not in f"{message} {word}".lower():
        code = "unsupported"
    if code == "unsupported":
        said = f"the upstream server does not serve this: {message}"
    return failure_of(
        code,
        said,
        elsewhere=elsewhere,
        retry_after_s=_seconds(retry_after) if code == "overloaded" else 0.0,
        param=param[:PARAM_MAX_CHARS] if isinstance(param, str) else "",
    )


def _error_of(status: int, body: bytes, location: str) -> Any:
    """The error object or text of a body. A page for a person says nothing that its status does
    not: it is a proxy's, or that of a server of another kind."""
    if location and 300 <= status < 400:
        return f"HTTP status {status}, go to {location}; give that address instead"
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        if text.startswith("<"):
            return f"HTTP status {status}, with a page and no reason"
        return text or f"HTTP status {status}"
    return decoded.get("error", decoded) if isinstance(decoded, dict) else decoded


STATUS_CODES: Mapping[int, tuple[str, bool]] = {
    401: ("unauthorized", True),
    402: ("unauthorized", True),
    403: ("unauthorized", True),
    404: ("model_not_found", True),
    405: ("unsupported", True),
    408: ("timeout", True),
    429: ("overloaded", True),
    501: ("unsupported", True),
    503: ("overloaded", True),
    504: ("timeout", True),
    507: ("insufficient_memory", True),
}
"""Our code, and whether another node may do better. Else 4xx are bad requests. 402 is an account
without money: the node's, not the caller's. A 404 that says nothing of a model is about the path:
nothing of the kind is served there."""

MODERATED = re.compile(r"flagged|moderation|content.?(policy|filter)", re.IGNORECASE)
"""How OpenRouter and others say that a 403 is about this prompt and not about the key: the node is
well, and another server may take it."""

CONTEXT = re.compile(
    r"maximum context length|context length (is|of) only|too long to fit into the model"
    r"|(exceeds?|greater than|longer than) the (model's |available )?context (length|size|window)",
    re.IGNORECASE,
)
"""How vLLM, SGLang, LM Studio and older llama.cpp say that a prompt does not fit, without a code
for it."""

RETRY_AFTER_DEFAULT_S = 1.0
RETRY_AFTER_MAX_S = 3_600.0


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), RETRY_AFTER_MAX_S)
    except ValueError:
        return RETRY_AFTER_DEFAULT_S


def _error_words(error: Any) -> tuple[str, str]:
    """The message, and the code or type beside it."""
    try:
        if isinstance(error, Mapping):
            message = error.get("message") or error.get("detail") or str(error)
            words = [error.get("code"), error.get("type")]
            return str(message)[:MESSAGE_MAX_CHARS], " ".join(str(word) for word in words if word)
        return str(error)[:MESSAGE_MAX_CHARS], ""
    except RecursionError:
        return "its error is nested too deep to be shown", ""


def _is_context(message: str, word: str) -> bool:
    told = "context_length_exceeded" in word or "exceed_context_size" in word
    return told or CONTEXT.search(message) is not None
