"""`meshctl`'s exit codes, and the one exception that carries them."""

from __future__ import annotations

OK = 0
FAILURE = 1
USAGE = 2
UNREACHABLE = 3
WRONG_KEY = 4
DEGRADED = 5
INTERRUPTED = 130
"""As shells number it: 128 + SIGINT."""


class Trouble(Exception):
    """A command cannot be done; `code` is its exit code, the text one line for stderr."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
