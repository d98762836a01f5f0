"""Ollama's turns in OpenAI's form: pictures, calls, and who answers which call."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.ollama_turns import read_turns, user_turn

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
JPEG = "/9j/4AAQSkZJRgABAQAAAQABAAD/"


def called(name, **arguments):
    return {"function": {"name": name, "arguments": arguments}}


def picture(url):
    return {"type": "image_url", "image_url": {"url": url}}


def test_plain_turns_stay_as_they_are():
    """`developer` is `system` by another name."""
    turns = [{"role": role, "content": "Hi"} for role in ("developer", "user", "assistant")]
    assert [turn["role"] for turn in read_turns(turns)] == ["system", "user", "assistant"]
    assert read_turns(None) == read_turns([]) == ()


def test_pictures_become_data_urls_of_their_kind():
    """Told by their first bytes; a data URL is left alone."""
    images = [PNG, JPEG, "data:image/webp;base64,UklGRg=="]
    assert user_turn("What?", images)["content"] == [
        {"type": "text", "text": "What?"},
        picture(f"data:image/png;base64,{PNG}"),
        picture(f"data:image/jpeg;base64,{JPEG}"),
        picture(images[2]),
    ]
    one = [picture(f"data:image/png;base64,{PNG}")]
    assert user_turn("", [PNG])["content"] == one
    wrapped = f"{PNG[:5]}\r\n{PNG[5:]}\n"
    assert user_turn("", [wrapped])["content"] == one
    assert user_turn("Hi", [])["content"] == "Hi"


def test_calls_get_ids_and_answers_find_them():
    """By name where there is one, else the oldest that nobody has answered."""
    turns = read_turns(
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "tool_calls": [called("now", city="Ulm"), called("later")]},
            {"role": "tool", "tool_name": "later", "content": "rain"},
            {"role": "tool", "content": "sun"},
            {"role": "tool", "content": "nobody asked"},
        ]
    )
    first, second = turns[1]["tool_calls"]
    assert first == {
        "id": "call_1_0",
        "type": "function",
        "function": {"name": "now", "arguments": '{"city":"Ulm"}'},
    }
    assert turns[2] == {
        "role": "tool",
        "content": "rain",
        "tool_call_id": second["id"],
        "name": "later",
    }
    assert [turn["tool_call_id"] for turn in turns[3:]] == [first["id"], "call_4"]


def test_ids_that_a_client_gives_are_kept():
    """Newer versions give them out, and newer clients send them back."""
    call = called("f") | {"id": "call_x"}
    turns = read_turns(
        [
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "1", "tool_call_id": "call_x"},
        ]
    )
    assert turns[0]["tool_calls"][0]["id"] == turns[1]["tool_call_id"] == "call_x"
    assert turns[0]["reasoning_content"] == "hm"


def test_arguments_may_be_text_already():
    """Some clients send OpenAI's form."""
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    (turn,) = read_turns([{"role": "assistant", "tool_calls": [call]}])
    assert turn["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("Hi", "messages"),
        (["Hi"], "messages[0]"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([{"role": "boss"}], "messages[0].role"),
        ([{"role": "user", "content": ["Hi"]}], "messages[0].content"),
        ([{"role": "user", "images": "x"}], "messages[0].images"),
        ([{"role": "user", "images": [1]}], "messages[0].images[0]"),
        ([{"role": "user", "images": ["iVBORw0KGgo!"]}], "messages[0].images[0]"),
        ([{"role": "user", "images": ["AAAA"]}], "messages[0].images[0]"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [1]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {}}]}],
            "messages[0].tool_calls[0].function.name",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "user"}] * 4097, "messages"),
    ],
)
def test_what_is_no_conversation_is_refused_where_it_goes_wrong(messages, param):
    """With the path to it."""
    with pytest.raises(ApiError) as caught:
        read_turns(messages)
    assert (caught.value.status, caught.value.param) == (400, param)
