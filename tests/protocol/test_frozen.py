"""Values that only the type checker locks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from protocol.frozen import frozen


@frozen
class Place:
    """Two fields, one with a default."""

    name: str
    notes: list[str] = dataclasses.field(default_factory=list)


@frozen
class Spot:
    """All of it hashes."""

    x: int
    y: int = 0


def test_the_type_checker_is_told_that_it_is_frozen() -> None:
    """Without this word mypy would let anybody change a value, and nothing else would notice."""
    transform: Any = frozen
    said = transform.__dataclass_transform__
    assert (said | said["kwargs"])["frozen_default"] is True


def test_equal_values_are_one_key() -> None:
    """As of a frozen dataclass: by what is in it, and only where that hashes."""
    assert {Spot(1), Spot(1, 0), Spot(2)} == {Spot(1), Spot(2)}
    assert Place("a") == Place("a", [])
    with pytest.raises(TypeError, match="unhashable"):
        hash(Place("a"))


def test_it_has_no_room_for_fields_that_were_not_declared() -> None:
    """Slots: less memory, and a misspelt name is an error at run time too."""
    place: Any = Spot(1)
    with pytest.raises(AttributeError):
        place.z = 3
    assert dataclasses.replace(Spot(1), y=4) == Spot(1, 4)
