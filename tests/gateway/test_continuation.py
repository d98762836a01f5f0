"""What a client has been given, and the job of going on from there."""

from dataclasses import replace

import pytest

from meshd.core.ports import Note
from meshd.gateway import continuation
from meshd.gateway.continuation import FOLD_BATCHES, SEAMS_MAX, TOO_LONG, Said
from meshd.gateway.repeat import Call
from protocol import limits
from protocol.codec import decode_job, encode_job
from protocol.jobs import (
    Finish,
    Queued,
    RawPart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Vector,
)
from tests.core.routing.fleet import chat


def said_of(*batches):
    """As a stream would have told it."""
    said = Said()
    said.batches.extend(batches)
    return said


WITH_IDS = [TextDelta("Pa", (1,)), TextDelta("ris ", (2, 3))]
WITHOUT = [TextDelta("Pa"), TextDelta("ris ")]


def test_nothing_said_is_not_begun():
    """And there is no obstacle either."""
    said = Said()
    assert not said.begun
    assert said.exact
    assert said.obstacle == ""


def test_ids_say_all_of_it_when_every_text_has_them():
    """Then the next node is given nothing else."""
    said = said_of(WITH_IDS)
    assert said.exact
    job = said.resumed(chat(max_tokens=20), same_file=True)
    assert (job.prefix_tokens, job.prefix_text, job.max_tokens) == ((1, 2, 3), "", 17)


@pytest.mark.parametrize("parts", [WITHOUT, [WITH_IDS[0], WITHOUT[1]], [WITHOUT[0], WITH_IDS[1]]])
def test_one_text_without_ids_and_only_the_text_is_whole(parts):
    """Ids with a hole would lose a word."""
    said = said_of(parts)
    assert not said.exact
    job = said.resumed(chat(max_tokens=None), same_file=True)
    assert (job.prefix_tokens, job.prefix_text, job.max_tokens) == (None, "Paris ", None)


def test_a_delta_without_text_and_ids_changes_nothing():
    """Some servers send an empty one first."""
    assert said_of([TextDelta("")], WITH_IDS).exact


def test_text_without_ids_counts_as_a_token_a_delta():
    """What servers do, and what is left of the length goes by it."""
    said = said_of(WITHOUT)
    assert said.resumed(chat(max_tokens=20), same_file=False).max_tokens == 18


def test_what_is_no_part_of_the_answer_is_not_handed_on():
    """Places and notes are for the client alone."""
    said = said_of([Queued(1, 0.5)], [Note("continued on attic")], WITH_IDS)
    assert said.resumed(chat(), same_file=True).prefix_tokens == (1, 2, 3)
    assert said.obstacle == ""


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Vector(0, b""), "not text"),
        (RawPart(b"x"), "not text"),
    ],
)
def test_what_cannot_be_handed_on_is_an_obstacle(event, why):
    """Wherever it stands, before or after text."""
    assert why in said_of(WITH_IDS, [event]).obstacle
    assert why in said_of([event], WITH_IDS).obstacle
    assert not said_of([event]).exact


def test_a_call_is_made_again_and_text_behind_one_is_an_obstacle():
    """What stands before it is handed on; white space is no text."""
    call = ToolCallDelta(0, "c", "f", "{")
    said = said_of(WITH_IDS, [call, TextDelta("\n")])
    assert (said.obstacle, dict(said.calls)) == ("", {0: Call("f", "{")})
    assert said.resumed(chat(), same_file=True).prefix_text == "Paris \n"
    assert said_of([call]).begun
    assert not said_of([ReasoningDelta("hm")], [call]).is_only_thought
    assert "tool call" in said_of([call], WITH_IDS).obstacle
    assert "tool call" in said_of([call, TextDelta("a")]).obstacle
    assert said_of([TextDelta("a"), call]).obstacle == ""


THOUGHTS = [ReasoningDelta("hm"), ReasoningDelta(" so")]


def test_an_answer_is_handed_on_with_the_thought_before_it():
    """By its text: its ids would be those of an answer without the thought."""
    said = said_of(THOUGHTS, WITH_IDS)
    assert (said.obstacle, said.exact, said.is_only_thought) == ("", False, False)
    job = said.resumed(chat(max_tokens=20), same_file=True)
    assert (job.prefix_tokens, job.prefix_text, job.prefix_thought) == (None, "Paris ", "hm so")
    assert job.max_tokens == 15
    said.handed_on(same_file=True)
    settled = said.settled(Finish("stop", prompt_tokens=15, completion_tokens=4))
    assert (settled.prompt_tokens, settled.completion_tokens, settled.counted) == (10, 9, False)


def test_another_file_gets_the_answer_without_the_thought():
    """It may mark its thoughts otherwise, or think none."""
    said = said_of(THOUGHTS, WITH_IDS)
    job = said.resumed(chat(max_tokens=20), same_file=False)
    assert (job.prefix_text, job.prefix_thought, job.max_tokens) == ("Paris ", "", 15)
    said.handed_on(same_file=False)
    settled = said.settled(Finish("stop", prompt_tokens=13, completion_tokens=4))
    assert (settled.prompt_tokens, settled.completion_tokens, settled.counted) == (10, 9, False)


