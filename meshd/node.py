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
from typing import Any

from meshd import __version__
from meshd.address import format_host_port
from meshd.api.keys import door_keys
from meshd.api.server import HttpServer
from meshd.config import Settings
from meshd.core.effects import Notice
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from meshd.core.membership.member import Member, MeshView
from meshd.core.ports import Engine, EngineError, EventStream, HostFacts, HostProbe
from meshd.core.routing.router import Router
from meshd.core.routing.supply import capacity_record, load_record
from meshd.engine.desk import Desk
from meshd.engine.offers import Offers
from meshd.gateway import MeshGateway
from meshd.net.mesh import MeshNet
from meshd.status import members_body, status_body
from protocol.jobs import Failure, Job
from protocol.load import CapacityRecord, LoadRecord, ModelRecord

REPORT_INTERVAL_S = 0.25
"""How often load is looked at. Membership sends it on change, at most this often."""

HOST_READ_INTERVAL_S = 1.0
"""How often the machine is read: pressure averages move in seconds, and a read costs 1 ms."""

HTTP_DRAIN_S = 2.0
"""How long answers in progress may take to end when the daemon is told to stop."""

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""Listening everywhere includes loopback, which is the address that can be typed here."""

log = logging.getLogger("meshd")


class Node:
    """The daemon's parts, started and stopped together. Use as an async context manager."""

    def __init__(
        self, settings: Settings, net: MeshNet, engines: Sequence[Engine], probe: HostProbe
    ) -> None:
        self._settings = settings
        self._net = net
        self._engines = engines
        self._offers = Offers(engines)
        self._probe = probe
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
        self.router = Router(random.Random())  # noqa: S311 - breaks ties, guards nothing
        self.gateway = MeshGateway(
            self.router,
            lambda: net.view,
            self._generate,
            status=self._status,
            members=self._members,
            unreachable=net.peer_failed,
        )
        self._http: HttpServer | None = None
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves to one line for the owner when an engine that was asked for cannot start."""

    async def start(self) -> None:
        """Serve. Raises BindError or TrustError with one line for the owner."""
        self._offered = self._models()
        self._net.open(self._membership, answer=self._answer, on_view=self._view_changed)
        keys = door_keys(self._settings.http_host, self._settings.state_dir)
        self._http = HttpServer(
            self.gateway,
            host=self._settings.http_host,
            port=self._settings.http_port,
            name=self._settings.name,
            auth=keys.allows if keys is not None else None,
            trust=self._net.circle,
            models=Desk(self._engines),
        )
        await self._http.start()
        await self._net.start()
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
        if self._http is not None:
            await self._http.close(drain_s=HTTP_DRAIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._net.close()
        await asyncio.gather(*(engine.close() for engine in self._engines))

    @property
    def base_url(self) -> str:
        """Where the endpoint is, without `/v1`."""
        assert self._http is not None, "start() comes first"
        host = self._settings.http_host
        if host in ANY_HOST:
            host = ANY_HOST[host]
        return f"http://{format_host_port(host, self._http.port)}"

    @property
    def offered(self) -> tuple[ModelRecord, ...]:
        """The models of this node's own engines."""
        return self._models()

    @property
    def view(self) -> MeshView:
        """Everybody this node knows now."""
        return self._net.view

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

    def _generate(self, member: Member, job: Job) -> EventStream:
        """Where an attempt goes: an engine here, or a peer over the relay."""
        if member.node_id == self._net.identity.node_id:
            return self._local(job)
        return self._net.relay.generate(member, job)

    def _answer(self, sender: str, job: Job) -> EventStream:
        """A job that `sender` forwarded here. It is answered here or not at all: one hop only."""
        if self._stopping:
            return _refusal("draining", "this node is shutting down")
        return self._local(job)

    def _local(self, job: Job) -> EventStream:
        engine = self._offers.engine_of(job.model)
        if engine is not None:
            return engine.generate(job)
        return _refusal("model_not_found", f"{self._settings.name} does not offer {job.model}")

    # What this node says of itself

    async def _report(self) -> None:
        while True:
            due = time.monotonic() + REPORT_INTERVAL_S
            await asyncio.sleep(REPORT_INTERVAL_S)
            self._loop_lag_s = max(0.0, time.monotonic() - due)
            if time.monotonic() - self._read_at >= HOST_READ_INTERVAL_S:
                self._reading = self._probe.read()
                self._read_at = time.monotonic()
            self._announce_changes()
            self._net.report(self._load())

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
        stats = self._offers.stats()
        self._sequence += 1
        return load_record(
            self._reading,
            stats,
            sequence=self._sequence,
            loop_lag_s=round(self._loop_lag_s, 3),
            draining=self._stopping,
        )

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
        )

    # What happens around it

    def _view_changed(self, view: MeshView) -> None:
        for member in view.members.values():
            if member.state in {"dead", "left"}:
                self._net.relay.forget(member.node_id)

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


def say(notice: Notice) -> None:
    """A word from the membership or discovery to the log."""
    log.log(logging.WARNING if notice.level == "warning" else logging.INFO, "%s", notice.text)


async def _refusal(code: str, message: str) -> EventStream:
    yield [Failure(code, message, elsewhere=True)]
