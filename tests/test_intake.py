"""In front of the engines: slots, turns, refusals, leaving, and what the node says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from meshd.core.routing.admission import QUEUE_MAX
from meshd.core.routing.fairness import OUTPUT_WEIGHT
from protocol.jobs import Failure, Finish, Queued
from tests.core.routing.fleet import MODEL, chat
from tests.intake_house import (
    ANNA,
    BEN,
    DONE,
    WAIT_S,
    WORD,
    House,
    open_house,
    settled,
    until,
)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """One slot."""
    async with open_house() as made:
        yield made


# Slots and turns


async def test_an_answer_passes_through(house: House) -> None:
    """Batches as they come, to the end; then the slot is free."""
    asking = await house.ask("r1")
    house.engine.say("r1", [WORD], [WORD, DONE])
    await asking.task
    assert asking.events == [WORD, WORD, DONE]
    assert house.intake.idle.is_set()
    assert house.engine.closed == ["r1"]


async def test_a_batch_job_that_waits_in_its_engine_keeps_no_interactive_one_out(
    house: House,
) -> None:
    """For memory, say: who asks something meanwhile is not asked to wait for it here."""
    await house.ask("r1", priority="batch")
    await house.ask("r2", priority="batch")
    early = await house.ask("r3")
    assert house.engine.running == ["r1"]
    house.engine.say("r1", [Queued(1, 60.0)])
    await settled()
    assert house.engine.running == ["r1", "r3"]
    house.engine.say("r3", [DONE])
    await early.task
    await house.ask("r4")
    assert house.engine.running == ["r1", "r4"]


async def test_beyond_the_slots_jobs_wait_in_front_of_the_engine(house: House) -> None:
    """The engine sees one at a time; who waits is told where."""
    first, second = await house.ask("r1"), await house.ask("r2")
    assert house.engine.running == ["r1"]
    assert isinstance(second.events[0], Queued)
    assert second.events[0].position == 1
    house.engine.say("r1", [DONE])
    await first.task
    await settled()
    assert house.engine.running == ["r2"]
    house.engine.say("r2", [DONE])
    await second.task
    assert isinstance(second.events[-1], Finish)


async def test_an_account_says_how_long_its_job_waited(house: House) -> None:
    """Or whoever times the answer from outside takes the queue for a slow machine."""
    first, second = await house.ask("r1"), await house.ask("r2")
    await asyncio.sleep(0.05)
    house.engine.say("r1", [DONE])
    await first.task
    await settled()
    house.engine.say("r2", [WORD, replace(DONE, queue_s=1.0)])
    await second.task
    *_, word, last = second.events
    assert (word, first.events[-1]) == (WORD, DONE)
    assert isinstance(last, Finish)
    assert 1.05 <= last.queue_s < 1.0 + WAIT_S
    assert replace(last, queue_s=0.0) == DONE


async def test_a_slot_is_free_with_the_last_word_and_not_when_it_was_read(house: House) -> None:
    """A slow reader does not hold up the next in the queue."""
    stream = house.stream(chat(request_id="r1"))
    reading = asyncio.ensure_future(anext(stream))
    await settled()
    await house.ask("r2")
    house.engine.say("r1", [WORD, DONE])
    assert await reading == [WORD, DONE]
    await settled()
    assert "r2" in house.engine.running
    await stream.aclose()


async def test_people_take_turns(house: House) -> None:
    """Five of one before one of another: the one is next."""
    for number in range(5):
        await house.ask(f"a{number}", ANNA)
    await house.ask("b", BEN)
    house.engine.say("a0", [DONE])
    await settled()
    assert house.engine.running == ["b"]


async def test_the_rest_of_an_answer_goes_before_new_ones(house: House) -> None:
    """Its client has read the beginning already; where ids were given as where only text was."""
    for number in range(3):
        await house.ask(f"a{number}", ANNA)
    await house.ask("text", BEN, prefix_text="Once upon")
    await house.ask("ids", BEN, prefix_tokens=(1, 2))
    house.engine.say("a0", [DONE])
    await settled()
    assert house.engine.running == ["text"]
    house.engine.say("text", [DONE])
    await settled()
    assert house.engine.running == ["ids"]


async def test_work_is_charged_as_it_was(house: House) -> None:
    """Tokens that were really read and written; a cached prompt is no work."""
    asking = await house.ask("r1", max_tokens=200)
    house.engine.say("r1", [DONE])
    await asking.task
    took = (10 - 4) + OUTPUT_WEIGHT * 3
    assert house.intake.shares.counter(ANNA) == pytest.approx(took, rel=0.05)
    refused = await house.ask("r2", BEN)
    house.engine.say("r2", [Failure("engine_failed", "no", elsewhere=True)])
    await refused.task
    lifted = house.intake.shares.counter(ANNA)
    assert house.intake.shares.counter(BEN) == pytest.approx(lifted, rel=1e-9)


async def test_a_broken_off_answer_costs_its_prompt_and_what_came(house: House) -> None:
    """As far as is known."""
    asking = await house.ask("r1")
    house.engine.say("r1", [WORD, WORD])
    await settled()
    estimated = house.intake._desks[MODEL].visits[1].ticket.prompt_tokens
    await asking.leave()
    assert house.intake.shares.counter(ANNA) == pytest.approx(
        estimated + OUTPUT_WEIGHT * 2, rel=0.05
    )


async def test_an_engine_that_ends_without_a_word_has_failed(house: House) -> None:
    """A stream always ends with a Finish or a Failure."""
    asking = await house.ask("r1")
    house.engine.say("r1", [WORD], None)
    await asking.task
    assert asking.failure == "engine_failed"


# Leaving


async def test_who_leaves_the_queue_is_gone_at_once(house: House) -> None:
    """Closing the stream is leaving."""
    await house.ask("r1")
    waiting = await house.ask("r2")
    assert house.load.queued == 1
    await waiting.leave()
    assert house.load.queued == 0


async def test_who_leaves_while_running_frees_the_slot(house: House) -> None:
    """The next one starts."""
    running = await house.ask("r1")
    await house.ask("r2")
    await running.leave()
    await settled()
    assert house.engine.running == ["r2"]
    assert house.engine.closed == ["r1"]


async def test_a_stream_that_nobody_began_to_read_holds_nothing(house: House) -> None:
    """Asking is free until somebody waits for the answer."""
    stream = house.stream(chat())
    await stream.aclose()
    assert house.intake.idle.is_set()


# What the node says


async def test_the_queue_is_part_of_the_load(house: House) -> None:
    """Backlog in seconds from measured speeds: 20 tokens at 10 tokens/s, and a short prompt."""
    await house.ask("r1")
    assert house.load.backlog_s == pytest.approx(2.0, rel=0.1)
    await house.ask("r2")
    await house.ask("r3")
    load = house.load
    assert (load.in_flight, load.queued) == (1, 2)
    assert load.backlog_s == pytest.approx(6.0, rel=0.1)


async def test_a_node_tells_what_it_is_reading(house: House) -> None:
    """From the moment that the engine has the prompt to the first word of its answer."""
    asking = await house.ask("r1", stream=True)
    waiting = await house.ask("r2", stream=True)
    told = house.load
    assert told.reading == 1
    assert 0 < told.unread_tokens <= 100
    house.engine.say("r1", [WORD])
    await settled()
    assert (house.load.reading, house.load.unread_tokens) == (0, 0)
    await asking.leave()
    await settled()
    assert house.load.reading == 1
    await waiting.leave()
    assert house.load.reading == 0


async def test_a_node_tells_how_fast_it_reads_one_prompt(house: House) -> None:
    """Measured here once an answer is whole; until then the engine's own word."""
    assert house.load.prompt_tps == 100.0
    asking = await house.ask("r1", stream=True)
    house.engine.say("r1", [WORD], [Finish("stop", 1_000, 3, prompt_s=2.0)])
    await asking.task
    assert house.load.prompt_tps == pytest.approx(500.0)