def test_a_thought_alone_is_gone_on_with_by_the_same_file():
    """And every other begins anew, and may say as much as was asked for."""
    said = said_of(THOUGHTS)
    assert (said.begun, said.obstacle, said.is_only_thought) == (True, "", True)
    job = chat(max_tokens=20)
    resumed = said.resumed(job, same_file=True)
    assert (resumed.prefix_text, resumed.prefix_thought, resumed.max_tokens) == ("", "hm so", 18)
    assert said.resumed(job, same_file=False) == job
    said.handed_on(same_file=False)
    settled = said.settled(Finish("stop", prompt_tokens=10, completion_tokens=4))
    assert (settled.prompt_tokens, settled.completion_tokens) == (10, 6)
    assert not said_of().is_only_thought


def test_who_is_asked_in_vain_changes_nothing():
    """What was said counts as handed on by whoever begins to answer, and by nobody else."""
    said, job = said_of(THOUGHTS), chat(max_tokens=20)
    assert said.resumed(job, same_file=False) is job
    assert said.resumed(job, same_file=True).prefix_thought == "hm so"
    last = Finish("stop", prompt_tokens=12, completion_tokens=4)
    assert said.settled(last) is last


def test_memory_is_bounded(monkeypatch):
    """Beyond the bound nothing is kept, and nobody goes on."""
    monkeypatch.setattr(continuation, "SAID_MAX_BYTES", 100)
    said = said_of([TextDelta("x" * 90, (1,))])
    assert said.obstacle == ""
    said.batches.append([TextDelta("x" * 10, (2,))])
    assert said.obstacle == TOO_LONG
    said.batches.append(WITH_IDS)
    assert said.obstacle == TOO_LONG
    assert said_of([ReasoningDelta("x" * 101)]).obstacle == TOO_LONG


def test_the_largest_that_is_kept_still_crosses_the_wire():
    """Beside a prompt of the same size."""
    size = continuation.SAID_MAX_BYTES // 8
    said = said_of([TextDelta("x" * 4 * size, tuple(range(size)))])
    job = said.resumed(chat("y" * 4 * size, max_tokens=None), same_file=True)
    assert decode_job(encode_job(job)) == job
    assert len(encode_job(job)) < limits.JOB_MAX_BYTES


def test_folding_changes_nothing():
    """However often it is done."""
    at_once, often = Said(), Said()
    for number in range(3 * FOLD_BATCHES):
        batch = [TextDelta(f"{number} ", (number,))]
        at_once.batches.append(batch)
        often.batches.append(batch)
        often.fold()
    job = chat(max_tokens=None)
    assert at_once.resumed(job, same_file=True) == often.resumed(job, same_file=True)
    assert at_once.tokens == often.tokens == 3 * FOLD_BATCHES


def test_the_account_of_the_whole():
    """What was carried over is prompt to the node that went on, and answer to the client."""
    said = said_of(WITH_IDS)
    said.handed_on(same_file=True)
    last = Finish("stop", prompt_tokens=13, completion_tokens=4, cached_tokens=12)
    assert said.settled(last) == replace(
        last, prompt_tokens=10, completion_tokens=7, cached_tokens=10
    )


def test_the_account_of_a_text_is_an_estimate():
    """Another tokenizer may have cut it differently."""
    said = said_of(WITHOUT)
    said.handed_on(same_file=False)
    settled = said.settled(Finish("stop", 12, 4))
    assert (settled.prompt_tokens, settled.completion_tokens, settled.counted) == (10, 6, False)


def test_without_a_seam_the_account_is_the_node_s():
    """To the last field."""
    last = Finish("stop", 10, 4, cached_tokens=3, prompt_s=0.1, generation_s=0.2, queue_s=0.3)
    assert said_of(WITH_IDS).settled(last) is last


@pytest.mark.parametrize(("most", "complete"), [(3, True), (4, False), (None, False), (2, True)])
def test_an_answer_may_be_complete_but_for_its_end(most, complete):
    """As long as it was allowed to be."""
    assert said_of(WITH_IDS).is_complete(chat(max_tokens=most)) is complete


def test_an_answer_that_was_begun_anew_has_its_whole_length_again():
    """Also when that one breaks off: what was thought before it takes nothing from it, and is no
    thought of who goes on."""
    said, job = said_of([ReasoningDelta("hm")] * 5), chat(max_tokens=6)
    assert said.resumed(job, same_file=False) is job
    said.handed_on(same_file=False)
    said.batches += [[ReasoningDelta("so")], WITH_IDS]
    assert not said.is_complete(job)
    third = said.resumed(job, same_file=True)
    assert (third.prefix_thought, third.max_tokens) == ("so", 2)
    said.handed_on(same_file=True)
    settled = said.settled(Finish("stop", prompt_tokens=14, completion_tokens=2))
    assert (settled.prompt_tokens, settled.completion_tokens) == (10, 11)
    said.batches.append(WITH_IDS)
    assert said.is_complete(job)


def test_seams_are_few():
    """Two machines of a household may go in one evening."""
    assert SEAMS_MAX == 2
