"""In front of the engines: who runs, who waits, who is told to go. One `Intake` for each node.

Every job that this node answers comes through here, its own and the forwarded ones. Of each model
as many run as slots are offered; the others wait in a `FairQueue`, and are told where they stand
(`Queued`) when that changes, at most twice a second, and every two seconds in any case, which is
also how their gateway sees that the wait is alive. Closing a stream leaves the queue, or frees the
slot, in the same moment.

Draining is the same for an owner's word and for the end of the process. Nothing new is taken; what
waits goes at once, with a failure that says "elsewhere"; what runs is broken off the same way, so
that the node it came from carries on with it on another machine. Where no other node has the model,
or the answer cannot be carried on from outside (a tool call half said, bytes of a raw answer), it
is let finish, for DRAIN_FINISH_MAX_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from meshd.core.ports import Engine, EventStream
from meshd.core.routing.admission import Outlook, Pace, is_short, judge, outlook, over_share
from meshd.core.routing.courtesy import QUEUE_WAIT_S, offered_slots
from meshd.core.routing.demand import Demand
from meshd.core.routing.fairness import FairQueue, Shares, Ticket
from meshd.core.routing.reading import Reading
from meshd.visit import Visit, draining
from protocol.jobs import Failure, Job
from protocol.load import ModelLoad

TELL_EVERY_S = 0.5
"""Shortest time between two words to somebody who waits."""

ASIDE_S = 4.0
"""How long the word of a batch job that it waits in its engine holds: who waits says so every two
seconds, and who has begun is silent while its prompt is read."""

DRAIN_FINISH_MAX_S = 120.0
"""How long an answer that can go nowhere else may still take when the node drains: most answers of
most machines, and not a forgotten stream of a day."""


class _Desk:
    """One model: its queue, its speed, what it reads, and every visit that waits or runs, by ticket
    number."""

    __slots__ = ("pace", "queue", "reading", "timer", "visits")

    def __init__(self, queue: FairQueue, reading: Reading) -> None:
        self.queue = queue
        self.reading = reading
        self.pace = Pace()
        self.visits: dict[int, Visit] = {}
        self.timer: asyncio.TimerHandle | None = None

    def running(self) -> list[Visit]:
        return [self.visits[number] for number in self.queue.running]

    def begin_reading(self, visit: Visit, now: float) -> None:
        """The engine gets this job's prompt now."""
        job, ticket = visit.job, visit.ticket
        visit.reads = job.kind != "raw"
        if visit.reads:
            self.reading.begin(ticket.number, ticket.prompt_tokens, now, speaks=job.stream)

    def first_word(self, visit: Visit, now: float) -> None:
        """Something has come of it: the prompt has been read."""
        visit.reads = False
        self.reading.read(visit.ticket.number, now)

    def start_waiting(self, now: float) -> None:
        """Fill the slots that are free."""
        while (ticket := self.queue.start_next(now)) is not None:
            self.visits[ticket.number].wake()

    def stand_aside(self, visit: Visit, now: float) -> None:
        """While a batch job waits in its engine, interactive ones may start beside it."""
        visit.ticket.aside_until = now + ASIDE_S if visit.place is not None else 0.0
        self.start_waiting(now)

    def send_away(self, ticket: Ticket, failure: Failure) -> None:
        """Somebody who waits has to go; the visit's stream says why."""
        visit = self.visits[ticket.number]
        visit.refused = failure
        visit.abandoned = True
        self.queue.abandon(ticket)
        visit.wake()


