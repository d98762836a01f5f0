"""What can go wrong with a request, in HTTP's words and in OpenAI's shape.

One table turns the codes of `protocol.jobs.FAILURES` into status, type and code, and every answer
that says no is an `ApiError`, whoever raised it. Three rules decide the status:

- the caller can fix it: 4xx. Running out of a share is the caller's (429), running out of machine
  is ours (503), and a model that can never fit is neither (507). A server that knows a node's key
  no more has nothing against the caller's (502);
- what may succeed a moment later carries `retry-after`, because the SDKs obey it; what will not
  carries `x-should-retry: false`, because they would try twice more otherwise;
- the body always has all four keys, `message`, `type`, `param` and `code`: clients index them.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from protocol.jobs import Failure

RETRY_AFTER_MIN_S = 1
"""`retry-after` counts whole seconds; zero would be a busy loop."""

RETRY_AFTER_MAX_S = 120
"""The official SDKs ignore a longer wait and fall back to less than a second."""

_ANSWERS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "bad_request"),
    "context_length_exceeded": (400, "invalid_request_error", "context_length_exceeded"),
    "unsupported": (400, "invalid_request_error", "unsupported"),
    "model_not_found": (404, "invalid_request_error", "model_not_found"),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "cancelled": (499, "cancelled_error", "cancelled"),
    "engine_failed": (502, "server_error", "engine_failed"),
    "unauthorized": (502, "server_error", "upstream_unauthorized"),
    "overloaded": (503, "overloaded_error", "overloaded"),
    "draining": (503, "overloaded_error", "draining"),
    "unreachable": (503, "server_error", "unreachable"),
    "timeout": (504, "timeout_error", "timeout"),
    "insufficient_memory": (507, "insufficient_memory_error", "insufficient_memory"),
}

TOO_LONG = "This model's maximum context length is"
"""How OpenAI's servers begin to say so. LiteLLM, and with it DSPy and aider, look for these words
and not for the code: by them they shorten the conversation, where any other 400 ends it."""

_RETRIED = frozenset({"rate_limited", "overloaded", "draining", "unreachable"})
_NEVER_RETRIED = frozenset({"insufficient_memory", "unauthorized"})


class ApiError(Exception):
    """An answer that says no. `message` is for a person: what happened and what to change."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = headers
        self.close = close
        """The connection is of no further use: the rest of the request was not read."""
        self.lines = ""
        """Header lines that are already safe: who refused."""
        self.failure: Failure | None = None
        """What this is the HTTP word for, where it came from a job."""

    def object(self) -> dict[str, Any]:
        """OpenAI's error object, all four keys."""
        message = self.message
        if self.code == "context_length_exceeded" and TOO_LONG.lower() not in message.lower():
            message = f"{TOO_LONG} exceeded: {message}"
        error = {
            "message": message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def body(self) -> bytes:
        """The error object as JSON."""
        return msgspec.json.encode(self.object())


def bad_value(param: str, message: str) -> ApiError:
    """400: the field is there and of the right type, but not a value that can be used."""
    return ApiError(400, message, code="invalid_value", param=param)


def bad_type(param: str, message: str) -> ApiError:
    """400: the field has the wrong JSON type."""
    return ApiError(400, message, code="invalid_type", param=param)


def missing(param: str, message: str) -> ApiError:
    """400: a field that every request needs is not there."""
    return ApiError(400, message, code="missing_required_parameter", param=param)


def unsupported(param: str, message: str) -> ApiError:
    """400: meant well, but not served; the message says what is."""
    return ApiError(400, message, code="unsupported", param=param)


def internal_error() -> ApiError:
    """500: our own bug, and where its traceback is."""
    return ApiError(
        500,
        "meshd failed inside while answering this request. That is a bug; the log of this node, "
        "under the request id, says where.",
        code="internal_error",
        kind="server_error",
        close=True,
    )


def from_failure(failure: Failure) -> ApiError:
    """The HTTP answer to a failed job, before its first byte."""
    status, kind, code = _ANSWERS[failure.code]
    param = failure.param or ("model" if failure.code == "model_not_found" else None)
    headers: tuple[tuple[str, str], ...] = ()
    if failure.code in _RETRIED:
        headers = (("retry-after", str(retry_after_s(failure.retry_after_s))),)
    elif failure.code in _NEVER_RETRIED:
        headers = (("x-should-retry", "false"),)
    error = ApiError(status, failure.message, code=code, kind=kind, param=param, headers=headers)
    error.failure = failure
    return error


def retry_after_s(wanted_s: float) -> int:
    """Whole seconds for `retry-after`, rounded up, within what clients obey."""
    return min(max(math.ceil(wanted_s), RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
