"""Values that the type checker holds frozen, and the interpreter takes on trust.

What a `frozen=True` dataclass does in `__init__` to get past its own lock takes five times as long
as setting the fields, and a request makes twenty such values, a stream one for each token: together
a tenth of what meshd does for either. So the lock is mypy's, which reads every line of the house in
`make check`; a value that nobody may change hashes and compares as a frozen dataclass does.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T]) -> type[T]:
    """Class decorator: a slotted dataclass, never changed once it is made. It hashes if its fields
    do."""
    return dataclasses.dataclass(slots=True, unsafe_hash=True)(cls)
