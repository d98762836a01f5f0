"""Doubt: a node that may be gone gets a second attempt beside it, and the benefit of it."""

import asyncio
import time
from dataclasses import replace

import pytest

from meshd import patience
from meshd.core.routing import deadlines
from meshd.gateway import attempt, stream
from protocol.jobs import Finish, ReasoningDelta, TextDelta, ToolCallDelta
from tests.core.routing.fleet import chat, load, member, model
from tests.gateway.household import (
    BROKEN,
    DONE,
    GONE,
    REFUSED,
    STALL,
    WORDS,
    Household,
    Neighbours,
    text_of,
)


async def test_a_node_that_answers_no_nudge_gets_a_second_attempt_beside_it():
    """Long before its patience ends; and the router hears that the node is gone."""
    house = Household(peers=Neighbours("node2"), node1=[REFUSED], node2=[STALL], node3=WORDS)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name, head.attempts) == (WORDS, "node3", 3)
    assert house.told == [house.members[1].node_id]
    assert house.is_tidy


async def test_a_node_that_is_slow_but_answers_nudges_is_waited_for():
    """A long prompt is no fault."""
    peers = Neighbours()
    house = Household(peers=peers, node1=[REFUSED], node2=[0.6, *WORDS], node3=WORDS)
    head, _ = await house.read(chat(stream=True))
    assert (head.node_name, set(peers.nudged)) == ("node2", {"node2"})


async def test_a_node_that_missed_one_nudge_and_answered_the_next_is_not_gone():
    """It lost to the second attempt, which is no fault of it that others should hear of."""

    class Hiccup(Neighbours):
        def silent_s(self, _to):
            return 0.0 if len(self.nudged) > 1 else 3600.0

    peers = Hiccup()
    house = Household(peers=peers, node1=[REFUSED], node2=[STALL], node3=[1.2, *WORDS])
    head, _ = await house.read(chat(stream=True))
    assert head.node_name == "node3"
    assert house.told == []
    outcomes = [each["outcome"] for each in house.history.body("r1", 0.0)["attempts"]]
    assert outcomes == ["failed", "outrun", "finished"]


async def test_this_node_itself_is_never_nudged():
    """Its engine may take its time."""
    peers = Neighbours("node1")
    house = Household(peers=peers, node1=[0.6, *WORDS], node2=WORDS)
    head, _ = await house.read(chat(stream=True))
    assert (head.node_name, peers.nudged) == ("node1", [])


@pytest.mark.parametrize("refuted", [False, True])
async def test_a_node_that_membership_suspects_gets_a_second_attempt_at_once(refuted):
    """No timer is needed for it; and it counts as gone only if it is suspected still."""
    house = Household(node1=[REFUSED], node2=[STALL], node3=[0.1, *WORDS])
    reading = asyncio.create_task(house.read(chat(stream=True)))
    await house.until_asked("node2")
    house.replace(2, replace(house.members[1], state="suspect"))
    await house.until_asked("node3")
    if refuted:
        house.replace(2, replace(house.members[1], state="alive"))
    head, _ = await reading
    assert head.node_name == "node3"
    assert house.told == ([] if refuted else [house.members[1].node_id])
    assert house.is_tidy


async def test_a_suspect_that_speaks_first_after_all_is_kept():
    """Suspicion is not proof."""
    house = Household(node1=[REFUSED], node2=[0.1, *WORDS], node3=[STALL])
    reading = asyncio.create_task(house.read(chat(stream=True)))
    await house.until_asked("node2")
    house.replace(2, replace(house.members[1], state="suspect"))
    head, _ = await reading
    assert (head.node_name, head.attempts) == ("node2", 3)
    assert house.is_tidy


async def test_a_loop_that_comes_late_does_not_blame_the_peer():
    """Its pong may be here, unread: the peer is nudged again before it is judged."""
    peers = Neighbours("node2")
    house = Household(peers=peers, node1=[REFUSED], node2=[STALL], node3=WORDS)
    reading = asyncio.create_task(house.read(chat(stream=True)))
    await house.until_asked("node2")
    busy_at_s = attempt.FIRST_QUIET_S + attempt.FIRST_PULSE_S / 2
    asyncio.get_running_loop().call_later(busy_at_s, keep_busy, attempt.FIRST_PULSE_S)
    head, _ = await reading
    assert head.node_name == "node3"
    assert len(peers.nudged) >= 2


