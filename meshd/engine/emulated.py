"""A machine made of numbers: speed, slots, load time and memory, and no model behind them.

It ships with the product for demonstrations, tests and benchmarks: routing, queues and failures
behave as with a real machine of those numbers, on any machine, at any speed. Its records and its
answers say that they are emulated.

It remembers the prompts of its last conversations, `CONVERSATIONS_PER_SLOT` for each slot: what a
prompt shares with one of them takes no time, is counted as cached, and is told in the load report.

Time passes for real. A job waits for a slot, first come first served; its prompt takes
`tokens / prompt_tps` seconds, then words come at `generation_tps`. A slot's speed does not depend
on the other slots. Words that fell due together leave together, so speeds beyond what a timer can
resolve are kept on average.

The model is cold at first; loading takes `load_s`. A job for a cold model loads it.

An extra field `ignore_eos` (known from llama.cpp and vLLM) makes an answer run to `max_tokens`.

What it says is free text, or what the request asks for: calls of tools, thoughts, JSON of a schema.
`script` says how, and how a question can direct its own answer.

Faults, on every `fault_every`-th job after `fault_after` tokens, as the SPEC says or as `misbehave`
changed it since, and on single jobs whose script asks for one:
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
from collections.abc import Sequence
from contextlib import aclosing

from meshd.core.ports import EngineError, EventStream, Note
from meshd.core.routing.prefix import CachedPrefixes, Cut, cuts_of
from meshd.core.stats import SpeedMeter
from meshd.engine import prose
from meshd.engine.effigies import ability_of
from meshd.engine.failures import failure_of
from meshd.engine.playback import Playback
from meshd.engine.script import Fault, ScriptError, fault_of
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Event, Failure, Finish, Job
from protocol.load import ModelLoad, ModelRecord

QUEUE_MAX = 1_024
"""Jobs that may wait for a slot; beyond it they are refused."""

RETRY_AFTER_S = 1.0
"""Asked of those who are refused."""

CONVERSATIONS_PER_SLOT = 4
"""Prompts in the cache: a server with room for its running conversations and a few idle ones."""

GIGABYTE = 1_000_000_000


class EmulatedEngine:
    """`Engine` for one model that does not exist."""

    def __init__(self, spec: EmulatedSpec) -> None:
        self.name = f"emulated {spec.name}".rstrip()
        self._spec = spec
        self._slots = asyncio.Semaphore(spec.slots)
        self._warm_at = math.inf
        """Monotonic seconds at which the load ends; infinite while nobody asked for one."""
        self._fault = Fault(spec.fault, spec.fault_after)
        self._fault_every = spec.fault_every
        self._jobs = 0
        self._running = 0
        self._started = 0
        self._meter = SpeedMeter()
        self._prefixes = CachedPrefixes(spec.slots * CONVERSATIONS_PER_SLOT)
        self._record = ModelRecord(
            model_id=spec.model,
            engine=self.name,
            context_length=spec.ctx,
            quantisation="",
            capabilities=tuple(dict.fromkeys(("chat", "completion", "tools", *spec.can))),
            size_bytes=int(spec.memory_gb * GIGABYTE),
            fingerprint=f"emulated-{spec.model}",
            emulated=True,
        )

    async def start(self) -> None:
        await self._warm()

    async def close(self) -> None:
        self._warm_at = math.inf
        self._prefixes.clear()

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
                prefixes=self._prefixes.digest(),
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

    def misbehave(self, kind: str, after_tokens: int = 0, every: int = 1) -> None:
        """From the next job on, every `every`-th one suffers this fault; empty `kind`: none."""
        self._fault, self._fault_every, self._started = Fault(kind, after_tokens), every, 0

    def generate(self, job: Job) -> EventStream:
        return self._generate(job)

    async def _generate(self, job: Job) -> EventStream:
        fault = fault_of(job, self._spec.name) or self._next_fault()
        refusal = self._refusal(job, fault)
        if refusal is not None:
            yield [refusal]
            return
        try:
            answer = Playback(self._spec, job, fault)
        except ScriptError as error:
            yield [failure_of("bad_request", str(error), elsewhere=False, param=error.param)]
            return
        arrived = time.monotonic()
        self._jobs += 1
        try:
            async with self._slots:
                self._running += 1
                try:
                    await self._warm()
                    cuts = cuts_of(job)
                    cached = self._prefixes.held_ratio(cuts)
                    stream = answer.play(cached, time.monotonic() - arrived)
                    async with aclosing(stream) as batches:
                        async for events in batches:
                            self._learn(events[-1], cuts)
                            yield events
                finally:
                    self._running -= 1
        finally:
            self._jobs -= 1

    def _learn(self, last: Event | Note, cuts: Sequence[Cut]) -> None:
        if isinstance(last, Finish):
            self._meter.observe(last)
            self._prefixes.served(cuts)

    def _next_fault(self) -> Fault:
        self._started += 1
        return Fault() if self._started % self._fault_every else self._fault

    def _refusal(self, job: Job, fault: Fault) -> Failure | None:
        if job.model != self._spec.model:
            return failure_of(
                "model_not_found", f"this engine has no model {job.model!r}", elsewhere=True
            )
        refusal = self._inability(job)
        if refusal is not None:
            return refusal
        if fault.kind == "refuse" or self._jobs >= self._spec.slots + QUEUE_MAX:
            return failure_of(
                "overloaded",
                "this emulated machine takes no more work now; try again later",
                elsewhere=True,
                retry_after_s=RETRY_AFTER_S,
            )
        size = prose.prompt_tokens(job)
        if size >= self._spec.ctx:
            return failure_of(
                "context_length_exceeded",
                f"the prompt is about {size} tokens long, and {job.model} has a context of "
                f"{self._spec.ctx} tokens here, answer included; shorten the prompt",
                elsewhere=False,
                param="messages" if job.kind == "chat" else "prompt",
            )
        return None

    def _inability(self, job: Job) -> Failure | None:
        can = self._record.capabilities
        if prose.has_pictures(job) and "vision" not in can:
            message = f"{job.model} reads text only, and the messages hold a picture"
            return failure_of("bad_request", message, elsewhere=False, param="messages")
        needed = job.kind if job.raw is None else ability_of(job.raw.path)
        if needed in can:
            return None
        what = job.kind if job.raw is None else job.raw.path
        hint = f"; its SPEC would have to say can={needed}" if needed else ""
        message = f"{job.model} is an emulated model that cannot serve {what}{hint}"
        return failure_of("unsupported", message, elsewhere=True)

    async def _warm(self) -> None:
        """Wait until it is loaded; a loop's timer may go off up to a millisecond early."""
        warm_at = self._warm_at = min(self._warm_at, time.monotonic() + self._spec.load_s)
        while (missing_s := warm_at - time.monotonic()) > 0:  # noqa: ASYNC110 - time is awaited
            await asyncio.sleep(missing_s)

    def _check_known(self, model_id: str) -> None:
        if model_id != self._spec.model:
            raise EngineError(f"this engine has no model {model_id!r}")
