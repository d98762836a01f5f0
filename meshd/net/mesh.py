"""Everything of one node that touches the mesh's network, opened and closed together.

Order matters twice. Sockets bind before anything is announced, so that a port that is taken is one
line to the owner and nothing was promised to peers. Discovery starts last, in a thread of its own,
because looking for peers takes seconds that a client asking `/health` should not wait for.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import zmq

from meshd.address import format_host_port
from meshd.config import Settings
from meshd.core.effects import Notice
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from meshd.core.membership.member import Member, MeshView
from meshd.core.membership.pulse import load_changed
from meshd.core.ports import EventStream
from meshd.net.circle import Circle
from meshd.net.control import ControlPlane
from meshd.net.discovery import Discovery
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.interfaces import advertised_endpoints
from meshd.net.lookup import listening_host
from meshd.net.pairing.door import PORT_STEP
from meshd.net.relay import Relay
from meshd.net.trust import Identity, MeshKey, load_identity, own_mesh_key, read_mesh_key_file
from meshd.net.vault import Vault
from meshd.net.warden import ANSWER_WAIT_S
from protocol.jobs import Job
from protocol.load import CapacityRecord, LoadRecord, ModelLoad
from protocol.messages import Endpoint
from protocol.pairing import Sponsor
from protocol.service import NodeAdvert
from protocol.trust import TrustRecord

LEAVE_WAIT_S = 0.5
"""How long a leaving node waits for its farewell to be sent."""

LOAD_CHANGE_RATIO = MembershipConfig().load_change_ratio
"""Readings that differ by less need not wake the mesh thread, which would not send them."""

SOCKETS_MAX = 4_096
"""ZeroMQ sockets of one node: a link takes three, a relay peer two; libzmq's own limit is 1,023."""


