"""One node of the simulation: a real membership machine and a shell that carries out its effects.

The shell stands in for `meshd.net.control`. It encodes every frame and decodes it again (unless
the mesh is too large for that), numbers frames, keeps links, and calls `tick` when the machine
asked for it. What a real process suffers can be done to it: it can be stopped, starved, killed,
restarted, or put to sleep with its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from meshd.core.effects import Dial, Effect, Hangup, Notice, Send, ViewChanged
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from protocol import codec
from protocol.envelope import Envelope
from protocol.load import CapacityRecord, LoadRecord, ModelLoad, ModelRecord
from protocol.messages import ControlMessage, Endpoint
from tests.sim.world import KEEPALIVE_S, Connection

if TYPE_CHECKING:
    from tests.sim.mesh import Mesh

Input = Callable[[Membership, float], list[Effect]]

MESH_LABEL = "5eed5eed5eed5eed"
PORT = 8788
CONNECT_TIMEOUT_S = 1.5
HANDSHAKE_TIMEOUT_S = 4.0
RETRY_S = 0.2
QUEUE_MAX = 4_096
"""Inputs that wait for a stopped process, in the kernel's buffers."""


MODEL_ID = "smollm2-135m"
SLOTS = 4


def capacity_record() -> CapacityRecord:
    """A small machine with one model."""
    models = (ModelRecord(MODEL_ID, "emulated"),)
    return CapacityRecord(0, "meshd 0.1", "Linux", "sim", 4, 8 * 2**30, (), ("emulated",), models)


def load_record(in_flight: int = 0) -> LoadRecord:
    """The load of a machine with one model."""
    model = ModelLoad(MODEL_ID, True, SLOTS, in_flight, 0, 0.5 * in_flight, 512.0, 40.0, 0.0)
    return LoadRecord(0, in_flight, 0, 4 * 2**30, 0, "normal", True, (model,))


@dataclass(slots=True, eq=False)
class OutgoingLink:
    """A link that the machine asked for."""

    name: str
    connection: Connection | None = None
    failures: int = 0


@dataclass(slots=True)
class Traffic:
    """What a node has sent."""

    frames: int = 0
    bytes: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Identity:
    """Who a node is, whatever runs there."""

    index: int
    node_id: str = ""
    host: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        self.node_id = f"{self.index + 1:032x}"
        self.host = f"10.0.{self.index // 250}.{self.index % 250 + 1}"
        self.name = f"node-{self.index}"

    @property
    def link(self) -> str:
        return f"{self.host}:{PORT}"


