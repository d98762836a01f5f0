"""Input items, as chat turns."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.responses_input import InputReader, unwrap, wrap

PNG = "data:image/png;base64,AA=="
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}


def turns(*items):
    reader = InputReader("")
    reader.read(list(items))
    return reader.turns.messages("input")


def called(turn):
    return [call["function"] for call in turn["tool_calls"]]


def test_a_call_without_arguments_has_an_empty_object():
    """Clients send back the empty text that was streamed for them."""
    assert called(turns(CALL | {"arguments": ""})[0]) == [{"name": "f", "arguments": "{}"}]


def test_a_conversation_with_a_call():
    """Thought, text and call are three items and one turn."""
    assert turns(
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "b", "annotations": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        CALL,
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ) == (
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "b\nno",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    )


def test_pictures_and_files_of_the_user():
    """A text file is text; a picture stays one."""
    (turn,) = turns(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {
                    "type": "input_file",
                    "filename": "a.txt",
                    "file_data": "data:text/plain;base64,aGk=",
                },
            ],
        }
    )
    assert turn["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "text", "text": "a.txt:\nhi"},
    ]


def test_thoughts_come_back_from_content_or_from_what_we_carried():
    """Whichever of the two a client kept; another service's cannot be read."""
    content = [{"type": "reasoning_text", "text": "x"}]
    for item in (
        {"type": "reasoning", "summary": [], "content": content},
        {"type": "reasoning", "summary": [], "encrypted_content": wrap("x")},
    ):
        assert turns(item, CALL)[0]["reasoning_content"] == "x"
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
    assert "reasoning_content" not in turns(foreign, CALL)[0]


def test_what_we_carry_survives_any_text():
    """And what merely looks like it is nobody's thought."""
    assert unwrap(wrap("hé\n🙂")) == "hé\n🙂"
    assert (unwrap("meshd1.?"), unwrap("meshd1./w=="), unwrap(None)) == ("", "", "")


def test_custom_calls_and_their_outputs():
    """As the function with one text that the tool was offered as."""
    custom = {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'a "b"'}
    call, answer = turns(
        custom, {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"}
    )
    assert called(call) == [{"name": "patch", "arguments": '{"input": "a \\"b\\""}'}]
    assert answer["content"] == "ok"


def test_calls_of_trained_tools_keep_their_meaning():
    """What a local_shell was told to do stands in its action."""
    action = {"type": "exec", "command": ["ls"], "env": {}}
    call, answer = turns(
        {"type": "local_shell_call", "call_id": "c1", "status": "completed", "action": action},
        {"type": "shell_call_output", "call_id": "c1", "output": [{"stdout": "x"}]},
    )
    assert called(call)[0]["name"] == "local_shell"
    assert '"command": ["ls"]' in called(call)[0]["arguments"]
    assert answer["content"] == '[{"stdout": "x"}]'


def test_an_output_may_be_parts():
    """Pictures of a tool follow in a user turn."""
    parts = [{"type": "input_text", "text": "t"}, {"type": "input_image", "image_url": PNG}]
    _, answer, shown = turns(
        CALL, {"type": "function_call_output", "call_id": "c1", "output": parts}
    )
    assert answer["content"] == "t"
    assert shown["content"][0]["type"] == "image_url"


def test_tools_among_the_items_are_collected():
    """Codex adds some in the middle of a conversation."""
    reader = InputReader("s")
    reader.read(
        [{"type": "additional_tools", "role": "developer", "tools": [{"type": "function"}]}]
    )
    assert reader.tools == [{"type": "function"}]


def test_calls_that_ran_elsewhere_are_named():
    """They left nothing that a model could read."""
    reader = InputReader("s")
    reader.read([{"type": "web_search_call", "id": "ws_1", "status": "completed"}])
    assert reader.left_out == ["item web_search_call"]


def test_a_reference_to_a_thought_is_passed_over():
    """Vercel's AI SDK sends one before each call that was thought about: an agent goes on."""
    reader = InputReader("")
    reader.read([{"type": "item_reference", "id": "rs_req-1_0"}, CALL])
    assert reader.turns.messages("input") == turns(CALL)
    assert reader.left_out == ["reference to a thought"]


def test_a_mark_of_compaction_without_a_summary_says_nothing():
    """Codex's own summary stands in a message."""
    user = {"role": "user", "content": "a"}
    assert turns({"type": "context_compaction"}, user) == (user,)


@pytest.mark.parametrize(
    ("item", "param", "words"),
    [
        (3, "input[0]", "must be an object"),
        ({}, "input[0].type", "must say what the item is"),
        ({"type": "item_reference", "id": "msg_1"}, "input[0]", 'with "store": false'),
        ({"type": "compaction"}, "input[0]", "send the items themselves"),
        ({"type": "compaction_summary"}, "input[0]", "send the items themselves"),
        ({"type": "compaction_trigger"}, "input[0]", "only the service that made it"),
        (
            {"type": "context_compaction", "encrypted_content": "x"},
            "input[0]",
            "send the items themselves",
        ),
        ({"role": "tool", "content": "x"}, "input[0].role", "must be one of user"),
        ({"role": "user"}, "input[0].content", "not null"),
        ({"role": "user", "content": [3]}, "input[0].content[0]", "must be an object"),
        ({"role": "user", "content": [{"type": "a"}]}, "input[0].content[0].type", "input_text"),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "input[0].content[0].text",
            "must be a string",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
            "input[0].content[0]",
            "'file_data'",
        ),
        (
            {"role": "system", "content": [{"type": "input_image", "image_url": PNG}]},
            "input[0].content",
            "pictures are for user messages only",
        ),
        (CALL | {"name": None}, "input[0].name", "must be a string"),
        (CALL | {"call_id": 3}, "input[0].call_id", "must be a string"),
        ({"type": "additional_tools"}, "input[0].tools", "must be an array"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(item, param, words):
    """With the path to it."""
    with pytest.raises(ApiError) as raised:
        turns(item)
    assert raised.value.param == param
    assert words in raised.value.message


def test_an_input_has_a_bound():
    """What the relay carries."""
    with pytest.raises(ApiError, match="at most 4096"):
        turns(*[CALL] * 4097)
