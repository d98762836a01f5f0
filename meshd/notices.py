"""What the membership and discovery said aloud lately: for the log, `status` and the doctor.

The log has it all; what is kept here is the last few warnings, so that a person who asks a node
what is wrong need not know where its log is.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshd.core.effects import Notice

log = logging.getLogger(__name__)

NOTICES_MAX = 20
"""Warnings kept: what fits on a screen. Each is one line."""


class Notices:
    """The warnings of one node. Called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[tuple[float, str]] = deque(maxlen=NOTICES_MAX)

    def say(self, notice: Notice) -> None:
        """To the log, and kept where it is a warning."""
        warning = notice.level == "warning"
        log.log(logging.WARNING if warning else logging.INFO, "%s", notice.text)
        if warning:
            self._kept.append((self._clock(), notice.text))

    def body(self) -> Sequence[Mapping[str, Any]]:
        """Newest first: `{"age_s", "text"}`."""
        now = self._clock()
        return [{"age_s": round(now - at, 1), "text": text} for at, text in reversed(self._kept)]
