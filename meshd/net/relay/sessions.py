"""Who is connected to the listening socket, and what each of them has open here."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

import zmq

from meshd.net.gatekeeper import proven_key
from meshd.net.relay import flow
from meshd.net.relay.refusals import damaged, hopped_before
from protocol.codec import decode_job
from protocol.errors import ProtocolError
from protocol.jobs import Job

SESSIONS_MAX = 512
"""Connections remembered; idle ones go first, and are learned again with their next frame."""

SESSION_IDLE_S = 900.0
"""A connection is forgotten after this; an asker closes it after 300 s without requests."""


@dataclass(slots=True)
class Inbound:
    """One request that is being answered here."""

    request_id: str
    credit: int
    task: asyncio.Task[None] | None = None
    index: int = 0
    """Of the next event frame."""
    more: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when credit arrives."""


@dataclass(slots=True)
class Session:
    """One connection of one asker."""

    route: bytes
    node_id: str
    inspection: flow.Inspection
    heard: float
    open: dict[str, Inbound] = field(default_factory=dict)
    waiting: deque[bytes] = field(default_factory=deque)
    """Frames that the connection has no room for now."""
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing waits any more."""


def key_of(route: bytes, part: zmq.Frame) -> bytes | None:
    """The raw public key behind a new connection's first frame. None when none is proven, and when
    its routing id is not of the kind that libzmq draws (a zero, and a counter that began anywhere):
    one that was chosen could be that of somebody's connection which has just ended."""
    return proven_key(part) if len(route) == 5 and route[0] == 0 else None


def job_in(request_id: str, packed: bytes) -> Job:
    """The job in a body. Raises Refused for one that is not to be answered here."""
    try:
        job = decode_job(packed)
    except ProtocolError as error:
        raise flow.Refused(damaged(error.detail)) from None
    if job.request_id != request_id:
        raise flow.Refused(damaged("it belongs to another request id"))
    if job.hops > 1:
        raise flow.Refused(hopped_before())
    return replace(job, hops=1)
