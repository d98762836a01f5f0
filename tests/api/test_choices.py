"""Several choices as one answer."""

import json

import pytest

from meshd.api.chat import read_chat
from meshd.api.choices import Part, total
from meshd.api.dialect import Asker, Opening
from meshd.api.errors import ApiError
from meshd.api.openai import CHAT as DIALECT
from meshd.core.ports import AnswerHead, Note
from protocol.jobs import Failure, Finish, Queued, TextDelta
from tests.api.scripted import CHAT, events

OPENING = Opening("r1", 1_700_000_000.0, AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 0, 0))
GONE = Failure("engine_failed", "the node went away", elsewhere=False)


def asked(**fields):
    return read_chat(CHAT | {"n": 2} | fields, Asker("r1"))


def streamed(*batches, **fields):
    encoder = DIALECT.stream(asked(stream=True, **fields), OPENING)
    return b"".join([encoder.encode(batch) for batch in batches]), encoder


def whole(*batches):
    builder = DIALECT.whole(asked(), OPENING)
    for batch in batches:
        builder.add(batch)
    return builder.body()


BATCHES = (
    [Part(1, [TextDelta("b")])],
    [Part(0, [TextDelta("a"), Finish("length", 5, 1, cached_tokens=2)])],
    [Part(1, [Finish("stop", 5, 3, cached_tokens=5)])],
)


def test_each_choice_has_its_role_and_its_finish_and_one_done_ends_them():
    """Exactly as for one choice, told apart by `index`."""
    data, encoder = streamed(*BATCHES)
    *chunks, done = events(data)
    seen = [
        (choice["index"], choice["delta"], choice["finish_reason"])
        for chunk in chunks
        for choice in chunk["choices"]
    ]
    role = {"role": "assistant", "content": "", "refusal": None}
    assert seen == [
        (1, role, None),
        (1, {"content": "b"}, None),
        (0, role, None),
        (0, {"content": "a"}, None),
        (0, {}, "length"),
        (1, {}, "stop"),
    ]
    assert done == "[DONE]"
    assert encoder.ended


def test_usage_comes_once_for_all_choices():
    """The prompt once, every token that was made."""
    data, _ = streamed(*BATCHES, stream_options={"include_usage": True})
    *_, usage, _done = events(data)
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 5
    assert usage["usage"]["completion_tokens"] == 4


def test_a_whole_answer_holds_all_choices_in_order():
    """Whichever was ready first."""
    answer = json.loads(whole(*BATCHES))
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert (texts, answer["choices"][1]["index"]) == (["a", "b"], 1)
    assert answer["usage"]["total_tokens"] == 9


@pytest.mark.parametrize("failing", [[Part(1, [GONE])], [GONE]])
def test_one_failure_ends_them_all(failing):
    """Half of what was asked for would be taken for all of it."""
    data, encoder = streamed(BATCHES[0], failing, BATCHES[1])
    assert events(data)[-1]["error"]["message"] == "the node went away"
    assert encoder.ended
    with pytest.raises(ApiError, match="the node went away"):
        whole(BATCHES[0], failing)


def test_what_comes_after_the_end_is_not_written():
    """Of one choice, or of all."""
    data, _ = streamed(*BATCHES, [Part(0, [TextDelta("late")])])
    again, _ = streamed(BATCHES[1], [Part(0, [TextDelta("late")])])
    assert b"late" not in data + again


def test_remarks_are_comments():
    """As for one choice."""
    data, encoder = streamed([Part(0, [Queued(1, 2.0)])], [Note("continued on attic")])
    assert data == b": queued position=1 wait_s=2.0\n\n: continued on attic\n\n"
    assert encoder.heartbeat() == b": ping\n\n"


def test_an_answer_with_a_choice_missing_is_broken():
    """Never printed as a shorter one."""
    with pytest.raises(ApiError, match="broke off"):
        whole(BATCHES[1], [Note("x")])


def test_each_prompt_is_counted_once():
    """Two prompts of two choices each."""
    finishes = {index: Finish("stop", 10 + index, 1) for index in range(4)}
    account = total(finishes, 2)
    assert (account.prompt_tokens, account.completion_tokens) == (10 + 12, 4)
