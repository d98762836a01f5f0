"""Two models on a machine of 10 GB that has room for one: they take turns, and nobody starves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from meshd.core.residency import turns
from meshd.engine import foyer
from meshd.engine.offers import Offers
from meshd.engine.residency import ResidentEngine
from protocol.jobs import Failure, Finish, Job, Queued
from protocol.load import ModelLoad
from tests.engine.test_residency import Desk, ask, desk, ending, housed, until, warm

__all__ = ["desk", "housed"]

ANSWER_TOKENS = 10
TPS = 1000
"""An answer takes 10 ms."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds among people takes milliseconds here."""
    monkeypatch.setattr(turns, "GRACE_S", 0.02)
    monkeypatch.setattr(turns, "LULL_S", 0.02)
    monkeypatch.setattr(turns, "STRETCH_S", 0.1)
    monkeypatch.setattr(foyer, "LOOK_S", 0.01)


@pytest.fixture
def pair(desk: Desk, housed):
    """`a` and `b`, of which one fits."""
    return lambda **housing: housed(
        desk.lodger("a", 6, tps=TPS), desk.lodger("b", 6, tps=TPS), **housing
    )


def long(model: str, tokens: int) -> Job:
    """Its answer takes a millisecond for each token."""
    return replace(ask(model, tokens), extras={"ignore_eos": True})


async def keep_asking(engine: ResidentEngine, model: str, served: list[str]) -> None:
    """An agent: the next question comes with the answer."""
    while True:
        last = await ending(engine, long(model, ANSWER_TOKENS))
        assert isinstance(last, Finish)
        served.append(model)


def told(engine: ResidentEngine, model: str) -> ModelLoad:
    return next(load for load in engine.stats() if load.model_id == model)


async def asking(engine: ResidentEngine, served: list[str], *models: str) -> list[asyncio.Task]:
    """Each of these models is asked all the time by somebody."""
    return [asyncio.create_task(keep_asking(engine, model, served)) for model in models]


def changes(served: list[str]) -> int:
    """How often another model answered than before."""
    return sum(one != other for one, other in pairwise(served))


async def dismissed(tasks: list[asyncio.Task]) -> None:
    """They go in the middle of whatever they do."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def waits(
    engine: ResidentEngine, job: Job, *, tokens: int = 300
) -> tuple[asyncio.Task, asyncio.Task]:
    """`a` gives an answer of so many tokens, and this job waits for its memory: both endings."""
    running = asyncio.create_task(ending(engine, long("a", tokens)))
    await until(lambda: "a" in warm(engine))
    waiting = asyncio.create_task(ending(engine, job))
    await until(lambda: bool(engine.waits()))
    return running, waiting


async def test_a_model_that_is_busy_all_day_gives_way(pair, desk: Desk) -> None:
    """To a request for another, which waits and is told so; nothing is ended for it, and what runs
    or comes for the first is answered as well."""
    served: list[str] = []
    async with pair() as engine:
        agents = await asking(engine, served, "a", "a")
        await until(lambda: len(served) >= 2)
        heard = []
        async with aclosing(engine.generate(ask("b"))) as stream:
            async for batch in stream:
                heard += batch
        assert isinstance(heard[0], Queued)
        assert heard[0].position == 1
        assert heard[0].wait_s > 0
        assert isinstance(heard[-1], Finish)
        assert heard[-1].queue_s > 0.02
        count = len(served)
        await until(lambda: len(served) > count)
        await dismissed(agents)
        assert desk.most_taken <= 9e9


async def test_two_busy_models_alternate(pair) -> None:
    """Nobody waits for ever, whoever came first."""
    served: list[str] = []
    async with pair() as engine:
        agents = await asking(engine, served, "a", "b")
        await until(lambda: changes(served) >= 3)
        await dismissed(agents)


async def test_who_came_in_serves_for_a_stretch(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several answers, while the other waits: they do not change places at every request."""
    monkeypatch.setattr(turns, "STRETCH_S", 30.0)
    served: list[str] = []
    async with pair() as engine:
        agents = await asking(engine, served, "a", "b")
        await until(lambda: len(served) >= 16)
        await dismissed(agents)
    assert changes(served) == 1


