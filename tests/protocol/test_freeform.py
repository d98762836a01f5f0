"""Free-form values: JSON's types, bounded in depth and in the length of lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from protocol.freeform import Json, check_json
from protocol.limits import NESTING_MAX_DEPTH, RELAY_LIST_MAX
from tests.protocol.strategies import JSON, refusal

REFUSED: list[tuple[Any, str]] = [
    (b"bytes", "type"),
    ((1, 2), "type"),
    ({"a": b"bytes"}, "type"),
    ({1: "a"}, "type"),
    ([{b"a": 1}], "type"),
    ([float("nan")], "range"),
    ([float("-inf")], "range"),
    ([2**64], "range"),
    ([-(2**63) - 1], "range"),
    ([None] * (RELAY_LIST_MAX + 1), "length"),
]


def nested(levels: int) -> Any:
    """A value that many lists deep."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@given(JSON)
def test_every_json_value_passes_as_it_is(value: Any) -> None:
    """Nothing is copied or changed on the way through."""
    assert Json().decode(value) is value
    assert Json().encode(value) is value


@pytest.mark.parametrize(("value", "code"), REFUSED)
def test_what_json_cannot_say_is_refused(value: Any, code: str) -> None:
    """Other types, other keys, numbers beyond 64 bits and overlong lists raise ProtocolError."""
    assert refusal(check_json, value) == code


def test_nesting_is_allowed_up_to_the_limit() -> None:
    """The limit itself passes, one more level does not, and a huge depth costs no stack."""
    verdicts = [refusal(check_json, nested(NESTING_MAX_DEPTH + more)) for more in (0, 1, 100_000)]
    assert verdicts == ["accepted", "length", "length"]


def test_it_says_how_deep_it_may_be() -> None:
    """The words are for SPEC.md."""
    assert str(Json()) == "JSON value, at most 64 levels deep"
