"""Free-form values: what clients put into a request that only an engine understands.

Chat messages, tool schemas and engine extras have no fixed shape. They cross the wire as they
are, made of JSON's types, within two bounds that protect the receiver's stack and memory: how
deep they nest and how long one list may be. Everything else about them is the engine's business.
"""

from __future__ import annotations

import math
from typing import Any

from protocol import limits
from protocol.errors import ProtocolError
from protocol.scalars import I64_MIN, U64_MAX, wrong_type

TEXT_ONLY = frozenset({str})

PLAIN = frozenset({str, bool, type(None)})
"""Types of which every value is fine: most of what a message is made of."""


class Json:
    """A value with JSON's types, at most NESTING_MAX_DEPTH deep.

    Objects keep their order. Mutable in Python: whoever needs to change one copies it first.
    """

    def __str__(self) -> str:
        return f"JSON value, at most {limits.NESTING_MAX_DEPTH} levels deep"

    def decode(self, raw: Any) -> Any:
        check_json(raw)
        return raw

    encode = decode


def check_json(value: Any) -> None:
    """Raises ProtocolError unless `value` is made of JSON's types, within the bounds above.

    Iterative, breadth first: a hostile depth costs a list, never the interpreter's stack.
    """
    layer = [value]
    for _ in range(limits.NESTING_MAX_DEPTH + 1):
        below: list[Any] = []
        has_below = False
        for item in layer:
            kind = type(item)
            if kind is dict:
                if not TEXT_ONLY.issuperset(map(type, item)):
                    raise ProtocolError("type", "object keys are text")
                inside = item.values()
            elif kind is list:
                _check_list(item)
                inside = item
            else:
                if kind not in PLAIN:
                    _check_number(item)
                continue
            has_below = has_below or bool(inside)
            if not PLAIN.issuperset(map(type, inside)):
                below.extend(inside)
        if not has_below:
            return
        layer = below
    raise ProtocolError("length", f"nested deeper than {limits.NESTING_MAX_DEPTH} levels")


def _check_list(item: list[Any]) -> None:
    if len(item) > limits.RELAY_LIST_MAX:
        raise ProtocolError("length", f"list of {len(item)} values, limit {limits.RELAY_LIST_MAX}")


def _check_number(item: Any) -> None:
    if type(item) is float:
        if not math.isfinite(item):
            raise ProtocolError("range", "NaN or infinity")
    elif type(item) is not int:
        raise wrong_type("a JSON value", item)
    elif not I64_MIN <= item <= U64_MAX:
        raise ProtocolError("range", "integer beyond 64 bits")
