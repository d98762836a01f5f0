"""Fields are read strictly, and errors name them as the caller would."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.fields import Fields, json_type


def test_absent_and_null_are_the_same():
    """SDKs send null for what was not set."""
    for fields in (Fields({}), Fields(dict.fromkeys("tnifam"))):
        assert fields.text("t", 9) is None
        assert fields.number("n", 0, 1) is None
        assert fields.integer("i", 0, 1) is None
        assert fields.flag("f") is False
        assert fields.array("a") is None
        assert fields.mapping("m") is None


def test_what_nobody_asked_for_is_left():
    """The rest is what travels on as extras."""
    fields = Fields({"a": 1, "b": 2})
    fields.integer("a", 0, 9)
    assert fields.rest == {"b": 2}


def test_reading_does_not_change_the_body():
    """The body is the caller's."""
    body = {"a": 1}
    Fields(body).take("a")
    assert body == {"a": 1}


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (lambda f: f.text("x", 9), 5, "'at.x' must be a string, not an integer."),
        (lambda f: f.text("x", 2), "abc", "'at.x' has 3 characters; at most 2 are allowed."),
        (lambda f: f.flag("x"), 1, "'at.x' must be true or false, not an integer."),
        (lambda f: f.integer("x", 0, 9), True, "'at.x' must be an integer, not a boolean."),
        (lambda f: f.integer("x", 0, 9), 3.0, "'at.x' must be an integer, not a number."),
        (lambda f: f.integer("x", 0, 9), 10, "'at.x' is 10; it must be 0 to 9."),
        (lambda f: f.number("x", 0, 2), "1", "'at.x' must be a number, not a string."),
        (lambda f: f.number("x", 0, 2), 2.5, "'at.x' is 2.5; it must be 0 to 2."),
        (lambda f: f.array("x"), {}, "'at.x' must be an array, not an object."),
        (lambda f: f.mapping("x"), [], "'at.x' must be an object, not an array."),
    ],
)
def test_a_wrong_value_is_named_with_what_to_send(read, value, words):
    """The words are the whole message, and `param` is the place."""
    with pytest.raises(ApiError) as caught:
        read(Fields({"x": value}, "at"))
    assert caught.value.message == words
    assert caught.value.param == "at.x"


def test_a_whole_number_serves_as_a_number():
    """JSON does not tell 1 from 1.0."""
    assert type(Fields({"x": 1}).number("x", 0, 2)) is float


@pytest.mark.parametrize(
    ("value", "name"),
    [("", "a string"), (True, "a boolean"), (1, "an integer"), (None, "null"), ([], "an array")],
)
def test_types_have_their_json_names(value, name):
    """Callers write JSON, not Python."""
    assert json_type(value) == name


def test_a_missing_field_says_why_it_is_needed():
    """And names the place."""
    error = Fields({}, "tools[0].function").absent("name", "Every tool needs a name.")
    assert error.message == "'tools[0].function.name' is missing. Every tool needs a name."
