"""Events to a Responses answer: golden cases, whole and streamed, held to the official types."""

import json

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from meshd.api.dialect import Asker, Opening
from meshd.api.errors import ApiError
from meshd.api.responses_answer import RESPONSES
from meshd.core.ports import AnswerHead, Note
from protocol.jobs import Failure, Finish, Queued, ReasoningDelta, TextDelta, ToolCallDelta
from tests.api.scripted import DONE

OPENING = Opening("r1", 1_700_000_000.9, AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 7, 3))
GONE = Failure("engine_failed", "gone", elsewhere=False)
LOGPROB = {"token": "Hé", "logprob": -0.5, "bytes": None, "top_logprobs": None}
TOP = {"token": "a", "logprob": -1.0, "bytes": [97]}
CALLS = [
    ToolCallDelta(0, "c1", "f", ""),
    ToolCallDelta(0, "", "", '{"a":'),
    ToolCallDelta(0, "", "", "1}"),
    ToolCallDelta(1, "", "g", "{}"),
]
EVENT = TypeAdapter(ResponseStreamEvent)
WHOLE = TypeAdapter(Response)


def asked(**fields):
    return RESPONSES.read({"model": "tiny", "input": "Hi"} | fields, Asker("r1"))


def encoded(*batches, **fields):
    encoder = RESPONSES.stream(asked(**fields), OPENING)
    return b"".join([encoder.encode(batch) for batch in batches])


def stream(*batches, **fields):
    """The events of a stream, each checked: its name, its number, the official type."""
    *blocks, rest = encoded(*batches, **fields).decode().split("\n\n")
    assert rest == ""
    events = [block for block in blocks if block != "data: [DONE]" and block[0] != ":"]
    found = []
    for number, block in enumerate(events):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event.pop("sequence_number") == number
        EVENT.validate_python(event | {"sequence_number": number})
        found.append(event)
    return found


def whole(*batches, **fields):
    builder = RESPONSES.whole(asked(**fields), OPENING)
    for batch in batches:
        builder.add(batch)
    body = json.loads(builder.body())
    WHOLE.validate_python(body)
    return body


def types(events):
    return [event["type"].removeprefix("response.") for event in events]


def text_part(text):
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message(text, status="completed", number=0):
    return {
        "id": f"msg_r1_{number}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [text_part(text)],
    }


def test_a_whole_answer_word_by_word():
    """With every key that the two specifications require."""
    assert whole([TextDelta("Hel"), TextDelta("lo")], [Finish("stop", 5, 2, 1, 0.5, 2.0)]) == {
        "id": "resp_r1",
        "object": "response",
        "created_at": 1_700_000_000,
        "completed_at": 1_700_000_002,
        "status": "completed",
        "incomplete_details": None,
        "error": None,
        "model": "tiny",
        "previous_response_id": None,
        "instructions": None,
        "output": [message("Hello")],
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
        "truncation": "disabled",
        "store": False,
        "background": False,
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": {"type": "text"}},
        "max_tool_calls": None,
        "metadata": {},
        "prompt_cache_key": None,
        "safety_identifier": None,
        "service_tier": "default",
        "max_output_tokens": None,
        "tools": [],
        "tool_choice": "auto",
        "top_logprobs": 0,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_a_stream_word_by_word():
    """The order that the SDKs' accumulators insist on."""
    created, in_progress, *steps, completed = stream([TextDelta("Hel")], [TextDelta("lo"), DONE])
    place = {"item_id": "msg_r1_0", "output_index": 0, "content_index": 0}
    begun = {**message("", "in_progress"), "content": []}
    assert steps == [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **place, "part": text_part("")},
        {"type": "response.output_text.delta", **place, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": text_part("Hello")},
        {"type": "response.output_item.done", "output_index": 0, "item": message("Hello")},
    ]
    assert types([created, in_progress, completed]) == ["created", "in_progress", "completed"]
    assert created["response"] == in_progress["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert completed["response"] == whole([TextDelta("Hello"), DONE])


def test_a_good_end_is_done():
    """Open Responses asks for it; OpenAI's SDKs stop reading there."""
    assert encoded([TextDelta("a"), DONE]).endswith(b"\n\ndata: [DONE]\n\n")


def test_batches_do_not_show():
    """However events were grouped on their way, the client reads the same bytes."""
    flow = [ReasoningDelta("b"), TextDelta("a"), TextDelta(""), *CALLS, Finish("tool_calls", 1, 2)]
    assert encoded(*[[event] for event in flow]) == encoded(flow)


def test_calls_stream_piece_by_piece():
    """Each call an item of its own, closed before the next begins."""
    events = stream([*CALLS, Finish("tool_calls", 5, 2)])
    assert types(events)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    first, second = events[-1]["response"]["output"]
    assert first == {
        "type": "function_call",
        "id": "fc_r1_0",
        "status": "completed",
        "call_id": "c1",
        "name": "f",
        "arguments": '{"a":1}',
    }
    assert (second["id"], second["call_id"]) == ("fc_r1_1", "call_r1_1")
    assert [event["output_index"] for event in events[2:-1]] == [0] * 5 + [1] * 4


def test_a_call_of_a_namespace_is_taken_apart():
    """As the client offered it."""
    inner = {"type": "function", "name": "search"}
    space = {"type": "namespace", "name": "mcp__docs__", "description": "", "tools": [inner]}
    call = ToolCallDelta(0, "c1", "mcp__docs__search", "{}")
    (item,) = whole([call, Finish("tool_calls", 1, 1)], tools=[space])["output"]
    assert (item["name"], item["namespace"]) == ("search", "mcp__docs__")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input":"a\\nb"}', "a\nb"),
        ('"x"', "x"),
        ("*** Begin", "*** Begin"),
        ('{"b":1}', '{"b":1}'),
    ],
)
def test_a_custom_call_comes_back_as_text(arguments, text):
    """At once, when its JSON is whole; what is no such JSON is the text itself."""
    tools = [{"type": "custom", "name": "patch"}]
    call = ToolCallDelta(0, "c1", "patch", arguments)
    events = stream([call, Finish("tool_calls", 1, 1)], tools=tools)
    assert types(events)[2:-1] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert events[3]["delta"] == events[4]["input"] == text
    assert events[5]["item"]["input"] == text


