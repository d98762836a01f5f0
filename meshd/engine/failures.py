"""Failures of engines, in words that the wire carries.

What llama.cpp, MLX, a template or an adopted server has to say may be of any length. It is cut
here, the one place where this package makes a `Failure`, because a message beyond the wire's bound
would be refused on its way and lose the reason altogether. The beginning is kept: it says what
happened.
"""

from __future__ import annotations

from protocol import limits
from protocol.jobs import Failure

CUT = "…"
"""Ends a message that was longer."""


def failure_of(
    code: str, message: str, *, elsewhere: bool, retry_after_s: float = 0.0, param: str = ""
) -> Failure:
    """A `Failure` whose texts fit. `elsewhere`: another node might succeed."""
    return Failure(
        code,
        clipped(message, limits.DETAIL_MAX_CHARS),
        elsewhere=elsewhere,
        retry_after_s=retry_after_s,
        param=clipped(param, limits.TEXT_MAX_CHARS),
    )


def clipped(text: str, most_chars: int) -> str:
    """The beginning of a text, with a sign where it was cut."""
    return text if len(text) <= most_chars else text[: most_chars - len(CUT)] + CUT
