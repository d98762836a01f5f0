"""The message table: ids for ever, one plane each, and what must never be guessed."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from protocol.fields import decode_record, encode_record
from protocol.inventory import records, typical
from protocol.load import PRESSURE_LEVELS, LoadRecord
from protocol.messages import (
    CONTROL_KINDS,
    KIND_OF,
    KINDS,
    MEMBER_STATES,
    RELAY_KINDS,
    ControlMessage,
    DigestEntry,
    Message,
    RelayMessage,
    Update,
)
from tests.protocol.strategies import refusal

FIRST_RELEASE = {
    1: "Hello",
    2: "Heartbeat",
    3: "Capacity",
    4: "Ping",
    5: "Ack",
    6: "PingReq",
    7: "Nack",
    8: "Gossip",
    9: "Pull",
    10: "CapacityWanted",
    11: "Beat",
    12: "LoadWanted",
    32: "JobOpen",
    33: "JobChunk",
    34: "JobEvents",
    35: "Credit",
    36: "Cancel",
    37: "RelayPing",
    38: "RelayPong",
}


def test_ids_are_never_given_away_again() -> None:
    """Every id still means what it meant in the first release."""
    assert {kind: KINDS[kind].__name__ for kind in FIRST_RELEASE} == FIRST_RELEASE


def test_each_plane_has_its_range_of_ids() -> None:
    """1 to 31 on control, 32 to 63 on relay, each in use once."""
    assert set(CONTROL_KINDS) <= set(range(1, 32))
    assert set(RELAY_KINDS) <= set(range(32, 64))
    assert len(KIND_OF) == len(KINDS) == len(CONTROL_KINDS) + len(RELAY_KINDS)


def test_the_types_list_every_message() -> None:
    """A `match` over the union is exhaustive only if the union is complete."""
    assert set(get_args(ControlMessage)) == set(CONTROL_KINDS.values())
    assert set(get_args(RelayMessage)) == set(RELAY_KINDS.values())
    assert set(get_args(Message)) == set(KINDS.values())


@pytest.mark.parametrize("cls", [Update, DigestEntry])
def test_a_member_state_of_a_later_version_is_refused(cls: type[Any]) -> None:
    """Whether a node is there is never guessed."""
    raw = encode_record(typical(cls))
    place = list(cls.__dataclass_fields__).index("state")
    raw[place] = len(MEMBER_STATES)
    assert refusal(decode_record, cls, raw) == "range"


def test_a_pressure_level_of_a_later_version_reads_as_warn() -> None:
    """The node is given less, and its heartbeat is not lost."""
    raw = encode_record(typical(LoadRecord))
    raw[5] = len(PRESSURE_LEVELS)
    assert decode_record(LoadRecord, raw).pressure == "warn"


def test_states_and_levels_are_where_they_were() -> None:
    """Order is the wire, and for states also their precedence."""
    assert MEMBER_STATES == ("alive", "suspect", "dead", "left")
    assert PRESSURE_LEVELS[:3] == ("normal", "warn", "critical")


@pytest.mark.parametrize("cls", records())
def test_every_record_says_what_it_is(cls: type[Any]) -> None:
    """The docstring is the specification's text."""
    assert (cls.__doc__ or "").strip().endswith((".", "?", "`"))
