"""An answer that is not streamed: nothing of it has left before all of it is here."""

import asyncio

import pytest

from meshd.core.ports import RequestFailed
from meshd.gateway import mesh
from protocol.jobs import Failure, Finish, Queued, TextDelta, ToolCallDelta
from tests.core.routing.fleet import chat
from tests.gateway.household import (
    BROKEN,
    GONE,
    STORY,
    WORDS,
    Household,
    Storytellers,
    notes_of,
    text_of,
)

WHOLE_STORY = "".join(STORY)
CALL = ToolCallDelta(0, "c1", "look", '{"wh')


class Adopters(Storytellers):
    """Their models run in servers that begin answers only."""

    async def batches(self, to, job):
        """From the first word, or not at all."""
        if job.prefix_text or job.prefix_tokens:
            yield [Failure("unsupported", "cannot carry on", elsewhere=True)]
            return
        async for batch in super().batches(to, job):
            yield batch


async def test_an_answer_in_one_piece_is_answered_in_one():
    """As servers answer; it is accounted for like any other."""
    house = Household(node1=[WORDS])
    head, events = await house.read(chat())
    assert (events, head.node_name, head.attempts) == (WORDS, "node1", 1)
    assert house.is_tidy
    (row,) = house.history.recent_body(0.0)["requests"]
    assert row["state"] == "done"
    (attempt,) = house.history.body(row["id"], 0.0)["attempts"]
    assert attempt["outcome"] == "finished"
    assert attempt["first_byte_s"] is not None


async def test_a_whole_answer_goes_on_rather_than_over():
    """Five words need not be made twice; the client sees one answer, and who finished it."""
    house = Storytellers(node1=[(5, GONE)])
    head, events = await house.read(chat(max_tokens=None))
    assert text_of(events) == WHOLE_STORY
    assert (head.node_name, head.attempts) == ("node2", 2)
    assert house.jobs[1].prefix_tokens == (0, 1, 2, 3, 4)
    assert notes_of(events) == []
    assert house.is_tidy


async def test_a_whole_answer_that_cannot_be_handed_on_begins_again():
    """Nothing of it has left, so half a call costs only time."""
    house = Household(node1=[CALL, GONE], node2=WORDS)
    head, events = await house.read(chat())
    assert (events, head.node_name, head.attempts) == (WORDS, "node2", 2)
    assert house.is_tidy


async def test_a_whole_answer_that_nobody_can_go_on_with_begins_again():
    """Who could not go on is asked from the beginning."""
    house = Adopters(node1=[(5, GONE)])
    head, events = await house.read(chat(max_tokens=None))
    assert text_of(events) == WHOLE_STORY
    assert isinstance(events[-1], Finish)
    assert (head.node_name, house.asked) == ("node2", ["node1", "node2", "node3", "node2"])
    assert house.is_tidy


async def test_the_first_cause_is_told_where_nobody_can_begin_again_either():
    """Not that somebody could not go on: the client never asked for that."""
    house = Adopters(node1=[(5, BROKEN)])
    house.become(house.members[0])
    with pytest.raises(RequestFailed) as refused:
        await house.read(chat(max_tokens=None))
    assert refused.value.failure == BROKEN
    assert house.is_tidy


async def test_a_whole_answer_that_nobody_can_finish_is_refused_with_the_reason():
    """An HTTP error, not half an answer."""
    house = Storytellers(node1=[(2, GONE)], node2=[(2, GONE)], node3=[(2, GONE)])
    with pytest.raises(RequestFailed) as refused:
        await house.read(chat(max_tokens=None))
    assert refused.value.failure == GONE
    assert house.is_tidy


async def test_an_answer_without_end_is_refused(monkeypatch):
    """What is collected is bounded."""
    monkeypatch.setattr(mesh, "ANSWER_EVENTS_MAX", 10)
    house = Storytellers()
    with pytest.raises(RequestFailed) as refused:
        await house.read(chat(max_tokens=None))
    assert "no end" in refused.value.failure.message
    assert house.is_tidy


async def test_a_short_answer_of_huge_pieces_is_refused_as_well():
    """A server that never stops and sends megabytes at a time took all memory."""
    piece = TextDelta("x" * (mesh.ANSWER_MAX_CHARS // 4))
    house = Household(node1=[piece, piece, piece, piece, piece, *WORDS])
    with pytest.raises(RequestFailed) as refused:
        await house.read(chat())
    assert "no end" in refused.value.failure.message
    assert house.is_tidy


async def test_an_answer_that_has_begun_waits_no_longer():
    """Although its client has not seen a word of it."""
    house = Household(node1=[Queued(2, 1.0), 0.05, TextDelta("a"), 0.05, *WORDS])
    reading = asyncio.create_task(house.read(chat()))
    states = []
    while not reading.done():
        for each in house.history.recent_body(0.0)["requests"]:
            if each["state"] not in states[-1:]:
                states.append(each["state"])
        await asyncio.sleep(0.005)
    assert [state for state in states if state != "done"][-2:] == ["queued", "running"]
