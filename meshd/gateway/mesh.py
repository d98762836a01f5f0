"""The `Gateway` port over one node's router, engines and relay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from meshd.core.membership.member import MeshView
from meshd.core.ports import Answer, Batch, Note, RequestFailed
from meshd.core.routing.catalogue import holders_away
from meshd.core.routing.demand import Demand
from meshd.core.routing.explain import decision_body
from meshd.core.routing.hedge import HedgePolicy
from meshd.core.routing.router import Router
from meshd.gateway import words
from meshd.gateway.beginning import Beginning, Begun
from meshd.gateway.listing import merged_models
from meshd.gateway.means import Generate, Means, Peers, Unreachable
from meshd.gateway.request import Request
from meshd.gateway.stream import Answering
from meshd.history import History
from protocol import limits
from protocol.jobs import (
    Event,
    Failure,
    Finish,
    Job,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)

ANSWER_EVENTS_MAX = 200_000
"""Events collected for one answer that is not streamed; at one per token, beyond any context."""

ANSWER_MAX_CHARS = limits.JOB_MAX_BYTES
"""Text collected for it, as much as the endpoint writes. An adopted server may send megabytes in
one event, and never stop."""

HEARD_WAIT_S = 5.0
"""The longest that a request waits for the first word of others, after this machine has slept, say:
a Wi-Fi needs a few seconds to be back, and who opens a lid asks at once."""

HEARD_LOOK_S = 0.05


class MeshGateway:
    """See the package. `view_changed` is to be called with each new view, on the gateway's loop."""

    def __init__(
        self,
        router: Router,
        view: Callable[[], MeshView],
        generate: Generate,
        *,
        status: Callable[[], Mapping[str, Any]],
        members: Callable[[], Mapping[str, Any]],
        unreachable: Unreachable = lambda _node_id, _cause: None,
        aside: Callable[[str], str] = lambda _model: "",
        looking_around: Callable[[], bool] = lambda: False,
        peers: Peers | None = None,
        history: History | None = None,
        hedges: HedgePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `peers` nobody is nudged or probed: only the patience of each phase holds.
        `aside` says of a model's name why this node has set it aside; empty: it has not.
        `looking_around` says whether this node is so new that it may not know all the others."""
        self.history = History() if history is None else history
        self._means = Means(
            router,
            view,
            generate,
            peers,
            unreachable,
            clock,
            self.history,
            HedgePolicy() if hedges is None else hedges,
        )
        self.view_changed = self._means.view_changed
        self._aside = aside
        self._looking_around = looking_around
        self.status = status
        self.members = members
        self._started_unix_s = int(time.time())

    @property
    def open_attempts(self) -> int:
        """Attempts under way, at any node."""
        return sum(map(len, self._means.open.values()))

    async def submit(self, job: Job) -> Answer:
        """See `meshd.core.ports.Gateway.submit`."""
        means = self._means
        if not means.is_ready:
            means.make_ready()
        now = means.clock()
        story = self.history.opened(job, now)
        try:
            demand = await self._demand_soon(job)
            return await _begin(Request(means, job, demand, story, now))
        except RequestFailed as failed:
            story.finished(failed.failure, means.clock())
            raise
        except BaseException:
            story.finished(None, means.clock())
            raise

    def explain(self, job: Job) -> Mapping[str, Any]:
        """See `meshd.core.ports.Gateway.explain`. Raises RequestFailed where nobody offers it."""
        means, demand = self._means, self._demand(job)
        decision = means.router.choose(means.view(), demand, means.clock())
        return decision_body(demand, decision)

    def models(self) -> Sequence[Mapping[str, Any]]:
        """See `meshd.core.ports.Gateway.models`."""
        means = self._means
        return merged_models(means.router.catalogue(means.view()), self._started_unix_s)

    async def _demand_soon(self, job: Job) -> Demand:
        """The demand of a job. Where nobody offers the model, one is waited for who may: while this
        node, just started, looks around, and where members that are alive and have the model were
        not heard since this machine slept."""
        clock = self._means.clock
        until = clock() + HEARD_WAIT_S
        while True:
            try:
                return self._demand(job)
            except RequestFailed:
                holders = holders_away(self._means.view(), job)
                unheard = any(each.state == "alive" for each in holders)
                if clock() >= until or not (unheard or self._looking_around()):
                    raise
            await asyncio.sleep(HEARD_LOOK_S)

    def _demand(self, job: Job) -> Demand:
        router, view = self._means.router, self._means.view()
        catalogue = router.catalogue(view)
        model_id = catalogue.resolve(job.model, job)
        if model_id is None:
            why = self._aside(job.model)
            if why:
                raise RequestFailed(words.set_aside(job.model, why))
            holders = holders_away(view, job)
            if holders:
                raise RequestFailed(words.away(job.model, holders))
            raise RequestFailed(words.unknown_model(job.model, sorted(catalogue.models())))
        return router.demand(job, model_id)


async def _begin(request: Request) -> Answer:
    """The answer from its first event on. Raises RequestFailed."""
    beginning = Beginning(request)
    handed = False
    try:
        found = await beginning.next()
        if isinstance(found, Failure):
            raise RequestFailed(found)
        handed = True
    finally:
        if not handed:
            await beginning.close()
    if not request.job.stream:
        return await _whole(request, beginning, found)
    attempt = found.attempt if isinstance(found, Begun) else beginning.attempt
    assert attempt is not None
    events = Answering(request, beginning, found).events()
    await anext(events)
    return Answer(request.head(attempt), events)


async def _whole(request: Request, beginning: Beginning, found: Begun | Queued) -> Answer:
    """The answer when all of it is here. Raises RequestFailed."""
    collected: list[Event | Note] = []
    answering = Answering(request, beginning, found, collected)
    if isinstance(found, Begun) and type(found.batch[-1]) is Finish:
        collected.extend(await answering.in_one_piece(found, found.batch[-1]))
    else:
        await _collect(answering, collected)
    last = collected[-1]
    if isinstance(last, Failure):
        raise RequestFailed(last)
    assert answering.attempt is not None
    return Answer(request.head(answering.attempt), _Once(collected), collected)


async def _collect(answering: Answering, collected: list[Event | Note]) -> None:
    async with aclosing(answering.events()) as events:
        size = 0
        async for batch in events:
            size = sum(map(_characters, batch), size if collected else 0)  # it may be begun anew
            collected.extend(batch)
            if len(collected) > ANSWER_EVENTS_MAX or size > ANSWER_MAX_CHARS:
                raise RequestFailed(words.endless())


def _characters(event: Event | Note) -> int:
    """What an event adds to an answer's text; vectors and pictures have their bounds elsewhere."""
    match event:
        case TextDelta(text) | ReasoningDelta(text):
            return len(text)
        case ToolCallDelta():
            return len(event.name) + len(event.arguments)
        case _:
            return 0


class _Once(AsyncGenerator[Batch, None]):
    """The stream of an answer that is whole. Hardly anybody reads it, and to be rid of a generator
    that nobody has read, Python raises an exception in it: six thousand instructions, traceback and
    all, for nothing."""

    __slots__ = ("_left",)

    def __init__(self, batch: Batch) -> None:
        self._left: Batch = batch

    async def asend(self, _value: None) -> Batch:
        batch, self._left = self._left, ()
        if not batch:
            raise StopAsyncIteration
        return batch

    async def athrow(self, error: Any, *_more: Any) -> Batch:
        self._left = ()
        raise error
