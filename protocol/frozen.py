"""Values that the type checker holds frozen, and the interpreter takes on trust.

What a `frozen=True` dataclass does in `__init__` to get past its own lock takes five times as long
as setting the fields, and a request makes twenty such values, a stream one for each token: together
a tenth of what meshd does for either. So the lock is mypy's, which reads every line of the house in
`make check`; a value that nobody may change hashes and compares as a frozen dataclass does.

A dataclass also compiles the source of five methods for each class, which was a sixth of what the
daemon does before its first answer. Only `__init__` is worth that; the others are written here
once, and read a value's fields by `attrgetter`, as quick as what would be compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T]) -> type[T]:
    """Class decorator: a slotted dataclass, never changed once it is made. It hashes if its fields
    do, equals another of its class whose fields are equal, and shows all but `repr=False`."""
    own = set(vars(cls))
    made = dataclasses.dataclass(slots=True, eq=False, repr=False)(cls)
    for name, method in _methods(made).items():
        if name not in own:
            setattr(made, name, method)
    return made


def values_of(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    """What reads all fields of a dataclass's object at once, in order of declaration."""
    names = [field.name for field in dataclasses.fields(cls)]
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


def _methods(cls: type) -> dict[str, Callable[..., Any]]:
    values = values_of(cls)
    shown = [field.name for field in dataclasses.fields(cls) if field.repr]

    def __eq__(self: Any, other: object) -> bool:  # noqa: N807 - it becomes one
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: Any) -> int:  # noqa: N807 - it becomes one
        return hash(values(self))

    def __repr__(self: Any) -> str:  # noqa: N807 - it becomes one
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({fields})"

    return {"__eq__": __eq__, "__hash__": __hash__, "__repr__": __repr__}
