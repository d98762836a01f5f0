"""The rest of an answer, across the ends of the machines that give it.

`answer_events` is the stream a client reads. From its first body event on, the answer is the
client's, so nothing can be taken back; but a machine that dies, stalls or is drained in the middle
costs a pause, not the answer: another attempt goes on from what was given (`continuation`), inside
the same stream, and a `Note` says so. When it cannot go on, the stream ends with one `Failure`
that says why.

An answer that is not streamed is collected from the same stream. Nothing of it has left, so it may
also begin again where it cannot go on: whoever collects hands in the list, which is emptied then.
"""

from __future__ import annotations

from dataclasses import replace

from meshd.core.ports import ENDINGS, Batch, EventStream, Note
from meshd.core.routing.deadlines import inter_token_deadline_s, silence_max_s
from meshd.core.routing.experience import Completion
from meshd.gateway import words
from meshd.gateway.attempt import SUSPECT_SILENCE_S, Attempt
from meshd.gateway.beginning import Beginning, Begun
from meshd.gateway.continuation import FOLD_BATCHES, IN_CALL, SEAMS_MAX
from meshd.gateway.repeat import Repeat
from meshd.gateway.request import Request
from meshd.patience import PatienceEnded
from protocol.jobs import Event, Failure, Finish, Queued

LOOK_AGAIN_S = 2.0
"""A silent stream with which nobody else could go on is looked at again after this: somebody may
have come."""

TEXT_KINDS = frozenset({"chat", "completion"})
"""Of others nothing is kept: the parts of a raw answer are large, and cannot be handed on."""


