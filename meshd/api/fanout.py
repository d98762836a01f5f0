"""Several jobs of one request, run side by side and told apart by number.

At most AT_ONCE run at a time, so that one request does not take every slot of the mesh; the rest
begin as others end. A choice that fails ends the whole answer: half of what was asked for, with
status 200, would be taken for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from meshd.api.choices import Part
from meshd.api.writing import INCOMPLETE
from meshd.core.ports import Answer, AnswerHead, Gateway, RequestFailed
from protocol.jobs import Failure, Finish, Job

AT_ONCE = 8
"""Jobs of one request that run at a time: the slots of a good machine."""

PENDING_MAX = 64
"""Batches that wait for a slow client before the engines are slowed down."""


class Fanout:
    """The parts of all answers, as they come: iterate, and close at the end.

    A class rather than a generator, because closing a generator that was never begun does nothing.
    """

    def __init__(self, gateway: Gateway, jobs: Sequence[Job]) -> None:
        """Begins at once. Whoever makes it closes it."""
        self._gateway = gateway
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._pending: asyncio.Queue[Part | Failure] = asyncio.Queue(PENDING_MAX)
        self._left = set(range(len(jobs)))
        self.head: asyncio.Future[AnswerHead] = asyncio.get_running_loop().create_future()
        """Who answers first; RequestFailed when the first word is a refusal."""
        self._tasks = [
            asyncio.create_task(self._run(index, job), name=f"choice {index}")
            for index, job in enumerate(jobs)
        ]

    def __aiter__(self) -> Fanout:
        return self

    async def __anext__(self) -> Sequence[Part | Failure]:
        """The next part, in a batch of one. A failure is the last."""
        if not self._left:
            raise StopAsyncIteration
        part = await self._pending.get()
        if isinstance(part, Failure) or isinstance(part.batch[-1], Failure):
            self._left.clear()
        elif isinstance(part.batch[-1], Finish):
            self._left.discard(part.index)
        return [part]

    async def aclose(self) -> None:
        """Cancel what is left and wait until its slots are free."""
        self._left.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, index: int, job: Job) -> None:
        try:
            async with self._slots:
                answer = await self._gateway.submit(job)
                if not self.head.done():
                    self.head.set_result(answer.head)
                async with aclosing(answer.events) as events:
                    async for batch in events:
                        await self._pending.put(Part(index, batch))
        except RequestFailed as failed:
            await self._fail(failed, failed.failure)
        except Exception as error:
            await self._fail(error, INCOMPLETE)
            raise

    async def _fail(self, error: Exception, failure: Failure) -> None:
        if not self.head.done():
            self.head.set_exception(error)
        await self._pending.put(failure)


async def several(gateway: Gateway, jobs: Sequence[Job]) -> tuple[AnswerHead, Fanout]:
    """Submit all; returns when the first has begun. Raises RequestFailed.

    Cancelling this call cancels every job; afterwards closing the parts does.
    """
    parts = Fanout(gateway, jobs)
    try:
        return await parts.head, parts
    except BaseException:
        await parts.aclose()
        raise


def answer_of(head: AnswerHead, parts: Fanout) -> Answer:
    """An `Answer` whose batches hold `Part`s, for a dialect that knows of several choices."""
    return Answer(head, parts)  # type: ignore[arg-type]  # read by SeveralStreams, SeveralAnswers
