"""`python -m tests.e2e.blocking run ...`: a daemon whose gateway loop stops at SIGUSR1.

For BLOCKED_S it neither answers requests nor reads them, and keeps the interpreter busy meanwhile:
what a huge JSON body, a bug, or a library that computes would do. The mesh thread gets what is
left. Everything else is `meshd`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

from meshd import daemon
from meshd.cli import main

BLOCKED_S = 10.0

serve = daemon._serve


def block() -> None:
    """Hold the loop."""
    end = time.monotonic() + BLOCKED_S
    while time.monotonic() < end:
        pass


async def serve_and_block(*given: Any) -> None:
    """The daemon, with the switch."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, block)
    await serve(*given)


if __name__ == "__main__":
    vars(daemon)["_serve"] = serve_and_block
    sys.exit(main())
