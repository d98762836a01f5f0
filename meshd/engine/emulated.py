"""A machine made of numbers: speed, slots, load time and memory, and no model behind them.

It ships with the product for demonstrations, tests and benchmarks: routing, queues and failures
behave as with a real machine of those numbers, on any machine, at any speed. Its records and its
answers say that they are emulated.

Time passes for real. A job waits for a slot, first come first served; its prompt takes
`tokens / prompt_tps` seconds, then words come at `generation_tps`. A slot's speed does not depend
on the other slots. Words that fell due together leave together, so speeds beyond what a timer can
resolve are kept on average.

The model is cold at first; loading takes `load_s`. A job for a cold model loads it.

An extra field `ignore_eos` (known from llama.cpp and vLLM) makes an answer run to `max_tokens`.

Faults, on every `fault_every`-th job after `fault_after` tokens:
- stall: nothing comes any more, until the asker leaves;
- slow: the rest comes `SLOW_FACTOR` times slower;
- crash: the job fails with `engine_failed`, as when a worker process dies;
- refuse: the job is refused as `overloaded` before anything else happens;
- truncate: the answer ends early and calls itself whole: nobody can tell but by reading it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from itertools import islice

from meshd.core.ports import EngineError, EventStream
from meshd.core.stats import SpeedMeter
from meshd.engine import prose
from meshd.engine.assembly import Assembler, Piece
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Event, Failure, Finish, Job, TextDelta
from protocol.load import ModelLoad, ModelRecord

SLOW_FACTOR = 10.0
"""How much slower the `slow` fault makes the rest of an answer."""

QUEUE_MAX = 1_024
"""Jobs that may wait for a slot; beyond it they are refused."""

RETRY_AFTER_S = 1.0
"""Asked of those who are refused."""

TICK_S = 0.002
"""Shortest sleep between two batches: below this, timers cost more than they tell."""

GIGABYTE = 1_000_000_000


class EmulatedEngine:
    """`Engine` for one model that does not exist."""

    def __init__(self, spec: EmulatedSpec) -> None:
        self.name = f"emulated {spec.name}".rstrip()
        self._spec = spec
        self._slots = asyncio.Semaphore(spec.slots)
        self._warm_at = math.inf
        """Monotonic seconds at which the load ends; infinite while nobody asked for one."""
        self._jobs = 0
        self._running = 0
        self._started = 0
        self._meter = SpeedMeter()
        self._record = ModelRecord(
            model_id=spec.model,
            engine=self.name,
            context_length=spec.ctx,
            quantisation="",
            capabilities=("chat", "completion"),
            size_bytes=int(spec.memory_gb * GIGABYTE),
            fingerprint=f"emulated-{spec.model}",
            emulated=True,
        )

    async def start(self) -> None:
        await self._warm()

    async def close(self) -> None:
        self._warm_at = math.inf

    def models(self) -> Sequence[ModelRecord]:
        return (self._record,)

    def stats(self) -> Sequence[ModelLoad]:
        spec = self._spec
        queued = self._jobs - self._running
        missing_s = max(0.0, self._warm_at - time.monotonic())
        return (
            ModelLoad(
                model_id=spec.model,
                warm=missing_s == 0,
                slots=spec.slots,
                in_flight=self._running,
                queued=queued,
                backlog_s=self._meter.backlog_s(self._running, queued, spec.slots),
                prompt_tps=spec.prompt_tps,
                generation_tps=spec.generation_tps,
                load_s=min(spec.load_s, missing_s),
            ),
        )

    async def load(self, model_id: str) -> None:
        self._check_known(model_id)
        await self._warm()

    async def unload(self, model_id: str) -> None:
        self._check_known(model_id)
        if self._jobs:
            raise EngineError(f"{model_id} is busy: {self._jobs} requests are running or waiting")
        await self.close()

    def generate(self, job: Job) -> EventStream:
        return self._generate(job)

    async def _generate(self, job: Job) -> EventStream:
        fault = self._next_fault()
        refusal = self._refusal(job, fault)
        if refusal is not None:
            yield [refusal]
            return
        arrived = time.monotonic()
        self._jobs += 1
        try:
            async with self._slots:
                self._running += 1
                try:
                    await self._warm()
                    answer = _Answer(self._spec, job, fault, queue_s=time.monotonic() - arrived)
                    async with aclosing(answer.play()) as batches:
                        async for events in batches:
                            self._learn(events[-1])
                            yield events
                finally:
                    self._running -= 1
        finally:
            self._jobs -= 1

    def _learn(self, last: Event) -> None:
        if isinstance(last, Finish):
            self._meter.observe(last)

    def _next_fault(self) -> str:
        self._started += 1
        return "" if self._started % self._spec.fault_every else self._spec.fault

    def _refusal(self, job: Job, fault: str) -> Failure | None:
        if job.model != self._spec.model:
            return Failure(
                "model_not_found", f"this engine has no model {job.model!r}", elsewhere=True
            )
        if job.kind == "embedding":
            return Failure("unsupported", "an emulated model makes no embeddings", elsewhere=True)
        if fault == "refuse" or self._jobs >= self._spec.slots + QUEUE_MAX:
            return Failure(
                "overloaded",
                "this emulated machine takes no more work now; try again later",
                elsewhere=True,
                retry_after_s=RETRY_AFTER_S,
            )
        size = prose.prompt_tokens(job)
        if size >= self._spec.ctx:
            return Failure(
                "context_length_exceeded",
                f"the prompt is about {size} tokens long, and {job.model} has a context of "
                f"{self._spec.ctx} tokens here, answer included; shorten the prompt",
                elsewhere=False,
                param="messages" if job.kind == "chat" else "prompt",
            )
        return None

    async def _warm(self) -> None:
        self._warm_at = min(self._warm_at, time.monotonic() + self._spec.load_s)
        await asyncio.sleep(max(0.0, self._warm_at - time.monotonic()))

    def _check_known(self, model_id: str) -> None:
        if model_id != self._spec.model:
            raise EngineError(f"this engine has no model {model_id!r}")


class _Answer:
    """One job in its slot."""

    def __init__(self, spec: EmulatedSpec, job: Job, fault: str, queue_s: float) -> None:
        self._spec = spec
        self._job = job
        self._fault = fault
        self._queue_s = queue_s
        self._prompt = prose.prompt_tokens(job)
        self._assembler = Assembler(job.stop)
        self._words = _remaining(job)
        self._length, self._reason = _length(spec, job, self._prompt)
        self._count = 0

    async def play(self) -> EventStream:
        """The events, in their time."""
        clock = time.monotonic
        prompt_s = self._prompt / self._spec.prompt_tps
        await asyncio.sleep(prompt_s)
        first = clock()
        while True:
            events = self._say(self._due(clock() - first))
            if events:
                yield events
            if events and isinstance(events[-1], Finish | Failure):
                return
            if self._is_struck("stall"):
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(max(TICK_S, first + self._due_at(self._count + 1) - clock()))

    def _due(self, since_first_s: float) -> int:
        """Words that should have been said `since_first_s` after the first."""
        count = self._count
        while count < self._length and self._due_at(count + 1) <= since_first_s:
            count += 1
        return self._bound(count)

    def _bound(self, count: int) -> int:
        """A fault strikes between two words."""
        after = self._spec.fault_after
        return min(count, after) if self._fault in {"stall", "crash", "truncate"} else count

    def _due_at(self, count: int) -> float:
        """Seconds after the first word at which word number `count` is due."""
        slow = max(0, count - 1 - self._spec.fault_after) if self._fault == "slow" else 0
        return (count - 1 + slow * (SLOW_FACTOR - 1)) / self._spec.generation_tps

    def _say(self, due: int) -> list[Event]:
        events: list[Event] = []
        for word in islice(self._words, due - self._count):
            self._count += 1
            events += _delta(self._assembler.push(self._count, word.encode()))
            if self._assembler.stopped:
                return [*events, self._finish("stop")]
        if self._count == self._length:
            return [*events, *_delta(self._assembler.finish()), self._finish(self._reason)]
        if self._is_struck("crash"):
            return [
                *events,
                Failure("engine_failed", "the emulated engine crashed", elsewhere=True),
            ]
        if self._is_struck("truncate"):
            return [*events, *_delta(self._assembler.finish()), self._finish("stop")]
        return events

    def _is_struck(self, fault: str) -> bool:
        return self._fault == fault and self._count >= self._spec.fault_after

    def _finish(self, reason: str) -> Finish:
        gaps = max(0, self._count - 1)
        return Finish(
            reason,
            prompt_tokens=self._prompt,
            completion_tokens=self._count,
            prompt_s=self._prompt / self._spec.prompt_tps,
            generation_s=gaps / self._spec.generation_tps,
            queue_s=self._queue_s,
            counted=False,
        )


def _length(spec: EmulatedSpec, job: Job, prompt: int) -> tuple[int, str]:
    """How many words will come, and why there will be no more."""
    room = spec.ctx - prompt
    most = room if job.max_tokens is None else min(job.max_tokens, room)
    if isinstance(job.extras, dict) and job.extras.get("ignore_eos") is True:
        return most, "length"
    said = len(job.prefix_text.split())
    natural = max(0, (spec.tokens or prose.natural_length(job)) - said)
    return (natural, "stop") if natural <= most else (most, "length")


def _remaining(job: Job) -> Iterator[str]:
    """The answer's words, less what was said before by whoever is being continued."""
    words = prose.words(job)
    skip = len(job.prefix_text)
    for word in words:
        if skip >= len(word):
            skip -= len(word)
        else:
            yield word[skip:]
            break
    yield from words


def _delta(piece: Piece | None) -> list[Event]:
    return [TextDelta(piece.text)] if piece else []
