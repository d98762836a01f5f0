"""Records: what a message is made of, how it looks in msgpack, and how it may grow.

A record is a `frozen` dataclass whose fields each carry a `Field` in their metadata. On the wire it
is a msgpack array, positional, in order of declaration. Three rules make mixed versions work:

- fields are only ever appended, and every appended field has a default;
- a decoder that finds fewer elements than it knows fills in defaults;
- a decoder that finds more elements than it knows skips the rest.

The same declaration drives the encoder and the decoder, so the two cannot drift apart. Each record
class is compiled once, when it is declared, into a row of steps (name, decode, place in the
object); the relay decodes tens of thousands of small records a second through those rows, which
is why a decoded object is filled slot by slot instead of through the class's constructor.

Single values are in `scalars`, free-form ones in `freeform`; everything that declares a record
imports all of them from here. Left out on purpose: maps keyed by field name (three times the
bytes), and schemas exchanged at run time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from operator import call
from typing import Any, NamedTuple, Protocol, TypeVar, dataclass_transform

from protocol.errors import ProtocolError
from protocol.freeform import Json, check_json
from protocol.frozen import frozen, values_of
from protocol.scalars import Bool, Bytes, Choice, Float, Hex, Int, Text, Tokens, wrong_type

__all__ = [
    "Bool",
    "Bytes",
    "Choice",
    "Field",
    "Float",
    "Hex",
    "Int",
    "Json",
    "Known",
    "ListOf",
    "Optional",
    "Pair",
    "Record",
    "Text",
    "Tokens",
    "Union",
    "check_json",
    "decode_record",
    "encode_record",
    "record",
    "record_fields",
    "required_fields",
    "wire",
]

R = TypeVar("R")


class Field(Protocol):
    """Validates one value and translates it between Python and msgpack's types.

    `str()` of a field says in words what it allows.
    """

    def encode(self, value: Any, /) -> Any: ...

    def decode(self, raw: Any, /) -> Any: ...


class Optional:
    """Nothing, or what `inner` holds."""

    def __init__(self, inner: Field) -> None:
        self.inner = inner

    def __str__(self) -> str:
        return f"nil, or {self.inner}"

    def encode(self, value: Any) -> Any:
        return None if value is None else self.inner.encode(value)

    def decode(self, raw: Any) -> Any:
        return None if raw is None else self.inner.decode(raw)


class Pair:
    """Exactly two values, each of its own kind; a tuple in Python."""

    def __init__(self, first: Field, second: Field) -> None:
        self.first = first
        self.second = second

    def __str__(self) -> str:
        return f"[{self.first}, {self.second}]"

    def encode(self, value: tuple[Any, Any]) -> list[Any]:
        if type(value) is not tuple or len(value) != 2:
            raise wrong_type("a pair", value)
        return [self.first.encode(value[0]), self.second.encode(value[1])]

    def decode(self, raw: Any) -> tuple[Any, Any]:
        if type(raw) is not list or len(raw) != 2:
            raise wrong_type("a pair", raw)
        return self.first.decode(raw[0]), self.second.decode(raw[1])


class ListOf:
    """At most `most` values of one kind; a tuple in Python, so that records stay hashable."""

    def __init__(self, inner: Field, most: int) -> None:
        self.inner = inner
        self.most = most

    def __str__(self) -> str:
        return f"0 to {self.most:,} of: {self.inner}"

    def encode(self, value: tuple[Any, ...]) -> list[Any]:
        if type(value) is not tuple:
            raise wrong_type("tuple", value)
        self._check(len(value))
        return list(map(self.inner.encode, value))

    def decode(self, raw: Any) -> tuple[Any, ...]:
        if type(raw) is not list:
            raise wrong_type("list", raw)
        self._check(len(raw))
        return tuple(map(self.inner.decode, raw))

    def _check(self, size: int) -> None:
        if size > self.most:
            raise ProtocolError("length", f"{size} entries, limit {self.most}")


class Record:
    """A nested record of class `cls`."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls

    def __str__(self) -> str:
        return self.cls.__name__

    def encode(self, value: Any) -> list[Any]:
        if type(value) is not self.cls:
            raise wrong_type(self.cls.__name__, value)
        return encode_record(value)

    def decode(self, raw: Any) -> Any:
        return decode_record(self.cls, raw)


class Union:
    """One of several records, sent as `[tag, ...fields]`; the tag table is append-only."""

    def __init__(self, tags: Mapping[int, type[Any]]) -> None:
        self.by_tag = dict(tags)
        self.by_class = {cls: tag for tag, cls in tags.items()}

    def __str__(self) -> str:
        return ", ".join(f"[{tag}, {cls.__name__}...]" for tag, cls in self.by_tag.items())

    def encode(self, value: Any) -> list[Any]:
        tag = self.by_class.get(type(value))
        if tag is None:
            raise wrong_type("a record of the union", value)
        return [tag, *encode_record(value)]

    def decode(self, raw: Any) -> Any:
        if type(raw) is not list or not raw or type(raw[0]) is not int:
            raise wrong_type("[tag, ...fields]", raw)
        cls = self.by_tag.get(raw[0])
        if cls is None:
            raise ProtocolError("unknown", f"tag {raw[0]}")
        return decode_record(cls, raw[1:])


