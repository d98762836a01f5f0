"""What every dialect writes its answers with: JSON that is always UTF-8, and a bound on memory.

Models make tokens, not characters, so half of a surrogate pair may come out of an engine; Python's
strings hold it and UTF-8 cannot. It becomes a question mark rather than the end of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.errors import ApiError
from protocol import limits
from protocol.jobs import Failure

EMULATED = "emulated"
"""`system_fingerprint` of an answer that no model gave."""

INCOMPLETE = Failure(
    "engine_failed", "The answer broke off without an end; ask again.", elsewhere=False
)
"""Said when events stop without a Finish: no SDK notices a stream that just stops."""

_ENCODE = msgspec.json.Encoder().encode


class AnswerRoom:
    """Bounds what one whole answer may hold in memory before it is written."""

    def __init__(self) -> None:
        self._left = limits.JOB_MAX_BYTES

    def take(self, characters: int) -> None:
        """Raises ApiError (502) when the answer has outgrown its room."""
        self._left -= characters
        if self._left < 0:
            raise ApiError(
                502,
                f"The answer is longer than {limits.JOB_MAX_BYTES} characters. "
                "Set 'max_tokens', or stream it.",
                code="answer_too_long",
                kind="server_error",
            )


def quote(text: str) -> bytes:
    """A JSON string. Lone surrogates, which UTF-8 cannot carry, become question marks."""
    try:
        return _ENCODE(text)
    except UnicodeEncodeError:
        return _ENCODE(text.encode(errors="replace").decode())


def quotes(texts: list[str]) -> list[bytes]:
    """The JSON strings of those that are not empty."""
    said = filter(None, texts)
    try:
        return list(map(_ENCODE, said))
    except UnicodeEncodeError:
        return [quote(text) for text in texts if text]


def encode(answer: dict[str, Any]) -> bytes:
    """A whole object as JSON; lone surrogates become question marks."""
    try:
        return _ENCODE(answer)
    except UnicodeEncodeError:
        return _ENCODE(cleaned(answer))


def cleaned(value: Any) -> Any:
    """A JSON value whose lone surrogates have become question marks."""
    if type(value) is str:
        return value.encode(errors="replace").decode()
    if type(value) is list:
        return [cleaned(item) for item in value]
    if type(value) is dict:
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    return value
