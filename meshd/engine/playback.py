"""One answer of an emulated machine, in its time: the plan of `script`, played in a slot.

The prompt takes its time, then units come at their rate. Units that fell due together leave
together. A fault strikes between two units.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from itertools import islice

from meshd.core.ports import ENDINGS, EventStream
from meshd.engine import prose
from meshd.engine.assembly import Assembler, Piece
from meshd.engine.failures import failure_of
from meshd.engine.script import Fault, Plan, Word, plan_of
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Event, Finish, Job, TextDelta

SLOW_FACTOR = 10.0
"""How much slower the `slow` fault makes the rest of an answer."""

TICK_S = 0.002
"""Shortest sleep between two batches: below this, timers cost more than they tell."""

STRIKING = frozenset({"stall", "crash", "truncate"})
"""Faults after which nothing more is said."""


class Playback:
    """One job in its slot. Raises ScriptError, when made, for a job that contradicts itself."""

    def __init__(self, spec: EmulatedSpec, job: Job, fault: Fault) -> None:
        self._spec = spec
        self._fault = fault
        self._prompt = prose.prompt_tokens(job)
        self._assembler = Assembler(job.stop)
        self._plan = _bounded(plan_of(job, spec.tokens), spec, job, self._prompt)
        self._count = 0
        self._cached = 0
        self._prompt_s = self._queue_s = 0.0

    async def play(self, cached_ratio: float, queue_s: float) -> EventStream:
        """The events, in their time. `cached_ratio` of the prompt need not be read; `queue_s` is
        how long the job waited before."""
        clock = time.monotonic
        # As in a real cache, the last token is always read: the answer begins at its output.
        self._cached = min(int(self._prompt * cached_ratio), self._prompt - 1)
        self._prompt_s = (self._prompt - self._cached) / self._spec.prompt_tps
        self._queue_s = queue_s
        await asyncio.sleep(self._prompt_s)
        first = clock()
        while True:
            events = self._say(self._due(clock() - first))
            if events:
                yield events
            if events and type(events[-1]) in ENDINGS:
                return
            if self._is_struck("stall"):
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(max(TICK_S, first + self._due_at(self._count + 1) - clock()))

    def _due(self, since_first_s: float) -> int:
        """Units that should have been said `since_first_s` after the first."""
        count = self._count
        while count < self._plan.length and self._due_at(count + 1) <= since_first_s:
            count += 1
        return min(count, self._fault.after) if self._fault.kind in STRIKING else count

    def _due_at(self, count: int) -> float:
        """Seconds after the first unit at which unit number `count` is due."""
        slow = max(0, count - 1 - self._fault.after) if self._fault.kind == "slow" else 0
        return (count - 1 + slow * (SLOW_FACTOR - 1)) / self._spec.generation_tps

    def _say(self, due: int) -> list[Event]:
        events: list[Event] = []
        for unit in islice(self._plan.units, due - self._count):
            self._count += 1
            if not isinstance(unit, Word):
                events += [*_delta(self._assembler.finish()), unit]
                continue
            events += _delta(self._assembler.push(unit.number, unit.text.encode()))
            if self._assembler.stopped:
                return [*events, self._finish("stop")]
        if self._count == self._plan.length:
            events += _delta(self._assembler.finish())
            return [*events, self._finish(self._plan.reason)]
        if self._is_struck("crash"):
            died = failure_of("engine_failed", "the emulated engine crashed", elsewhere=True)
            return [*events, died]
        if self._is_struck("truncate"):
            return [*events, *_delta(self._assembler.finish()), self._finish("stop")]
        return events

    def _is_struck(self, kind: str) -> bool:
        return self._fault.kind == kind and self._count >= self._fault.after

    def _finish(self, reason: str) -> Finish:
        gaps = max(0, self._count - 1)
        return Finish(
            reason,
            prompt_tokens=self._prompt,
            completion_tokens=self._count if self._plan.is_counted else 0,
            cached_tokens=self._cached,
            prompt_s=self._prompt_s,
            generation_s=gaps / self._spec.generation_tps,
            queue_s=self._queue_s,
            counted=False,
            stop=self._assembler.stop,
        )


def _bounded(plan: Plan, spec: EmulatedSpec, job: Job, prompt: int) -> Plan:
    """The plan as far as `max_tokens` and the context let it go, and why there will be no more."""
    room = spec.ctx - prompt
    most = room if job.max_tokens is None else min(job.max_tokens, room)
    goes_on = isinstance(job.extras, dict) and job.extras.get("ignore_eos") is True
    if plan.length > most or (plan.is_prose and goes_on):
        return replace(plan, length=most, reason="length")
    return plan


def _delta(piece: Piece | None) -> list[Event]:
    if piece is None:
        return []
    is_exact = 0 not in piece.token_ids
    return [TextDelta(piece.text, piece.token_ids if is_exact else ())]