@dataclass(slots=True, eq=False)
class SimNode:
    """A process on a host. A restarted node is a new SimNode with the same identity."""

    mesh: Mesh
    who: Identity
    boot_id: int
    machine: Membership
    slept_s: float = 0.0
    running: bool = True
    stopped: bool = False
    asleep: bool = False
    links: dict[str, OutgoingLink] = field(default_factory=dict)
    callers: dict[str, Connection] = field(default_factory=dict)
    inbox: list[Input] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    sequence: int = 0
    tick_at: float = float("inf")

    @property
    def now(self) -> float:
        """This machine's own monotonic clock, which stops while it sleeps."""
        return self.mesh.world.now - self.slept_s

    # Inputs

    def put(self, ask: Input) -> None:
        """Something happens to this process: now, or when it runs again."""
        if not self.running or self.asleep:
            return
        if self.stopped:
            if len(self.inbox) < QUEUE_MAX:
                self.inbox.append(ask)
            return
        self._run(ask)

    def _run(self, ask: Input) -> None:
        self._perform(ask(self.machine, self.now))
        self.mesh.checks.after(self)
        self._plan_tick()

    def _plan_tick(self) -> None:
        at = self.machine.deadline() + self.slept_s
        if at < self.tick_at:
            self.tick_at = at
            self.mesh.world.after(max(0.0, at - self.mesh.world.now), lambda: self._tick(at))

    def _tick(self, at: float) -> None:
        if at != self.tick_at or not self.running or self.stopped:
            return
        self.tick_at = float("inf")
        if self.machine.deadline() + self.slept_s <= self.mesh.world.now:
            # A clock that slept adds rounding: never be earlier than was asked for.
            self._run(lambda machine, now: machine.tick(max(now, machine.deadline())))
        else:
            self._plan_tick()

    # What may befall a process

    def stop(self) -> None:
        """SIGSTOP: the kernel goes on taking frames in; nothing is read, nothing is sent."""
        self.stopped = True
        self.mesh.world.after(KEEPALIVE_S, self._starve_connections)

    def resume(self) -> None:
        """SIGCONT: what has arrived meanwhile is read first, then the clock is looked at."""
        self.stopped = False
        waiting, self.inbox = self.inbox, []
        self.tick_at = float("inf")
        for ask in waiting:
            self.put(ask)
        self.put(lambda machine, now: machine.tick(now))

    def sleep(self, seconds: float) -> None:
        """The lid is closed: the clock stops too, and frames find nobody."""
        self.stopped = self.asleep = True
        self.mesh.world.after(KEEPALIVE_S, self._starve_connections)

        def wake() -> None:
            self.slept_s += seconds
            self.stopped = self.asleep = False
            self.tick_at = float("inf")
            self.put(lambda machine, now: machine.woke(now))

        self.mesh.world.after(seconds, wake)

    def crash(self) -> None:
        """kill -9: the kernel closes every socket and refuses new connections."""
        self.running = False
        for connection in list(self.callers.values()):
            self.mesh.break_connection(connection, "eof")
        for link in self.links.values():
            if link.connection is not None:
                link.connection.open = False
        self.links.clear()

    def _starve_connections(self) -> None:
        """Peers give a connection up whose other end has not answered for KEEPALIVE_S."""
        if not self.stopped or not self.running:
            return
        for connection in list(self.callers.values()):
            self.mesh.break_connection(connection, "eof")
        for link in list(self.links.values()):
            if link.connection is not None:
                self.mesh.break_connection(link.connection, "eof")

    # Effects

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(node_id, link, message):
                    self._send(node_id, link, message)
                case Dial(link):
                    self._dial(link)
                case Hangup(link):
                    self._hangup(link)
                case Notice():
                    self.notices.append(effect)
                case ViewChanged():
                    if not self.mesh.wireless:  # a view of a thousand rows, a million times
                        self.machine.view()

    def _send(self, node_id: str | None, link: str | None, message: ControlMessage) -> None:
        outgoing = self.links.get(link) if link is not None else None
        connection = outgoing.connection if outgoing else None
        if connection is None:
            connection = self.callers.get(node_id or "")
        self.sequence += 1
        if connection is None and not self.mesh.wireless:
            self.traffic.dropped += 1
            return
        frame: bytes | ControlMessage = message
        if self.mesh.encoded:
            envelope = Envelope(MESH_LABEL, self.who.node_id, self.boot_id, self.sequence)
            frame = codec.encode(envelope, message)
            self.traffic.bytes += len(frame)
        self.traffic.frames += 1
        if connection is None:
            self.mesh.carry_without(self, node_id, frame)
        else:
            self.mesh.carry(self, connection, frame)

    def deliver(
        self,
        sender: str,
        boot_id: int,
        sequence: int,
        frame: bytes | ControlMessage,
        link: str | None,
    ) -> None:
        """Decode a frame, as a shell would, and hand it to the machine."""
        if isinstance(frame, bytes):
            envelope, message = codec.decode_control(frame)
            sender, boot_id, sequence = envelope.sender, envelope.boot_id, envelope.sequence
        else:
            message = frame
        self.put(
            lambda machine, now: machine.receive(sender, boot_id, sequence, message, now, link)
        )

    def _dial(self, name: str) -> None:
        if name not in self.links:
            self.links[name] = link = OutgoingLink(name)
            self._attempt(link)

    def _hangup(self, name: str) -> None:
        link = self.links.pop(name, None)
        if link is not None and link.connection is not None:
            self.mesh.close_quietly(link.connection)

    def _attempt(self, link: OutgoingLink) -> None:
        """Knock, as `meshd.net.dial` does: the kernel at the other end answers, or nobody."""
        if not self.running or self.links.get(link.name) is not link:
            return
        world, target = self.mesh.world, self.mesh.listener(link.name)
        host = link.name.rpartition(":")[0]
        reached = world.carries(self.who.host, host) and world.carries(host, self.who.host)
        if not reached or (target is not None and target.asleep):
            world.after(CONNECT_TIMEOUT_S, lambda: self.lost(link, "timeout"))
        elif target is None:
            world.after(0.001, lambda: self.lost(link, "refused"))
        elif target.stopped:
            world.after(HANDSHAKE_TIMEOUT_S, lambda: self.lost(link, "timeout"))
        else:
            world.after(0.002, lambda: self._shake(link, target))

    def _shake(self, link: OutgoingLink, target: SimNode) -> None:
        if self.links.get(link.name) is not link or not self.running:
            return
        if not target.running:
            self.lost(link, "refused")
            return
        connection = Connection(self.who.node_id, target.who.node_id, link.name)
        link.connection, link.failures = connection, 0
        before = target.callers.pop(self.who.node_id, None)
        target.callers[self.who.node_id] = connection
        if before is not None:
            self.mesh.break_connection(before, "eof")
        self.put(lambda machine, now: machine.link_up(link.name, now))

    def lost(self, link: OutgoingLink, cause: str) -> None:
        """A link ended or an attempt failed: tell the machine, and try again by and by."""
        if self.links.get(link.name) is not link or not self.running:
            return
        link.connection = None
        wait_s = 0.0 if cause == "eof" and not link.failures else RETRY_S * 2**link.failures
        link.failures = min(link.failures + 1, 6)
        self.mesh.world.after(wait_s, lambda: self._attempt(link))
        self.put(lambda machine, now: machine.link_down(link.name, cause, now))


def new_machine(
    who: Identity, boot_id: int, rng: Random, now: float, wall_ms: int, config: MembershipConfig
) -> Membership:
    """A membership machine for this identity."""
    endpoint = Endpoint(who.host, PORT, PORT + 1)
    myself = Myself(who.node_id, who.name, f"{who.index + 1:064x}", boot_id, (endpoint,))
    return Membership(
        myself,
        capacity_record(),
        load_record(),
        config=config,
        rng=rng,
        now=now,
        wall_ms=wall_ms,
    )