def test_thoughts_are_content_where_no_summary_was_asked_for():
    """An item before the message."""
    events = stream([ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("a"), DONE])
    assert types(events)[2:9] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[-1]["response"]["output"] == [
        {
            "id": "rs_r1_0",
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        message("a", number=1),
    ]


def test_thoughts_are_the_summary_where_one_was_asked_for():
    """Clients that ask show nothing else; the carrier brings it back where it was included."""
    events = stream(
        [ReasoningDelta("hm"), TextDelta("a"), DONE],
        reasoning={"summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    assert types(events)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[7]["item"] == {
        "id": "rs_r1_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "meshd1.aG0=",
    }


def test_thoughts_have_their_share_of_the_tokens():
    """Engines count them together; the characters say in which proportion."""
    usage = whole([ReasoningDelta("abc"), TextDelta("d"), Finish("stop", 1, 8)])["usage"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": 6}


def test_logprobs_have_every_key():
    """In the delta, and in the whole text."""
    events = stream([TextDelta("Hé", logprobs=[LOGPROB | {"top_logprobs": [TOP]}]), DONE])
    spelled = {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169], "top_logprobs": [TOP]}
    assert events[4]["logprobs"] == [spelled]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [spelled]


@pytest.mark.parametrize(
    ("reason", "details"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_is_incomplete(reason, details):
    """And so is its last item, and nothing else."""
    events = stream([ReasoningDelta("hm"), TextDelta("a"), Finish(reason, 5, 2)])
    response = events[-1]["response"]
    assert (types(events)[-1], response["status"]) == ("incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": details}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["completed_at"] is None


def test_an_answer_of_nothing_has_an_empty_message():
    """Programs read the first item without asking."""
    assert whole([DONE])["output"] == [message("")]
    assert stream([DONE])[-1]["response"]["output"] == [message("")]


def test_a_failure_is_an_error_and_a_failed_response():
    """The first makes an SDK raise, the second is what readers of events wait for."""
    *_, error, failed = stream([TextDelta("a")], [GONE])
    said = {"code": "engine_failed", "message": "gone", "param": None}
    assert error == {"type": "error", **said, "error": {"type": "server_error", **said}}
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "gone"}
    assert failed["response"]["output"] == [message("a", "incomplete")]


def test_a_failure_before_anything_else_still_begins():
    """A stream without `response.created` is an error of the SDK's own."""
    assert types(stream([GONE])) == ["created", "in_progress", "error", "failed"]


def test_a_code_that_clients_act_on_is_kept():
    """Codex compacts its history then. OpenAI sends this code, though its types do not list it."""
    data = encoded([Failure("context_length_exceeded", "long", elsewhere=False)])
    assert b'"error":{"code":"context_length_exceeded","message":"long"}' in data


@pytest.mark.parametrize("end", [DONE, GONE])
def test_nothing_follows_the_end(end):
    """Exactly one, whatever an engine says after it."""
    encoder = RESPONSES.stream(asked(), OPENING)
    encoder.encode([TextDelta("a"), end, TextDelta("b")])
    assert encoder.ended
    assert encoder.encode([TextDelta("c"), DONE]) == b""


def test_one_call_where_one_was_asked_for():
    """`parallel_tool_calls: false` is kept to, whatever the model does."""
    answer = whole([*CALLS, Finish("tool_calls", 1, 1)], parallel_tool_calls=False)
    assert [item["name"] for item in answer["output"]] == ["f"]


def test_mixed_pieces_of_calls_end_the_answer():
    """A piece of a call that is over has no event to go into."""
    mixed = [CALLS[0], CALLS[3], CALLS[2]]
    assert types(stream(mixed))[-2:] == ["error", "failed"]
    with pytest.raises(ApiError, match="mixed the pieces"):
        whole(mixed)


def test_waiting_and_remarks_are_comments():
    """They are no part of the answer."""
    data = encoded([Queued(2, 3.1)], [Note("continued on attic"), TextDelta("a"), DONE])
    assert b"\n\n: queued position=2 wait_s=3.1\n\n" in data
    assert types(stream([Queued(2, 3.1), TextDelta("a"), DONE])) == types(
        stream([TextDelta("a"), DONE])
    )


def test_a_whole_answer_that_fails_raises():
    """Before its first byte it is a status."""
    with pytest.raises(ApiError, match="gone"):
        whole([TextDelta("a")], [GONE])
    with pytest.raises(ApiError, match="broke off"):
        whole([TextDelta("a")])


def test_half_a_character_does_not_break_the_json():
    """UTF-8 cannot carry it."""
    assert whole([TextDelta("a\ud83d"), DONE])["output"][0]["content"][0]["text"] == "a?"
    assert stream([TextDelta("a\ud83d"), DONE])[4]["delta"] == "a?"


def test_a_heartbeat_is_a_comment():
    """It changes nothing."""
    assert RESPONSES.stream(asked(), OPENING).heartbeat() == b": ping\n\n"
