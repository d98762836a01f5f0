"""The smallest value that a JSON schema lets through: what an emulated machine answers with.

Required properties alone, as few elements as there may be, the first of several choices. The same
schema gives the same value everywhere.

Left out: `pattern`, `not`, `if`, `uniqueItems` and the dependent keywords, which would need a
solver; a schema that uses them gets a value that may break them. References inside the schema are
followed, and one that never ends is said to be endless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TEXT = "emulated"
"""What a text is where anything goes."""

DEPTH_MAX = 32
"""Levels of a value: twice the deepest schema in use, and far below the interpreter's stack."""

SIZE_MAX = 1_024
"""Elements of an array and characters of a text, however many the schema asks for."""

NARROWING = ("$ref", "anyOf", "oneOf", "allOf")
"""Keywords in whose place another schema stands."""

VALUES_MAX = 10_000
"""Values in all: lists of lists of lists multiply."""

FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "emulated@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.org/",
}


class SpecimenError(ValueError):
    """No value can be made; the text says why, and is for the person who sent the schema."""


def specimen(schema: Any) -> Any:
    """A value for `schema`. Raises SpecimenError."""
    try:
        return _Maker(schema).value(schema, DEPTH_MAX)
    except (AttributeError, OverflowError, TypeError) as error:
        raise SpecimenError(f"it is no JSON schema ({error})") from None


class _Maker:
    """Makes one value; `root` is where references begin."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = VALUES_MAX

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if depth <= 0 or self._left < 0:
            raise SpecimenError(
                f"its smallest value is deeper than {DEPTH_MAX} levels, or longer than "
                f"{VALUES_MAX} values"
            )
        if schema is True:
            return TEXT
        if not isinstance(schema, Mapping):
            raise SpecimenError(f"a schema must be an object, not {schema!r:.40}")
        narrowing = next((key for key in NARROWING if key in schema), None)
        if narrowing:
            return self.value(_narrowed(schema, narrowing, self._root), depth - 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return _first(schema["enum"], "enum")
        return self._typed(schema, depth - 1)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        match _kind(schema):
            case "object":
                value: Any = self._object(schema, depth)
            case "array":
                value = self._array(schema, depth)
            case "integer" | "number" as kind:
                value = _number(schema, is_whole=kind == "integer")
            case "string":
                value = _text(schema)
            case "boolean":
                value = True
            case "null":
                value = None
            case unknown:
                raise SpecimenError(f"{unknown!r:.40} is no type of JSON")
        return value

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        return {
            name: self.value(properties.get(name, True), depth)
            for name in dict.fromkeys(schema.get("required", ()))
        }

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = int(min(_limit(schema, "minItems", 0), SIZE_MAX))
        fixed, each = list(schema.get("prefixItems", ())), schema.get("items", True)
        return [self.value(part, depth) for part in [*fixed, *[each] * least][:least]]


def _narrowed(schema: Mapping[str, Any], key: str, root: Any) -> Any:
    """The schema without `key`, and with what stood there."""
    rest = {name: value for name, value in schema.items() if name != key}
    if key == "$ref":
        return _joined(rest, _referred(schema[key], root))
    if key == "allOf":
        for part in schema[key] if isinstance(schema[key], list) else ():
            rest = _joined(rest, part)
        return rest
    return _joined(rest, _first(schema[key], key))


def _joined(one: Mapping[str, Any], two: Any) -> dict[str, Any]:
    """Both at once; where they differ, the second."""
    if not isinstance(two, Mapping):
        return dict(one)
    properties = {**one.get("properties", {}), **two.get("properties", {})}
    required = [*one.get("required", ()), *two.get("required", ())]
    joined = {**one, **two}
    return joined | ({"properties": properties, "required": required} if properties else {})


def _referred(reference: Any, root: Any) -> Any:
    place = root
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise SpecimenError(f"$ref {reference!r:.60} leads out of the schema")
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or name not in place:
            raise SpecimenError(f"$ref {reference!r:.60} leads nowhere")
        place = place[name]
    return place


def _kind(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return _first(kind, "type")
    if kind is not None:
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _number(schema: Mapping[str, Any], *, is_whole: bool) -> int | float:
    lowest = _limit(schema, "minimum", -math.inf)
    if "exclusiveMinimum" in schema:
        lowest = max(lowest, _limit(schema, "exclusiveMinimum", 0) + 1)
    highest = _limit(schema, "maximum", math.inf)
    if "exclusiveMaximum" in schema:
        above = _limit(schema, "exclusiveMaximum", 0)
        highest = min(highest, above - 1 if is_whole or lowest <= above - 1 else above / 2)
    step = _limit(schema, "multipleOf", 1) or 1
    value = min(max(0, lowest), highest)
    value = math.ceil(value / step) * step if "multipleOf" in schema or is_whole else value
    return int(value) if is_whole else value


def _text(schema: Mapping[str, Any]) -> str:
    text = FORMATS.get(str(schema.get("format")), TEXT)
    least = min(int(_limit(schema, "minLength", 0)), SIZE_MAX)
    most = int(min(_limit(schema, "maxLength", SIZE_MAX), SIZE_MAX))
    return text.ljust(least, ".")[: max(least, most)]


def _limit(schema: Mapping[str, Any], key: str, otherwise: float) -> float:
    value = schema.get(key, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecimenError(f"{key} must be a number, not {value!r:.40}")
    return value


def _first(choices: Any, key: str) -> Any:
    if not isinstance(choices, list) or not choices:
        raise SpecimenError(f"{key} must be a list with something in it")
    return choices[0]