async def test_who_leaves_the_line_stops_nobody(pair) -> None:
    """Its model is not loaded, and the one in the way goes on."""
    served: list[str] = []
    async with pair() as engine:
        agents = await asking(engine, served, "a")
        await until(lambda: len(served) > 0)
        stream = engine.generate(ask("b"))
        assert isinstance((await anext(stream))[0], Queued)
        await stream.aclose()
        assert engine.waits() == []
        count = len(served)
        await until(lambda: len(served) >= count + 3)
        assert warm(engine) == {"a"}
        await dismissed(agents)


async def test_what_is_waited_for_is_said(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """To people by name; to routing as the time that a load takes, of the model that waits and of
    the one that gives way."""
    monkeypatch.setattr(turns, "STRETCH_S", 30.0)
    async with pair() as engine:
        running = asyncio.create_task(ending(engine, long("a", 200)))
        await until(lambda: "a" in warm(engine))
        plain_s = told(engine, "b").load_s
        first = asyncio.create_task(ending(engine, ask("b")))
        await until(lambda: told(engine, "a").load_s > 30.0)
        second = asyncio.create_task(ending(engine, ask("a")))
        await until(lambda: len(engine.waits()) == 2)
        rows = {row["model"]: row for row in Offers([engine]).waits()}
        assert (rows["a"]["behind"], rows["b"]["behind"]) == (["b"], ["a"])
        assert (rows["a"]["waiting"], rows["b"]["waiting"]) == (1, 1)
        assert told(engine, "b").load_s >= plain_s + turns.DRAIN_GUESS_S
        assert (told(engine, "a").warm, told(engine, "a").queued) == (False, 1)
        await dismissed([running, second])
        assert isinstance(await first, Finish)
        assert told(engine, "a").load_s < 30.0 + 2 * turns.DRAIN_GUESS_S


async def test_nobody_waits_longer_than_is_allowed(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is 503, with a word about what was waited for; a batch job has more time, and stops
    others when it has given way for long."""
    monkeypatch.setattr(turns, "BATCH_PATIENCE_S", turns.GRACE_S)
    async with pair(wait_max_s=0.05) as engine:
        job = replace(ask("b"), priority="batch")
        running, patient = await waits(engine, job, tokens=500)
        await asyncio.sleep(turns.GRACE_S)
        for refused in await asyncio.gather(ending(engine, ask("b")), ending(engine, ask("a"))):
            assert isinstance(refused, Failure)
            assert (refused.code, refused.elsewhere) == ("overloaded", True)
            assert "this request has waited for" in refused.message
        assert isinstance(await running, Finish)
        assert isinstance(await patient, Finish)


async def test_who_is_next_is_not_sent_away(pair) -> None:
    """An answer in its way takes longer than anybody may wait, and ends: who came back after a 503
    would find the next one."""
    async with pair(wait_max_s=0.1) as engine:
        running, waiting = await waits(engine, ask("b"), tokens=250)
        assert isinstance(await waiting, Finish)
        assert isinstance(await running, Finish)


async def test_a_pin_while_somebody_waits_ends_the_wait(pair) -> None:
    """Waiting would not help any more: 507, with the sum."""
    async with pair() as engine:
        running, waiting = await waits(engine, ask("b"))
        await engine.pin("a")
        last = await waiting
        assert isinstance(last, Failure)
        assert last.code == "insufficient_memory"
        assert isinstance(await running, Finish)


async def test_closing_sends_away_who_waits(pair) -> None:
    """With a word."""
    async with pair() as engine:
        running, waiting = await waits(engine, ask("b"), tokens=5000)
        await engine.close()
        last = await waiting
        await dismissed([running])
    assert isinstance(last, Failure)
    assert "closed" in last.message


async def test_the_owners_force_is_no_waiting_requests_load(pair) -> None:
    """A request may be trying to load the same model at that moment, and be refused."""
    async with pair() as engine:
        running = asyncio.create_task(ending(engine, long("a", 200)))
        await until(lambda: "a" in warm(engine))
        async with engine._turn:
            waiting = asyncio.create_task(ending(engine, ask("b")))
            await until(lambda: engine._places["b"].loading is not None)
            forced = asyncio.create_task(engine.load("b", force=True))
            await asyncio.sleep(0)
        await forced
        assert warm(engine) == {"a", "b"}
        assert isinstance(await waiting, Finish)
        assert isinstance(await running, Finish)


async def test_who_became_busy_while_another_made_room_is_waited_for(desk: Desk, housed) -> None:
    """Two are to go for a third: one that is asked something while the other goes stays, and the
    third is not loaded beside it."""
    desk.close_s = 0.05
    a, b, c = desk.lodger("a", 4), desk.lodger("b", 4, tps=TPS), desk.lodger("c", 8)
    async with housed(a, b, c) as engine:
        await engine.load("a")
        await engine.load("b")
        coming = asyncio.create_task(ending(engine, ask("c")))
        await until(lambda: engine._places["a"].is_leaving)
        running = asyncio.create_task(ending(engine, long("b", 100)))
        assert isinstance(await running, Finish)
        assert isinstance(await coming, Finish)
    assert desk.most_taken <= 9e9


async def test_any_place_that_is_enough_is_taken(desk: Desk, housed) -> None:
    """Two busy models are in the way and one place is enough: of that which is done first."""
    a, b, c = (desk.lodger(name, 4.5, tps=TPS) for name in "abc")
    async with housed(a, b, c) as engine:
        slow, quick = [asyncio.create_task(ending(engine, long(*each)))
                       for each in (("a", 10_000), ("b", 100))]  # fmt: skip
        await until(lambda: warm(engine) == {"a", "b"})
        assert isinstance(await ending(engine, ask("c")), Finish)
        assert quick.done()
        assert not slow.done()
        await dismissed([slow])


async def test_a_load_is_not_silent(desk: Desk, housed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for one, or behind that of another model, is told so again and again, and about
    how long: the loads of both."""
    monkeypatch.setattr(foyer, "REASSURE_S", 0.01)
    desk.load_s = 0.1
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4)) as engine:
        for model in "ab":
            engine._places[model].load_s = 10.0
        first = asyncio.create_task(ending(engine, ask("a")))
        await until(lambda: engine._places["a"].loading is not None)
        heard = []
        async with aclosing(engine.generate(ask("b"))) as stream:
            async for batch in stream:
                heard += [event for event in batch if isinstance(event, Queued)]
        assert isinstance(await first, Finish)
    assert len(heard) >= 4
    assert 19.0 < heard[0].wait_s < 20.0


