"""Several jobs side by side."""

import asyncio

import pytest

from meshd.api import fanout
from meshd.api.fanout import several
from meshd.core.ports import Answer, AnswerHead, RequestFailed
from protocol.jobs import Failure, Finish, Job, TextDelta

FULL = Failure("overloaded", "full", elsewhere=True)
DONE = Finish("stop", 1, 1)
JOBS = [Job(f"r{number}", "chat", "tiny") for number in range(20)]


class Counting:
    """A gateway that counts who is being answered; `go` lets answers end."""

    def __init__(self, refuses=(), breaks=()):
        self.refuses = refuses
        self.breaks = breaks
        self.running = 0
        self.most = 0
        self.begun = asyncio.Event()
        self.busy = asyncio.Event()
        self.go = asyncio.Event()

    async def submit(self, job):
        if job.request_id in self.refuses:
            raise RequestFailed(FULL)
        if job.request_id in self.breaks:
            raise ZeroDivisionError
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == fanout.AT_ONCE:
            self.busy.set()
        return Answer(AnswerHead(job.request_id, "attic", "ab", "tiny", 1, "", 0, 0), self.events())

    async def events(self):
        try:
            yield [TextDelta("a")]
            self.begun.set()
            await self.go.wait()
            yield [DONE]
        finally:
            self.running -= 1


async def collected(parts):
    return [part for batch in [batch async for batch in parts] for part in batch]


async def test_all_jobs_are_answered_and_told_apart():
    """Two events each, by number."""
    gateway = Counting()
    head, parts = await several(gateway, JOBS)
    await gateway.busy.wait()
    gateway.go.set()
    seen = await collected(parts)
    assert head.node_name == "attic"
    assert sorted(part.index for part in seen) == sorted([*range(20), *range(20)])
    assert gateway.most == fanout.AT_ONCE
    assert gateway.running == 0


async def test_a_refusal_before_the_first_answer_is_raised():
    """Then there is still a status to say it with."""
    gateway = Counting(refuses={job.request_id for job in JOBS})
    with pytest.raises(RequestFailed, match="full"):
        await several(gateway, JOBS)
    assert gateway.running == 0


async def test_a_refusal_after_the_first_answer_ends_all():
    """And frees every slot."""
    gateway = Counting(refuses={"r1"})
    _, parts = await several(gateway, JOBS[:2])
    assert (await collected(parts))[-1] == FULL
    await parts.aclose()
    assert gateway.running == 0


async def test_a_bug_in_one_is_raised_or_ends_all():
    """Never a hang."""
    with pytest.raises(ZeroDivisionError):
        await several(Counting(breaks={"r0", "r1"}), JOBS[:2])
    _, parts = await several(Counting(breaks={"r1"}), JOBS[:2])
    assert isinstance((await collected(parts))[-1], Failure)
    await parts.aclose()


async def test_whoever_leaves_cancels_every_job():
    """Closing the parts waits until all slots are free."""
    gateway = Counting()
    _, parts = await several(gateway, JOBS)
    await anext(parts)
    await gateway.begun.wait()
    await parts.aclose()
    assert gateway.running == 0


async def test_parts_that_are_never_read_are_closed_all_the_same():
    """A client may be gone before the first batch."""
    gateway = Counting()
    _, parts = await several(gateway, JOBS[:2])
    await gateway.begun.wait()
    await parts.aclose()
    assert gateway.running == 0
