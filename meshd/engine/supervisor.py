"""An engine with a worker process, daemon side: one model, one process, any number of askers.

What differs between llama.cpp and MLX (the module that the process runs, and how a model on the
disk is read for its facts) is said by a subclass; everything else is the same for both.

The owner task `_supervise` keeps the process alive: start, pump, and when it dies: fail what was
running in it at once (another machine can carry on), wait, start again. `crashes` says how long to
wait and when to stop trying; a model that was set aside is no longer announced.

A job that arrives while the model loads waits for it. Jobs go to the worker as they come, and queue
there; at most `QUEUE_MAX` of them, so that a flood is refused here and not in the worker's memory.
Text comes back through a `Mailbox` for each job: what gathered while the asker was busy leaves as
one batch, and no more can gather than the context has tokens.

This process imports neither llama.cpp, nor MLX, nor numpy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from meshd.core.ports import ENDINGS, Batch, EngineError, EventStream
from meshd.core.residency.offload import ALL_LAYERS
from meshd.core.routing.prefix import CachedPrefixes, cuts_of
from meshd.core.stats import SpeedMeter, load_guess_s
from meshd.engine import frames
from meshd.engine.child import WorkerProcess
from meshd.engine.crashes import CrashRecord
from meshd.engine.failures import failure_of
from meshd.engine.frames import WorkerFacts
from meshd.engine.gguf import inspect
from meshd.engine.heads import ModelHead
from meshd.engine.mailbox import Mailbox
from meshd.engine.names import model_name
from protocol.errors import ProtocolError
from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Finish, Job
from protocol.load import ModelLoad, ModelRecord

LOG = logging.getLogger(__name__)

QUEUE_MAX = 256
"""Jobs that may wait for a slot. At ten seconds each on four slots that is ten minutes: beyond it
an honest refusal is kinder."""

RETRY_AFTER_S = 5.0
"""Asked of those who are refused: about one job's time."""

CLOSED = "this engine was closed"


@frozen
class WorkerOptions:
    """How to run the model. 0 means: choose for me. Only llama.cpp heeds `threads` and
    `gpu_layers`, the layers that go to graphics cards: ALL_LAYERS for whatever chip there is."""

    context: int = 0
    slots: int = 4
    threads: int = 0
    model_id: str = ""
    gpu_layers: int = ALL_LAYERS


@dataclass(slots=True)
class _State:
    """Where the worker is in its life."""

    process: WorkerProcess | None = None
    facts: WorkerFacts | None = None
    broken: str = ""
    """Why there will be no worker until somebody asks for one; empty while there may be."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the model is warm or broken: whoever waits for a load waits for this."""

    def give_up(self, why: str) -> None:
        """Release everybody who waits, with the reason."""
        self.facts, self.broken = None, why
        self.settled.set()