def keep_busy(seconds):
    """The loop can do nothing else meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_a_second_attempt_in_vain_costs_no_thought(monkeypatch):
    """One that would begin anew was asked beside one that then went on: the thought is still known
    to whoever goes on next, and the account is that of who answers."""
    monkeypatch.setattr(attempt, "FIRST_QUIET_S", 0.02)
    monkeypatch.setattr(attempt, "FIRST_PULSE_S", 0.02)
    house = Household(
        peers=Neighbours("node2"),
        fingerprints=("x", "x", ""),
        node1=[ReasoningDelta("hm"), ReasoningDelta(" so"), GONE],
        node2=[0.15, ReasoningDelta(" yes"), BROKEN],
        node3=[STALL],
        node4=[TextDelta("Paris"), Finish("stop", 13, 1)],
    )
    house.become(*house.members, member(4, model(fingerprint="x"), load=load(accepting=False)))
    reading = asyncio.create_task(house.read(chat(stream=True)))
    await house.until_asked("node3")
    house.replace(4, replace(house.members[3], load=load()))
    _, events = await reading
    assert house.asked == ["node1", "node2", "node3", "node4"]
    assert [job.prefix_thought for job in house.jobs] == ["", "hm so", "", "hm so yes"]
    assert (events[-1].prompt_tokens, events[-1].completion_tokens) == (10, 4)
    assert house.is_tidy


async def test_a_server_that_cannot_go_on_is_no_reason_to_give_up(monkeypatch):
    """A stream that is silent for a while is waited for: an adopted server begins only anew."""
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.05)
    monkeypatch.setattr(stream, "LOOK_AGAIN_S", 0.1)
    house = Household(node1=[TextDelta("Par"), 0.5, TextDelta("is"), DONE])
    adopted = model(engine="upstream server")
    house.become(house.members[0], member(2, adopted), member(3, adopted))
    _, events = await house.read(chat(stream=True, max_tokens=None))
    assert (text_of(events), house.asked) == ("Paris", ["node1"])


async def test_a_doubt_that_passed_says_nothing_of_a_later_stall(monkeypatch):
    """A nudge was not answered while the client was still reading, and the stream went on; when its
    engine stalls later, its machine answers, and is not called unreachable."""
    monkeypatch.setattr(attempt, "STREAM_QUIET_S", 0.02)
    monkeypatch.setattr(attempt, "STREAM_PULSE_S", 0.05)
    monkeypatch.setattr(patience, "QUIET_AGAIN_S", 0.02)
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.2)
    peers = Neighbours("node2")
    house = Household(
        peers=peers,
        node1=[REFUSED],
        node2=[TextDelta("Pa"), 0.04, TextDelta("ri"), STALL],
        node3=[TextDelta("s"), DONE],
    )
    answer = await house.gateway.submit(chat(stream=True))
    events = [*await anext(answer.events), *await anext(answer.events)]
    await asyncio.sleep(0.1)
    peers.silent.clear()
    events += [event async for batch in answer.events for event in batch]
    assert text_of(events) == "Paris"
    assert house.told == []


@pytest.mark.parametrize("said", [[TextDelta("I write it.")], []])
async def test_a_call_that_is_being_written_is_no_stalled_stream(monkeypatch, said):
    """An engine is silent until its call is whole: longer than a text may be, and others could take
    over."""
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.05)
    monkeypatch.setattr(deadlines, "FIRST_EVENT_FLOOR_S", 0.05)
    monkeypatch.setattr(deadlines, "PATIENCE_FACTOR", 0.5)
    call = ToolCallDelta(0, "c1", "write", '{"text": "long"}')
    house = Household(node1=[*said, 0.5, call, DONE], node2=WORDS, node3=WORDS)
    tools = ({"type": "function", "function": {"name": "write"}},)
    able = model(capabilities=("chat", "tools"))
    house.become(*[member(at, able, load=each.load) for at, each in enumerate(house.members, 1)])
    _, events = await house.read(chat(stream=True, max_tokens=None, tools=tools))
    assert (house.asked, events) == (["node1"], [*said, call, DONE])
