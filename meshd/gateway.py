"""Runs attempts until somebody answers. The router decides where; this carries it out.

An attempt is *committed* by its first body event. Before that nothing has reached the client, so a
node that refuses, dies or stalls is replaced without a word; a job that is not streamed commits
only when its whole answer is here, and is replaced up to the very end. After the commit the stream
belongs to the client, and a failure in it is passed on as the failure it is.

Every attempt holds a lease from the moment it is sent until its stream is closed, whichever way
that happens: the client reads to the end, leaves, or is never answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from meshd.core.membership.member import Member, MeshView
from meshd.core.ports import Answer, AnswerHead, Batch, EventStream, RequestFailed
from meshd.core.routing.deadlines import INTER_TOKEN_MAX_S, first_event_deadline_s
from meshd.core.routing.demand import Demand, demand_of
from meshd.core.routing.explain import decision_body
from meshd.core.routing.ledger import Lease
from meshd.core.routing.router import Candidate, Decision, Router
from meshd.patience import Patience, PatienceEnded
from protocol.jobs import Failure, Finish, Job

ATTEMPTS_MAX = 8
"""Nodes tried for one request: more than a household has, and a bound on a storm of refusals."""

RETRY_AFTER_S = 2.0
"""What a client is told to wait when no node can take its request: a few short answers' time."""

ANSWER_EVENTS_MAX = 200_000
"""Events collected for one answer that is not streamed; at one per token, beyond any context."""