def batch(job: Job) -> Job:
    """It has time."""
    return replace(job, priority="batch")


async def test_a_batch_job_stops_nobody(pair) -> None:
    """It comes in when nobody asks any more, and is told how long that may be; who asks for its
    model is not."""
    served: list[str] = []
    async with pair() as engine:
        agents = await asking(engine, served, "a", "a")
        await until(lambda: len(served) > 0)
        async with aclosing(engine.generate(batch(ask("b")))) as stream:
            (word,) = await anext(stream)
            assert isinstance(word, Queued)
            assert told(engine, "b").load_s < 30.0 < 50.0 < word.wait_s
        waiting = asyncio.create_task(ending(engine, batch(ask("b"))))
        await until(lambda: bool(engine.waits()))
        count = len(served)
        await until(lambda: len(served) > count + 10)
        assert warm(engine) == {"a"}
        await dismissed(agents)
        assert isinstance(await waiting, Finish)


async def test_batch_jobs_leave_room_for_who_waits_beside_them(pair) -> None:
    """Of five jobs for four slots of their model the question came last, and is not served so."""
    done: list[str] = []
    async with pair() as engine:
        running, first = await waits(engine, batch(long("b", 50)), tokens=10_000)
        place = engine._places["b"]
        jobs = [first]
        jobs += [asyncio.create_task(ending(engine, batch(long("b", 50)))) for _ in range(3)]
        await until(lambda: place.held == 4)
        jobs.append(asyncio.create_task(ending(engine, long("b", 50))))
        for task, name in zip(jobs, ("batch",) * 4 + ("question",), strict=True):
            task.add_done_callback(lambda _, name=name: done.append(name))
        await until(lambda: place.held == 5)
        await dismissed([running])
        assert all(isinstance(each, Finish) for each in await asyncio.gather(*jobs))
        assert done.index("question") < 4


async def test_wanted_models_do_not_put_one_another_out_at_the_start(
    desk: Desk, housed, caplog: pytest.LogCaptureFixture
) -> None:
    """Of those that do not fit together the first that the owner named is warm, and the next has
    its turn when it is asked for."""
    a, b = desk.lodger("a", 6, wanted=True), desk.lodger("b", 6, wanted=True)
    async with housed(a, b) as engine:
        assert warm(engine) == {"a"}
        assert "not loaded until there is room: b needs 6.00 GB" in caplog.text
        assert isinstance(await ending(engine, ask("b")), Finish)
        assert warm(engine) == {"b"}
