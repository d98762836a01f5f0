"""A tool call that is made once more: what the client has of it is not given twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.ports import Batch, Note
from meshd.gateway.continuation import Said
from meshd.gateway.repeat import Call, Repeat
from protocol.jobs import (
    Event,
    Failure,
    Finish,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from tests.core.routing.fleet import chat
from tests.gateway.household import GONE, Household

DONE = Finish("tool_calls", 3, 2)
FIRST, SECOND = Call("look", '{"where": "sea"}'), Call("go", '{"to": "the sea"}')
LONG = chat(stream=True, max_tokens=None)


def pieces(index: int, call: Call, cut: int = 4) -> list[ToolCallDelta]:
    """A call as an engine gives it, a few letters at a time."""
    text = call.arguments
    parts = [text[at : at + cut] for at in range(0, len(text), cut)]
    head = ToolCallDelta(index, f"id{index}", call.name, "")
    return [head, *(ToolCallDelta(index, "", "", part) for part in parts)]


def calls_of(events: Sequence[Event | Note]) -> dict[int, Call]:
    """What a client makes of them."""
    said = Said()
    said.batches.append(list(events))
    return dict(said.calls)


@given(data=st.data())
def test_wherever_it_broke_and_however_it_is_cut_the_calls_come_out_whole(
    data: st.DataObject,
) -> None:
    """Two calls, given up to some piece, and made again in pieces of another size."""
    first = [*pieces(0, FIRST, 3), *pieces(1, SECOND, 3)]
    given_up_to = data.draw(st.integers(1, len(first)))
    sizes = st.integers(1, 30)
    again: list[Event | Note] = [
        *pieces(0, FIRST, data.draw(sizes)),
        *pieces(1, SECOND, data.draw(sizes)),
        DONE,
    ]
    repeat = Repeat(calls_of(first[:given_up_to]))
    new: list[Event | Note] = []
    while again:
        size = data.draw(sizes)
        new += repeat.feed(again[:size])
        again = again[size:]
    assert not repeat.is_other
    assert repeat.is_over
    assert calls_of([*first[:given_up_to], *new]) == {0: FIRST, 1: SECOND}
    ids = [event.call_id for event in new if isinstance(event, ToolCallDelta) and event.call_id]
    assert len(ids) == 2 - len(calls_of(first[:given_up_to]))


BROKEN = calls_of([*pieces(0, FIRST), *pieces(1, SECOND)[:3]])


@pytest.mark.parametrize(
    "again",
    [
        [*pieces(0, FIRST), *pieces(1, Call("go", '{"by": "sea"}'))],
        [*pieces(0, FIRST), *pieces(1, Call("gone", SECOND.arguments))],
        [*pieces(0, FIRST), DONE],
        [*pieces(0, FIRST)[:-1], *pieces(1, SECOND)],
        [*pieces(0, FIRST), ToolCallDelta(0, "", "", " ")],
        pieces(1, SECOND),
        [*pieces(0, FIRST), TextDelta("Well.")],
        [ReasoningDelta("hm")],
        [DONE],
    ],
    ids=["arguments", "name", "no second", "shorter", "longer", "order", "text", "thought", "end"],
)
def test_another_answer_is_noticed(again: Batch) -> None:
    """And nothing of it is given."""
    repeat = Repeat(BROKEN)
    assert list(repeat.feed(again)) == []
    assert repeat.is_other
    assert list(repeat.feed(pieces(1, SECOND))) == []


def test_what_is_no_part_of_the_answer_passes() -> None:
    """White space before a call belongs to nobody."""
    beside: Batch = [Note("continued"), Queued(1, 0.5), GONE]
    repeat = Repeat(BROKEN)
    assert list(repeat.feed([*beside, TextDelta("\n")])) == beside
    assert not repeat.is_other


@pytest.mark.parametrize("before", [[], [TextDelta("So: ", (1,))], [ReasoningDelta("hm")]])
async def test_a_stream_that_broke_off_inside_a_call_goes_on_elsewhere(before: list[Event]) -> None:
    """The client reads one call, under its first id; the text before it is handed on."""
    said, call = [*before, *pieces(0, FIRST)[:3]], pieces(0, FIRST, 5)
    house = Household(node1=[*said, GONE], node2=[*call, DONE])
    _, events = await house.read(LONG)
    assert calls_of(events) == {0: FIRST}
    assert next(event.call_id for event in events if isinstance(event, ToolCallDelta)) == "id0"
    assert events[-1] == replace(DONE, completion_tokens=2 + len(before), **counted(before))
    assert house.asked == ["node1", "node2"]
    assert house.is_tidy


def counted(before: list[Event]) -> dict[str, object]:
    """What is left of the account where something was handed on."""
    if not before:
        return {}
    return {"prompt_tokens": 2, "counted": isinstance(before[0], TextDelta)}


async def test_a_call_that_becomes_another_ends_with_one_failure() -> None:
    """The client has half of the first; the node that made the other is at no fault."""
    said = pieces(0, FIRST)[:3]
    house = Household(node1=[*said, GONE], node2=[*pieces(0, SECOND), DONE])
    _, events = await house.read(LONG)
    *given_, failure = events
    assert [event for event in given_ if not isinstance(event, Note)] == said
    assert isinstance(failure, Failure)
    assert failure.code == GONE.code
    assert "tool call" in failure.message
    assert house.router.breakers.entries.keys() == {(house.members[0].node_id, LONG.model)}
    assert house.is_tidy


@pytest.mark.parametrize("mark", ["", "other"])
async def test_a_call_is_made_again_by_the_same_file_alone(mark: str) -> None:
    """Another would make another; or it is a server, which begins nothing anew."""
    house = Household(
        fingerprints=("same", mark, mark), node1=[*pieces(0, FIRST)[:3], GONE], node2=[DONE]
    )
    _, events = await house.read(LONG)
    assert isinstance(events[-1], Failure)
    assert "tool call" in events[-1].message
    assert house.asked == ["node1"]


async def test_a_node_that_fails_while_it_makes_the_call_again_is_replaced_too() -> None:
    """The client notices neither."""
    again = pieces(0, FIRST)[:2]
    house = Household(
        node1=[*pieces(0, FIRST)[:3], GONE], node2=[*again, GONE], node3=[*pieces(0, FIRST), DONE]
    )
    _, events = await house.read(LONG)
    assert calls_of(events) == {0: FIRST}
    assert house.asked == ["node1", "node2", "node3"]
    assert house.is_tidy


async def test_a_whole_answer_begins_again_instead() -> None:
    """Nothing of it has left."""
    house = Household(node1=[*pieces(0, FIRST)[:3], GONE], node2=[*pieces(0, SECOND), DONE])
    _, events = await house.read(replace(LONG, stream=False))
    assert calls_of(events) == {0: SECOND}
