"""The relay of one node: a listening socket that answers, and a connection per peer that asks."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import cast

import zmq

from meshd.core.membership.member import Member
from meshd.core.ports import EventStream
from meshd.net.gatekeeper import Gatekeeper, guard
from meshd.net.relay import flow
from meshd.net.relay.client import Client
from meshd.net.relay.duties import (
    Answer,
    Duties,
    LoadOf,
    OnTrust,
    offers_nothing,
    says_nothing,
)
from meshd.net.relay.server import Server
from meshd.net.relay.sockets import Context, Counters, bracketed, new_socket
from meshd.net.transport import BindError
from meshd.net.trust import Identity
from meshd.rhythm import Steady, until_next
from protocol.frozen import frozen
from protocol.jobs import Job
from protocol.load import ModelLoad
from protocol.trust import TrustRecord

WATCH_S = 0.25
"""How often silence is looked for: an eighth of the shortest patience."""

AWAY_S = 1.0
"""From one look to the next: then this process was stopped or held up in between, and what others
said meanwhile is not read yet."""


@frozen
class RelayStats:
    """What is open at this moment."""

    asked: int
    """Requests of ours that peers are answering."""
    answering: int
    """Requests of peers that are being answered here."""
    receiving_bytes: int
    """Memory promised to request bodies that are not whole yet."""
    peers: int
    sessions: int


class Relay:
    """Forwards requests to members and answers theirs.

    `bind`, then `start` on the loop that will serve, then `close` on the same loop. `admit` says
    whether the holder of a raw public key may connect (a known member); it is called in the
    gatekeeper's thread and on the loop. `answer(sender_id, job)` answers a job of another node on
    this machine.
    """

    def __init__(
        self,
        identity: Identity,
        mesh: str,
        boot_id: int,
        *,
        context: Context,
        gatekeeper: Gatekeeper,
        bind_host: str,
        bind_port: int,
        admit: Callable[[bytes], bool],
        answer: Answer,
        on_trust: OnTrust = says_nothing,
        load_of: LoadOf = offers_nothing,
    ) -> None:
        self._counters = Counters()
        self.port = bind_port
        self._identity = identity
        self._seal = flow.Seal(mesh, identity.node_id, boot_id)
        self._context = context
        self._gatekeeper = gatekeeper
        self._host = bind_host
        self._admit = admit
        self._duties = Duties(answer, on_trust, load_of)
        self._router: zmq.Socket[bytes] | None = None
        self._client: Client | None = None
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None

    def bind(self) -> None:
        """Take the port; `port` is the real one afterwards. Raises BindError."""
        domain = f"relay {self._identity.node_id}".encode()
        self._gatekeeper.policy(domain, self._admit)
        router = new_socket(self._context, zmq.ROUTER, self._host)
        router.set(zmq.ROUTER_MANDATORY, 1)
        guard(router, domain, self._identity.secret_key)
        try:
            router.bind(f"tcp://{bracketed(self._host)}:{self.port or '*'}")
        except zmq.ZMQError as error:
            router.close(0)
            raise BindError(
                f"cannot listen for forwarded requests on {bracketed(self._host)}:{self.port}: "
                f"{error.strerror}; stop what uses the port, or choose another with --mesh "
                "(the relay takes the port after it)"
            ) from None
        endpoint = cast(bytes, router.get(zmq.LAST_ENDPOINT))
        self.port = int(endpoint.rstrip(b"\0").rpartition(b":")[2])
        self._router = router

    async def start(self) -> None:
        """Serve on the running loop, from now on."""
        assert self._router is not None, "bind() comes first"
        self._client = Client(self._identity, self._seal, self._context, self._counters)
        self._server = Server(self._router, self._seal, self._duties, self._counters, self._admit)
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def close(self) -> None:
        """Fail what we asked, free what we answer, close every socket. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            await self._server.close()
        elif self._router is not None:
            self._router.close(0)

    def generate(self, member: Member, job: Job) -> EventStream:
        """Have `member` answer `job`, which keeps its request id and must not have hopped yet.

        Ends with a Finish or a Failure and raises nothing; closing it early sends a Cancel.
        """
        return self._running().generate(member, job)

    async def ping(self, member: Member, timeout_s: float) -> float:
        """Round trip to a member's relay, in seconds; makes the connection when there is none.

        Raises TimeoutError when there is no answer in time, or none can come.
        """
        try:
            peer = self._running().peer(member)
        except flow.Refused as refused:
            raise TimeoutError(refused.failure.message) from None
        return await peer.ping(timeout_s)

    async def sync(self, member: Member, state: TrustRecord, timeout_s: float) -> TrustRecord:
        """What a member trusts, having been told what this node does. Raises TimeoutError."""
        try:
            peer = self._running().peer(member)
        except flow.Refused as refused:
            raise TimeoutError(refused.failure.message) from None
        return await peer.sync(state, timeout_s)

    async def probe(self, member: Member, model_id: str, timeout_s: float) -> ModelLoad | None:
        """How a model does on a member at this moment; None when it is not offered there.

        Raises TimeoutError when there is no answer in time. Nothing is asked of a member without a
        connection: making one takes longer than the answer is worth.
        """
        peer = self._running().peers.get(member.node_id)
        if peer is None or not peer.connected:
            raise TimeoutError(f"there is no open connection to {member.name}")
        return await peer.probe(model_id, timeout_s)

    def nudge(self, member: Member) -> None:
        """Ask for a sign of life, which `silent_s` will show."""
        peer = self._running().peers.get(member.node_id)
        if peer is not None and peer.connected:
            peer.nudge()

    def silent_s(self, member: Member) -> float:
        """Seconds since a member was last heard here; without a connection it is infinite."""
        peer = self._running().peers.get(member.node_id)
        return math.inf if peer is None or not peer.connected else peer.silent_s

    def relabel(self, mesh: str) -> None:
        """This node is in another mesh now: every connection of the old one ends."""
        self._seal.mesh = mesh
        for peer in list(self._running().peers.values()):
            peer.lose("this node has joined another mesh")
        if self._server is not None:
            self._server.shut_out(None)

    def shut_out(self, node_id: str) -> None:
        """A node was revoked: end its connections and what it has open, both ways."""
        self.forget(node_id)
        if self._server is not None:
            self._server.shut_out(node_id)

    def forget(self, node_id: str) -> None:
        """This node is dead or has left: fail what it was to answer, and hang up."""
        peer = self._client.peers.get(node_id) if self._client is not None else None
        if peer is not None:
            peer.lose("it has left the mesh")

    def counters(self) -> dict[str, int]:
        """Totals since the start; the names are those of `Counters`, after `relay_`."""
        return {f"relay_{name}": count for name, count in asdict(self._counters).items()}

    @property
    def stats(self) -> RelayStats:
        """What is open now. Cheap."""
        client, server = self._client, self._server
        if client is None or server is None:
            return RelayStats(0, 0, 0, 0, 0)
        return RelayStats(
            asked=sum(len(peer.asks) for peer in client.peers.values()),
            answering=len(server.tasks),
            receiving_bytes=server.assemblies.reserved_bytes,
            peers=len(client.peers),
            sessions=len(server.sessions),
        )

    def _running(self) -> Client:
        assert self._client is not None, "start() comes first"
        return self._client

    async def _keep_watch(self) -> None:
        assert self._client is not None
        assert self._server is not None
        loop, steady = asyncio.get_running_loop(), Steady("watch over forwarded requests")
        looked_at = loop.time()
        while True:
            await asyncio.sleep(until_next(WATCH_S, time.monotonic()))
            last, looked_at = looked_at, loop.time()
            since_s = looked_at - last
            with steady:
                self._client.watch(looked_at)
            with steady:
                self._server.watch(looked_at, since_s if since_s > AWAY_S else 0.0)
