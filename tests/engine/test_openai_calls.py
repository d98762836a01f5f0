"""Claims of meshd.engine.openai_calls."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine import openai_calls
from meshd.engine.openai_calls import QUIET_MAX, Calls
from meshd.engine.openai_failures import WireError
from protocol.jobs import ToolCallDelta


def told(*pieces):
    """What is told of pieces: number, id, name, arguments of each."""
    calls = Calls()
    events = [event for piece in pieces for event in calls.take(*piece)]
    return [*events, *calls.rest()]


def test_plain_pieces_pass_as_they_come():
    """Nothing is delayed for the sake of those servers that mix."""
    calls = Calls()
    pieces = [(0, "a", "f", ""), (0, "", "", '{"x":'), (0, "", "", "1}"), (1, "b", "g", "{")]
    events = [list(calls.take(*piece)) for piece in pieces]
    assert events == [
        [ToolCallDelta(0, "a", "f", "")],
        [ToolCallDelta(0, "", "", '{"x":')],
        [ToolCallDelta(0, "", "", "1}")],
        [ToolCallDelta(1, "b", "g", "{")],
    ]


def test_a_call_is_told_from_its_name_on():
    """A client takes it from the first piece, and nowhere else."""
    assert told((0, "a", "", ""), (0, "", "", "{"), (0, "", "f", "}"), (0, "", "f", " ")) == [
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(0, "", "", " "),
    ]


@given(st.permutations("aaabbbccc"))
def test_calls_that_come_in_turn_are_told_one_after_the_other(order):
    """Whichever server sends a piece of each: no dialect could tell them apart later."""
    texts = {name: iter(["", "{", "}"]) for name in "abc"}
    events = told(*((ord(name), name, name, next(texts[name])) for name in order))
    calls = [list(own) for _, own in groupby(events, key=lambda event: event.index)]
    assert sorted(own[0].name for own in calls) == ["a", "b", "c"]
    assert ["".join(event.arguments for event in own) for own in calls] == ["{}"] * 3


def test_a_call_that_is_no_json_keeps_the_next_one_waiting_for_a_while():
    """Nobody waits for the end of something that has ended."""
    first, later = (0, "a", "f", "{oops"), (1, "", "", "x")
    calls = Calls()
    events = [*calls.take(*first), *calls.take(1, "b", "g", "")]
    events += [event for _ in range(QUIET_MAX) for event in calls.take(*later)]
    assert events == [ToolCallDelta(0, "a", "f", "{oops"), ToolCallDelta(1, "b", "g", "x" * 16)]


def test_calls_without_numbers_and_ids_are_told_apart_by_their_names():
    """Where the arguments of the one before are whole; two calls would melt into one."""
    assert told((0, "", "f", "{}"), (0, "", "f", '{"x":1}')) == [
        ToolCallDelta(0, "", "f", "{}"),
        ToolCallDelta(1, "", "f", '{"x":1}'),
    ]


def test_what_is_kept_of_calls_is_bounded(monkeypatch):
    """A call that never ends would fill the memory."""
    monkeypatch.setattr(openai_calls, "ARGUMENTS_MAX_CHARS", 10)
    with pytest.raises(WireError, match="longer than 10"):
        told((0, "a", "f", "x" * 6), (0, "", "", "x" * 6))
