"""One try at one node: its lease, its stream, its patience, and what is known of its health.

A stream that is silent may be reading a long prompt, or may lead nowhere: its machine stopped, its
cable out. The difference is whether the machine answers at all. So an attempt that has been silent
for a while nudges its peer; when the nudge is not answered either, or membership has come to doubt
the node, the attempt is in doubt, and whoever waits for it may look for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd import history
from meshd.core.ports import EventStream
from meshd.core.routing.router import Decision
from meshd.gateway.means import Means
from meshd.patience import Patience
from protocol.jobs import Failure, Job

FIRST_QUIET_S = 0.2
"""Silence before the first event after which the peer is nudged: a few times a short prefill."""

FIRST_PULSE_S = 0.2
"""A peer that answers nothing for so long after a nudge is doubted before its first event. Both
together, and the second attempt after them, stay below half a second."""

STREAM_QUIET_S = 0.4
"""The same for a gap between two tokens: twice that of the slowest machine that is of use."""

STREAM_PULSE_S = 0.5
"""And for the answer to its nudge: longer, because moving a stream costs a prefill."""

LATE_S = 0.05
"""A judgement that comes so much too late says more of this node's loop than of the peer."""

SUSPECT_SILENCE_S = 0.5
"""The longest gap of a stream while membership doubts its node."""


class Attempt:
    """Begins when it is made; whoever makes it calls `end`, once or more."""

    __slots__ = (
        "_again", "_begun", "_is_silent", "_is_watched", "_limit_s", "_means", "_pulse",
        "candidate", "decision", "doubted", "ended", "lease", "node_id", "on_doubt", "patience",
        "record", "sent_at", "stream",
    )  # fmt: skip

    def __init__(
        self,
        means: Means,
        decision: Decision,
        job: Job,
        record: history.Attempt,
        limit_s: float,
    ) -> None:
        """`limit_s`: the longest wait for the first event."""
        candidate = decision.chosen
        assert candidate is not None
        member = candidate.offer.member
        self._means = means
        self.candidate = candidate
        self.node_id = member.node_id
        self.decision = decision
        self.record = record
        self.sent_at = means.clock()
        self.lease = means.router.dispatch(candidate, self.sent_at)
        self.stream: EventStream = means.generate(member, job, candidate.demand)
        self.patience = Patience(limit_s, means.loop)
        self.ended = False
        self.on_doubt: Callable[[], None] | None = None
        """Called when the node may be gone, as often as it is noticed."""
        self._limit_s = limit_s
        self._again: Callable[[], float] | None = None
        self._begun = False
        self.doubted = False
        """By membership."""
        self._is_silent = False
        """The last nudge was not answered."""
        self._pulse: asyncio.TimerHandle | None = None
        means.open.setdefault(member.node_id, set()).add(self)
        self._is_watched = means.peers is not None and member.node_id != decision.self_id
        """A peer can be nudged; an engine of this node needs no sign of life."""
        if self._is_watched:
            self.patience.when_quiet(FIRST_QUIET_S, self._nudge)

    @property
    def name(self) -> str:
        """Of the node."""
        return self.candidate.offer.member.name

    @property
    def is_doubtful(self) -> bool:
        """Whether its node may be gone, by what is known now."""
        return self.doubted or self._is_silent

    def spoke(self) -> None:
        """The first event of an answer is here."""
        means = self._means
        self._begun = True
        self.record.first_byte(means.clock())
        means.router.spoke(self.lease)

    def begun(self, limit_s: float, again: Callable[[], float]) -> None:
        """The first event is here, and more will come. `limit_s` is the longest gap from now on;
        when it has passed, `again` is asked once more."""
        self.spoke()
        self._limit_s = limit_s
        self._again = again
        self._set_limit()
        if self._is_watched:
            self.patience.when_quiet(STREAM_QUIET_S, self._nudge)

    def doubt(self, *, doubted: bool) -> None:
        """Membership doubts the node, or no longer does."""
        if doubted and not self._begun and self.on_doubt is not None:
            self.on_doubt()
        if doubted == self.doubted:
            return
        self.doubted = doubted
        if self._begun:
            self._set_limit()

    async def end(self, outcome: str, failure: Failure | None = None) -> None:
        """Give everything back; `outcome` is one of `history.OUTCOMES`. The first word holds."""
        if self.ended:
            return
        self.ended = True
        means = self._means
        now = means.clock()
        self.patience.close()
        if self._pulse is not None:
            self._pulse.cancel()
        self.on_doubt = self._again = None  # or it and its owner would wait for the collector
        attempts = means.open[self.node_id]
        attempts.discard(self)
        if not attempts:
            del means.open[self.node_id]
        self.record.ended(outcome, now, failure)
        if failure is not None:
            means.router.failed(self.lease, failure.code, now)
            if failure.code == "unreachable":
                means.unreachable(self.node_id, failure.message)
        means.router.release(self.lease)
        if outcome == "finished":
            means.router.succeeded(self.lease)
            await anext(self.stream, None)  # to run out costs less than to be closed
        await self.stream.aclose()

    def _set_limit(self) -> None:
        limit_s = min(self._limit_s, SUSPECT_SILENCE_S) if self.doubted else self._limit_s
        self.patience.limit(limit_s, self._again)

    def _nudge(self) -> None:
        assert self._means.peers is not None
        if self._pulse is not None:
            return
        self._means.peers.nudge(self.candidate.offer.member)
        wait_s = STREAM_PULSE_S if self._begun else FIRST_PULSE_S
        due = self._means.loop.time() + wait_s
        self._pulse = self._means.loop.call_later(wait_s, self._judge, wait_s, due)

    def _judge(self, waited_s: float, due: float) -> None:
        """Whether the nudge was answered, by anything at all. A loop that comes late to this has
        not read what is here: it nudges again."""
        means = self._means
        assert means.peers is not None
        self._pulse = None
        if means.loop.time() - due > LATE_S:
            self._nudge()
            return
        self._is_silent = means.peers.silent_s(self.candidate.offer.member) >= waited_s
        if self._is_silent and self.on_doubt is not None:
            self.on_doubt()