class WorkerEngine:
    """`Engine` for one model that a worker process runs."""

    name = ""
    module: ClassVar[str]
    """What the process runs: `python -m`."""

    def __init__(self, path: Path, options: WorkerOptions | None = None) -> None:
        self._path = path
        self._options = options or WorkerOptions()
        self._record: ModelRecord | None = None
        self._state = _State()
        self._owner: asyncio.Task[None] | None = None
        self._gate = asyncio.Lock()
        """Held while a process is being stopped: the next one is started after it."""
        self._crashes = CrashRecord()
        self._meter = SpeedMeter()
        self._load_s = 0.0
        self._mailboxes: dict[int, Mailbox] = {}
        """Of the jobs that the worker was given."""
        self._jobs = 0
        """Those, and the ones that wait for a load."""
        self._keys = 0
        self._prefixes = CachedPrefixes(self._options.slots)

    def inspect(self, path: Path) -> ModelHead:
        """Read the model's facts from the disk, in a thread. Raises EngineError."""
        raise NotImplementedError

    def title(self, path: Path) -> str:
        """What people call the model, quantisation and all: an alias of its id."""
        return path.stem

    async def start(self) -> None:
        """Returns when the model is warm; health and other engines need not wait for this."""
        head = await asyncio.to_thread(self.inspect, self._path)
        stem = self.title(self._path)
        model_id = self._options.model_id or model_name(stem)
        self._load_s = load_guess_s(head.size_bytes)
        self._record = ModelRecord(
            model_id=model_id,
            engine=self.name,
            aliases=(stem,) if stem != model_id else (),
            context_length=self._options.context or head.context_length,
            quantisation=head.quantisation,
            capabilities=("chat", "completion"),
            size_bytes=head.size_bytes,
            fingerprint=head.fingerprint,
        )
        await self.load(model_id)

    async def close(self) -> None:
        await self._stop(CLOSED)
        self._state.give_up(CLOSED)

    def models(self) -> Sequence[ModelRecord]:
        if self._record is None or self.trouble:
            return ()
        return (self._record,)

    def stats(self) -> Sequence[ModelLoad]:
        if self._record is None or self.trouble:
            return ()
        slots = self._options.slots
        in_flight, queued = min(self._jobs, slots), max(0, self._jobs - slots)
        warm = self._state.facts is not None
        return (
            ModelLoad(
                model_id=self._record.model_id,
                warm=warm,
                slots=slots,
                in_flight=in_flight,
                queued=queued,
                backlog_s=self._meter.backlog_s(in_flight, queued, slots),
                prompt_tps=self._meter.prompt_tps,
                generation_tps=self._meter.generation_tps,
                load_s=0.0 if warm else self._load_s,
                prefixes=self._prefixes.digest(),
            ),
        )

    async def load(self, model_id: str) -> None:
        """Also gives a model that was set aside another chance."""
        self._check_known(model_id)
        if self._state.broken:
            await self._stop("another try was asked for")
        await self._warm()

    async def unload(self, model_id: str) -> None:
        self._check_known(model_id)
        if self._jobs:
            raise EngineError(f"{model_id} is busy: {self._jobs} requests are running or waiting")
        await self._stop(f"{model_id} was unloaded")

    def generate(self, job: Job) -> EventStream:
        return self._generate(job)

    def cached_prefixes(self, model_id: str) -> bytes:
        """What the model's cache holds, as `core.routing.prefix` tells it; empty for nothing."""
        known = self._record is not None and self._record.model_id == model_id
        return self._prefixes.digest() if known else b""

    @property
    def worker_pid(self) -> int | None:
        """The process that holds the model, for people and tests."""
        return self._state.process.pid if self._state.process else None

    @property
    def trouble(self) -> str:
        """Why there will be no worker until somebody asks for one; empty while there may be."""
        return self._state.broken

    async def _generate(self, job: Job) -> EventStream:
        refusal = self._refusal(job)
        if refusal is not None:
            yield [refusal]
            return
        self._keys += 1
        key, mailbox = self._keys, Mailbox()
        self._jobs += 1
        is_over = False
        try:
            failure = await self._submit(key, job, mailbox)
            if failure is not None:
                is_over = True
                yield [failure]
            while not is_over:
                batch = await mailbox.take()
                is_over = _is_last(batch)
                if isinstance(batch[-1], Finish):
                    self._prefixes.served(cuts_of(job))
                yield batch
        finally:
            self._jobs -= 1
            self._mailboxes.pop(key, None)
            if not is_over and self._state.process is not None:
                self._state.process.send(frames.frame(frames.CANCEL, key))

    def _refusal(self, job: Job) -> Failure | None:
        record = self._record
        if record is None or job.model not in {record.model_id, *record.aliases}:
            return failure_of(
                "model_not_found", f"this engine has no model {job.model!r}", elsewhere=True
            )
        if self._state.broken:
            return failure_of("engine_failed", self._state.broken, elsewhere=True)
        if self._jobs >= self._options.slots + QUEUE_MAX:
            return failure_of(
                "overloaded",
                f"{QUEUE_MAX} requests already wait for {record.model_id} on this machine",
                elsewhere=True,
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    async def _submit(self, key: int, job: Job, mailbox: Mailbox) -> Failure | None:
        """Hand a job to the worker, loading it first where need be."""
        try:
            frame = frames.job_frame(key, job)
            await self._warm()
        except ProtocolError as error:
            return failure_of("bad_request", f"the request is malformed: {error}", elsewhere=False)
        except EngineError as error:
            return failure_of("engine_failed", str(error), elsewhere=True)
        if self._state.process is None:
            return _lost("it was gone before the request reached it")
        self._mailboxes[key] = mailbox
        self._state.process.send(frame)
        return None

    async def _warm(self) -> None:
        """Returns when the worker answers. Raises EngineError when it never will."""
        async with self._gate:
            state = self._state
            if self._owner is None and not state.broken:
                work = self._supervise(state)
                self._owner = asyncio.create_task(work, name=f"engine: {self.name}")
        await state.settled.wait()
        if state.broken:
            raise EngineError(state.broken)

    async def _supervise(self, state: _State) -> None:
        """Owns the process. Ends when the model cannot be loaded or is set aside."""
        options = self._options
        wanted = (options.context, options.slots, options.threads, options.gpu_layers)
        first = frames.frame(frames.OPEN, str(self._path), *wanted)
        try:
            while not state.broken:
                process = state.process = WorkerProcess(self._receive, self.module)
                why = await process.run(first)
                state.process = None
                if not state.broken:
                    await self._after_crash(why)
        except OSError as error:
            self._give_up(f"the worker process cannot be started: {error}")
        finally:
            state.process = None
            if not state.broken:
                state.give_up("the engine was stopped")

    async def _after_crash(self, why: str) -> None:
        was_warm = self._state.facts is not None
        self._state.facts = None
        self._state.settled.clear()
        self._prefixes.clear()
        self._fail_all(_lost(why))
        pause = self._crashes.crashed(asyncio.get_running_loop().time())
        if pause is None:
            self._give_up(
                f"{self._path.name} is set aside: its worker process ended again and again, "
                f"and last because {why}"
            )
            return
        stage = "while it was serving" if was_warm else "while it was loading"
        lost = "%s: worker lost %s: %s; next try in %.2f s"
        LOG.warning(lost, self._path.name, stage, why, pause)
        await asyncio.sleep(pause)
        await self._look_again()

    async def _look_again(self) -> None:
        """The file may have been replaced, or be gone, since the lost process loaded it."""
        assert self._record is not None
        try:
            head = await asyncio.to_thread(self.inspect, self._path)
        except EngineError as error:
            self._give_up(str(error))
            return
        self._record = replace(
            self._record,
            quantisation=head.quantisation,
            size_bytes=head.size_bytes,
            fingerprint=head.fingerprint,
        )

    def _receive(self, values: list[Any]) -> None:
        kind = values[0]
        if kind == frames.EVENTS_OUT:
            for key, listed in values[1]:
                self._deliver(key, frames.read_events(listed))
        elif kind == frames.READY:
            self._warmed(frames.read_facts(values))
        elif kind == frames.BROKEN:
            self._give_up(values[1])

    def _deliver(self, key: int, events: tuple[Event, ...]) -> None:
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            return
        mailbox.put(events)
        last = events[-1]
        if isinstance(last, Finish):
            self._meter.observe(last)

    def _warmed(self, facts: WorkerFacts) -> None:
        assert self._record is not None
        self._state.facts = facts
        self._load_s = facts.load_s
        self._meter.calibrate(facts.prompt_tps, facts.generation_tps)
        self._record = replace(
            self._record,
            context_length=facts.context_length,
            capabilities=facts.capabilities,
        )
        self._state.settled.set()

    def _give_up(self, why: str) -> None:
        LOG.error("%s: %s", self.name, why)
        self._state.give_up(why)
        self._fail_all(failure_of("engine_failed", why, elsewhere=True))

    def _fail_all(self, failure: Failure) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.put((failure,))

    async def _stop(self, why: str) -> None:
        """End the process, and whoever still waits for it; the next load begins afresh."""
        async with self._gate:
            owner, self._owner = self._owner, None
            if owner is not None:
                owner.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await owner
            self._fail_all(failure_of("engine_failed", why, elsewhere=True))
            self._state.give_up(why)
            self._state = _State()
        self._crashes.clear()
        self._prefixes.clear()

    def _check_known(self, model_id: str) -> None:
        if self._record is None or self._record.model_id != model_id:
            raise EngineError(f"this engine has no model {model_id!r}")


class LlamaEngine(WorkerEngine):
    """`Engine` for one GGUF file."""

    name = "llamacpp"
    module = "meshd.engine.worker"

    def inspect(self, path: Path) -> ModelHead:
        """Read the file's own head. Raises EngineError."""
        return inspect(path)


def _is_last(batch: Batch) -> bool:
    return type(batch[-1]) in ENDINGS


def _lost(why: str) -> Failure:
    return failure_of(
        "engine_failed",
        f"the model's worker process was lost in the middle of the request: {why}",
        elsewhere=True,
    )
