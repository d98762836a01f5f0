"""The walk over the declarations finds everything, and its examples are sound."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from protocol import envelope, fields, jobs, load, messages, pairing, trust
from protocol.fields import decode_record, encode_record
from protocol.inventory import LEAST, TYPICAL, least, plain, records, typical
from protocol.jobs import TextDelta


def test_no_record_is_left_out() -> None:
    """Every record class that the wire's modules declare is reached from a message or a job."""
    declared = {
        cls
        for module in (envelope, jobs, load, messages, pairing, trust)
        for cls in vars(module).values()
        if isinstance(cls, type) and dataclasses.is_dataclass(cls)
    }
    assert set(records()) == declared
    assert len(records()) == len(declared)


@pytest.mark.parametrize("make", [least, typical])
@pytest.mark.parametrize("cls", records())
def test_an_example_is_a_value_of_its_record(cls: type[Any], make: Any) -> None:
    """Both examples are within bounds and survive the journey."""
    assert decode_record(cls, encode_record(make(cls))) == make(cls)


def test_every_kind_of_field_has_both_examples() -> None:
    """A new kind of field cannot be forgotten here."""
    kinds = {type(field) for cls in records() for _, field in fields.record_fields(cls)}
    assert kinds <= set(LEAST) & set(TYPICAL)


def test_the_plain_form_is_for_people_and_files() -> None:
    """Records by name, bytes as hexadecimal, tuples as lists."""
    delta = TextDelta("x", (1, 2), {"a": [b"\x0f", 1.5]})
    assert plain(delta) == {
        "TextDelta": {
            "text": "x",
            "token_ids": [1, 2],
            "logprobs": {"a": [{"hex": "0f"}, 1.5]},
        }
    }
