"""Events to an Anthropic message: golden cases, whole and streamed, held to the official types."""

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from meshd.api.anthropic_answer import MESSAGES, refuse
from meshd.api.dialect import Asker, Opening
from meshd.api.errors import ApiError, bad_value, from_failure
from meshd.core.ports import AnswerHead, Note
from protocol.jobs import Failure, Finish, Queued, ReasoningDelta, TextDelta, ToolCallDelta
from tests.api.scripted import DONE

OPENING = Opening("r1", 1_700_000_000.9, AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 7, 3))
GONE = Failure("engine_failed", "gone", elsewhere=False)
THINK = {"thinking": {"type": "adaptive"}}
CALLS = [
    ToolCallDelta(0, "c1", "f", ""),
    ToolCallDelta(0, "", "", '{"a":'),
    ToolCallDelta(0, "", "", "1}"),
    ToolCallDelta(1, "", "g", ""),
]
BODY = {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
EVENT = TypeAdapter(RawMessageStreamEvent)
WHOLE = TypeAdapter(Message)


def asked(**fields):
    return MESSAGES.read(BODY | fields, Asker("r1"))


def encoded(*batches, **fields):
    encoder = MESSAGES.stream(asked(**fields), OPENING)
    return b"".join([encoder.encode(batch) for batch in batches])


def stream(*batches, **fields):
    """The events of a stream less its pings, each checked: its name, the official type."""
    *blocks, rest = encoded(*batches, **fields).decode().split("\n\n")
    assert rest == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return [event for event in found if event["type"] != "ping"]


def official(events):
    for event in events:
        EVENT.validate_python(event)
    return events


def whole(*batches, **fields):
    builder = MESSAGES.whole(asked(**fields), OPENING)
    for batch in batches:
        builder.add(batch)
    body = json.loads(builder.body())
    WHOLE.validate_python(body)
    return body


def types(events):
    return [event["type"] for event in events]


def text(words):
    return {"type": "text", "text": words, "citations": []}


def use(call_id, name, arguments):
    return {
        "type": "tool_use",
        "id": call_id,
        "name": name,
        "input": arguments,
        "caller": {"type": "direct"},
    }


def test_a_prompt_that_is_only_to_be_read_is_answered_with_nothing():
    """As programs warm up the cache: the model says one token, and nobody sees it."""
    said = [ReasoningDelta("?"), TextDelta("x"), Finish("length", 5, 1)]
    assert asked(max_tokens=0).job.max_tokens == 1
    answer = whole(said, max_tokens=0, **THINK)
    assert (answer["content"], answer["stop_reason"]) == ([text("")], "max_tokens")
    events = official(stream(said, max_tokens=0, **THINK))
    assert "content_block_delta" not in types(events)


def usage(prompt, answer, cached=0):
    return {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "cache_creation": None,
        "output_tokens": answer,
        "output_tokens_details": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }


def test_a_whole_answer_word_by_word():
    """With every key that the specification requires; what was cached is counted apart."""
    assert whole([TextDelta("Hel"), TextDelta("lo")], [DONE]) == {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "container": None,
        "content": [text("Hello")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage(4, 2, cached=1),
    }


def test_a_stream_word_by_word():
    """Every event by its name; the counts at the beginning are an estimate."""
    assert official(stream([TextDelta("Hel")], [TextDelta("lo"), DONE])) == [
        {
            "type": "message_start",
            "message": whole([DONE]) | {"content": [], "stop_reason": None, "usage": usage(7, 0)},
        },
        {"type": "content_block_start", "index": 0, "content_block": text("")},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hel"},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {
                "container": None,
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "stop_details": None,
            },
            "usage": usage(4, 2, cached=1),
        },
        {"type": "message_stop"},
    ]


def test_a_ping_follows_the_start():
    """As Anthropic sends it; it is the heartbeat too."""
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    assert ping in encoded([TextDelta("a")])
    assert MESSAGES.stream(asked(), OPENING).heartbeat() == ping