class Answering:
    """One answer being given."""

    __slots__ = (
        "_beginning", "_broken", "_collected", "_found", "_last", "_request", "_seams", "attempt",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        beginning: Beginning,
        found: Begun | Queued,
        collected: list[Event | Note] | None = None,
    ) -> None:
        """`found` is what `beginning` said last; `collected` is the list of somebody who collects
        the answer."""
        self._request = request
        self._beginning = beginning
        self._found: Begun | Queued | Finish | Failure = found
        self._collected = collected
        self._seams = 0
        self._broken: Failure | None = None
        """Why the last attempt but this one ended."""
        self._last: Finish | Failure | None = None
        self.attempt: Attempt | None = None
        """The one that answers, or did last."""

    async def events(self) -> EventStream:
        """The stream, after one empty batch: who has read that may close it, and all is freed."""
        try:
            yield ()
            while True:
                while isinstance(self._found, Queued):
                    yield [self._found]
                    self._found = await self._beginning.next()
                if not isinstance(self._found, Begun):
                    self._last = self._found
                    yield [self._found]
                    return
                attempt, batch = self._take_over(self._found)
                said, next_batch, stream = self._request.said, attempt.patience.next, attempt.stream
                if self._broken is not None and said.calls:
                    batch = await self._repeated(attempt, batch, self._broken)
                heard = said.batches
                fold_after = FOLD_BATCHES if self._request.job.kind in TEXT_KINDS else 0
                try:
                    while batch and type(batch[-1]) not in ENDINGS:
                        heard.append(batch)
                        if len(heard) > fold_after:
                            said.fold()
                        yield batch
                        batch = await next_batch(stream)
                except PatienceEnded:
                    batch = [self._silence(attempt)]
                last = batch[-1] if batch else words.silent()
                if isinstance(last, Finish):
                    yield await self._finished(attempt, batch or (), last)
                    return
                assert isinstance(last, Failure)
                if batch and len(batch) > 1:
                    heard.append(batch[:-1])
                    yield batch[:-1]
                self._found = await self._go_on(attempt, last)
        finally:
            await self._close()

    async def _repeated(
        self, attempt: Attempt, batch: Batch | None, broken: Failure
    ) -> Batch | None:
        """The first batch with more of a call than the client has, once it was made again."""
        repeat, new = Repeat(self._request.said.calls), list[Event | Note]()
        try:
            while batch:
                new += repeat.feed(batch)
                if repeat.is_other:
                    await attempt.end("cancelled")  # which is no fault of that node
                    return [replace(words.broken_off(broken, IN_CALL), elsewhere=False)]
                if repeat.is_over or (new and type(new[-1]) in ENDINGS):
                    return new
                batch = await attempt.patience.next(attempt.stream)
        except PatienceEnded:
            return [self._silence(attempt)]
        return batch

    async def in_one_piece(self, begun: Begun, finish: Finish) -> Batch:
        """All of an answer that is not streamed and was whole with its first batch, as those of
        servers are: no gap is to be watched, and `events` need not be read."""
        attempt = self.attempt = begun.attempt
        try:
            attempt.spoke()
            return await self._finished(attempt, begun.batch, finish)
        finally:
            await self._close()

    def _take_over(self, begun: Begun) -> tuple[Attempt, Batch | None]:
        """This attempt answers now."""
        request, attempt = self._request, begun.attempt
        offer = attempt.candidate.offer
        self.attempt = attempt
        note = ""
        if self._seams:
            note = request.seam_note(attempt)
            request.said.handed_on(same_file=request.has_same_file(attempt.candidate))
        if self._collected is not None:
            request.story.queued(0, 0.0)
        elif not self._seams:
            request.story.first_byte(request.means.clock())
        request.answered_by(attempt)
        attempt.on_doubt = self._on_doubt
        alternatives = attempt.decision.alternatives > 0
        limit_s = inter_token_deadline_s(request.job, offer, alternatives=alternatives)
        attempt.begun(limit_s, self._longest_gap)
        if note and self._collected is None:
            return attempt, [Note(note), *begun.batch]
        return attempt, begun.batch

    async def _finished(self, attempt: Attempt, batch: Batch, finish: Finish) -> Batch:
        """The last batch, with the account of the whole."""
        request = self._request
        means = request.means
        now = means.clock()
        if not self._seams:
            self._last = finish
            first_at = attempt.record.first_at or now
            seen = Completion.of(finish, first_at - attempt.sent_at, now - attempt.sent_at)
            means.router.finished(attempt.lease, seen, now)
            await attempt.end("finished")
            return batch
        settled = self._last = request.said.settled(finish)
        await attempt.end("finished")
        return [*batch[:-1], settled]

    async def _go_on(self, attempt: Attempt, failure: Failure) -> Begun | Queued | Finish | Failure:
        """After a failure in the middle: somebody who goes on, or how it ends."""
        request, collected = self._request, self._collected
        await attempt.end("failed", failure)
        if not failure.elsewhere:
            return failure
        hindrance = self._hindrance()
        if not hindrance:
            if request.said.is_complete(request.job):
                return request.ending()
            self._seams, self._broken = self._seams + 1, failure
            request.carried_on(attempt, failure)
            waits = collected is None or not request.may_start_over
            self._beginning = Beginning(request, "continuation", failure=failure, waits=waits)
            found = await self._beginning.next()
            if not isinstance(found, Failure):
                return found
            hindrance = "nobody else can" if found is failure else found.message
            hindrance = IN_CALL if request.said.calls else hindrance
        if collected is None:
            return words.broken_off(failure, hindrance)
        collected.clear()
        self._seams = 0
        request.start_over(attempt, failure)
        self._beginning = Beginning(request, "retry", failure=failure)
        return await self._beginning.next()

    def _hindrance(self) -> str:
        """Why nobody can go on from here; empty when somebody may."""
        if self._seams >= SEAMS_MAX and self._collected is None:
            return f"it has broken off {self._seams + 1} times"
        said = self._request.said
        if self._collected is not None and said.is_only_thought:
            return "it had only thought"  # its thought is not read twice where it has not left
        if self._collected is not None and said.calls:
            return IN_CALL
        return said.obstacle

    # Silence

    def _could_go_on(self, attempt: Attempt) -> bool:
        """Whether giving this attempt up would help."""
        if self._hindrance() and self._collected is None:
            return False
        return self._request.best((attempt.node_id,)).chosen is not None

    def _on_doubt(self) -> None:
        attempt = self.attempt
        if attempt is not None and self._could_go_on(attempt):
            attempt.patience.interrupt()

    def _longest_gap(self) -> float:
        """The limit has passed: what it is by the newest records, and by who else there is."""
        attempt = self.attempt
        assert attempt is not None
        if not self._could_go_on(attempt):
            return min(silence_max_s(self._request.job), attempt.patience.silent_s + LOOK_AGAIN_S)
        if attempt.doubted:
            return SUSPECT_SILENCE_S
        offer = self._request.newest_offer(attempt)
        return inter_token_deadline_s(self._request.job, offer, alternatives=True)

    def _silence(self, attempt: Attempt) -> Failure:
        if attempt.is_doubtful:
            return words.lost(attempt.name)
        return words.stalled(attempt.name, attempt.patience.silent_s)

    async def _close(self) -> None:
        request = self._request
        if not self._beginning.is_over:
            await self._beginning.close()
        if isinstance(self._found, Begun) and not self._found.attempt.ended:
            await self._found.attempt.end("cancelled")
        request.story.finished(self._last, request.means.clock())
