"""How a visit ends from outside: draining, moving on, closing, and the cancellations in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from meshd.core.ports import EventStream
from protocol.jobs import Failure, Finish, Job, ReasoningDelta, ToolCallDelta
from tests.core.routing.fleet import chat
from tests.intake_house import DONE, WAIT_S, WORD, House, open_house, settled


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """One slot."""
    async with open_house() as made:
        yield made


async def test_a_draining_node_takes_nothing_and_sends_away_who_waits(house: House) -> None:
    """With a word that lets the asker try elsewhere; what can go nowhere is let finish."""
    running, waiting = await house.ask("r1"), await house.ask("r2")
    house.intake.drain()
    late = await house.ask("r3")
    await asyncio.gather(waiting.task, late.task)
    assert (waiting.failure, late.failure) == ("draining", "draining")
    house.engine.say("r1", [WORD, DONE])
    await running.task
    assert running.events == [WORD, DONE]
    assert house.intake.idle.is_set()


async def test_what_another_node_can_carry_on_is_broken_off(house: House) -> None:
    """In the middle of the wait for a word; nothing that was said is lost."""
    running = await house.ask("r1")
    house.engine.say("r1", [WORD])
    await settled()
    house.elsewhere = True
    house.intake.drain()
    await running.task
    assert running.events[0] == WORD
    assert running.failure == "draining"
    assert not running.task.cancelled()
    assert running.task.cancelling() == 0
    assert house.engine.closed == ["r1"]


async def test_only_what_fits_elsewhere_is_broken_off(house: House) -> None:
    """A conversation that has outgrown the others' contexts would end there in an error."""
    house.engine.state = replace(house.engine.state, slots=2)
    house.intake.stats(house.engine.stats())
    short, long = await house.ask("r1", text="hello"), await house.ask("r2", text="x" * 4_000)
    house.elsewhere, house.room_elsewhere = True, 1_000
    house.intake.drain()
    await short.task
    assert short.failure == "draining"
    house.engine.say("r2", [WORD, DONE])
    await long.task
    assert long.events == [WORD, DONE]


async def test_between_two_words_the_next_one_is_the_end(house: House) -> None:
    """Nobody waits at that moment, so nobody is woken."""
    stream = house.stream(chat(request_id="r1"))
    reading = asyncio.ensure_future(anext(stream))
    await settled()
    house.engine.say("r1", [WORD])
    assert await reading == [WORD]
    house.elsewhere = True
    house.intake.drain()
    (failure,) = await anext(stream)
    assert isinstance(failure, Failure)
    assert failure.code == "draining"
    assert [batch async for batch in stream] == []
    await settled()
    assert house.engine.closed == ["r1"]


async def test_a_thought_is_carried_on_like_what_is_said(house: House) -> None:
    """It moves at once, instead of being thought to its end by a machine that is to go."""
    running = await house.ask("r1")
    house.engine.say("r1", [ReasoningDelta("hm")])
    await settled()
    house.elsewhere = True
    house.intake.drain()
    await running.task
    assert running.failure == "draining"


async def test_what_nobody_can_carry_on_is_let_finish(house: House) -> None:
    """A tool call half said."""
    event = ToolCallDelta(0, "c", "f", "{")
    running = await house.ask("r1")
    house.engine.say("r1", [event])
    await settled()
    house.elsewhere = True
    house.intake.drain()
    await settled()
    house.engine.say("r1", [DONE])
    await running.task
    assert running.events == [event, DONE]


async def test_a_node_that_appears_while_draining_gets_what_is_left(house: House) -> None:
    """Looked for again and again."""
    running = await house.ask("r1")
    house.intake.drain()
    house.elsewhere = True
    house.intake.move_on()
    await running.task
    assert running.failure == "draining"


async def test_nothing_is_let_finish_for_ever(
    monkeypatch: pytest.MonkeyPatch, house: House
) -> None:
    """After a time it ends here whatever becomes of it."""
    monkeypatch.setattr("meshd.intake.DRAIN_FINISH_MAX_S", 0.01)
    running = await house.ask("r1")
    house.intake.drain()
    house.intake.drain()
    await asyncio.wait_for(running.task, WAIT_S)
    assert running.failure == "draining"


async def test_a_node_that_resumes_takes_work_and_breaks_nothing_off(house: House) -> None:
    """What was let finish goes on."""
    running = await house.ask("r1")
    house.intake.drain()
    house.intake.resume()
    house.elsewhere = True
    house.intake.move_on()
    waiting = await house.ask("r2")
    house.engine.say("r1", [DONE])
    await running.task
    await settled()
    house.engine.say("r2", [DONE])
    await waiting.task
    assert [type(each.events[-1]) for each in (running, waiting)] == [Finish, Finish]


async def test_a_client_that_leaves_while_it_is_sent_away_has_left(house: House) -> None:
    """Two cancellations at once: the one from outside wins."""
    running = await house.ask("r1")
    house.elsewhere = True
    house.intake.drain()
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    assert running.task.cancelled()
    assert house.engine.closed == ["r1"]


async def test_an_engine_that_answers_its_own_cancellation_is_heard(house: House) -> None:
    """And its reader is not left half cancelled."""

    async def stubborn(_job: Job) -> EventStream:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            yield [DONE]

    house.engine.generate = stubborn  # type: ignore[method-assign, assignment]
    running = await house.ask("r1")
    house.elsewhere = True
    house.intake.drain()
    await running.task
    assert running.events == [DONE]
    assert running.task.cancelling() == 0


async def test_closing_waits_for_the_last_answer_and_not_longer(house: House) -> None:
    """The same as a drain, with a limit."""
    running, other = await house.ask("r1"), await house.ask("r2")
    closing = asyncio.ensure_future(house.intake.close(WAIT_S))
    await other.task
    assert not closing.done()
    house.engine.say("r1", [DONE])
    await asyncio.wait_for(closing, WAIT_S)
    assert running.events == [DONE]
    assert other.failure == "draining"
