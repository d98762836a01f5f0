"""Every bound of the HTTP side, with its unit and its reason.

The defaults are what a node runs with; tests hand in smaller ones instead of waiting.
"""

from __future__ import annotations

from protocol import limits
from protocol.frozen import frozen

BODY_MAX_BYTES = limits.JOB_MAX_BYTES
"""One request body. What is larger could not cross the relay."""

HEADER_LINE_MAX_BYTES = 8190
"""One header or request line; Apache's and aiohttp's bound."""

BACKLOG = 512
"""Connections the kernel holds while the loop is busy."""


@frozen
class HttpLimits:
    """How long, and how many."""

    keepalive_s: float = 75.0
    """How long a connection may be silent, or take over its headers: nginx's default, so that a
    proxy in front closes first."""
    body_s: float = 60.0
    """For a whole body: 16 MiB at 2.3 Mbit/s, the worst uplink that still makes sense in a LAN."""
    stall_s: float = 60.0
    """How long a client may leave its socket full before its slot is given to somebody else."""
    heartbeat_s: float = 10.0
    """How long a stream may be silent before a comment says that it lives: clients and proxies that
    watch for silence allow 15 s at the least."""
    early_s: float = 25.0
    """How long a stream's status may wait for its first word: proxies close after 30 s without a
    byte. Later than that an error is an event in the stream, which is worse, so not sooner."""
    linger_s: float = 5.0
    """After an early error, how long to read on so that the client can finish and see it."""
    cancel_s: float = 1.0
    """How long cancelled requests may take to let go of their slots when the server closes."""
    connections_max: int = 1_000
    """Open connections: a household has tens, and descriptors end at 1,024 on most systems."""


DEFAULT = HttpLimits()
"""What a node runs with."""
