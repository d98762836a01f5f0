"""Requests in the simulated mesh: the router's own bookkeeping, put through everything.

Each process has a real `Router`, with its ledger and its breakers. What `meshd.gateway` and the
relay do around it is played here, over simulated time: choose by this node's own view, take a
lease, send; the first event commits; whatever fails before that is tried elsewhere, whatever fails
after it is the answer's end. Relay connections are TCP: they end when the other process does, and
go silent when a cable is cut, until somebody's patience is over.

Checked at every step: nobody is chosen who is held for dead, no node is tried twice for one
request, each attempt that runs has a lease and no other has one. At the end (`settled`): each
request whose entry node lives was answered exactly once, and all books are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from meshd.core.effects import Effect
from meshd.core.membership.table import LIVING
from meshd.core.routing.demand import Demand
from meshd.core.routing.ledger import Lease
from meshd.core.routing.router import Router
from tests.sim.shell import MODEL_ID, SLOTS, SimNode, load_record
from tests.sim.world import KEEPALIVE_S, RTO_S

if TYPE_CHECKING:
    from tests.sim.mesh import Mesh

DEMAND = Demand(MODEL_ID, frozenset({"chat"}), prompt_tokens=100, output_tokens=20)
ATTEMPTS_MAX = 8
"""`meshd.gateway.ATTEMPTS_MAX`."""

PATIENCE_S = 4.0
"""Without an event for so long, an attempt has failed."""

LOOK_S = 0.1
"""How often a process looks whether its attempts are still connected."""

QUEUED_MAX = 8
"""Jobs beyond the slots that a node takes before it sends askers elsewhere."""

FIRST_EVENT_S, REST_S = 0.2, 0.4
"""Mean times of an engine, to the first event and from there to the last."""

BAD_RATIO = 0.03
"""Jobs whose engine fails, half of them in the middle of the answer."""


@dataclass(slots=True, eq=False)
class Request:
    """A client's request at one process."""

    entry: SimNode
    tried: list[str] = field(default_factory=list)
    begun: int = 0
    ends: list[str] = field(default_factory=list)
    """How it ended: `answered`, `refused` (nobody could), or `broken` after its first event."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One try at one process."""

    request: Request
    server: SimNode
    lease: Lease
    heard_at: float
    reachable_at: float
    committed: bool = False


@dataclass(slots=True, eq=False)
class Desk:
    """One process's router, and its part in other processes' requests."""

    node: SimNode
    router: Router
    running: dict[int, Attempt] = field(default_factory=dict)
    """Own attempts, by lease."""
    serving: int = 0