Generate = Callable[[Member, Job], EventStream]
"""Starts a job on a member: on a local engine when the member is this node, else over the relay."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    candidate: Candidate
    lease: Lease
    stream: EventStream
    first: Batch


class MeshGateway:
    """The `Gateway` port over one node's router, engines and relay."""

    def __init__(
        self,
        router: Router,
        view: Callable[[], MeshView],
        generate: Generate,
        *,
        status: Callable[[], Mapping[str, Any]],
        members: Callable[[], Mapping[str, Any]],
        unreachable: Callable[[str, str], object] = lambda _node_id, _cause: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._view = view
        self._generate = generate
        self._unreachable = unreachable
        self._clock = clock
        self.status = status
        self.members = members
        self._started_unix_s = int(time.time())
        self._loop: asyncio.AbstractEventLoop | None = None

    async def submit(self, job: Job) -> Answer:
        """See `meshd.core.ports.Gateway.submit`."""
        self._loop = self._loop or asyncio.get_running_loop()
        started = self._clock()
        demand = self._demand(job)
        excluded: set[str] = set()
        failure: Failure | None = None
        for attempts in range(1, ATTEMPTS_MAX + 1):
            now = self._clock()
            decision = self._router.choose(self._view(), demand, now, excluded)
            if decision.chosen is None:
                raise RequestFailed(failure or _nobody(decision))
            outcome = await self._attempt(job, demand, decision, attempts)
            if isinstance(outcome, _Attempt):
                head = _head(job, outcome.candidate, attempts, decision.reason, now - started)
                return Answer(head, self._committed(outcome))
            failure = outcome
            if not failure.elsewhere:
                raise RequestFailed(failure)
            excluded.add(decision.chosen.offer.member.node_id)
        assert failure is not None
        raise RequestFailed(failure)

    def explain(self, job: Job) -> Mapping[str, Any]:
        """See `meshd.core.ports.Gateway.explain`. Raises RequestFailed for an unknown model."""
        demand = self._demand(job)
        return decision_body(demand, self._router.choose(self._view(), demand, self._clock()))

    def models(self) -> Sequence[Mapping[str, Any]]:
        """See `meshd.core.ports.Gateway.models`."""
        merged = []
        for model_id, offers in sorted(self._router.catalogue(self._view()).models().items()):
            known = [offer.model for offer in offers]
            merged.append(
                {
                    "id": model_id,
                    "created": self._started_unix_s,
                    "nodes": sorted(offer.member.name for offer in offers),
                    "context_length": max(model.context_length for model in known),
                    "capabilities": sorted({word for m in known for word in m.capabilities}),
                    "quantisation": next((m.quantisation for m in known if m.quantisation), ""),
                    "aliases": sorted({alias for m in known for alias in m.aliases}),
                    "warm": any(offer.load is not None and offer.load.warm for offer in offers),
                    "emulated": all(model.emulated for model in known),
                }
            )
        return merged

    def _demand(self, job: Job) -> Demand:
        catalogue = self._router.catalogue(self._view())
        model_id = catalogue.resolve(job.model)
        if model_id is None:
            raise RequestFailed(_unknown_model(job.model, sorted(catalogue.models())))
        return demand_of(job, model_id)

    async def _attempt(
        self, job: Job, demand: Demand, decision: Decision, number: int
    ) -> _Attempt | Failure:
        """One try at the chosen node, up to the commit."""
        candidate = decision.chosen
        assert candidate is not None
        lease = self._router.dispatch(candidate, self._clock())
        sent = _sent(job, demand.model, number)
        stream = self._generate(candidate.offer.member, sent)
        patience_s = first_event_deadline_s(
            job, demand, candidate.cost, alternatives=decision.alternatives > 0
        )
        committed = False
        try:
            assert self._loop is not None
            first = await _first(stream, Patience(patience_s, self._loop), whole=not job.stream)
            last = first[-1]
            if isinstance(first[0], Failure) or (not job.stream and isinstance(last, Failure)):
                assert isinstance(last, Failure)
                self._failed(lease, last)
                return last
            self._router.succeeded(lease)
            committed = True
            return _Attempt(candidate, lease, stream, first)
        except PatienceEnded:
            name = candidate.offer.member.name
            late = Failure("timeout", f"{name} said nothing for {patience_s:.0f} s", elsewhere=True)
            self._failed(lease, late)
            return late
        finally:
            if not committed:
                self._router.release(lease)
                await stream.aclose()

    def _failed(self, lease: Lease, failure: Failure) -> None:
        self._router.failed(lease, failure.code, self._clock())
        if failure.code == "unreachable":
            self._unreachable(lease.node_id, failure.message)

    async def _committed(self, attempt: _Attempt) -> EventStream:
        """The rest of a committed stream; closing it closes the attempt."""
        assert self._loop is not None
        patience = None
        try:
            async with aclosing(attempt.stream):
                yield attempt.first
                if isinstance(attempt.first[-1], (Finish, Failure)):
                    return
                patience = Patience(INTER_TOKEN_MAX_S, self._loop)
                while (batch := await patience.next(attempt.stream)) is not None:
                    yield batch
        except PatienceEnded:
            name = attempt.candidate.offer.member.name
            yield [_stalled(name)]
        finally:
            if patience is not None:
                patience.close()
            self._router.release(attempt.lease)


def _sent(job: Job, model: str, number: int) -> Job:
    """The job under the model's canonical name, with a request id of this attempt's own: a peer
    that gets two attempts must not confuse them. Most jobs are sent once, as they came."""
    if number == 1 and job.model == model:
        return job
    return replace(job, model=model, request_id=f"{job.request_id[:80]}.{number}")


async def _first(stream: EventStream, patience: Patience, *, whole: bool) -> Batch:
    """The first batch, or with `whole` all of the answer as one. Raises PatienceEnded."""
    try:
        first = await patience.next(stream)
        if first is None:
            return [_silent()]
        if not whole or isinstance(first[-1], (Finish, Failure)):
            return first
        patience.limit_s = max(patience.limit_s, INTER_TOKEN_MAX_S)
        collected = list(first)
        while len(collected) < ANSWER_EVENTS_MAX:
            batch = await patience.next(stream)
            if batch is None:
                return [_silent()]
            collected.extend(batch)
            if isinstance(batch[-1], (Finish, Failure)):
                return collected
        return [Failure("engine_failed", "the answer has no end", elsewhere=False)]
    finally:
        patience.close()


def _head(
    job: Job, candidate: Candidate, attempts: int, reason: str, waited_s: float
) -> AnswerHead:
    offer = candidate.offer
    return AnswerHead(
        request_id=job.request_id,
        node_name=offer.member.name,
        node_id=offer.member.node_id,
        model=offer.model.model_id,
        attempts=attempts,
        reason=reason if attempts == 1 else f"{reason}; attempt {attempts}",
        load_age_ms=round(candidate.age_s * 1000),
        queue_ms=round(waited_s * 1000),
        emulated=offer.model.emulated,
    )


def _nobody(decision: Decision) -> Failure:
    """Why no candidate was eligible, as the failure a client can act on."""
    blocked = [set(candidate.blocked_by) for candidate in decision.candidates]
    if blocked and all("capability" in gates for gates in blocked):
        return Failure("unsupported", f"No node can take this: {decision.reason}", elsewhere=False)
    if blocked and all({"capability", "context"} & gates for gates in blocked):
        message = f"The prompt is too long: {decision.reason}. Shorten it or use another model."
        return Failure("context_length_exceeded", message, elsewhere=False)
    message = f"No node can take this request now: {decision.reason or 'none offers the model'}."
    return Failure("overloaded", message, elsewhere=False, retry_after_s=RETRY_AFTER_S)


def _unknown_model(name: str, offered: Sequence[str]) -> Failure:
    listed = ", ".join(offered[:10]) or "none yet"
    more = f" and {len(offered) - 10} more" if len(offered) > 10 else ""
    message = f"The model '{name}' is not offered by any node. Offered: {listed}{more}."
    return Failure("model_not_found", message, elsewhere=False, param="model")


def _silent() -> Failure:
    return Failure("engine_failed", "the answer ended before it was finished", elsewhere=True)


def _stalled(name: str) -> Failure:
    message = (
        f"{name} stopped in the middle of the answer for {INTER_TOKEN_MAX_S:.0f} s. Ask again."
    )
    return Failure("timeout", message, elsewhere=True)
