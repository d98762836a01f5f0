"""Nodes that have just gone and come back: a daemon that is started anew costs no answer."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest

from meshd.core.ports import RequestFailed
from meshd.gateway import beginning, request
from protocol.jobs import Failure, ReasoningDelta
from tests.core.routing.fleet import chat
from tests.gateway.household import (
    BROKEN,
    GONE,
    LEAVING,
    REFUSED,
    STORY,
    WORDS,
    Household,
    Storytellers,
    text_of,
)

LATE = Failure("timeout", "it stopped in the middle", elsewhere=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("failure", [GONE, LEAVING])
async def test_a_node_that_is_started_anew_is_waited_for(failure, stream):
    """Where nobody else is left; a client sees an answer that came a little late."""
    house = Household(node1=[BROKEN], node2=[failure], node3=[failure])
    reading = asyncio.create_task(house.read(chat(stream=stream)))
    await house.until_asked("node3")
    house.scripts["node2"] = WORDS
    house.replace(2, replace(house.members[1], boot_id=2))
    head, events = await reading
    assert (events, head.node_name, head.attempts) == (WORDS, "node2", 4)
    assert house.is_tidy


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("failure", [GONE, LEAVING, LATE])
async def test_a_node_that_was_lost_and_is_heard_again_is_asked_again(failure, stream, monkeypatch):
    """Where nobody else is left: of two that fail in one minute, the first is well by then."""
    monkeypatch.setattr(request, "FORGIVEN_S", 0.05)
    house = Household(node1=[BROKEN], node2=[failure], node3=[GONE])
    reading = asyncio.create_task(house.read(chat(stream=stream)))
    await house.until_asked("node3")
    house.scripts["node2"] = WORDS
    house.replace(2, replace(house.members[1], heard_at=time.monotonic()))
    head, events = await reading
    assert (events, head.node_name, head.attempts) == (WORDS, "node2", 4)
    assert house.is_tidy


@pytest.mark.parametrize("stream", [True, False])
async def test_so_is_one_that_was_lost_in_the_middle_of_a_thought(stream, monkeypatch):
    """Also where the answer is collected, and is begun anew instead of gone on with."""
    monkeypatch.setattr(request, "FORGIVEN_S", 0.05)
    house = Household(node1=[REFUSED], node2=[ReasoningDelta("hm"), GONE], node3=[GONE])
    reading = asyncio.create_task(house.read(chat(stream=stream)))
    await house.until_asked("node3")
    house.scripts["node2"] = WORDS
    house.replace(2, replace(house.members[1], heard_at=time.monotonic()))
    _, events = await reading
    assert (text_of(events), house.asked[3:]) == ("Paris", ["node2"])
    assert house.is_tidy


async def test_a_node_that_said_no_is_not_asked_again_though_it_is_heard(monkeypatch):
    """It would say the same; nor is one that was lost just now."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 0.3)
    house = Household(node1=[BROKEN], node2=[REFUSED], node3=[GONE])
    later = time.monotonic() + 60
    house.become(*(replace(each, heard_at=later) for each in house.members))
    with pytest.raises(RequestFailed):
        await house.gateway.submit(chat())
    assert house.asked == ["node1", "node2", "node3"]


async def test_a_node_that_does_not_come_back_is_not_waited_for_long():
    """Nor asked again as long as it is the same run that failed."""
    house = Household(node1=[BROKEN], node2=[GONE], node3=[GONE])
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat())
    assert refused.value.failure == GONE
    assert house.asked == ["node1", "node2", "node3"]
    assert house.is_tidy


async def test_a_client_is_told_which_node_it_was_that_left(monkeypatch):
    """It may have asked another one, and "this node" would send its owner to the wrong machine."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 0.0)
    house = Household(node1=[REFUSED], node2=[REFUSED], node3=[LEAVING])
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat())
    assert refused.value.failure.code == "draining"
    assert refused.value.failure.message.startswith("node3 is being drained or stopped, and no ")


async def test_nobody_is_waited_for_while_another_could_begin_anew(monkeypatch):
    """Of a whole answer nothing has left, so one from other weights will do."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 3600.0)
    house = Storytellers(fingerprints=("", "x", "y"), node1=[(0, REFUSED)], node2=[(5, GONE)])
    async with asyncio.timeout(2):
        head, events = await house.read(chat(max_tokens=None))
    assert (text_of(events), head.node_name) == ("".join(STORY), "node3")
    assert house.is_tidy


async def test_this_node_itself_and_a_node_that_is_full_are_not_waited_for(monkeypatch):
    """Their next word would be the same."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 3600.0)
    house = Household(node1=[GONE])
    house.become(house.members[0])
    full = Household(node1=[GONE], node2=[REFUSED], node3=[REFUSED])
    async with asyncio.timeout(2):
        for each in (house, full):
            with pytest.raises(RequestFailed):
                await each.gateway.submit(chat())


async def test_a_client_that_leaves_while_a_node_is_waited_for_leaves_nothing_behind(monkeypatch):
    """As at any other moment."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 3600.0)
    house = Household(node1=[BROKEN], node2=[GONE], node3=[GONE])
    reading = asyncio.create_task(house.read(chat()))
    await house.until_asked("node3")
    await asyncio.sleep(0.05)
    assert not reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert house.is_tidy


async def test_a_node_that_breaks_off_every_answer_is_asked_ever_more_seldom():
    """Its first words forgive nothing: of a request every ten seconds hardly one begins there."""
    now = [0.0]
    house = Storytellers(node1=[(3, BROKEN)] * 40, clock=lambda: now[0])
    begun = Counter()
    for _ in range(40):
        now[0] += 10.0
        head, _ = await house.read(chat(stream=True, max_tokens=None))
        begun[head.node_name] += 1
    assert 1 <= begun["node1"] <= 4
    assert house.is_tidy
