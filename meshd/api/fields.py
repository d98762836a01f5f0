"""Reading the fields of one JSON object, strictly, with words that say what to change.

No coercion: `"5"` is not a number, `1` is not true, 3.0 is not a count. `null` means not given,
as every SDK sends it. What nobody asked for stays in `rest`, because clients send fields that are
newer than any server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.errors import ApiError, bad_type, bad_value, missing

_NAMES: dict[type[Any], str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class Fields:
    """One JSON object, emptied field by field. `path` is how the caller would name it."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.rest = dict(values)
        self.path = f"{path}." if path else ""

    def take(self, name: str) -> Any:
        """Any value, None when absent."""
        return self.rest.pop(name, None)

    def text(self, name: str, longest: int) -> str | None:
        """A string of at most `longest` characters."""
        value = self.rest.pop(name, None)
        if value is None:
            return None
        if type(value) is not str:
            raise self.wrong(name, "a string", value)
        if len(value) > longest:
            raise bad_value(
                self.path + name,
                f"'{self.path}{name}' has {len(value)} characters; at most {longest} are allowed.",
            )
        return value

    def flag(self, name: str) -> bool:
        """A boolean, False when absent."""
        value = self.rest.pop(name, None)
        if value is None:
            return False
        if type(value) is not bool:
            raise self.wrong(name, "true or false", value)
        return value

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number in [lowest, highest]."""
        value = self.rest.pop(name, None)
        if value is None:
            return None
        if type(value) is not int:
            raise self.wrong(name, "an integer", value)
        if not lowest <= value <= highest:
            raise self.outside(name, value, f"{lowest} to {highest}")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float | None:
        """A number in [lowest, highest]."""
        value = self.rest.pop(name, None)
        if value is None:
            return None
        if type(value) is not float and type(value) is not int:
            raise self.wrong(name, "a number", value)
        if not lowest <= value <= highest:
            raise self.outside(name, value, f"{lowest:g} to {highest:g}")
        return float(value)

    def array(self, name: str) -> list[Any] | None:
        """An array of anything."""
        value = self.rest.pop(name, None)
        if value is not None and type(value) is not list:
            raise self.wrong(name, "an array", value)
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        """An object of anything."""
        value = self.rest.pop(name, None)
        if value is not None and type(value) is not dict:
            raise self.wrong(name, "an object", value)
        return value

    def wrong(self, name: str, wanted: str, got: object) -> ApiError:
        """The error for a value of the wrong type."""
        where = self.path + name
        return bad_type(where, f"'{where}' must be {wanted}, not {json_type(got)}.")

    def outside(self, name: str, got: float, wanted: str) -> ApiError:
        """The error for a number out of range."""
        where = self.path + name
        return bad_value(where, f"'{where}' is {got}; it must be {wanted}.")

    def absent(self, name: str, message: str) -> ApiError:
        """The error for a field that must be there."""
        return missing(self.path + name, f"'{self.path}{name}' is missing. {message}")


def json_type(value: object) -> str:
    """A JSON type's name with its article, for sentences."""
    return _NAMES[type(value)]