class Known(ListOf):
    """A list of a union whose entries of a tag this version does not know are skipped."""

    def __init__(self, inner: Union, most: int) -> None:
        super().__init__(inner, most)

    def decode(self, raw: Any) -> tuple[Any, ...]:
        if type(raw) is not list:
            raise wrong_type("list", raw)
        self._check(len(raw))
        known = []
        for item in raw:
            try:
                known.append(self.inner.decode(item))
            except ProtocolError as error:
                if error.code != "unknown":
                    raise
        return tuple(known)


def wire(field: Field, **options: Any) -> Any:
    """A dataclass field that crosses the wire; `options` are dataclasses.field's (default ...)."""
    return dataclasses.field(metadata={"wire": field}, **options)


class _Step(NamedTuple):
    """One field of a compiled record: its name, its decoder, and how to fill its slot."""

    name: str
    decode: Callable[[Any], Any]
    place: Callable[[Any, Any], None]


class _Shape(NamedTuple):
    """A compiled record class."""

    fields: tuple[tuple[str, Field], ...]
    required: int
    """How many fields have no default; they come first."""
    steps: tuple[_Step, ...]
    encoders: tuple[Callable[[Any], Any], ...]
    values: Callable[[Any], Any]
    """All field values of an object, as a tuple."""
    defaults: tuple[Any, ...]
    """Of the fields after the required ones."""


_SHAPES: dict[type[Any], _Shape] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(wire,))
def record(cls: type[R]) -> type[R]:
    """Class decorator: a `frozen` dataclass whose wire form is its fields in order.

    At least one field; a default, which every field after the first with one has too, is a value
    that is never changed.
    """
    made = frozen(cls)
    declared = dataclasses.fields(made)  # type: ignore[arg-type]
    assert declared, cls
    assert all(f.default_factory is dataclasses.MISSING for f in declared), cls
    fields = tuple((f.name, f.metadata["wire"]) for f in declared)
    defaults = tuple(f.default for f in declared if f.default is not dataclasses.MISSING)
    _SHAPES[made] = _Shape(
        fields=fields,
        required=len(fields) - len(defaults),
        steps=tuple(_Step(n, field.decode, getattr(made, n).__set__) for n, field in fields),
        encoders=tuple(field.encode for _, field in fields),
        values=values_of(made),
        defaults=defaults,
    )
    return made


def encode_record(value: Any) -> list[Any]:
    """The record's fields as msgpack types, in order of declaration.

    Raises ProtocolError, naming the field, when a value is outside its bounds.
    """
    shape = _SHAPES[type(value)]
    encoded: list[Any] = []
    try:
        # Leaves what was encoded before a refusal in the list, which tells whose it was.
        encoded.extend(map(call, shape.encoders, shape.values(value)))
    except ProtocolError as error:
        raise _in_field(type(value), shape.fields[len(encoded)][0], error) from None
    return encoded


def decode_record(cls: type[R], raw: Any) -> R:
    """The record that `raw` stands for; missing trailing fields default, extra ones are skipped.

    Raises ProtocolError, naming the field, for anything else.
    """
    shape = _SHAPES[cls]
    if type(raw) is not list:
        raise wrong_type(f"the fields of {cls.__name__}", raw)
    if len(raw) < shape.required:
        raise ProtocolError(
            "truncated", f"{cls.__name__} has {len(raw)} of {shape.required} fields"
        )
    made = object.__new__(cls)
    name = ""
    try:
        for (name, decode, place), item in zip(shape.steps, raw, strict=False):  # noqa: B007
            place(made, decode(item))
    except ProtocolError as error:
        raise _in_field(cls, name, error) from None
    if len(raw) < len(shape.steps):
        absent = slice(len(raw), None)
        defaults = shape.defaults[len(raw) - shape.required :]
        for (_, _, place), default in zip(shape.steps[absent], defaults, strict=True):
            place(made, default)
    return made


def record_fields(cls: type[Any]) -> tuple[tuple[str, Field], ...]:
    """Name and wire form of each field of a record class, for SPEC's table and the tests."""
    return _SHAPES[cls].fields


def required_fields(cls: type[Any]) -> int:
    """How many of them must be there: the fewest elements that decode."""
    return _SHAPES[cls].required


def _in_field(cls: type[Any], name: str, error: ProtocolError) -> ProtocolError:
    return ProtocolError(error.code, f"{cls.__name__}.{name}: {error.detail}")
