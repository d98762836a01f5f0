"""An intake in front of an engine that says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from meshd.core.ports import ENDINGS, Batch, EventStream
from meshd.core.routing.demand import demand_of
from meshd.intake import Intake
from protocol.jobs import Failure, Finish, Job, TextDelta
from protocol.load import ModelLoad
from tests.core.routing.fleet import chat, model_load

ANNA, BEN = "a" * 16, "b" * 16
DONE = Finish("stop", 10, 3, cached_tokens=4)
WORD = TextDelta("word ")
WAIT_S = 5.0
"""Longest that a test waits for what must come."""


class ScriptedEngine:
    """Answers each job with what the test hands it; knows which run and which were closed."""

    name = "scripted"

    def __init__(self, **changes: object) -> None:
        self.state = model_load(**changes)
        self.lines: dict[str, asyncio.Queue[Batch | None]] = {}
        self.running: list[str] = []
        self.closed: list[str] = []

    def stats(self) -> tuple[ModelLoad, ...]:
        return (replace(self.state, in_flight=len(self.running)),)

    def generate(self, job: Job) -> EventStream:
        return self._generate(job)

    async def _generate(self, job: Job) -> EventStream:
        line = self.lines[job.request_id] = asyncio.Queue()
        self.running.append(job.request_id)
        try:
            while (batch := await line.get()) is not None:
                yield batch
                if isinstance(batch[-1], ENDINGS):
                    return
        finally:
            self.running.remove(job.request_id)
            self.closed.append(job.request_id)

    def say(self, request_id: str, *batches: Batch | None) -> None:
        for batch in batches:
            self.lines[request_id].put_nowait(batch)


class Asking:
    """One job's stream, read by a task of its own."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self.events: list[object] = []
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async for batch in self.stream:
                self.events.extend(batch)
        finally:
            await self.stream.aclose()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def failure(self) -> str:
        """The code that it ended with."""
        last = self.events[-1]
        assert isinstance(last, Failure)
        assert last.elsewhere
        return last.code


class House:
    """An intake, its engine, and everybody who asks."""

    def __init__(self, **changes: object) -> None:
        self.engine = ScriptedEngine(**{"slots": 1, **changes})
        self.elsewhere = False
        self.room_elsewhere = 1_000_000
        self.intake = Intake(
            lambda visit: self.elsewhere and visit.tokens < self.room_elsewhere,
        )
        self.asked: list[Asking] = []

    async def ask(self, request_id: str, person: str = ANNA, **changes: object) -> Asking:
        """A job; returns when it runs, waits or is over."""
        job = chat(request_id=request_id, **changes)
        asking = Asking(self.stream(job, person))
        self.asked.append(asking)
        await settled()
        return asking

    def stream(self, job: Job, person: str = ANNA) -> EventStream:
        """The answer to a job, to be read by the test itself."""
        engine: Any = self.engine
        return self.intake.answer(engine, job, demand_of(job, job.model), person)

    @property
    def load(self) -> ModelLoad:
        """What the node would say of the model now."""
        (load,) = self.intake.stats(self.engine.stats())
        return load


async def settled() -> None:
    """Everything that can go on without the outside has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(claim: Callable[[], bool]) -> None:
    """Wait for what a timer brings."""
    async with asyncio.timeout(WAIT_S):
        while not claim():  # noqa: ASYNC110 - the claim is about what a reader has seen
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_house() -> AsyncIterator[House]:
    """One slot; at the end everybody has left and nothing runs."""
    made = House()
    yield made
    for asking in made.asked:
        await asking.leave()
    await asyncio.wait_for(made.intake.close(0.0), WAIT_S)
    assert made.intake.idle.is_set()
    assert made.engine.running == []
