"""One job's stay at this node: it waits, it runs, it is over; and how to end it from outside.

To break a running stream off is to wake whoever waits for its next event. The task that waits is
cancelled, and the cancellation is caught here, as `asyncio.timeout` does it. Between two events
nobody waits, and the stream ends at its next step.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from meshd.core.ports import ENDINGS, Batch
from meshd.core.routing.fairness import Ticket
from protocol.jobs import Failure, Finish, Job, Queued, ReasoningDelta, TextDelta

REASSURE_S = 2.0
"""Longest time that somebody who waits hears nothing: less than any gateway's patience."""


class Visit:
    """Made when a job arrives; `Intake` moves it on. Times are monotonic seconds."""

    __slots__ = (
        "_news", "_struck", "_told", "_told_at", "_woken", "abandoned", "deltas", "fixed", "job",
        "last", "over", "place", "reads", "refused", "task", "thinks", "ticket",
    )  # fmt: skip

    def __init__(self, job: Job, ticket: Ticket) -> None:
        self.job = job
        self.ticket = ticket
        self.refused: Failure | None = None
        """Why it has to go: from the queue, or from its slot."""
        self.abandoned = False
        """It is out of the queue already; its stream has yet to say why."""
        self.fixed = False
        """It said something that no other node can carry on from."""
        self.thinks = bool(job.prefix_thought)
        """It has thought, which only the same model file can go on from."""
        self.reads = False
        """Its prompt is being read."""
        self.place: Queued | None = None
        """Where it waits in its engine, while it does."""
        self.deltas = 0
        self.last: Finish | Failure | None = None
        self.over = False
        self._woken: asyncio.Event | None = None
        self._news: Queued | None = None
        self._told = 0
        self._told_at = ticket.arrived
        self.task: asyncio.Task[Any] | None = None
        """Who waits for its next event, while somebody does; set by whoever lets them wait."""
        self._struck: Failure | None = None
        """Why that task was cancelled from here."""

    # Waiting

    async def news(self) -> Queued | Failure | None:
        """What to say while it waits; None when it is its turn."""
        while self.ticket.started is None:
            if self.refused is not None:
                return self.refused
            if self._news is not None:
                news, self._news = self._news, None
                return news
            self._woken = asyncio.Event()
            await self._woken.wait()
        return None

    def tell(self, place: int, wait_s: float, now: float) -> None:
        """Where it stands: passed on when that changed, or when it heard nothing for a while."""
        if place != self._told or now - self._told_at >= REASSURE_S:
            self._news = Queued(place, round(wait_s, 2))
            self._told, self._told_at = place, now
            self.wake()

    def wake(self) -> None:
        """Something is to be looked at: its turn, news, or the door."""
        if self._woken is not None:
            self._woken.set()

    # Running

    def ended_by(self, error: BaseException) -> Batch:
        """The last batch of a stream that ended with `error` instead of one. Raises `error` when it
        is for somebody else."""
        if isinstance(error, StopAsyncIteration):
            return [silent(self.job.model)]
        task, self.task = self.task, None
        if self._struck is None or task is None or task.uncancel():
            raise error
        return [self._struck]

    def is_over(self, batch: Batch) -> bool:
        """Note what was said; whether it was the last word."""
        task, self.task = self.task, None
        if self._struck is not None and task is not None:
            task.uncancel()  # an engine that answered its own cancellation
        last = batch[-1]
        if type(last) is TextDelta:
            self.deltas += len(batch)
        elif type(last) is ReasoningDelta:
            self.deltas += len(batch)
            self.thinks = True
        elif isinstance(last, ENDINGS):
            self.last = last
            return True
        elif not isinstance(last, Queued):
            self.fixed = True
        self.place = last if isinstance(last, Queued) else None
        return False

    def accounted(self, batch: Batch) -> Batch:
        """Its last batch; where it waited here, its account says for how long."""
        last, started = batch[-1], self.ticket.started
        if self._woken is None or started is None or not isinstance(last, Finish):
            return batch
        waited_s = max(0.0, started - self.ticket.arrived)
        return [*batch[:-1], replace(last, queue_s=last.queue_s + waited_s)]

    def break_off(self, failure: Failure) -> None:
        """End a running visit with this failure."""
        if self.refused is None and self.last is None:
            self.refused = failure
            if self.task is not None:
                self._struck = failure
                self.task.cancel()

    @property
    def has_spoken(self) -> bool:
        """Its client has read some of the answer, from here or from whoever began it."""
        return self.deltas > 0 or self.ticket.begun

    @property
    def tokens(self) -> int:
        """Of its prompt and of what was said, as far as is known."""
        return self.ticket.prompt_tokens + self.deltas

    @property
    def finish(self) -> Finish | None:
        """Its account, where its answer became whole."""
        return self.last if isinstance(self.last, Finish) else None

    @property
    def taken(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer that it really took, as far as is known."""
        if isinstance(self.last, Finish):
            read, cached = self.last.prompt_tokens, self.last.cached_tokens
            return read - cached if read > cached else 0, self.last.completion_tokens
        if isinstance(self.last, Failure) and not self.deltas:
            return 0, 0
        return self.ticket.prompt_tokens, self.deltas


def silent(model: str) -> Failure:
    """Of an engine that broke its contract."""
    return Failure("engine_failed", f"the engine of {model} ended without a word", elsewhere=True)


def draining() -> Failure:
    """What everybody hears who has to go."""
    return Failure(
        "draining",
        "this node is being drained and takes no work now; another node may take this request",
        elsewhere=True,
    )