def test_batches_do_not_show():
    """However events were grouped on their way, the client reads the same bytes."""
    flow = [ReasoningDelta("b"), TextDelta("a"), TextDelta(""), *CALLS, Finish("tool_calls", 1, 2)]
    assert encoded(*[[event] for event in flow], **THINK) == encoded(flow, **THINK)


def test_a_call_that_was_asked_for_by_name_is_a_call():
    """OpenAI's servers end it with "stop", and an agent goes on only at "tool_use"."""
    assert whole([*CALLS, Finish("stop", 5, 2)])["stop_reason"] == "tool_use"
    *_, last, _ = official(stream([*CALLS, Finish("stop", 5, 2)]))
    assert last["delta"]["stop_reason"] == "tool_use"


def test_calls_are_blocks():
    """Their input is an object when whole, and pieces of JSON in a stream."""
    answer = whole([TextDelta("so"), *CALLS, Finish("tool_calls", 5, 2)])
    assert answer["content"] == [text("so"), use("c1", "f", {"a": 1}), use("toolu_r1_1", "g", {})]
    assert answer["stop_reason"] == "tool_use"
    events = official(stream([*CALLS, Finish("tool_calls", 5, 2)]))
    assert types(events)[1:-2] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
    ]
    assert events[1]["content_block"] == use("c1", "f", {})
    assert events[2]["delta"] == {"type": "input_json_delta", "partial_json": '{"a":'}
    assert [event["index"] for event in events[1:-2]] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("arguments", ['{"a":', "[1]"])
def test_arguments_that_are_no_object_are_given_as_they_are(arguments):
    """The client's own words for a model's mistake."""
    call = ToolCallDelta(0, "c1", "f", arguments)
    content = whole([call, Finish("tool_calls", 1, 1)])["content"]
    assert content == [use("c1", "f", {"arguments": arguments})]


def test_thoughts_for_whom_asked():
    """A block before the answer, signed with what says that it proves nothing."""
    flow = [ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("a"), Finish("stop", 5, 3)]
    thought = {"type": "thinking", "thinking": "hm", "signature": "meshd-unsigned"}
    answer = whole(flow, **THINK)
    assert answer["content"] == [thought, text("a")]
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 2}
    events = official(stream(flow, **THINK))
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert [event["delta"] for event in events[2:5]] == [
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "meshd-unsigned"},
    ]
    assert [event["index"] for event in events[1:-2]] == [0] * 5 + [1] * 3


def test_thoughts_for_whom_did_not_ask():
    """Programs that did not ask take the first block for the answer."""
    flow = [ReasoningDelta("hm"), TextDelta("a"), DONE]
    assert whole(flow)["content"] == [text("a")]
    assert [event["index"] for event in stream(flow)[1:-2]] == [0, 0, 0]


def test_thoughts_without_their_text():
    """The block stands, because clients send it back."""
    flow = [ReasoningDelta("hm"), TextDelta("a"), DONE]
    omitted = {"thinking": {"type": "adaptive", "display": "omitted"}}
    thought = {"type": "thinking", "thinking": "", "signature": "meshd-unsigned"}
    assert whole(flow, **omitted)["content"][0] == thought
    assert types(stream(flow, **omitted))[1:4] == [
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop", 1, 1), "end_turn", None),
        (Finish("stop", 1, 1, stop="END"), "stop_sequence", "END"),
        (Finish("length", 1, 1), "max_tokens", None),
        (Finish("tool_calls", 1, 1, stop="END"), "tool_use", None),
        (Finish("content_filter", 1, 1), "refusal", None),
    ],
)
def test_why_it_ended(finish, reason, sequence):
    """In this dialect's words, with the sequence where one is known."""
    answer = whole([TextDelta("a"), finish])
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    delta = stream([TextDelta("a"), finish])[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, sequence)


def test_an_answer_of_nothing_has_an_empty_text():
    """Programs read the first block without asking."""
    assert whole([DONE])["content"] == [text("")]
    assert types(official(stream([DONE])))[1:3] == ["content_block_start", "content_block_stop"]