class MeshNet:
    """Identity, trust, control plane, relay and discovery of one node.

    Raises TrustError for keys that cannot be used. It is the `Sockets` of its own circle.
    """

    def __init__(self, settings: Settings, on_notice: Callable[[Notice], None]) -> None:
        self._settings = settings
        self._on_notice = on_notice
        self._host = listening_host(settings.mesh_host)
        self.identity: Identity = load_identity(settings.state_dir)
        configured = mesh_key_of(settings.mesh_key_file, settings.state_dir)
        self._vault = Vault(settings.state_dir, configured)
        self.boot_id = secrets.randbits(63)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._gatekeeper = Gatekeeper(self._context)
        self._discovery: Discovery | None = None
        self.control: ControlPlane
        self.relay: Relay
        self.circle: Circle
        self._opened = False
        self._reported: LoadRecord | None = None

    def open(
        self,
        membership: Callable[[Myself, float], Membership],
        *,
        answer: Callable[[str, Job], EventStream],
        on_view: Callable[[MeshView], None],
        load_of: Callable[[str], ModelLoad | None],
    ) -> None:
        """Bind both sockets. Raises BindError."""
        self.circle = self._made_circle()
        self.relay = self._made_relay(answer, load_of)
        self.control = self._made_control(on_view)
        self.relay.bind()
        self.control.bind()
        self._opened = True
        myself = Myself(
            self.identity.node_id,
            self._settings.name,
            self.identity.public_key.hex(),
            self.boot_id,
            self.endpoints(),
        )
        self.control.start(membership(myself, time.monotonic()))
        self.control.evict(self._vault.state.revoked)

    def _made_circle(self) -> Circle:
        mesh_port = self._settings.mesh_port
        return Circle(
            self.identity,
            self._settings.name,
            self._vault,
            self,
            context=self._context,
            gatekeeper=self._gatekeeper,
            bind_host=self._settings.mesh_host,
            door_port=mesh_port + PORT_STEP if mesh_port else 0,
            view=lambda: self.view,
            on_notice=self._on_notice,
        )

    def _made_relay(
        self,
        answer: Callable[[str, Job], EventStream],
        load_of: Callable[[str], ModelLoad | None],
    ) -> Relay:
        return Relay(
            self.identity,
            self.label,
            self.boot_id,
            context=self._context,
            gatekeeper=self._gatekeeper,
            bind_host=self._settings.mesh_host,
            bind_port=self._settings.relay_port,
            admit=self.circle.admits_to_relay,
            answer=answer,
            on_trust=self.circle.warden.answer,
            load_of=load_of,
        )

    def _made_control(self, on_view: Callable[[MeshView], None]) -> ControlPlane:
        loop = asyncio.get_running_loop()
        return ControlPlane(
            self.identity,
            self._vault.mesh_key,
            boot_id=self.boot_id,
            bind_host=self._settings.mesh_host,
            bind_port=self._settings.mesh_port,
            context=self._context,
            gatekeeper=self._gatekeeper,
            state_dir=self._settings.state_dir,
            on_view=lambda view: loop.call_soon_threadsafe(on_view, view),
            on_notice=self._on_notice,
            endpoints=self.endpoints,
            admit=self.circle.admits,
            on_other_key=lambda link: loop.call_soon_threadsafe(self.circle.doubt, link),
        )

    async def start(self) -> None:
        """Serve forwarded jobs, knock at typed peers, and look for others."""
        await self.relay.start()
        self.circle.start()
        for link in self._settings.peers:
            self.control.candidate(link, typed=True)
        if self._settings.mdns:
            self._discovery = Discovery(
                self._advert(),
                interfaces=self._settings.interfaces,
                bind_host=self._host,
                on_candidate=self.control.candidate,
                on_notice=self._on_notice,
            )
            self._discovery.start()

    async def close(self) -> None:
        """Say farewell and give every socket and thread back. Idempotent."""
        if self._context.closed:
            return
        if self._discovery is not None:
            await asyncio.to_thread(self._discovery.stop)
        if self._opened:
            await self.circle.close()
            await asyncio.to_thread(self.control.leave, LEAVE_WAIT_S)
            await self.relay.close()
            await asyncio.to_thread(self.control.stop)
        self._gatekeeper.close()
        self._context.destroy(linger=0)

    @property
    def label(self) -> str:
        """The label of the mesh this node is in."""
        return self._vault.mesh_key.label

    @property
    def secret(self) -> bytes:
        """What the members have in common, for hashes that they agree on and nobody can undo."""
        return self._vault.state.secret

    @property
    def view(self) -> MeshView:
        """Everybody this node knows now."""
        return self.control.view

    @property
    def silent_s(self) -> float:
        """Seconds since the mesh thread last turned: below a second while it is well."""
        return time.monotonic() - self.control.last_turn_at

    def report(self, load: LoadRecord) -> None:
        """Tell the mesh this node's load. Readings that only differ by noise wake nobody."""
        if self._opened:
            news = self._reported is None or load_changed(self._reported, load, LOAD_CHANGE_RATIO)
            self._reported = load
            self.control.report(load, news=news)

    def announce(self, capacity: CapacityRecord) -> None:
        """Tell the mesh this node's capacity, because it changed."""
        self.control.announce(capacity)

    def peer_failed(self, node_id: str, cause: str) -> None:
        """A request to a peer broke for a reason that its control socket may not show yet."""
        self.control.relay_failed(node_id, cause)

    def counters(self) -> Mapping[str, int]:
        """What crossed the sockets and what was refused, by name."""
        found = self._discovery.counters() if self._discovery is not None else {}
        refused = {
            f"handshake_{reason.replace(' ', '_')}": count
            for reason, count in self._gatekeeper.refused.items()
        }
        return {**self.control.counters(), **self.relay.counters(), **refused, **found}

    # What the circle asks of the sockets

    def new_key(self, key: MeshKey) -> None:
        """See `meshd.net.circle.Sockets`."""
        self.control.rekey(key)

    def new_mesh(self, key: MeshKey, sponsors: Collection[Sponsor]) -> None:
        """See `meshd.net.circle.Sockets`."""
        self.control.rekey(key)
        self.control.evict(self._vault.state.revoked)
        self.relay.relabel(key.label)
        self.advertise_door(0)
        for sponsor in sponsors:
            for endpoint in sponsor.endpoints:
                link = format_host_port(endpoint.host, endpoint.control_port)
                self.control.candidate(link, typed=True)

    def shut_out(self, node_id: str) -> None:
        """See `meshd.net.circle.Sockets`."""
        self.relay.shut_out(node_id)
        self.control.evict(self._vault.state.revoked)

    async def sync(self, member: Member, state: TrustRecord) -> TrustRecord:
        """See `meshd.net.circle.Sockets`."""
        return await self.relay.sync(member, state, ANSWER_WAIT_S)

    def advertise_door(self, port: int) -> None:
        """See `meshd.net.circle.Sockets`."""
        if self._discovery is not None:
            self._discovery.announce(replace(self._advert(), door_port=port))

    def doors(self) -> Collection[tuple[str, ...]]:
        """See `meshd.net.circle.Sockets`."""
        return self._discovery.doors() if self._discovery is not None else ()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """See `meshd.net.circle.Sockets`."""
        return advertised_endpoints(
            self._host,
            control_port=self.control.port,
            relay_port=self.relay.port,
            allowed=self._settings.interfaces,
        )

    def _advert(self) -> NodeAdvert:
        return NodeAdvert(self.identity.node_id, self.label, self.control.port, self.relay.port)


def mesh_key_of(key_file: Path | None, state_dir: Path) -> MeshKey:
    """The key that was configured; that of a mesh of one without a key file."""
    return read_mesh_key_file(key_file) if key_file is not None else own_mesh_key(state_dir)
