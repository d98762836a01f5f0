"""Everybody this node asks: a bounded table of warm connections, and the way in for a job."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import zmq

from meshd.core.membership.member import Member
from meshd.core.ports import Batch
from meshd.net.relay import flow
from meshd.net.relay.peer import Peer
from meshd.net.relay.refusals import hopped_before, overloaded, unreachable
from meshd.net.relay.sockets import Context, Counters
from meshd.net.trust import Identity
from protocol.codec import encode_job
from protocol.errors import ProtocolError
from protocol.jobs import Failure, Job

PEERS_MAX = 128
"""Connections open at once: more than twice the mesh we design for."""


class Client:
    """Peers by node id; made on first use, closed when idle, lost or in the way."""

    def __init__(
        self, identity: Identity, seal: flow.Seal, context: Context, counters: Counters
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self._identity = identity
        self._seal = seal
        self._context = context
        self._counters = counters
        self._closed = False

    async def generate(self, member: Member, job: Job) -> AsyncGenerator[Batch, None]:
        """Have `member` answer `job`; the contract is that of `EventStream`."""
        try:
            self._follow(member)
            peer = self.peer(member)
            ask = peer.ask(job.request_id, _packed(job))
        except flow.Refused as refused:
            yield (refused.failure,)
            return
        try:
            while True:
                await ask.ready()
                events, grant = ask.intake.take()
                if grant:
                    peer.grant(ask, grant)
                if events:
                    yield events
                if ask.intake.ended and not ask.intake:
                    return
        finally:
            peer.close_ask(ask)

    def _follow(self, member: Member) -> None:
        """Let go of an idle connection to another address than the one the member answers at now:
        the cable it went by may be out, which would be noticed by waiting in vain."""
        peer = self.peers.get(member.node_id)
        if peer is not None and not peer.asks and member.address not in {None, peer.endpoint}:
            peer.close()

    def peer(self, member: Member) -> Peer:
        """The connection to a member, made when there is none. Raises Refused."""
        peer = self.peers.get(member.node_id)
        endpoint = member.address or next(iter(member.endpoints), None)
        if peer is not None and (peer.connected or peer.endpoint == endpoint):
            return peer
        if peer is not None:
            peer.close()
        if endpoint is None or self._closed:
            cause = "it has told no address yet" if endpoint is None else "this node is stopping"
            raise flow.Refused(unreachable(member.name, cause))
        self._make_room()
        try:
            peer = Peer(
                member,
                endpoint,
                context=self._context,
                identity=self._identity,
                seal=self._seal.again(),
                counters=self._counters,
                on_lost=self._forget,
            )
        except (zmq.ZMQError, ValueError) as error:
            raise flow.Refused(unreachable(member.name, str(error))) from None
        self.peers[member.node_id] = peer
        return peer

    def watch(self, now: float) -> None:
        """Notice silent and idle peers."""
        for peer in list(self.peers.values()):
            peer.watch(now)

    def close(self) -> None:
        """Fail what is open; nothing can be asked any more."""
        self._closed = True
        for peer in list(self.peers.values()):
            peer.close()

    def _make_room(self) -> None:
        if len(self.peers) < PEERS_MAX:
            return
        idle = [peer for peer in self.peers.values() if not peer.asks]
        if not idle:
            raise flow.Refused(overloaded(f"this node already waits for {PEERS_MAX} others"))
        min(idle, key=lambda peer: peer.clocks.used).close()

    def _forget(self, peer: Peer) -> None:
        if self.peers.get(peer.node_id) is peer:
            del self.peers[peer.node_id]


def _packed(job: Job) -> bytes:
    """The job as it crosses, counted as forwarded. Raises Refused for one that was already."""
    if job.hops:
        raise flow.Refused(hopped_before())
    try:
        return encode_job(replace(job, hops=1))
    except ProtocolError as error:
        raise flow.Refused(
            Failure(
                "bad_request",
                f"the request cannot be forwarded to another node: {error.detail}",
                elsewhere=False,
            )
        ) from None