def test_a_failure_after_the_first_byte_is_an_error_event():
    """The SDKs raise it; message_stop would say that all is well."""
    *_, last = stream([TextDelta("a")], [GONE])
    assert last == {
        "type": "error",
        "error": {"type": "api_error", "message": "gone"},
        "request_id": "r1",
    }


def test_a_failure_before_anything_else_is_nothing_more():
    """No message has begun."""
    assert types(stream([GONE])) == ["error"]


@pytest.mark.parametrize("end", [DONE, GONE])
def test_nothing_follows_the_end(end):
    """Exactly one, whatever an engine says after it."""
    encoder = MESSAGES.stream(asked(), OPENING)
    encoder.encode([TextDelta("a"), end, TextDelta("b")])
    assert encoder.ended
    assert encoder.encode([TextDelta("c"), DONE]) == b""


def test_one_call_where_one_was_asked_for():
    """`disable_parallel_tool_use` is kept to, whatever the model does."""
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    answer = whole([*CALLS, Finish("tool_calls", 1, 1)], tool_choice=choice)
    assert [block["name"] for block in answer["content"]] == ["f"]


def test_mixed_pieces_of_calls_end_the_answer():
    """A piece of a call that is over has no event to go into."""
    mixed = [CALLS[0], CALLS[3], CALLS[2]]
    assert types(stream(mixed))[-1] == "error"
    with pytest.raises(ApiError, match="mixed the pieces"):
        whole(mixed)


def test_waiting_and_remarks_are_comments():
    """They are no part of the answer."""
    data = encoded([Queued(2, 3.1)], [Note("continued on attic"), TextDelta("a"), DONE])
    assert b"\n\n: queued position=2 wait_s=3.1\n\n" in data


def test_a_whole_answer_that_fails_raises():
    """Before its first byte it is a status."""
    with pytest.raises(ApiError, match="gone"):
        whole([TextDelta("a")], [GONE])
    with pytest.raises(ApiError, match="broke off"):
        whole([TextDelta("a")])


def test_half_a_character_does_not_break_the_json():
    """UTF-8 cannot carry it."""
    assert whole([TextDelta("a\ud83d"), DONE])["content"] == [text("a?")]
    assert stream([TextDelta("a\ud83d"), DONE])[2]["delta"]["text"] == "a?"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("bad_request", 400, "invalid_request_error"),
        ("unauthorized", 502, "api_error"),
        ("model_not_found", 404, "not_found_error"),
        ("rate_limited", 429, "rate_limit_error"),
        ("engine_failed", 502, "api_error"),
        ("overloaded", 529, "overloaded_error"),
        ("draining", 529, "overloaded_error"),
        ("timeout", 504, "timeout_error"),
        ("insufficient_memory", 507, "api_error"),
    ],
)
def test_an_error_in_this_dialects_shape(code, status, kind):
    """The SDKs choose their exception by the status, people read the message."""
    error = from_failure(Failure(code, "why", elsewhere=False))
    said, body = refuse(error, "r1")
    assert said == status
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": kind, "message": "why"},
        "request_id": "r1",
    }


def test_an_error_of_ours_has_its_shape_too():
    """Whoever raised it."""
    assert refuse(bad_value("model", "why"), "r1")[0] == 400
    assert b'"authentication_error"' in refuse(ApiError(401, "who?", code="x"), "r1")[1]
    assert json.loads(refuse(ApiError(413, "big", code="x"), "r1")[1])["error"] == {
        "type": "request_too_large",
        "message": "big",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("it has 9 tokens", "prompt is too long: it has 9 tokens"),
        ("The prompt is too long: 9 > 8.", "The prompt is too long: 9 > 8."),
    ],
)
def test_a_prompt_that_does_not_fit_is_told_in_the_words_that_agents_know(words, said):
    """They shorten the conversation and go on; this dialect has no code for it."""
    failure = Failure("context_length_exceeded", words, elsewhere=False)
    status, body = refuse(from_failure(failure), "r1")
    assert (status, json.loads(body)["error"]["message"]) == (400, said)
