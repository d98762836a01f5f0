"""Claims of meshd.engine.specimen."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.specimen import SIZE_MAX, SpecimenError, specimen

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["name"],
        }
    },
}
ENDLESS = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}},
            "required": ["next"],
        }
    },
}
MANY = {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, "emulated"),
        ({}, "emulated"),
        ({"type": "object"}, {}),
        ({"properties": {"a": {}, "b": {"type": "null"}}, "required": ["b"]}, {"b": None}),
        ({"type": "object", "required": ["free"]}, {"free": "emulated"}),
        ({"type": "array", "items": {"type": "boolean"}}, []),
        ({"items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 2}, [0, "emulated"]),
        ({"const": [1]}, [1]),
        ({"enum": ["red", "green"]}, "red"),
        ({"type": ["integer", "null"]}, 0),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"properties": {"b": {"const": 2}}, "required": ["b"]}]}, {"a": 1, "b": 2}),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}, 5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "string", "maxLength": 2}, "em"),
        ({"type": "string", "minLength": 10}, "emulated.."),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        (TREE, {"name": "emulated"}),
        ({"$ref": "#/a~1b", "a/b": {"const": 7}}, 7),
    ],
)  # fmt: skip
def test_a_schema_gets_its_smallest_value(schema, value):
    """Required parts alone, the first of several choices."""
    assert specimen(schema) == value


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (False, "must be an object"),
        ({"type": "colour"}, "'colour' is no type of JSON"),
        ({"enum": []}, "enum must be a list"),
        ({"type": "integer", "minimum": "3"}, "minimum must be a number"),
        ({"$ref": "https://example.org/a.json"}, "leads out of the schema"),
        ({"$ref": "#/$defs/gone"}, "leads nowhere"),
        ({"type": "object", "properties": [1], "required": ["a"]}, "no JSON schema"),
        (ENDLESS, "deeper than 32 levels"),
        (MANY, "longer than 10000 values"),
    ],
)
def test_a_schema_without_a_value_is_refused_with_the_reason(schema, said):
    """The person who sent it knows what to change, and no schema takes the machine along."""
    with pytest.raises(SpecimenError, match=said):
        specimen(schema)


def test_what_a_schema_asks_for_is_bounded():
    """A million elements are not made for one request."""
    assert len(specimen({"type": "array", "minItems": 10**6})) == SIZE_MAX
    assert len(specimen({"type": "string", "minLength": 10**6})) == SIZE_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "minItems", "anyOf", "$ref"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_any_json_has_a_value_or_is_refused(schema):
    """Nothing else is ever raised, whatever a client sends as a schema."""
    with contextlib.suppress(SpecimenError):
        json.dumps(specimen(schema), allow_nan=False)
