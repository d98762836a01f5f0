"""Where jobs wait for memory: until busy models have made room for theirs, or it has had its turn.

`meshd.core.residency.turns` says who may try and who gives way; this part lets jobs wait by it.
Somebody who waits is told where they stand, like in any queue (`Queued`), and hears something every
REASSURE_S, also while their model is loaded or its load waits for that of another, which is how
their gateway sees that the wait is alive. Whoever leaves, leaves the line.
Nobody waits longer than the owner lets anybody wait for a slot, but who is next and needs only that
running answers end; then it is 503, as it would have been at once had waiting not been worth it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from meshd.core.ports import EngineError
from meshd.core.residency.residents import Resident
from meshd.core.residency.turns import Turns, Waiting
from meshd.core.routing.admission import BATCH_WAIT_FACTOR
from meshd.engine.failures import failure_of
from meshd.engine.places import LoadRefused, Place
from protocol.jobs import Failure, Job, Queued
from protocol.load import ModelLoad

LOG = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two looks of somebody who waits, where nothing happened that was to be noticed."""

REASSURE_S = 2.0
"""Longest time that somebody who waits hears nothing: less than any gateway's patience."""

NEXT_WAIT_FACTOR = 5.0
"""How much longer than others a job may wait for which the models in its way have stopped: its turn
is certain, and who is sent away and comes back finds them at long answers again. Ten minutes for
two, which is what the clients' own read time-outs allow."""

RETRY_AFTER_S = 5.0
"""Asked of those who waited in vain: about one answer's time."""


