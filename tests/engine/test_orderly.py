"""Claims of meshd.engine.orderly: conversations for the strictest templates."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from meshd.engine.orderly import in_either_order, is_orderly, orderly
from protocol.jobs import Failure, TextDelta
from tests.engine.scripted import EVENTS, JOB, STREAMED, Script, adopted, reply

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
REMINDED = tuple(
    {"role": role, "content": text}
    for role, text in [("system", "a"), ("user", "b"), ("assistant", "c"), ("system", "d")]
)
LLAMA_SERVER = "Error: Jinja Exception: System message must be at the beginning."


def turn(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("", True),
        ("su", True),
        ("suaua", True),
        ("uatta", True),
        ("ss", False),
        ("sus", False),
        ("us", False),
        ("uu", False),
    ],
)
def test_most_conversations_need_no_second_look(roles, expected):
    """One system turn in front, and nobody twice."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    assert is_orderly([turn(names[role], "x") for role in roles]) is expected


def test_what_is_no_turn_is_left_to_the_server():
    """A peer can send anything."""
    assert is_orderly(["x", turn("user", "a"), turn("system", "b")])


def test_parts_stay_parts_where_turns_are_joined():
    """A picture is never lost."""
    turns = [turn("user", [PICTURE]), turn("system", "a"), turn("user", "b"), {"role": "user"}]
    texts = [{"type": "text", "text": text} for text in "ab"]
    assert orderly(turns) == [turn("user", [PICTURE, *texts])]


@pytest.mark.parametrize(
    "refusal",
    [
        reply(json.dumps({"error": {"message": LLAMA_SERVER}}).encode(), status=b"500 Oops"),
        reply(json.dumps({"error": {"message": LLAMA_SERVER}}).encode(), status=b"400 Bad"),
        reply(json.dumps({"error": "roles must alternate"}).encode(), status=b"400 Bad"),
        reply(b'data: {"error": {"message": "Error rendering prompt with jinja"}}\n\n', EVENTS),
    ],
)
async def test_a_server_with_a_strict_template_is_asked_in_another_order(answer, refusal):
    """Agents remind of the system in the middle, and no other node's server would take it."""
    script = Script()
    script.replies = [refusal, STREAMED]
    async with adopted(script) as engine:
        text, (finish,) = await answer(engine, replace(JOB, messages=REMINDED))
        assert engine.stats()[0].in_flight == 0
    assert (text, finish.reason) == ("hi", "stop")
    sent = [json.loads(body)["messages"] for body in script.posts]
    assert sent == [list(REMINDED), [*REMINDED[:3], turn("user", "d")]]


async def test_any_other_refusal_is_passed_on(answer):
    """Another order would not mend it."""
    script = Script()
    script.replies = [reply(b'{"error": {"message": "too hot"}}', status=b"400 Bad")]
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, replace(JOB, messages=REMINDED))
    assert (failure.message, len(script.posts)) == ("too hot", 1)


async def test_what_breaks_off_is_not_begun_again():
    """Its beginning has been told, whatever the server says then of templates."""
    said = [TextDelta("so")]
    broke = [Failure("engine_failed", "Jinja stumbled over a tool call", elsewhere=True)]

    async def generate(job):
        yield said
        yield broke

    job = replace(JOB, messages=REMINDED)
    assert [batch async for batch in in_either_order(generate, job)] == [said, broke]
