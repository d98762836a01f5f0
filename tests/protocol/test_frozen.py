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


def test_it_shows_its_fields_but_not_its_secrets() -> None:
    """`repr=False` keeps a field out of logs and failed assertions."""

    @frozen
    class Door:
        number: int
        key: bytes = dataclasses.field(repr=False)

    assert repr(Door(3, b"secret")).endswith("Door(number=3)")
    assert repr(Spot(1)) == "Spot(x=1, y=0)"


def test_what_a_class_says_itself_stays() -> None:
    """Equality of its own, with the hash that Python then takes away, and a way to be shown."""

    @frozen
    class Word:  # noqa: PLW1641 - Python takes its hash away, which is asked below
        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Word) and self.text.lower() == other.text.lower()

        def __repr__(self) -> str:
            return "a word"

    assert Word("A") == Word("a")
    assert repr(Word("A")) == "a word"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Word("A"))


def test_values_of_other_classes_are_never_equal() -> None:
    """Nor are those of a class that adds nothing to another, nor tuples of the same."""

    @frozen
    class Twin:
        x: int
        y: int = 0

    @frozen
    class Nothing:
        pass

    values: list[object] = [Spot(1), Twin(1), (1, 0), Nothing()]
    assert [values.index(value) for value in values] == [0, 1, 2, 3]
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())


def test_it_has_no_room_for_fields_that_were_not_declared() -> None:
    """Slots: less memory, and a misspelt name is an error at run time too."""
    place: Any = Spot(1)
    with pytest.raises(AttributeError):
        place.z = 3
    assert dataclasses.replace(Spot(1), y=4) == Spot(1, 4)