class Foyer:
    """The line in front of one machine's memory."""

    def __init__(
        self,
        places: Mapping[str, Place],
        load: Callable[[Place], asyncio.Task[None]],
        clock: Callable[[], float],
    ) -> None:
        """`load` begins to load a model, or finds who does; the load may raise EngineError."""
        self._places = places
        self._load = load
        self._clock = clock
        self._turns = Turns()
        self._news = asyncio.Event()
        self.is_closed = False
        """Everybody is sent away."""

    # For who keeps the models

    def tell(self) -> None:
        """Something may have changed for those who wait."""
        if len(self._turns):
            self._news.set()
            self._news = asyncio.Event()

    def close(self) -> None:
        """Send everybody away."""
        self.is_closed = True
        self.tell()

    def came_in(self, place: Place) -> None:
        """Its model is in memory."""
        self._turns.came_in(place.model_id, self._clock())
        place.behind = ()

    def went(self, place: Place) -> None:
        """Its model is no longer in memory."""
        self._turns.went(place.model_id)
        self.tell()

    def residents(self, held: Iterable[Place]) -> list[Resident]:
        """What is in memory as the rules of loading should see it."""
        return self._turns.kept((each.resident() for each in held), self._clock())

    def load(self, place: Place) -> ModelLoad:
        """The state of a model, where the wait for memory counts as part of its load."""
        told, wait_s = place.load(), self._wait_s(place)
        if not wait_s:
            return told
        held = place.held if told.warm else 0
        load_s = _load_s(place) + wait_s
        return replace(told, warm=False, queued=told.queued + held, load_s=load_s)

    def rows(self) -> list[Mapping[str, Any]]:
        """What is waited for, for people: each model once."""
        return [
            {
                "model": place.model_id,
                "waiting": place.held,
                "behind": self._behind(place),
                "wait_s": round(self._wait_s(place), 1),
            }
            for place in self._places.values()
            if place.held
        ]

    # For one job

    def is_open(self, place: Place) -> bool:
        """Whether a job may start in the model now."""
        is_shut = self._turns.gives_way_to(place.model_id, self._clock())
        return place.is_warm and not is_shut

    async def admit(
        self, place: Place, job: Job, wait_max_s: float
    ) -> AsyncGenerator[Queued | Failure, None]:
        """Where the job stands, now and then, until it may start; or why it never will."""
        batch = job.priority == "batch"
        told_at, position = self._clock(), 0
        waiting = self._turns.enter(place.model_id, told_at, batch=batch)
        try:
            while not self._may_start(place, waiting):
                failure = await self._try(place, waiting, told_at + REASSURE_S)
                failure = failure or self._too_long(place, waiting, wait_max_s)
                if failure is not None:
                    yield failure
                    return
                if self._may_start(place, waiting):
                    return
                place.held += 1
                try:
                    now, before = self._clock(), position
                    position = before if place.loading else self._turns.position(waiting, now)
                    if position != before or now - told_at >= REASSURE_S:
                        told_at = now
                        yield self._word(place, waiting)
                    if place.loading is None:
                        await self._something_new()
                finally:
                    place.held -= 1
        finally:
            self._turns.leave(waiting)
            self.tell()

    def _may_start(self, place: Place, waiting: Waiting) -> bool:
        """The model is open to it. Batch jobs leave room for the interactive ones that wait."""
        if not self.is_open(place):
            return False
        others = place.jobs - place.held - 1
        first = self._turns.interactive(place.model_id)
        return not waiting.batch or others + first < place.lodger.slots

    async def _something_new(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._news.wait()

    def _word(self, place: Place, waiting: Waiting) -> Queued:
        """Where it stands, and for about how long."""
        now = self._clock()
        patience_s = waiting.stops_in_s(now) if waiting.behind else 0.0
        wait_s = self._load_left_s(place) + max(self._wait_s(place), patience_s)
        return Queued(self._turns.position(waiting, now), round(wait_s, 2))

    async def _try(self, place: Place, waiting: Waiting, until: float) -> Failure | None:
        """Load its model where that may succeed now, and look on while it is loaded, until then;
        why there is no use in waiting."""
        now = self._clock()
        if self.is_closed:
            return _closed(place)
        if place.engine is None and (aside := place.why_aside(now)):
            return _broken(f"{place.model_id} is set aside: {aside}")
        task = place.loading
        may_try = not self.is_open(place) and self._turns.may_try(
            waiting, self.residents(self._held()), now
        )
        if task is None and may_try:
            task = self._load(place)
        if task is not None:
            await asyncio.wait([task], timeout=max(0.0, until - now))
        return self._outcome(place, waiting, task) if task is not None and task.done() else None

    def _outcome(self, place: Place, waiting: Waiting, task: asyncio.Task[None]) -> Failure | None:
        """What a load that is over means for somebody who waited for it."""
        try:
            task.result()
        except asyncio.CancelledError:
            return _closed(place)
        except LoadRefused as refused:
            if refused.code != "overloaded":
                return failure_of(refused.code, str(refused), elsewhere=True)
            self._refused(place, waiting, refused)
        except EngineError as error:
            return _broken(str(error))
        return None

    def _too_long(self, place: Place, waiting: Waiting, wait_max_s: float) -> Failure | None:
        """It has waited for memory as long as anybody may. A load is let end."""
        if self.is_open(place) or place.loading is not None:
            return None
        now = self._clock()
        factor = BATCH_WAIT_FACTOR if waiting.batch else 1.0
        if self._turns.is_next(waiting, now):
            factor = max(factor, NEXT_WAIT_FACTOR)
        waited_s = now - waiting.since
        if waited_s < wait_max_s * factor:
            return None
        waits_for = " and ".join(self._behind(place)) or "others"
        why = waiting.why or (
            f"{place.model_id} needs the memory of {waits_for}, which other requests keep busy"
        )
        why += f"; this request has waited for {waited_s:.0f} s"
        return failure_of("overloaded", why, elsewhere=True, retry_after_s=RETRY_AFTER_S)

    def _refused(self, place: Place, waiting: Waiting, refused: LoadRefused) -> None:
        if not place.behind:
            LOG.info("requests wait for memory: %s", refused)
        waiting.behind = place.behind = refused.behind
        waiting.busy, waiting.why = refused.busy, str(refused)

    def _held(self) -> list[Place]:
        return [place for place in self._places.values() if place.engine is not None]

    def _behind(self, place: Place) -> list[str]:
        """Whom its jobs wait for, as far as is known."""
        first = self._turns.gives_way_to(place.model_id, self._clock())
        return [first] if first else list(place.behind)

    def _wait_s(self, place: Place) -> float:
        """About how long its next job would wait for memory, beside the load."""
        if not place.behind and not len(self._turns):
            return 0.0
        busy = {each.model_id for each in self.residents(self._held()) if each.busy}
        behind = [model_id for model_id in place.behind if model_id in busy]
        return self._turns.wait_s(
            place.model_id, behind, self._clock(), lambda each: _load_s(self._places[each])
        )

    def _load_left_s(self, place: Place) -> float:
        """About how long its load will take, with those that were begun before it."""
        if place.loading is None:
            return _load_s(place)
        since = place.loading_since
        loads = [
            each
            for each in self._places.values()
            if each.loading is not None and each.loading_since <= since
        ]
        began = min(each.loading_since for each in loads)
        return max(0.0, sum(map(_load_s, loads)) - (self._clock() - began))


def _closed(place: Place) -> Failure:
    return _broken(f"{place.model_id} was not loaded: this engine was closed")


def _broken(why: str) -> Failure:
    return failure_of("engine_failed", why, elsewhere=True)


def _load_s(place: Place) -> float:
    """What a load of it takes."""
    return place.load_s or place.load().load_s
