"""From the choice of a node to the first event of an answer.

The request's own task waits for the first attempt, inline: most requests need nothing else. Beside
it stand three watchers, which are timers and callbacks and cost no task while they wait:

- *hedge*: once the first byte is later than 95 of 100 of its kind, and the budget allows, a second
  attempt starts elsewhere, where the model is in memory; whichever speaks first is kept, the other
  is closed;
- *doubt*: a node that answers no nudge, or that membership suspects, gets a second attempt beside
  it at once, without a budget; should it recover in time, it may still win;
- *queue*: a node that says `Queued` has the job waiting. Now and then the choice is made again, and
  when another node would be done clearly sooner, the job moves there; MOVES_MAX times, because a
  job that moves goes to the end of a queue.

The second attempt runs in a task that this object owns. When it has begun to answer it interrupts
the wait for the first. An attempt that fails is replaced without a word, until nobody is left; and
where the last one has only just gone, its return is waited for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from meshd.core.ports import Batch
from meshd.core.routing.deadlines import (
    FIRST_EVENT_MAX_S,
    PATIENCE_FACTOR,
    first_event_deadline_s,
)
from meshd.core.routing.router import Decision
from meshd.gateway import words
from meshd.gateway.attempt import Attempt
from meshd.gateway.request import ATTEMPTS_MAX, Request
from meshd.patience import PatienceEnded
from protocol.frozen import frozen
from protocol.jobs import Failure, Queued

QUEUED_WORD_S = 1.0
"""A streamed job that has waited so long is told where it stands: before, nobody wonders."""

QUEUE_FLOOR_S = 30.0
"""Least patience with a node that has said where the job waits, between two words of it."""

QUEUE_MAX_S = FIRST_EVENT_MAX_S

MOVE_LOOK_S = 1.0
"""How often another queue is looked for: as often as load records are sent."""

MOVES_MAX = 3
"""Moves of one request: each gives up its place."""

MOVE_GAIN_RATIO = 0.6
"""A job moves where it is expected to be done within this share of the time that is left here:
estimates err by a third."""

MOVE_GAIN_MIN_S = 1.0
"""And at least so much sooner: below that nobody would notice."""

COMES_BACK = frozenset({"unreachable", "draining"})
"""Failures of the last node after which it may be there again in a moment."""

COMEBACK_WAIT_S = 3.0
"""How long a request waits when all who could answer it have just gone: a daemon that is started
anew, by its owner or its service manager, is back in one or two seconds; and who was lost before
may be there again."""

COMEBACK_LOOK_S = 0.1

HEDGED_KINDS = frozenset({"chat", "completion"})
"""What may be asked twice without harm: a raw request may have an effect."""


@frozen
class Begun:
    """An attempt that answers, and its first batch. Whoever gets it ends the attempt."""

    attempt: Attempt
    batch: Batch


@dataclass(slots=True)
class _Place:
    """Where the job waits, as its node said last."""

    last: Queued
    told_at: float


class Beginning:
    """Ask `next` until it returns something other than Queued; then, or before, `close`."""

    __slots__ = (
        "_alone", "_beside", "_failure", "_hedge", "_look", "_moves", "_place", "_request",
        "_second", "_target", "_waits", "_why", "_won", "attempt",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        why: str = "first",
        *,
        failure: Failure | None = None,
        beside: Collection[str] = (),
        waits: bool = True,
    ) -> None:
        """`failure` is what to say when nobody can be found; `beside` are the nodes that are being
        tried by somebody else, who does the watching. `waits`: for a node to come back."""
        self.attempt: Attempt | None = None
        """The one that is waited for."""
        self._request = request
        self._why = why
        self._failure = failure
        self._beside = beside
        self._alone = bool(beside)
        self._waits = waits and not beside
        self._second: asyncio.Task[Begun | Failure] | None = None
        self._won: Begun | None = None
        self._target: Decision | None = None
        self._moves = 0
        self._place: _Place | None = None
        self._hedge: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    async def next(self) -> Begun | Queued | Failure:
        """What comes next: the answer, why there is none, or (for a stream) where it waits."""
        while True:
            if self._won is not None:
                return await self._winner(self._won)
            if self._target is not None and self.attempt is not None:
                await self._move(self.attempt)
            attempt = self.attempt or await self._start()
            if isinstance(attempt, Failure):
                return attempt
            found = await self._hear(attempt)
            if isinstance(found, Failure):
                found = await self._replace(attempt, found)
            if found is not None:
                return found

    @property
    def is_over(self) -> bool:
        """Nothing is under way, so there is nothing to close."""
        return self.attempt is None and self._second is None and self._won is None

    async def close(self, outcome: str = "cancelled") -> None:
        """End whatever is still under way. Idempotent."""
        self._disarm()
        await self._end_second()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            await attempt.end(outcome)

    async def _end_second(self) -> None:
        second, self._second = self._second, None
        if second is not None:
            second.cancel()
            await asyncio.wait({second})  # which, cancelled itself, leaves it to clean up
        won, self._won = self._won, None
        if won is not None:
            await won.attempt.end("outrun")

    # One attempt

    async def _start(self) -> Attempt | Failure:
        request = self._request
        if request.tries >= ATTEMPTS_MAX and self._failure is not None:
            return self._failure
        decision, self._target = self._target or await request.choose(self._beside), None
        if decision.chosen is None and self._may_come_back:
            decision = await self._comeback(decision)
        if decision.chosen is None:
            return self._failure or words.nobody(decision)
        limit_s = first_event_deadline_s(
            request.job, decision.chosen, alternatives=decision.alternatives > 0
        )
        attempt = self.attempt = request.attempt(decision, self._why, limit_s)
        if not self._alone:
            attempt.on_doubt = self._on_doubt
            if self._why == "first":
                self._arm_hedge(decision)
        return attempt

    @property
    def _may_come_back(self) -> bool:
        has_gone = self._failure is not None and self._failure.code in COMES_BACK
        return has_gone and self._waits and self._request.has_lost_a_peer

    async def _comeback(self, nobody: Decision) -> Decision:
        """The choice once somebody is there again; `nobody` if that takes too long."""
        request = self._request
        clock = request.means.clock
        until = clock() + COMEBACK_WAIT_S
        while clock() < until:
            await asyncio.sleep(COMEBACK_LOOK_S)
            request.forgive()
            if request.best().chosen is not None:
                return await request.choose()
        return nobody

    async def _hear(self, attempt: Attempt) -> Begun | Queued | Failure | None:
        """The next word of an attempt; None to look again."""
        try:
            batch = await attempt.patience.next(attempt.stream)
        except PatienceEnded:
            if self._won is not None:
                return None
            if self._target is not None:
                return None
            waited_s = self._request.means.clock() - attempt.sent_at
            return words.late(attempt.name, waited_s)
        if not batch:
            return words.silent()
        if type(batch[0]) is Queued:
            batch = self._take_place(attempt, batch)
            if not batch:
                assert self._place is not None
                return self._shown(self._place)
        return await self._first_word(attempt, batch)

    async def _first_word(self, attempt: Attempt, batch: Batch) -> Begun | Failure:
        first = batch[0]
        if isinstance(first, Failure):
            return first
        request = self._request
        if self._why == "first":
            now = request.means.clock()
            request.means.hedges.observed(request.demand, now - attempt.sent_at)
        self._disarm()
        if self._second is not None:
            await self._end_second()
        self.attempt = None  # not before: a client that leaves meanwhile has it ended by `close`
        return Begun(attempt, batch)

    async def _replace(self, attempt: Attempt, failure: Failure) -> Begun | Failure | None:
        """After a failed attempt: the second that already runs, or None to try the next."""
        self._disarm()
        self.attempt, self._place = None, None
        self._why = "retry" if self._why == "first" else self._why
        await attempt.end("failed", failure)
        if not failure.elsewhere:
            return failure
        self._failure = words.gone(attempt.name, failure)
        self._request.failed(attempt, failure)
        if self._second is None:
            return None
        found = await self._second
        self._second = None
        if isinstance(found, Failure):
            return None
        self._won = None
        return found

    # A second beside it

    def _arm_hedge(self, decision: Decision) -> None:
        request, means = self._request, self._request.means
        delay_s = means.hedges.delay_s(request.demand, means.clock())
        if delay_s is None or not decision.alternatives or request.job.kind not in HEDGED_KINDS:
            return
        self._hedge = means.loop.call_later(delay_s, self._on_late)

    def _on_late(self) -> None:
        self._hedge = None
        if self._second is not None or self._place is not None or self.attempt is None:
            return
        other = self._request.best((*self._beside, self.attempt.node_id)).chosen
        is_ready = other is not None and not other.cost.load_s
        if is_ready and self._request.means.hedges.spent():
            self._start_second("hedge")

    def _on_doubt(self) -> None:
        if self._second is None and self._request.tries < ATTEMPTS_MAX:
            self._start_second("retry")

    def _start_second(self, why: str) -> None:
        if self.attempt is not None:
            beside = (*self._beside, self.attempt.node_id)
            work = self._try_beside(Beginning(self._request, why, beside=beside))
            self._second = self._request.means.loop.create_task(work)

    async def _try_beside(self, other: Beginning) -> Begun | Failure:
        """The life of a second attempt, with its own replacements."""
        try:
            found = await other.next()
            assert not isinstance(found, Queued), "only the first tells where it waits"
            if isinstance(found, Begun):
                self._won = found
                if self.attempt is not None:
                    self.attempt.patience.interrupt()
            elif self.attempt is not None:
                self._second = None
            return found
        finally:
            await other.close("outrun")

    async def _winner(self, won: Begun) -> Begun:
        """The second has begun to answer: the first is closed."""
        self._disarm()
        second, self._second = self._second, None
        if second is not None:
            await second
        attempt = self.attempt
        if attempt is not None:
            request = self._request
            request.means.hedges.observed(request.demand, request.means.clock() - attempt.sent_at)
            if attempt.is_doubtful:
                await attempt.end("failed", words.lost(attempt.name))
            else:
                await attempt.end("outrun")
        self.attempt = self._won = None
        return won

    # A place in a queue

    def _take_place(self, attempt: Attempt, batch: Batch) -> Batch:
        """Its node says where the job waits. Returns what else was in the batch."""
        means = self._request.means
        now = means.clock()
        told = [event for event in batch if isinstance(event, Queued)]
        if self._place is None:
            self._place = _Place(told[-1], now)
            if not self._alone:
                self._look = means.loop.call_later(MOVE_LOOK_S, self._on_look)
        place = self._place
        place.last, place.told_at = told[-1], now
        self._request.queued_s = now - attempt.sent_at
        self._request.story.queued(place.last.position, place.last.wait_s)
        expected_s = place.last.wait_s + attempt.candidate.cost.first_token_s
        attempt.patience.limit(min(max(QUEUE_FLOOR_S, PATIENCE_FACTOR * expected_s), QUEUE_MAX_S))
        return [event for event in batch if not isinstance(event, Queued)]

    def _shown(self, place: _Place) -> Queued | None:
        """What a client is told of it, if it reads a stream and has waited long enough."""
        if self._alone or not self._request.job.stream:
            return None
        return place.last if place.told_at - self._request.began_at >= QUEUED_WORD_S else None

    def _on_look(self) -> None:
        """Would another node be done clearly sooner?"""
        self._look = None
        request, attempt, place = self._request, self.attempt, self._place
        if attempt is None or place is None or self._moves >= MOVES_MAX:
            return
        self._look = request.means.loop.call_later(MOVE_LOOK_S, self._on_look)
        if self._second is not None or request.tries >= ATTEMPTS_MAX:
            return
        waited_s = request.means.clock() - place.told_at
        here_s = max(0.0, place.last.wait_s - waited_s) + attempt.candidate.cost.service_s
        decision = request.best((attempt.node_id,))
        if decision.chosen is not None and is_clearly_sooner(decision.chosen.cost.total_s, here_s):
            self._target = decision
            attempt.patience.interrupt()

    async def _move(self, attempt: Attempt) -> None:
        self._moves += 1
        self._why = "move"
        self.attempt, self._place = None, None
        self._disarm()
        await attempt.end("moved")

    def _disarm(self) -> None:
        """No watcher starts anything any more."""
        if self.attempt is not None:
            self.attempt.on_doubt = None
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None
        if self._look is not None:
            self._look.cancel()
            self._look = None


def is_clearly_sooner(there_s: float, here_s: float) -> bool:
    """Whether it is worth giving up a place: both are seconds until the answer is whole."""
    return there_s <= MOVE_GAIN_RATIO * here_s and here_s - there_s >= MOVE_GAIN_MIN_S
