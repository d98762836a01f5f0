"""Content blocks, as chat turns."""

import pytest

from meshd.api.anthropic_blocks import ELSEWHERE, MessageReader
from meshd.api.errors import ApiError

PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
}
PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": ""},
}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def text(words):
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def result(call_id, content, **keys):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **keys}


def turns(*messages, system=None):
    reader = MessageReader()
    reader.system(system)
    reader.messages(list(messages))
    return reader.turns.messages("messages")


def test_a_tool_loop():
    """Thoughts, text and a call are one turn; its answer is another."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "é"}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert turns(
        user(text("a"), text("b")),
        assistant(thought, {"type": "redacted_thinking", "data": "x"}, text("c"), use),
        user(result("toolu_1", "42"), text("so?")),
    ) == (
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "c",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a": "é"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "42"},
        {"role": "user", "content": "so?"},
    )


def test_what_a_search_for_tools_found_is_named():
    """Agents with many tools search them first, and their history keeps what was found."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {"query": "mail"}}
    found = [{"type": "tool_reference", "tool_name": name} for name in ("mail_send", "mail_read")]
    *_, answer = turns(user(text("a")), assistant(use), user(result("toolu_1", found)))
    assert answer["content"] == "Found the tool mail_send\nFound the tool mail_read"


def test_the_system_prompt_as_text_and_as_blocks():
    """One system turn at the beginning."""
    assert turns(user(text("a")), system="s")[0] == {"role": "system", "content": "s"}
    blocks = [text("s"), text("t")]
    assert turns(user(text("a")), system=blocks)[0] == {"role": "system", "content": "s\nt"}


def test_the_accounts_line_is_passed_over():
    """It changes with every request, and nothing of the prompt could be reused."""
    blocks = [text("x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"), text("s")]
    assert turns(user(text("a")), system=blocks)[0]["content"] == "s"


def test_a_system_message_between_the_others_stays_there():
    """Claude Code sends reminders so."""
    reminder = {"role": "system", "content": [text("r")]}
    assert [turn["role"] for turn in turns(user(text("a")), reminder, user(text("b")))] == [
        "user",
        "system",
        "user",
    ]


def test_a_failed_tool_says_so():
    """Chat has no other word for it."""
    failed = result("t", [text("no such file")], is_error=True)
    assert turns(user(failed))[0]["content"] == "Error:\nno such file"


def test_pictures_of_tools_follow_their_answers():
    """Two answers of one round stay together, whatever stood between them."""
    both = user(text("look"), result("t", [text("x"), PICTURE]), result("u", None))
    assert [(turn["role"], turn["content"]) for turn in turns(both)] == [
        ("tool", "x"),
        ("tool", ""),
        ("user", [SHOWN, {"type": "text", "text": "look"}]),
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"type": "text", "media_type": "text/plain", "data": "d"}, "t\nc\nd"),
        ({"type": "content", "content": "d"}, "t\nc\nd"),
        ({"type": "content", "content": [text("d"), text("e")]}, "t\nc\nd\ne"),
        ({"type": "base64", "media_type": "text/csv", "data": "ZA=="}, "t\nc\nd"),
    ],
)
def test_documents_are_their_text(source, expected):
    """With title and context before it."""
    document = {"type": "document", "title": "t", "context": "c", "source": source}
    assert turns(user(document))[0]["content"] == expected


def test_search_results_are_their_text():
    """With title and source before it."""
    found = {"type": "search_result", "title": "t", "source": "s", "content": [text("c")]}
    assert turns(user(found))[0]["content"] == "t\ns\nc"


def test_what_another_services_tools_did_is_named():
    """A model here was not told of them, and cannot read their results."""
    reader = MessageReader()
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    reader.messages([assistant(use, found, text("a"))])
    assert reader.left_out == ["block server_tool_use", "block web_search_tool_result"]


@pytest.mark.parametrize("kind", sorted(ELSEWHERE))
def test_what_another_service_noted_for_itself_is_named(kind):
    """Its SDKs send it back with every request, so a refusal would end the conversation."""
    reader = MessageReader()
    reader.messages([user(text("a")), assistant({"type": kind}, text("b"))])
    assert reader.left_out == [f"block {kind}"]
    assert reader.turns.messages("messages")[1]["content"] == "b"


@pytest.mark.parametrize(("summary", "said"), [("Long ago.", "Long ago.\nb"), (None, "b")])
def test_the_summary_of_what_was_compacted_is_read(summary, said):
    """Null is a compaction that failed, and nothing."""
    block = {"type": "compaction", "content": summary, "signature": "x"}
    assert turns(user(text("a")), assistant(block, text("b")))[1]["content"] == said


def test_an_agents_model_is_told_of_a_file_that_cannot_be_shown():
    """The history keeps it, and a tool may read it; a plain question about it is refused."""
    reader = MessageReader(offers_tools=True)
    reader.messages([user(result("toolu_1", [PDF])), user(PDF, text("b"))])
    answer, asked = reader.turns.messages("messages")
    assert answer["content"].startswith("(This file of type application/pdf cannot be shown")
    assert asked["content"] == f"{answer['content']}\nb"
    assert reader.left_out == ["document application/pdf"] * 2


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        (3, "messages[0]", "must be an object"),
        ({"role": "tool", "content": "x"}, "messages[0].role", "user, assistant, system"),
        ({"role": "user"}, "messages[0].content", "not null"),
        (user(3), "messages[0].content[0]", "must be an object"),
        (user({"type": "a"}), "messages[0].content[0].type", 'is "a"'),
        (user({}), "messages[0].content[0].type", "is null"),
        (user({"type": "text"}), "messages[0].content[0].text", "must be a string"),
        (user({"type": "image"}), "messages[0].content[0].source", "must be an object"),
        (
            user({"type": "image", "source": {"type": "url", "url": "https://x"}}),
            "messages[0].content[0].source",
            "send the picture itself",
        ),
        (
            user({"type": "document", "source": {"type": "file", "file_id": "f"}}),
            "messages[0].content[0].source",
            "keeps no files",
        ),
        (
            user(PDF),
            "messages[0].content[0].source",
            "only text files",
        ),
        (user(result(3, "x")), "messages[0].content[0].tool_use_id", "must be a string"),
        (
            assistant({"type": "tool_use", "id": "t", "name": "f", "input": "x"}),
            "messages[0].content[0].input",
            "must be an object",
        ),
        (assistant(PICTURE), "messages[0].content[0]", "pictures are for user messages"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(message, param, words):
    """With the path to it."""
    with pytest.raises(ApiError) as raised:
        turns(message)
    assert raised.value.param == param
    assert words in raised.value.message


@pytest.mark.parametrize("value", [None, {}, [], [user(text("a"))] * 4097])
def test_messages_are_an_array_of_some(value):
    """And not of too many."""
    with pytest.raises(ApiError) as raised:
        MessageReader().messages(value)
    assert raised.value.param == "messages"


def test_the_system_prompt_is_text():
    """No template has a picture there."""
    with pytest.raises(ApiError, match="'system'"):
        turns(user(text("a")), system=[PICTURE])
