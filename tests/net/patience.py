"""Waiting in tests with real sockets: for a condition, never for a time.

The deadline only ends a test that has already failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 10.0


def wait_for(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return as soon as `condition()` is true; fail when it never becomes so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        time.sleep(0.002)
