"""Tells the service manager how the daemon is: ready, alive, stopping.

systemd starts what depends on us when we say READY, and restarts us when we say nothing for
WatchdogSec. So the word of life is given only while both halves of the daemon turn: it is sent by a
task of the gateway loop, and only if the mesh thread has turned lately. A daemon whose one half
hangs is worse than none, because peers go on believing in it.

The protocol is a datagram to $NOTIFY_SOCKET (sd_notify(3)); where nobody set it, all of this is
silent. Failures are ignored: a manager that cannot be told is no reason to stop serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

SILENT_MAX_S = 10.0
"""Longest pause of the mesh thread that still counts as turning: forty of its longest waits, and a
third of the unit's WatchdogSec."""


class Notifier:
    """One service manager, or none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.every_s = _watchdog_s(environ) / 3
        """How often a word of life is due, seconds; 0 when nobody waits for one."""

    def say(self, *words: str) -> None:
        """Send assignments such as `READY=1`. Never raises."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.setblocking(False)
            channel.sendto("\n".join(words).encode(), self._address)

    async def stay_alive(self, silent_s: Callable[[], float]) -> None:
        """Give words of life until cancelled, as long as `silent_s()`, the age of the mesh thread's
        last turn in seconds, is small. Returns at once where nobody waits for them."""
        while self.every_s > 0:
            if silent_s() < SILENT_MAX_S:
                self.say("WATCHDOG=1")
            await asyncio.sleep(self.every_s)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """systemd's WATCHDOG_USEC, unless it is meant for another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0
