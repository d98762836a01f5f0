"""How a connection ends whose other side is gone without a word: by TCP's own means.

ZeroMQ has heartbeats for this (HEARTBEAT_IVL), and they must never be set. libzmq up to 4.3.5, the
newest, aborts the whole process when a heartbeat timer fires on a connection whose input has been
stopped and whose socket then failed (`Assertion failed: !_io_error`, libzmq issues 3596, 3937 and
4364). ROUTER_HANDOVER stops the input of the connection that it replaces, so a cable that is cut
and mended, or any one member, could end any daemon. `tests/net/test_halfopen.py` reproduces the
abort without our options, and shows that there is none with them.

Membership notices a silent peer within two seconds whatever TCP thinks; what is at stake here is
how soon a connection that leads nowhere makes room for one that does.
"""

from __future__ import annotations

import zmq

KEEPALIVE_IDLE_S = 10
"""Silence before TCP asks whether anybody is there: no control connection is silent that long."""

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
"""Unanswered questions that end a connection: 25 s of silence altogether."""

UNACKNOWLEDGED_MAX_MS = 4_000
"""How long sent data may stay unacknowledged; two minutes and more by default. A peer that changed
its address is dialled again only when the old connection has ended, so this is felt: with 10 s such
a peer was lost for 12 s, with 4 s for 5 s (measured)."""


def end_half_open(socket: zmq.Socket[bytes]) -> None:
    """Make a socket end connections that lead nowhere. Before it binds or connects."""
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES)
    socket.set(zmq.TCP_MAXRT, UNACKNOWLEDGED_MAX_MS)
