"""What every request of a node uses, and who of the open attempts is where."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from meshd.core.membership.member import Member, MeshView
from meshd.core.ports import EventStream
from meshd.core.routing.demand import Demand
from meshd.core.routing.hedge import HedgePolicy
from meshd.core.routing.router import Router
from meshd.history import History
from protocol.jobs import Job
from protocol.load import ModelLoad

Generate = Callable[[Member, Job, Demand], EventStream]
"""Starts a job on a member: on a local engine when the member is this node, else over the relay.
The demand is what the job was routed by."""

Unreachable = Callable[[str, str], object]
"""Told of a node id and a cause when a request to a peer broke."""


class Peers(Protocol):
    """What the gateway asks of peers beside their answers. Nothing here waits but `probe`."""

    def probe(self, member: Member, model_id: str, timeout_s: float) -> Awaitable[ModelLoad | None]:
        """How a model does there now; None when it is not offered. Raises TimeoutError."""
        ...

    def nudge(self, member: Member) -> None:
        """Ask for a sign of life."""
        ...

    def silent_s(self, member: Member) -> float:
        """Seconds since anything was heard from a member."""
        ...


class Doubted(Protocol):
    """Something that hears that its node may be gone."""

    def doubt(self, *, doubted: bool) -> None: ...


@dataclass(slots=True)
class Means:
    """One for each gateway."""

    router: Router
    view: Callable[[], MeshView]
    generate: Generate
    peers: Peers | None
    unreachable: Unreachable
    clock: Callable[[], float]
    history: History
    hedges: HedgePolicy
    loop: asyncio.AbstractEventLoop = field(init=False)
    """The one that serves; known with the first request."""
    is_ready: bool = False
    open: dict[str, set[Doubted]] = field(default_factory=dict)
    """Open attempts by node id; bounded as requests are."""

    def make_ready(self) -> None:
        """Note the running loop, once: asking for it costs a system call."""
        self.loop = asyncio.get_running_loop()
        self.is_ready = True

    def view_changed(self, view: MeshView) -> None:
        """Tell the attempts at members that are not surely alive, or are again."""
        for node_id, attempts in self.open.items():
            if node_id == view.self_id:
                continue
            member = view.members.get(node_id)
            doubted = member is None or member.state != "alive"
            for attempt in tuple(attempts):
                attempt.doubt(doubted=doubted)
