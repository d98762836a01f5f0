"""A household on paper, in virtual time: machines, heartbeats, entry nodes, requests.

Nothing here decides. A policy is asked once per attempt, and told what its entry node would see.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Protocol

from benchmarks.routing_machine import MODEL, Machine, Request, Spec, Work, finish_of
from meshd.core.membership.member import Member
from meshd.gateway.beginning import MOVE_LOOK_S, MOVES_MAX
from protocol.jobs import Finish
from protocol.load import CapacityRecord, LoadRecord, ModelLoad, ModelRecord

RTT_S = 0.002
"""Round trip between two machines: a wired home network, or a quiet Wi-Fi."""

GIVE_UP = 8
"""Attempts of one request."""


class Policy(Protocol):
    """Chooses machines. `entry` is the node that a request enters; `now` is virtual seconds."""

    reads_records: bool
    """Whether anybody looks at what machines say of themselves; else nobody need say it."""

    moves: bool
    """Whether a request that waits may be moved."""

    reads_backlog: bool
    """Whether anybody looks at `ModelLoad.backlog_s`, which takes long to reckon where a rule has
    let a queue grow for hours."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        """The machine for a request, and the seconds that the choice itself took."""

    def elsewhere(self, request: Request, place: int, wait_s: float, now: float) -> int | None:
        """A machine to move to, for a request that is to wait `wait_s` more at `place`."""

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        """The answer has come back."""

    def failed(self, request: Request, place: int, now: float) -> None:
        """The machine answered with an error."""


@dataclass(slots=True)
class Outcome:
    """What a run gave: seconds per request, in the order of their endings."""

    took_s: dict[int, float] = field(default_factory=dict)
    first_s: dict[int, float] = field(default_factory=dict)
    sent: list[tuple[float, int]] = field(default_factory=list)
    """(when, machine) of every attempt, moves left out."""
    moves: int = 0


class Fleet:
    """The machines, what is known of them, and the clock."""

    def __init__(
        self,
        specs: Sequence[Spec],
        rng: Random,
        *,
        heartbeat_s: float = 1.0,
        wrong_ratio: float = 0.3,
        caches: bool = False,
    ) -> None:
        def wrong() -> tuple[float, float]:
            low, high = 1.0 - wrong_ratio, 1.0 + wrong_ratio
            return rng.uniform(low, high), rng.uniform(low, high)

        self.machines = [Machine(spec, wrong(), caches=caches) for spec in specs]
        self.heartbeat_s = heartbeat_s
        self.now = 0.0
        self.version = 0
        self.members = {_id(place): _member(place, spec) for place, spec in enumerate(specs)}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._pending = 0
        self._wakes = [math.inf] * len(specs)
        self.outcome = Outcome()
        for place in range(len(specs)):
            self.hear(place, self.machines[place].load())
            if heartbeat_s:
                self.at(rng.random() * heartbeat_s, partial(self._beat, place))

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def now_at(self, place: int) -> ModelLoad:
        """The true present load of a machine: the answer to a probe."""
        self._catch_up(place)
        return self._load(place)

    def run(self, requests: Sequence[Request], policy: Policy) -> Outcome:
        """Play all requests to their ends."""
        self._policy = policy
        self._pending = len(requests)
        for request in requests:
            self.at(request.at, partial(self._enter, request, []))
        while self._pending and self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.outcome

    def _enter(self, request: Request, tried: list[int]) -> None:
        place, spent_s = self._policy.choose(request, self.now, tried)
        self.outcome.sent.append((self.now, place))
        self.at(self.now + spent_s + RTT_S / 2, lambda: self._arrive(request, place, tried))

    def _arrive(self, request: Request, place: int, tried: list[int], moved: int = 0) -> None:
        if self.machines[place].fails:
            self.at(self.now + 0.001 + RTT_S / 2, lambda: self._fail(request, place, tried))
            return
        self._catch_up(place)
        self.machines[place].submit(request, self.now)
        self.plan(place)
        if self._policy.moves:
            self.at(self.now + MOVE_LOOK_S, partial(self._look, request, place, moved))

    def _look(self, request: Request, place: int, moved: int) -> None:
        """A second later: does it still wait, and would it be done sooner elsewhere?"""
        self._catch_up(place)
        self.plan(place)
        wait_s = self.machines[place].wait_s(request)
        if wait_s is None or moved >= MOVES_MAX:
            return
        target = self._policy.elsewhere(request, place, wait_s, self.now)
        if target is None:
            self.at(self.now + MOVE_LOOK_S, partial(self._look, request, place, moved))
            return
        self.machines[place].withdraw(request)
        self.outcome.moves += 1
        self.at(self.now + RTT_S / 2, lambda: self._arrive(request, target, [], moved + 1))

    def _fail(self, request: Request, place: int, tried: list[int]) -> None:
        self._policy.failed(request, place, self.now)
        tried.append(place)
        if len(tried) >= min(GIVE_UP, len(self.machines)):
            self._pending -= 1
            return
        self._enter(request, tried)

    def _catch_up(self, place: int) -> None:
        machine = self.machines[place]
        for work in machine.advance(self.now):
            self._answer(work, place)

    def _answer(self, work: Work, place: int) -> None:
        request, ended = work.request, self.now
        finish = finish_of(work, ended)
        first = work.first + RTT_S / 2 - request.at
        self.outcome.first_s[request.number] = first
        self.outcome.took_s[request.number] = ended + RTT_S / 2 - request.at

        def told() -> None:
            self._pending -= 1
            self._policy.finished(request, place, finish, self.now)

        self.at(ended + RTT_S / 2, told)

    def plan(self, place: int) -> None:
        """Wake when the machine's next phase ends, unless it is planned for already."""
        when = self.machines[place].next_event()
        if when == self._wakes[place] or when == math.inf:
            return
        self._wakes[place] = when
        self.at(when, lambda: self._wake(place, when))

    def _wake(self, place: int, when: float) -> None:
        if self._wakes[place] != when:
            return
        self._wakes[place] = math.inf
        self._catch_up(place)
        self.plan(place)

    def _beat(self, place: int) -> None:
        if not self._pending or not self._policy.reads_records:
            return
        self._catch_up(place)
        self.plan(place)
        load = self._load(place)
        self.at(self.now + RTT_S / 2, lambda: self.hear(place, load))
        self.at(self.now + self.heartbeat_s, lambda: self._beat(place))

    def _load(self, place: int) -> ModelLoad:
        return self.machines[place].load(backlog=self._policy.reads_backlog)

    def hear(self, place: int, load: ModelLoad) -> None:
        """A load record arrives everywhere."""
        self.version += 1
        last = self.members[_id(place)]
        record = LoadRecord(
            sequence=self.version,
            in_flight=load.in_flight,
            queued=load.queued,
            memory_available_bytes=8 << 30,
            reserved_bytes=0,
            pressure="normal",
            accepting=True,
            models=(load,),
        )
        self.members = {**self.members, _id(place): replace(last, load=record, load_at=self.now)}


def _id(place: int) -> str:
    return f"{place:032x}"


def _member(place: int, spec: Spec) -> Member:
    model = ModelRecord(MODEL, "emulated", capabilities=("chat",), emulated=True)
    capacity = CapacityRecord(1, "", "", "", 1, 8 << 30, (), (), (model,))
    return Member(
        node_id=_id(place),
        name=f"{spec.name}-{place}",
        public_key="",
        state="alive",
        incarnation=1,
        boot_id=1,
        endpoints=(),
        address=None,
        capacity=capacity,
        load=None,
        load_at=0.0,
        heard_at=0.0,
        changed_at=0.0,
        reason="",
        rtt_s=RTT_S,
    )
