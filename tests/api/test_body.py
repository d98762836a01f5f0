"""Bytes to a JSON object, or a 400 that says where they stop making sense."""

import pytest

from meshd.api.body import check_free_form, decode_object
from meshd.api.errors import ApiError


def test_an_object_is_decoded():
    """The plain case, with what JSON has beyond text."""
    assert decode_object(b'{"a": [1, 2.5, null, true, "\\u00e9"]}') == {
        "a": [1, 2.5, None, True, "é"]
    }


def test_a_byte_order_mark_is_passed_over():
    """Editors on Windows write one into files that are then sent."""
    assert decode_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"[]", "must be a JSON object"),
        (b'{"a": 1,}', "trailing comma in object (byte 8)"),
        (b'{"a": ', "ends too early, after 6 bytes"),
        (b'{"a": NaN}', "byte 6"),
        (b'{"a": 1} x', "trailing characters"),
        (b'{"a": 1e999}', "Number out of range"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a": "\\ud800 alone",}', "surrogate"),
        (b'{"a":' * 1_000_000, "deeper than 64 levels"),
        (b"[" * 16_000_000, "deeper than 64 levels"),
    ],
)
def test_what_is_not_a_json_object_is_refused_with_the_place(body, words):
    """Each message says what to change; none is a 500."""
    with pytest.raises(ApiError) as caught:
        decode_object(body)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_json"
    assert words in caught.value.message


@pytest.mark.parametrize("half", [b"\\ud83d", b"\\uD83D", b"\\ude42"])
@pytest.mark.parametrize("after", [b"", b" and some more", b"\\n"])
def test_half_of_a_pair_is_one_character_less(half, after):
    """JavaScript writes a text so that was cut within an emoji; the rest of it is as it was."""
    body = b'{"a": ["\\\\ud83d \\ud83d\\ude42 %b%b"], "n": 1}' % (half, after)
    text = "\\ud83d \U0001f642 ?" + after.decode().replace("\\n", "\n")
    assert decode_object(body) == {"a": [text], "n": 1}


def nested(levels):
    return decode_object(b'{"a":' * levels + b"1" + b"}" * levels)


def test_sixty_four_levels_are_accepted():
    """The bound itself is inside."""
    check_free_form(nested(64))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (nested(65), "deeper than 64 levels"),
        ({"a": 2**64}, "64 bits"),
        ({"a": [0] * 16_385}, "list of 16385"),
    ],
)
def test_what_could_not_cross_the_relay_is_refused_here(value, words):
    """Otherwise the same request would fail on one node and succeed on another."""
    with pytest.raises(ApiError, match=words) as caught:
        check_free_form(value)
    assert caught.value.status == 400