async def test_a_free_slot_is_no_backlog(house: House) -> None:
    """The engine's own word stands."""
    assert house.load == house.engine.state
    house.engine.state = replace(house.engine.state, backlog_s=3.0)
    assert house.load.backlog_s == 3.0


async def test_more_slots_let_more_in(house: House) -> None:
    """As soon as the node looks; and a smaller share lets fewer in, at least one."""
    await house.ask("r1")
    await house.ask("r2")
    house.engine.state = replace(house.engine.state, slots=4)
    (load,) = house.intake.stats(house.engine.stats(), "half")
    await settled()
    assert (load.slots, sorted(house.engine.running)) == (2, ["r1", "r2"])
    (load,) = house.intake.stats(house.engine.stats(), "one")
    assert load.slots == 1


async def test_models_that_are_gone_are_forgotten(house: House) -> None:
    """Unless somebody is still being answered by them."""
    asking = await house.ask("r1")
    assert house.intake.stats(()) == ()
    assert house.intake.counts() == (1, 0)
    await asking.leave()
    house.intake.stats(())
    assert house.intake.rows() == []
    assert house.intake._desks == {}


async def test_a_model_that_its_engine_does_not_list_runs_one_at_a_time(house: House) -> None:
    """The engine will say what is wrong with it."""
    await house.ask("r1", model="unlisted")
    await house.ask("r2", model="unlisted")
    assert house.engine.running == ["r1"]