class Intake:
    """The queue in front of one node's engines."""

    def __init__(
        self,
        offered_elsewhere: Callable[[Visit], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`offered_elsewhere` says whether another node could carry on with a running job.
        Belongs to the running loop."""
        self._offered_elsewhere = offered_elsewhere
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._desks: dict[str, _Desk] = {}
        self._share = "full"
        self._last_call: asyncio.TimerHandle | None = None
        self.wait_max_s = QUEUE_WAIT_S
        """Longest expected wait that is begun; may change at any time."""
        self.shares = Shares(clock())
        self.draining = False
        self.idle = asyncio.Event()
        """Set while nothing waits or runs."""
        self.idle.set()

    def answer(self, engine: Engine, job: Job, demand: Demand, person: str) -> EventStream:
        """`engine`'s answer to a job of `person`, once it is their turn."""
        ticket = Ticket(
            person,
            demand.prompt_tokens,
            demand.output_tokens,
            self._clock(),
            batch=job.priority == "batch",
            begun=bool(job.prefix_text or job.prefix_tokens or job.prefix_thought),
        )
        return self._answer(engine, job, ticket)

    # What the node says of itself

    def stats(self, loads: Iterable[ModelLoad], share: str = "full") -> tuple[ModelLoad, ...]:
        """The engines' states with what waits here, and of their slots the `share` that is offered
        (courtesy.SHARES). Called a few times a second: this is also how slots and speeds are
        learnt."""
        self._share = share
        told = tuple(self.load_of(load) for load in loads)
        gone = self._desks.keys() - {load.model_id for load in told}
        for model_id in [each for each in gone if not self._desks[each].visits]:
            del self._desks[model_id]
        return told

    def load_of(self, load: ModelLoad) -> ModelLoad:
        """One model's state, with what waits for it here."""
        desk = self._desk(load)
        queue = desk.queue
        backlog_s = load.backlog_s
        if len(queue) or len(queue.running) >= queue.slots:
            backlog_s = self._outlook(desk).backlog_s
        reading, unread_tokens = desk.reading.left(self._clock())
        return replace(
            load,
            slots=queue.slots,
            queued=load.queued + len(queue),
            backlog_s=backlog_s,
            prompt_tps=desk.reading.tps,
            reading=reading,
            unread_tokens=unread_tokens,
        )

    def counts(self) -> tuple[int, int]:
        """How many run and how many wait."""
        queues = [desk.queue for desk in self._desks.values()]
        return sum(len(queue.running) for queue in queues), sum(len(queue) for queue in queues)

    def rows(self) -> list[Mapping[str, Any]]:
        """Everything that is here now, for people: what runs, then what waits, in its order."""
        return [row for model, desk in self._desks.items() for row in self._rows(model, desk)]

    # Draining

    def drain(self) -> None:
        """Take nothing more and send away what can go. Idempotent."""
        self.draining = True
        for desk in self._desks.values():
            for ticket in desk.queue.order(self._clock()):
                desk.send_away(ticket, draining())
        self.move_on()
        if self._last_call is None and not self.idle.is_set():
            self._last_call = self._loop.call_later(DRAIN_FINISH_MAX_S, self.break_off)

    def resume(self) -> None:
        """Take work again."""
        self.draining = False
        self._forget_last_call()

    def move_on(self) -> None:
        """While draining: break off what another node can carry on with now."""
        if not self.draining:
            return
        for desk in self._desks.values():
            for visit in desk.running():
                if not visit.fixed and self._offered_elsewhere(visit):
                    visit.break_off(draining())

    def break_off(self) -> None:
        """End whatever still runs, wherever it can go."""
        for desk in self._desks.values():
            for visit in desk.running():
                visit.break_off(draining())

    async def close(self, grace_s: float) -> None:
        """Drain; what runs and can go nowhere has `grace_s` to finish."""
        self.drain()
        self._forget_last_call()
        try:
            async with asyncio.timeout(grace_s):
                await self.idle.wait()
        except TimeoutError:
            self.break_off()

    def _forget_last_call(self) -> None:
        if self._last_call is not None:
            self._last_call.cancel()
            self._last_call = None

    # One job

    async def _answer(self, engine: Engine, job: Job, ticket: Ticket) -> EventStream:
        if self.draining:
            yield [draining()]
            return
        desk = self._desk_of(engine, job.model)
        visit = Visit(job, ticket)
        refusal = self._enter(desk, visit)
        if refusal is not None:
            yield [refusal]
            return
        stream = None
        try:
            while (news := await visit.news()) is not None:
                yield [news]
                if isinstance(news, Failure):
                    return
            desk.begin_reading(visit, self._clock())
            stream = engine.generate(job)
            loop, following = self._loop, stream.__anext__
            while visit.refused is None:
                visit.task = asyncio.current_task(loop)
                try:
                    batch = await following()
                except (StopAsyncIteration, asyncio.CancelledError) as error:
                    batch = visit.ended_by(error)
                if visit.is_over(batch):
                    self._leave(desk, visit)
                    yield visit.accounted(batch)
                    await anext(stream, None)  # to run out costs less than to be closed
                    return
                if visit.reads and visit.place is None:
                    desk.first_word(visit, self._clock())
                if ticket.batch:
                    desk.stand_aside(visit, self._clock())
                yield batch
            self._leave(desk, visit)
            yield [visit.refused]
        finally:
            self._leave(desk, visit)
            if stream is not None:
                await stream.aclose()

    def _enter(self, desk: _Desk, visit: Visit) -> Failure | None:
        """Start, or wait; or why neither."""
        now, queue, ticket = self._clock(), desk.queue, visit.ticket
        started = queue.arrive(ticket, now)
        desk.visits[ticket.number] = visit
        self.idle.clear()
        if not started:
            desk.start_waiting(now)
        if ticket.started is not None:
            return None
        if desk.timer is None:
            desk.timer = self._loop.call_later(TELL_EVERY_S, self._tell, desk)
        if is_short(queue, desk.pace, wait_max_s=self.wait_max_s):
            return None
        seen = self._outlook(desk)
        verdict = judge(queue, ticket, seen, wait_max_s=self.wait_max_s)
        if verdict.refusal is not None:
            self._leave(desk, visit)
            return verdict.refusal
        if verdict.instead is not None:
            mine, (_, wait_s) = queue.waiting_of(verdict.instead.person), seen.of(verdict.instead)
            desk.send_away(verdict.instead, over_share(mine, wait_s))
        visit.tell(*seen.of(ticket), now)
        return None

    def _leave(self, desk: _Desk, visit: Visit) -> None:
        """Out of the queue or out of the slot, and let the next one in. Idempotent."""
        if visit.over:
            return
        visit.over = True
        ticket = visit.ticket
        del desk.visits[ticket.number]
        if ticket.started is not None:
            now = self._clock()
            desk.reading.end(ticket.number, visit.finish, now)
            desk.queue.end(ticket, *visit.taken)
            desk.start_waiting(now)
        elif not visit.abandoned:
            desk.queue.abandon(ticket)
        if not desk.visits and not any(each.visits for each in self._desks.values()):
            self.idle.set()

    def _tell(self, desk: _Desk) -> None:
        """Tell those who wait where they stand; again and again while there are any."""
        desk.timer = None
        if len(desk.queue):
            now, seen = self._clock(), self._outlook(desk)
            for place, (ticket, wait_s) in enumerate(zip(seen.order, seen.waits_s, strict=True), 1):
                desk.visits[ticket.number].tell(place, wait_s, now)
            desk.timer = self._loop.call_later(TELL_EVERY_S, self._tell, desk)

    # The desks

    def _outlook(self, desk: _Desk) -> Outlook:
        return outlook(desk.queue, desk.pace, self._clock())

    def _desk_of(self, engine: Engine, model_id: str) -> _Desk:
        desk = self._desks.get(model_id)
        if desk is not None:
            return desk
        known = (load for load in engine.stats() if load.model_id == model_id)
        return self._desk(next(known, _unknown(model_id)))

    def _desk(self, load: ModelLoad) -> _Desk:
        slots = offered_slots(load.slots, self._share)
        desk = self._desks.get(load.model_id)
        if desk is None:
            desk = self._desks[load.model_id] = _Desk(
                FairQueue(self.shares, slots), Reading(self._clock())
            )
        desk.pace = Pace(load.prompt_tps, load.generation_tps, 0.0 if load.warm else load.load_s)
        desk.reading.told_tps = load.prompt_tps
        desk.queue.slots = slots
        desk.start_waiting(self._clock())
        return desk

    def _rows(self, model: str, desk: _Desk) -> Iterator[Mapping[str, Any]]:
        now, seen = self._clock(), self._outlook(desk)
        running = [(ticket, 0, 0.0) for ticket in desk.queue.running.values()]
        waiting = zip(seen.order, range(1, len(seen.order) + 1), seen.waits_s, strict=True)
        for ticket, place, expected_s in (*running, *waiting):
            visit = desk.visits[ticket.number]
            told = visit.place  # in its engine's own line
            position, wait_s = (told.position, told.wait_s) if told else (place, expected_s)
            yield {
                "id": visit.job.request_id,
                "state": "queued" if position else "running",
                "model": model,
                "person": ticket.person,
                "priority": "batch" if ticket.batch else "interactive",
                "queue_position": position or None,
                "queue_wait_s": round(wait_s, 3) if position else None,
                "age_s": round(max(0.0, now - ticket.arrived), 3),
            }


def _unknown(model_id: str) -> ModelLoad:
    """Of a model that its engine says nothing about: one job at a time."""
    return ModelLoad(model_id, False, 1, 0, 0, 0.0, 0.0, 0.0, 0.0)
