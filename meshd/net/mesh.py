"""Everything of one node that touches the mesh's network, opened and closed together.

Order matters twice. Sockets bind before anything is announced, so that a port that is taken is one
line to the owner and nothing was promised to peers. Discovery starts last, in a thread of its own,
because looking for peers takes seconds that a client asking `/health` should not wait for.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq

from meshd.config import Settings
from meshd.core.effects import Notice
from meshd.core.membership.machine import Membership, Myself
from meshd.core.membership.member import MeshView
from meshd.core.ports import EventStream
from meshd.net.control import ControlPlane
from meshd.net.discovery import Discovery
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.interfaces import advertised_endpoints
from meshd.net.relay import Relay
from meshd.net.trust import Identity, MeshKey, load_identity, own_mesh_key, read_mesh_key_file
from protocol.jobs import Job
from protocol.messages import CapacityRecord, Endpoint, LoadRecord
from protocol.service import NodeAdvert

LEAVE_WAIT_S = 0.5
"""How long a leaving node waits for its farewell to be sent."""

SOCKETS_MAX = 4_096
"""ZeroMQ sockets of one node: a link takes three, a relay peer two; libzmq's own limit is 1,023."""


class MeshNet:
    """Identity, control plane, relay and discovery of one node. Raises TrustError for bad keys."""

    def __init__(self, settings: Settings, on_notice: Callable[[Notice], None]) -> None:
        self._settings = settings
        self._on_notice = on_notice
        self.identity: Identity = load_identity(settings.state_dir)
        self.mesh_key: MeshKey = mesh_key_of(settings.mesh_key_file, settings.state_dir)
        self.boot_id = secrets.randbits(63)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._gatekeeper = Gatekeeper(self._context)
        self._discovery: Discovery | None = None
        self.control: ControlPlane
        self.relay: Relay
        self._opened = False

    def open(
        self,
        membership: Callable[[Myself, float], Membership],
        *,
        answer: Callable[[str, Job], EventStream],
        on_view: Callable[[MeshView], None],
    ) -> None:
        """Bind both sockets. Raises BindError."""
        self._opened = True
        settings = self._settings
        loop = asyncio.get_running_loop()
        self.relay = Relay(
            self.identity,
            self.mesh_key.label,
            self.boot_id,
            context=self._context,
            gatekeeper=self._gatekeeper,
            bind_host=settings.mesh_host,
            bind_port=settings.relay_port,
            admit=self._is_member,
            answer=answer,
        )
        self.relay.bind()
        self.control = ControlPlane(
            self.identity,
            self.mesh_key,
            boot_id=self.boot_id,
            bind_host=settings.mesh_host,
            bind_port=settings.mesh_port,
            context=self._context,
            gatekeeper=self._gatekeeper,
            state_dir=settings.state_dir,
            on_view=lambda view: loop.call_soon_threadsafe(on_view, view),
            on_notice=self._on_notice,
            endpoints=self._endpoints,
        )
        self.control.bind()
        myself = Myself(
            self.identity.node_id,
            settings.name,
            self.identity.public_key.hex(),
            self.boot_id,
            self._endpoints(),
        )
        self.control.start(membership(myself, time.monotonic()))

    async def start(self) -> None:
        """Serve forwarded jobs, knock at typed peers, and look for others."""
        await self.relay.start()
        for link in self._settings.peers:
            self.control.candidate(link, typed=True)
        if self._settings.mdns:
            advert = NodeAdvert(
                self.identity.node_id, self.mesh_key.label, self.control.port, self.relay.port
            )
            self._discovery = Discovery(
                advert,
                interfaces=self._settings.interfaces,
                bind_host=self._settings.mesh_host,
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
        await asyncio.to_thread(self.control.leave, LEAVE_WAIT_S)
        await self.relay.close()
        await asyncio.to_thread(self.control.stop)
        self._gatekeeper.close()
        self._context.destroy(linger=0)

    @property
    def view(self) -> MeshView:
        """Everybody this node knows now."""
        return self.control.view

    def report(self, load: LoadRecord) -> None:
        """Tell the mesh this node's load."""
        self.control.report(load)

    def announce(self, capacity: CapacityRecord) -> None:
        """Tell the mesh this node's capacity, because it changed."""
        self.control.announce(capacity)

    def peer_failed(self, node_id: str, cause: str) -> None:
        """A request to a peer broke for a reason that its control socket may not show yet."""
        self.control.relay_failed(node_id, cause)

    def counters(self) -> Mapping[str, int]:
        """What crossed the sockets and what was refused, by name."""
        found = self._discovery.counters() if self._discovery is not None else {}
        return {**self.control.counters(), **self.relay.counters(), **found}

    def _is_member(self, public_key: bytes) -> bool:
        key = public_key.hex()
        return any(member.public_key == key for member in self.view.members.values())

    def _endpoints(self) -> tuple[Endpoint, ...]:
        return advertised_endpoints(
            self._settings.mesh_host,
            control_port=self.control.port,
            relay_port=self.relay.port,
            allowed=self._settings.interfaces,
        )


def mesh_key_of(key_file: Path | None, state_dir: Path) -> MeshKey:
    """The key of the mesh this node belongs to; a mesh of one without a key file."""
    return read_mesh_key_file(key_file) if key_file is not None else own_mesh_key(state_dir)