async def test_everything_that_is_here_can_be_listed(house: House) -> None:
    """What runs, then what waits, with places and people, never with prompts."""
    await house.ask("r1", BEN)
    await house.ask("r2", priority="batch")
    running, waiting = house.intake.rows()
    assert (running["id"], running["state"], running["person"]) == ("r1", "running", BEN)
    assert (waiting["id"], waiting["state"], waiting["queue_position"]) == ("r2", "queued", 1)
    assert waiting["priority"] == "batch"
    assert house.intake.counts() == (1, 1)


async def test_who_waits_in_its_engine_is_listed_as_waiting(house: House) -> None:
    """For memory, say; its prompt is not read before its turn, and it may go on elsewhere."""
    asking = await house.ask("r1")
    house.engine.say("r1", [Queued(2, 9.0)])
    await settled()
    (row,) = house.intake.rows()
    assert (row["state"], row["queue_position"], row["queue_wait_s"]) == ("queued", 2, 9.0)
    assert house.load.reading == 1
    house.engine.say("r1", [WORD])
    await settled()
    (row,) = house.intake.rows()
    assert (row["state"], row["queue_position"], house.load.reading) == ("running", None, 0)
    assert asking.events == [Queued(2, 9.0), WORD]


# Waiting


async def test_who_waits_hears_when_the_place_changes(house: House) -> None:
    """And not before: at most twice a second."""
    await house.ask("r1")
    second = await house.ask("r2")
    third = await house.ask("r3")
    await second.leave()
    assert [each.position for each in third.events if isinstance(each, Queued)] == [2]
    await until(lambda: len(third.events) > 1)
    assert [each.position for each in third.events if isinstance(each, Queued)] == [2, 1]


async def test_who_waits_long_is_reassured(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    """A wait that says nothing looks like a machine that is gone."""
    monkeypatch.setattr("meshd.visit.REASSURE_S", 0.01)
    monkeypatch.setattr("meshd.intake.TELL_EVERY_S", 0.01)
    await house.ask("r1")
    waiting = await house.ask("r2")
    await until(lambda: len(waiting.events) >= 3)
    assert {each.position for each in waiting.events if isinstance(each, Queued)} == {1}


async def test_too_much_is_refused_at_once(house: House) -> None:
    """A place in the queue that would take hours is none."""
    house.engine.state = replace(house.engine.state, generation_tps=0.1)
    for number in range(5):
        await house.ask(f"r{number}")
    refused = await house.ask("r9")
    await refused.task
    assert refused.failure == "overloaded"
    assert house.load.queued == 4


async def test_somebody_light_takes_the_place_of_somebody_heavy(house: House) -> None:
    """A full queue sends the newest job of the one with most away."""
    house.engine.state = replace(house.engine.state, generation_tps=0.0, prompt_tps=0.0)
    for number in range(QUEUE_MAX + 1):
        await house.ask(f"a{number}", ANNA)
    newest = house.asked[-1]
    assert house.load.queued == QUEUE_MAX
    await house.ask("b", BEN)
    await newest.task
    assert newest.failure == "rate_limited"
    assert house.load.queued == QUEUE_MAX
