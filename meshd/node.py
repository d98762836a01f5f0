"""One node: owns every task, socket and child process of the daemon; decides nothing.

Events come in (a reading of the machine, a new membership view, a forwarded job) and are handed to
the rules or to the part that carries them out. Order of life: bind everything that can fail with a
word to the owner, serve HTTP, then join the mesh and load models while already answering.

Threads: the gateway's loop runs this class; the control plane has its own thread, so that a long
prompt here never makes this node look dead; each model has its own process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from meshd import __version__
from meshd.address import LOOPBACK_OF, format_host_port, is_loopback
from meshd.api.keys import door_keys
from meshd.api.server import HttpServer
from meshd.config import Settings
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from meshd.core.membership.member import Member, MeshView
from meshd.core.ports import Engine, EngineError, EventStream, HostFacts, HostProbe
from meshd.core.routing.courtesy import Courtesy, share_of
from meshd.core.routing.demand import Demand, demand_of
from meshd.core.routing.fairness import asker, known_person, person_of
from meshd.core.routing.router import Router
from meshd.core.routing.supply import capacity_record, load_record
from meshd.duty import Duty, offered_elsewhere
from meshd.engine.desk import Desk
from meshd.engine.housing import housing_of
from meshd.engine.offers import Offers
from meshd.gateway import MeshGateway
from meshd.history import History
from meshd.intake import Intake
from meshd.journal import Journal
from meshd.metrics import Metrics
from meshd.net.mesh import MeshNet
from meshd.notices import Notices
from meshd.rhythm import Steady, until_next
from meshd.showing import Showing
from meshd.status import members_body, status_body
from protocol.jobs import Failure, Job
from protocol.load import CapacityRecord, LoadRecord, ModelLoad, ModelRecord

REPORT_INTERVAL_S = 0.25
"""How often load is looked at. Membership sends it on change, at most this often."""

HOST_READ_INTERVAL_S = 1.0
"""How often the machine is read: pressure averages move in seconds, and a read costs 1 ms."""

DRAIN_S = 5.0
"""How long answers in progress may take to end, here or for who asked here, when the daemon is told
to stop: well within the 20 s that its service manager gives it before it kills."""

LOOK_AROUND_S = 3.0
"""How long a new node looks for the others before it says whom it sees, and that nobody has a
model: mDNS answers within two."""

log = logging.getLogger("meshd")


class Node:
    """The daemon's parts, started and stopped together. Use as an async context manager."""

    def __init__(
        self,
        settings: Settings,
        net: MeshNet,
        engines: Sequence[Engine],
        probe: HostProbe,
        notices: Notices,
    ) -> None:
        """`notices` hears what `net` says aloud."""
        self._settings = settings
        self._notices = notices
        self._net = net
        self._engines = engines
        self._offers = Offers(engines)
        self._probe = probe
        self._desk = Desk(engines)
        self._courtesy = _courtesy(settings)
        self._reading = probe.read()
        self._facts = HostFacts("", "", 1, self._reading.memory_total_bytes)
        self._read_at = time.monotonic()
        self._sequence = 0
        self._loop_lag_s = 0.0
        self._started_at = time.monotonic()
        self._offered: tuple[ModelRecord, ...] = ()
        self._capacity_version = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._intake = Intake(lambda visit: offered_elsewhere(net.view, visit))
        self._intake.wait_max_s = settings.queue_wait_s
        metrics = Metrics()
        self.history = History(metrics.ended, Journal().ended)
        self._duty = Duty(
            self._intake, self.history, lambda: net.view, lambda: net.report(self._load())
        )
        self._showing = Showing(
            metrics,
            self.history,
            lambda: net.view,
            status=self._status,
            requests=self._duty.requests,
            counters=net.counters,
        )
        self.router = Router(random.Random())  # noqa: S311 - breaks ties, guards nothing
        self._boots: dict[str, int] = {}
        """Of each member, as it was in the last view."""
        self.gateway = self._new_gateway()
        self._http: HttpServer | None = None
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves to one line for the owner when an engine that was asked for cannot start."""

    def _new_gateway(self) -> MeshGateway:
        return MeshGateway(
            self.router,
            lambda: self._net.view,
            self._generate,
            status=self._status,
            members=self._members,
            unreachable=self._net.peer_failed,
            aside=self._offers.why_aside,
            looking_around=lambda: time.monotonic() < self._started_at + LOOK_AROUND_S,
            peers=self,
            history=self.history,
        )

    async def start(self) -> None:
        """Serve. Raises BindError or TrustError with one line for the owner."""
        self._offered = self._models()
        self._net.open(
            self._membership,
            answer=self._answer,
            on_view=self._view_changed,
            load_of=self._load_of,
        )
        keys = door_keys(self._settings.http_host, self._settings.state_dir)
        self._http = HttpServer(
            self.gateway,
            host=self._settings.http_host,
            port=self._settings.http_port,
            name=self._settings.name,
            auth=keys.person_of if keys is not None else None,
            person=self.person,
            trust=self._net.circle,
            models=self._desk,
            views=self._showing,
            work=self._duty,
        )
        await self._http.start()
        self._own(self._showing.keep_trends(), "trends")
        await self._net.start()
        self._started_at = time.monotonic()
        for engine in self._engines:
            self._own(self._start_engine(engine), f"start {engine.name}")
        if keys is not None:
            self._own(keys.keep_fresh(), "keys")
        self._own(self._learn_facts(), "facts")
        self._own(self._report(), "report")

    async def close(self) -> None:
        """Leave the mesh, end what runs, give everything back. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._net.report(self._load())
        leaving = self._intake.close(grace_s=DRAIN_S)
        if self._http is not None:
            await asyncio.gather(leaving, self._http.close(drain_s=DRAIN_S))
        else:
            await leaving
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._net.close()
        await asyncio.gather(*(engine.close() for engine in self._engines))

    @property
    def base_url(self) -> str:
        """Where the endpoint is, without `/v1`."""
        assert self._http is not None, "start() comes first"
        asked = self._settings.http_host
        host = LOOPBACK_OF.get(asked, asked)
        return f"http://{format_host_port(host, self._http.port)}"

    @property
    def offered(self) -> tuple[ModelRecord, ...]:
        """The models of this node's own engines."""
        return self._models()

    def reconfigure(self, settings: Settings) -> None:
        """Take over what `Option.live` names; the rest of `settings` is what already holds."""
        self._courtesy = _courtesy(settings)
        self._intake.wait_max_s = settings.queue_wait_s
        self._desk.rehouse(housing_of(settings))

    @property
    def mesh_silent_s(self) -> float:
        """Seconds since the mesh thread last turned."""
        return self._net.silent_s

    @property
    def view(self) -> MeshView:
        """Everybody this node knows now."""
        return self._net.view

    def person(self, key_name: str | None, address: str | None) -> str:
        """Whose share a request is that entered here: for `Job.person`. An address on this machine
        is its owner."""
        local = address is None or is_loopback(address)
        identity = asker(key_name, None if local else address, self._net.identity.node_id)
        return person_of(self._net.secret, identity)

    def _membership(self, myself: Myself, now: float) -> Membership:
        return Membership(
            myself,
            self._capacity(),
            self._load(),
            config=MembershipConfig(),
            rng=random.Random(),  # noqa: S311 - spreads probes, guards nothing
            now=now,
            wall_ms=time.time_ns() // 1_000_000,
        )

    # Journeys of a request

    def _generate(self, member: Member, job: Job, demand: Demand) -> EventStream:
        """Where an attempt goes: an engine here, or a peer over the relay."""
        if member.node_id == self._net.identity.node_id:
            return self._local(job, member.node_id, demand)
        return self._net.relay.generate(member, job)

    def _answer(self, sender: str, job: Job) -> EventStream:
        """A job that `sender` forwarded here. It is answered here or not at all: one hop only."""
        if self._stopping:
            return _refusal("draining", "this node is shutting down")
        demand = demand_of(job, job.model, self.router.lengths.expected, cut=False)
        return self._local(job, sender, demand)

    def _local(self, job: Job, sender: str, demand: Demand) -> EventStream:
        engine = self._offers.engine_of(job.model)
        if engine is not None:
            return self._intake.answer(engine, job, demand, known_person(job.person, sender))
        return _refusal("model_not_found", f"{self._settings.name} does not offer {job.model}")

    # What the gateway asks of peers beside their answers

    async def probe(self, member: Member, model_id: str, timeout_s: float) -> ModelLoad | None:
        """See `meshd.gateway.means.Peers`."""
        if member.node_id == self._net.identity.node_id:
            return self._load_of(model_id)
        return await self._net.relay.probe(member, model_id, timeout_s)

    def nudge(self, member: Member) -> None:
        """See `meshd.gateway.means.Peers`."""
        self._net.relay.nudge(member)

    def silent_s(self, member: Member) -> float:
        """See `meshd.gateway.means.Peers`."""
        return self._net.relay.silent_s(member)

    # What this node says of itself

    def _load_of(self, model_id: str) -> ModelLoad | None:
        """One model's state at this moment, with what waits for it."""
        loads = (load for load in self._offers.stats() if load.model_id == model_id)
        load = next(loads, None)
        return None if load is None else self._intake.load_of(load)

    async def _report(self) -> None:
        steady = Steady("report of this node")
        while True:
            now = time.monotonic()
            due = now + until_next(REPORT_INTERVAL_S, now)
            await asyncio.sleep(due - now)
            self._loop_lag_s = max(0.0, time.monotonic() - due)
            with steady:
                self._read_host()
            with steady:
                self._announce_changes()
                self._duty.listen()
                self._net.report(self._load())

    def _read_host(self) -> None:
        now = time.monotonic()
        if now - self._read_at >= HOST_READ_INTERVAL_S:
            self._read_at = now
            self._reading = self._probe.read()

    async def _learn_facts(self) -> None:
        """Off the loop, because a cold GPU driver takes seconds to say its name."""
        self._facts = await asyncio.to_thread(self._probe.facts)
        self._announce()

    def _announce_changes(self) -> None:
        offered = self._models()
        if offered != self._offered:
            self._offered = offered
            self._announce()

    def _announce(self) -> None:
        self._capacity_version += 1
        self._net.announce(self._capacity())

    def _models(self) -> tuple[ModelRecord, ...]:
        return self._offers.models()

    def _capacity(self) -> CapacityRecord:
        return capacity_record(
            self._facts,
            self._offers.names(),
            self._offered,
            software=__version__,
            version=self._capacity_version,
        )

    def _load(self) -> LoadRecord:
        share = share_of(self._reading, self._courtesy)
        self._sequence += 1
        record = load_record(
            self._reading,
            self._intake.stats(self._offers.stats(), share),
            sequence=self._sequence,
            loop_lag_s=round(self._loop_lag_s, 3),
            draining=self._stopping or self._intake.draining,
            reserved_bytes=self._offers.reserved_bytes,
        )
        return replace(record, people=self._intake.shares.report(time.monotonic()))

    def _members(self) -> Mapping[str, Any]:
        return members_body(self._net.view, time.monotonic())

    def _status(self) -> Mapping[str, Any]:
        return status_body(
            self._net.view,
            time.monotonic(),
            name=self._settings.name,
            version=__version__,
            started_at=self._started_at,
            label=self._net.label,
            counters=self._net.counters(),
            http=self.base_url,
            notices=self._notices.body(),
            memory_waits=self._offers.waits(),
        )

    # What happens around it

    def _view_changed(self, view: MeshView) -> None:
        for member in view.members.values():
            if member.state in {"dead", "left"}:
                self._net.relay.forget(member.node_id)
            if self._boots.get(member.node_id, member.boot_id) != member.boot_id:
                self.router.restarted(member.node_id)
        self._boots = {member.node_id: member.boot_id for member in view.members.values()}
        self.gateway.view_changed(view)

    async def _start_engine(self, engine: Engine) -> None:
        try:
            await engine.start()
        except EngineError as error:
            if not self.failed.done():
                self.failed.set_result(f"{engine.name}: {error}")
            return
        self._announce_changes()
        self._net.report(self._load())
        if engine.models():
            log.info("%s is ready", engine.name)

    def _own(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task %s ended: %r", task.get_name(), task.exception())


def _courtesy(settings: Settings) -> Courtesy:
    return Courtesy(
        settings.on_battery, settings.when_hot, settings.when_used, settings.under_pressure
    )


async def _refusal(code: str, message: str) -> EventStream:
    yield [Failure(code, message, elsewhere=True)]