class Office:
    """The desks of all processes, and the relay between them."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self._mesh = mesh
        self._rng = Random(f"office {seed}")
        self._desks: dict[int, Desk] = {}
        self.requests: list[Request] = []
        self._look()

    # A request at its entry

    def ask(self, entry: SimNode) -> None:
        """A client asks this process, if it runs."""
        if entry.running and not entry.stopped:
            request = Request(entry)
            self.requests.append(request)
            self._at(entry, lambda now: self._try(request, now))

    def _try(self, request: Request, now: float) -> None:
        desk = self._desk(request.entry)
        view = desk.node.machine.view()
        decision = desk.router.choose(view, DEMAND, now, request.tried)
        if decision.chosen is None or len(request.tried) >= ATTEMPTS_MAX:
            request.ends.append("refused")
            return
        chosen = decision.chosen.offer.member.node_id
        row = desk.node.machine._parts.table.rows.get(chosen)
        assert row is not None, f"{desk.node.who.name} asks a node that it does not know"
        assert row.state in LIVING, f"{desk.node.who.name} asks {row.name}, which is {row.state}"
        assert chosen not in request.tried, f"{row.name} is asked twice for one request"
        request.tried.append(chosen)
        lease = desk.router.dispatch(decision.chosen, now)
        server = self._mesh._by_id[chosen]
        attempt = Attempt(request, server, lease, now, now)
        desk.running[lease.lease_id] = attempt
        self._check(desk)
        self._carry(desk.node, server, lambda: self._serve(attempt))

    def _first(self, attempt: Attempt, now: float) -> None:
        """The answer begins: the client has words, so nobody else may be asked any more."""
        desk = self._desk(attempt.request.entry)
        if attempt.lease.lease_id not in desk.running:
            return
        attempt.heard_at, attempt.committed = now, True
        attempt.request.begun += 1
        assert attempt.request.begun == 1, "two nodes answer one request"
        desk.router.spoke(attempt.lease)

    def _last(self, attempt: Attempt, now: float) -> None:
        """The answer ends. A beginning that was lost on the way comes again with its end."""
        if not attempt.committed:
            self._first(attempt, now)
        if self._close(attempt):
            self._desk(attempt.request.entry).router.succeeded(attempt.lease)
            attempt.request.ends.append("answered")

    def _fail(self, attempt: Attempt, code: str, now: float) -> None:
        desk = self._desk(attempt.request.entry)
        if not self._close(attempt):
            return
        desk.router.failed(attempt.lease, code, now)
        if code == "unreachable":
            node_id = attempt.server.who.node_id
            desk.node.put(lambda machine, at: machine.relay_failed(node_id, code, at))
        if attempt.committed:
            attempt.request.ends.append("broken")
        else:
            self._try(attempt.request, now)

    def _close(self, attempt: Attempt) -> bool:
        """End an attempt; False when it was over already."""
        desk = self._desk(attempt.request.entry)
        open_still = desk.running.pop(attempt.lease.lease_id, None) is not None
        desk.router.release(attempt.lease)
        self._check(desk)
        return open_still

    def _check(self, desk: Desk) -> None:
        ledger, running = desk.router.ledger, desk.running.values()
        assert len(ledger) == len(running), f"{len(ledger)} leases, {len(running)} attempts"
        for attempt in running:
            held = ledger.in_flight(attempt.lease.node_id)
            there = sum(other.lease.node_id == attempt.lease.node_id for other in running)
            assert held == there, f"{held} in flight at one node, in truth {there}"

    # The other end

    def _serve(self, attempt: Attempt) -> None:
        server, rng = attempt.server, self._rng
        desk = self._desk(server)
        if desk.serving >= SLOTS + QUEUED_MAX:
            self._reply(attempt, lambda now: self._fail(attempt, "overloaded", now))
            return
        desk.serving += 1
        self._report(desk)
        world, waits = self._mesh.world, 1 + desk.serving // SLOTS
        first_s = rng.expovariate(1 / FIRST_EVENT_S) * waits
        fate = rng.random()
        if fate < BAD_RATIO / 2:
            world.after(first_s, lambda: self._end(attempt, self._engine_failed(attempt)))
            return
        world.after(first_s, lambda: self._reply(attempt, lambda now: self._first(attempt, now)))
        end = self._engine_failed(attempt) if fate < BAD_RATIO else self._answered(attempt)
        rest_s = first_s + rng.expovariate(1 / REST_S)
        world.after(rest_s, lambda: self._end(attempt, end))

    def _engine_failed(self, attempt: Attempt) -> Callable[[float], None]:
        return lambda now: self._fail(attempt, "engine_failed", now)

    def _answered(self, attempt: Attempt) -> Callable[[float], None]:
        return lambda now: self._last(attempt, now)

    def _end(self, attempt: Attempt, word: Callable[[float], None]) -> None:
        def end(now: float) -> None:
            desk = self._desk(attempt.server)
            desk.serving -= 1
            assert desk.serving >= 0, "more jobs ended than began"
            self._report(desk)
            self._reply(attempt, word)

        self._at(attempt.server, end)

    def _report(self, desk: Desk) -> None:
        record = load_record(desk.serving)
        desk.node.put(lambda machine, now: machine.report(record, now))

    # Between them

    def _reply(self, attempt: Attempt, word: Callable[[float], None]) -> None:
        entry = attempt.request.entry
        self._at(
            attempt.server,
            lambda _: self._carry(attempt.server, entry, lambda: self._at(entry, word)),
        )

    def _carry(self, sender: SimNode, target: SimNode, deliver: Callable[[], None]) -> None:
        """Bring something over, if both ends run and the cable is whole; a loss is a delay."""
        world = self._mesh.world
        flight_s = world.weather.latency_s + self._rng.random() * world.weather.jitter_s
        while self._rng.random() < world.weather.loss:
            flight_s += RTO_S
        if self._connected(sender, target):
            world.after(flight_s, lambda: deliver() if target.running else None)

    def _connected(self, one: SimNode, other: SimNode) -> bool:
        hosts, carries = (one.who.host, other.who.host), self._mesh.world.carries
        return carries(*hosts) and carries(*reversed(hosts))

    def _look(self) -> None:
        """What a process learns from its connections: they end, they are cut, they are silent."""
        for desk in list(self._desks.values()):
            if desk.node.running and not desk.node.stopped:
                for attempt in list(desk.running.values()):
                    self._watch(desk, attempt, desk.node.now)
        self._mesh.world.after(LOOK_S, self._look)

    def _watch(self, desk: Desk, attempt: Attempt, now: float) -> None:
        if self._connected(desk.node, attempt.server):
            attempt.reachable_at = now
            gone = not attempt.server.running
        else:
            gone = now - attempt.reachable_at > KEEPALIVE_S
        if gone:
            self._fail(attempt, "unreachable", now)
        elif now - attempt.heard_at > PATIENCE_S:
            self._fail(attempt, "timeout", now)

    def _at(self, node: SimNode, act: Callable[[float], None]) -> None:
        """In this process: now, or when it goes on; never, once it has ended."""
        if node.asleep:
            self._mesh.world.after(LOOK_S, lambda: self._at(node, act))
            return

        def asked(_: object, now: float) -> list[Effect]:
            act(now)
            return []

        node.put(asked)

    def _desk(self, node: SimNode) -> Desk:
        desk = self._desks.get(node.boot_id)
        if desk is None:
            rng = Random(self._rng.getrandbits(64))
            desk = self._desks[node.boot_id] = Desk(node, Router(rng))
        return desk

    # In the end

    def settled(self) -> bool:
        """Whether no process that runs has an attempt or a job any more."""
        desks = [desk for desk in self._desks.values() if desk.node.running]
        return not any(desk.running or desk.serving for desk in desks)

    def check_answers(self) -> None:
        """Each request has exactly one end, unless its entry node died with it."""
        for desk in self._desks.values():
            assert not desk.node.running or not len(desk.router.ledger), "a lease has leaked"
        for request in self.requests:
            lived, ends = request.entry.running, request.ends
            assert len(ends) == 1 or (not lived and not ends), f"{lived=} {ends=}"
            assert ends != ["answered"] or request.begun == 1, "an answer without a beginning"
