"""Many nodes on one network: who listens where, how frames travel, and what a scenario may ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.link import link_of
from meshd.core.membership.table import LIVING, Row
from protocol.messages import ControlMessage, Endpoint
from tests.sim.checks import Checks
from tests.sim.shell import Identity, SimNode, new_machine
from tests.sim.world import KEEPALIVE_S, Connection, World

WALL_MS = 1_763_000_000_000
"""The wall clock when a simulation starts."""


class Mesh:
    """A simulated mesh. `encoded` sends real bytes; `wireless` lets nodes reach each other without
    connections, for meshes of a thousand where a million of those would not fit."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        encoded: bool = True,
        wireless: bool = False,
        config: MembershipConfig | None = None,
    ) -> None:
        self.world = World(seed)
        self.encoded = encoded
        self.wireless = wireless
        self.config = config or MembershipConfig()
        self.checks = Checks(every_row=not wireless)
        self.identities = [Identity(index) for index in range(nodes)]
        self.nodes: list[SimNode] = []
        self.deaths: list[tuple[float, str, str]] = []
        """When which node (id) declared which other (id) dead."""
        self.checks.on_death = lambda by, whom: self.deaths.append((self.world.now, by, whom))
        self._boots = 0
        for who in self.identities:
            self.nodes.append(self._process(who, WALL_MS))
        self._by_link = {node.who.link: node for node in self.nodes}
        self._by_id = {node.who.node_id: node for node in self.nodes}
        for node in self.nodes:
            node.put(lambda machine, now: machine.tick(now))

    def _process(self, who: Identity, wall_ms: int) -> SimNode:
        self._boots += 1
        rng = Random(self.world.rng.getrandbits(64))
        boot_id = self.world.rng.getrandbits(63)
        machine = new_machine(who, boot_id, rng, self.world.now, wall_ms, self.config)
        return SimNode(self, who, boot_id, machine)

    # Scenario words

    def introduce(self, *, to: int = 0) -> None:
        """Every node is given the address of one of them, as with `--peer`."""
        seed = self.nodes[to].who.link
        for node in self.nodes:
            if node.who.link != seed:
                node.put(lambda machine, now: machine.candidate(seed, now, typed=True))

    def settle(self, most_s: float = 5.0) -> float:
        """Let the mesh form; how long that took."""
        self.introduce()
        took = self.world.run_until(self.agreed, most_s)
        self.world.run(1.5)
        return took

    def restart(
        self, index: int, *, wall_shift_ms: int = 0, peers: Iterable[int] = (0,)
    ) -> SimNode:
        """A new process with the old identity, on the same host."""
        old = self.nodes[index]
        assert not old.running, "kill it first"
        wall_ms = WALL_MS + int(self.world.now * 1_000) + wall_shift_ms
        node = self._process(old.who, wall_ms)
        self.nodes[index] = node
        self._by_link[node.who.link] = self._by_id[node.who.node_id] = node
        node.put(lambda machine, now: machine.tick(now))
        for peer in peers:
            link = self.identities[peer].link
            node.put(lambda machine, now, at=link: machine.candidate(at, now, typed=True))  # type: ignore[misc]
        return node

    def adopt(self, node: SimNode) -> None:
        """Frames to this identity reach this process from now on: the other half of a clone."""
        self._by_link[node.who.link] = self._by_id[node.who.node_id] = node
        node.links.clear()
        node.put(lambda machine, now: machine.woke(now))

    def rehost(self, index: int, place: Endpoint) -> None:
        """A node's machine gets another address; connections to the old one end."""
        node = self.nodes[index]
        for connection in list(node.callers.values()):
            self.break_connection(connection, "eof")
        del self._by_link[node.who.link]
        node.who.host = place.host
        self._by_link[node.who.link] = node
        node.put(lambda machine, now: machine.readdress((place,), now))

    def isolate(self, index: int) -> None:
        """Pull a node's cable."""
        for who in self.identities:
            self.cut(index, who.index)

    def cut(self, one: int, other: int, *, both: bool = True) -> None:
        """Cut the way between two nodes (only from the first to the second, if not `both`)."""
        if one == other:
            return
        a, b = self.nodes[one], self.nodes[other]
        self.world.cut(a.who.host, b.who.host, both=both)
        self.world.after(KEEPALIVE_S, lambda: self._expire_connections(a, b))

    # Questions

    def living(self) -> list[SimNode]:
        """Nodes whose process runs."""
        return [node for node in self.nodes if node.running]

    def state(self, index: int, of: int) -> str | None:
        """What one node holds of another, None when it does not know it."""
        member = self.nodes[index].machine.view().members.get(self.nodes[of].who.node_id)
        return None if member is None else member.state

    def agreed(self) -> bool:
        """Whether every running node holds every running one for alive, in its current run, with
        load and capacity, and nobody else for living."""
        alive = {node.who.node_id: node.boot_id for node in self.living()}
        for node in self.living():
            members = node.machine.view().members
            held = {m.node_id: m.boot_id for m in members.values() if m.state in LIVING}
            if held != alive or not all(members[node_id].routable for node_id in alive):
                return False
        return True

    def rows(self, index: int) -> dict[str, Row]:
        """One node's table, without the cost of a view."""
        return self.nodes[index].machine._parts.table.rows

    def row_state(self, index: int, of: int) -> str | None:
        """`state`, without the cost of a view."""
        row = self.rows(index).get(self.nodes[of].who.node_id)
        return None if row is None else row.state

    def all_hold(self, of: int, state: str, observers: Iterable[int] | None = None) -> bool:
        """Whether all other running nodes hold this state of one."""
        chosen = range(len(self.nodes)) if observers is None else observers
        return all(
            self.state(index, of) == state
            for index in chosen
            if index != of and self.nodes[index].running
        )

    def uses(self, index: int, link: str) -> bool:
        """Whether all other running nodes reach this one over this link."""
        who = self.nodes[index].who.node_id
        for node in self.living():
            address = node.machine.view().members[who].address
            if node is not self.nodes[index] and (address is None or link_of(address) != link):
                return False
        return True

    def sees_load(self, index: int, in_flight: int) -> bool:
        """Whether all other running nodes hold this number of requests for this one."""
        who = self.nodes[index].who.node_id
        loads = [node.machine.view().members[who].load for node in self.living()]
        return all(load is not None and load.in_flight == in_flight for load in loads)

    # Connections

    def listener(self, link: str) -> SimNode | None:
        """The process that listens at this address."""
        node = self._by_link.get(link)
        return node if node is not None and node.running else None

    def carry(self, sender: SimNode, connection: Connection, frame: bytes | ControlMessage) -> None:
        """Move a frame over a connection, if it survives."""
        towards_listener = sender.who.node_id == connection.caller
        target = self._by_id[connection.listener if towards_listener else connection.caller]
        link = None if towards_listener else connection.link
        if not self.world.carries(sender.who.host, target.who.host):
            return
        sequence = sender.sequence
        copies = 1 + (self.world.rng.random() < self.world.weather.double)
        for _ in range(copies):
            flight_s = self.world.flight_s(connection, towards_listener)
            if flight_s is not None:
                self.world.after(
                    flight_s,
                    lambda: self._arrive(connection, sender, target, sequence, frame, link),
                )

    def carry_without(
        self, sender: SimNode, node_id: str | None, frame: bytes | ControlMessage
    ) -> None:
        """Move a frame between two nodes of a wireless mesh."""
        target = self._by_id.get(node_id or "")
        if target is None or not self.world.carries(sender.who.host, target.who.host):
            return
        weather, sequence = self.world.weather, sender.sequence
        flight_s = weather.latency_s + self.world.rng.random() * weather.jitter_s
        who, boot_id = sender.who.node_id, sender.boot_id
        self.world.after(flight_s, lambda: target.deliver(who, boot_id, sequence, frame, None))

    def _arrive(
        self,
        connection: Connection,
        sender: SimNode,
        target: SimNode,
        sequence: int,
        frame: bytes | ControlMessage,
        link: str | None,
    ) -> None:
        if connection.open and self._by_id[target.who.node_id] is target:
            target.deliver(sender.who.node_id, sender.boot_id, sequence, frame, link)

    def break_connection(self, connection: Connection, cause: str) -> None:
        """A connection ends: both ends forget it, and the one that dialled is told."""
        self.close_quietly(connection)
        caller = self._by_id[connection.caller]
        link = caller.links.get(connection.link)
        if link is not None and link.connection is connection:
            link.connection = None
            delay_s = self.world.weather.latency_s
            self.world.after(delay_s, lambda: caller.lost(link, cause))

    def close_quietly(self, connection: Connection) -> None:
        """A connection is closed by its caller."""
        connection.open = False
        callers = self._by_id[connection.listener].callers
        if callers.get(connection.caller) is connection:
            del callers[connection.caller]

    def _expire_connections(self, a: SimNode, b: SimNode) -> None:
        """A cut has lasted for KEEPALIVE_S: connections across it are given up."""
        world = self.world
        if world.carries(a.who.host, b.who.host) and world.carries(b.who.host, a.who.host):
            return
        for caller, listener in ((a, b), (b, a)):
            for link in list(caller.links.values()):
                connection = link.connection
                if connection is not None and connection.listener == listener.who.node_id:
                    self.break_connection(connection, "timeout")


def slow_config(**changes: float) -> MembershipConfig:
    """The usual settings with a few changed."""
    return replace(MembershipConfig(), **changes)  # type: ignore[arg-type]


Judge = Callable[[Mesh], None]
