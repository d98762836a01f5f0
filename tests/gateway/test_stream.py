"""A stream outlives the machines that give it: no lost and no doubled word, one honest end."""

import asyncio
import gc
from dataclasses import replace

import pytest

from meshd.core.ports import Note
from meshd.core.routing import deadlines
from meshd.gateway import stream
from meshd.gateway.attempt import Attempt
from meshd.gateway.continuation import SEAMS_MAX
from protocol.jobs import (
    Failure,
    Finish,
    Queued,
    RawHead,
    RawPart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from tests.core.routing.fleet import chat, member, model
from tests.gateway.household import (
    BROKEN,
    GONE,
    LEAVING,
    PROMPT_TOKENS,
    REFUSED,
    STALL,
    STORY,
    WORDS,
    Household,
    Neighbours,
    Storytellers,
    notes_of,
    text_of,
)

WHOLE_STORY = "".join(STORY)
LONG = chat(stream=True, max_tokens=None)
CALL = ToolCallDelta(0, "c1", "look", '{"wh')


@pytest.mark.parametrize("fault", [BROKEN, GONE, LEAVING])
@pytest.mark.parametrize("ids", [True, False])
async def test_a_stream_goes_on_at_another_node_from_the_very_word(fault, ids):
    """One text, one account, and a note; whatever took the first node away."""
    house = Storytellers(ids=ids, node1=[(5, fault)])
    head, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert events[-1] == Finish("stop", PROMPT_TOKENS, len(STORY), counted=ids)
    assert (head.node_name, head.attempts) == ("node1", 1)
    assert notes_of(events) == [f"continued on node2{'' if ids else ' from its text'}"]
    assert house.is_tidy


async def test_an_answer_leaves_nothing_to_the_collector():
    """What a request took is free when it is over: a busy daemon stays small, and never halts to
    look for cycles."""
    gc.collect()
    gc.disable()
    try:
        house = Storytellers(node1=[(5, BROKEN)])
        await house.read(LONG)
        kept = [each for each in gc.get_objects() if type(each) in {Attempt, stream.Answering}]
    finally:
        gc.enable()
    assert kept == []


async def test_the_next_node_is_given_the_ids_and_what_is_left_of_the_length():
    """Ids where the weights are the same, the seed as it was, and another request id."""
    house = Storytellers(node1=[(5, BROKEN)])
    job = chat(stream=True, max_tokens=9, sampling=replace(LONG.sampling, seed=4))
    _, events = await house.read(job)
    first, second = house.jobs
    assert second.prefix_tokens == (0, 1, 2, 3, 4)
    assert second.prefix_text == ""
    assert second.max_tokens == 4
    assert second.sampling.seed == 4
    assert first.request_id != second.request_id
    assert text_of(events) == "".join(STORY[:9])
    assert events[-1].completion_tokens == 9


async def test_other_weights_of_unknown_print_are_given_the_text():
    """The same model by name: nobody can say more, and the note says so."""
    house = Storytellers(fingerprints=("mine", "", ""), node1=[(5, GONE)])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert house.jobs[1].prefix_tokens is None
    assert house.jobs[1].prefix_text == "".join(STORY[:5])
    assert notes_of(events) == ["continued on node2 from its text"]


async def test_the_same_weights_are_preferred_to_a_faster_node():
    """node3 is ten times slower than node2, and has the same file."""
    house = Storytellers(fingerprints=("mine", "", "mine"), node1=[(5, BROKEN)])
    _, events = await house.read(LONG)
    assert house.asked == ["node1", "node3"]
    assert notes_of(events) == ["continued on node3"]


async def test_other_weights_never_go_on():
    """Another model would speak with another voice in the middle of a sentence."""
    house = Storytellers(fingerprints=("mine", "yours", "yours"), node1=[(5, GONE)])
    _, events = await house.read(LONG)
    assert text_of(events) == "".join(STORY[:5])
    assert (events[-1].code, house.asked) == ("unreachable", ["node1"])
    assert "go on with this answer" in events[-1].message
    assert house.is_tidy


async def test_two_machines_may_go_in_one_answer():
    """And the third finishes it."""
    house = Storytellers(node1=[(3, GONE)], node2=[(4, GONE)])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert events[-1] == Finish("stop", PROMPT_TOKENS, len(STORY))
    assert house.asked == ["node1", "node2", "node3"]
    assert [job.prefix_tokens for job in house.jobs[1:]] == [(0, 1, 2), tuple(range(7))]


async def test_the_third_break_ends_the_stream():
    """What breaks three machines is the answer itself."""
    broken = [(2, BROKEN)] * 5
    house = Storytellers(node1=broken, node2=list(broken), node3=list(broken))
    _, events = await house.read(LONG)
    assert text_of(events) == "".join(STORY[: 2 * (SEAMS_MAX + 1)])
    assert isinstance(events[-1], Failure)
    assert "broken off 3 times" in events[-1].message
    assert house.is_tidy


async def test_a_node_that_refuses_to_go_on_is_no_seam():
    """Nothing came from it: the next is asked."""
    house = Storytellers(node1=[(5, GONE)], node2=[(0, REFUSED)])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert house.asked == ["node1", "node2", "node3"]
    assert notes_of(events) == ["continued on node3"]


async def test_when_only_its_worker_died_the_same_node_goes_on():
    """There is no other, and it will be back in a moment."""
    house = Storytellers(node1=[(5, BROKEN)])
    house.become(house.members[0])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert house.asked == ["node1", "node1"]


async def test_a_node_that_is_gone_is_not_asked_again():
    """Alone in the house, its stream ends with a word of what happened."""
    house = Storytellers(node1=[(5, GONE)])
    house.become(house.members[0])
    _, events = await house.read(LONG)
    assert events[-1].code == "unreachable"
    assert "Ask again" in events[-1].message
    assert house.asked == ["node1"]


HM, PAR = ReasoningDelta("hm"), TextDelta("Par", (1,))
FROM_TEXT = "continued on node2 from its text"


@pytest.mark.parametrize(
    ("mark", "said", "prefix", "note"),
    [
        ("same", [HM], ("hm", ""), FROM_TEXT),
        ("same", [HM, PAR], ("hm", "Par"), FROM_TEXT),
        ("", [HM], ("", ""), "begun anew on node2"),
        ("", [HM, PAR], ("", "Par"), FROM_TEXT),
    ],
)
async def test_a_stream_that_had_thought_goes_on_elsewhere(mark, said, prefix, note):
    """With its thought where the file is the same; else from the text that was said, or from the
    beginning. The client is told which."""
    house = Household(fingerprints=("same", mark, mark), node1=[*said, GONE], node2=WORDS)
    _, events = await house.read(LONG)
    assert [*said, Note(note)] == events[: len(said) + 1]
    assert events[len(said) + 1 : -1] == WORDS[:-1]
    job = house.jobs[1]
    assert (job.prefix_thought, job.prefix_text) == prefix
    assert job.prefix_tokens is None
    assert house.is_tidy


async def test_a_thought_goes_to_the_same_weights_before_a_faster_node():
    """Which could only begin it anew: node3 is ten times slower than node2, and has the file."""
    thought = ReasoningDelta("Hm, ")
    marks = ("mine", "", "mine")
    house = Household(fingerprints=marks, node1=[thought, GONE], node2=WORDS, node3=WORDS)
    _, events = await house.read(LONG)
    assert house.asked == ["node1", "node3"]
    assert house.jobs[1].prefix_thought == "Hm, "
    assert notes_of(events) == ["continued on node3 from its text"]


async def test_a_whole_answer_thinks_only_once():
    """Nothing of the first thought has left."""
    house = Household(node1=[ReasoningDelta("hm"), GONE], node2=[ReasoningDelta("aha"), *WORDS])
    _, events = await house.read(replace(LONG, stream=False))
    assert events == [ReasoningDelta("aha"), *WORDS]


async def test_what_no_node_could_do_better_is_passed_on():
    """A failure that says so is not tried elsewhere."""
    bad = Failure("bad_request", "the schema cannot be kept to", elsewhere=False)
    house = Household(node1=[TextDelta("a"), bad], node2=WORDS)
    _, events = await house.read(LONG)
    assert events == [TextDelta("a"), bad]


async def test_text_beside_the_failure_is_not_lost():
    """A batch may hold the last words and the end."""
    house = Household(
        node1=[[TextDelta("Par", (1,)), GONE]], node2=[TextDelta("is", (2,)), WORDS[-1]]
    )
    _, events = await house.read(LONG)
    assert text_of(events) == "Paris"
    assert house.jobs[1].prefix_tokens == (1,)


async def test_an_answer_as_long_as_allowed_needs_nobody_to_end_it():
    """The last word of the node got lost, and there is nothing left to say."""
    house = Storytellers(node1=[(5, GONE)])
    _, events = await house.read(chat(stream=True, max_tokens=5))
    assert text_of(events) == "".join(STORY[:5])
    assert (events[-1].reason, events[-1].completion_tokens) == ("length", 5)
    assert house.asked == ["node1"]


async def test_a_stream_that_just_ends_goes_on_elsewhere():
    """No finish, no failure: an engine that broke its contract."""
    house = Household(node1=[TextDelta("Par", (1,))], node2=[TextDelta("is", (2,)), WORDS[-1]])
    _, events = await house.read(LONG)
    assert text_of(events) == "Paris"


async def test_a_stalled_stream_goes_on_elsewhere(monkeypatch):
    """After the longest gap that its measured speed allows."""
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.05)
    house = Storytellers(node1=[(5, STALL)])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert house.is_tidy


async def test_a_stalled_stream_is_waited_for_while_nobody_else_could_go_on(monkeypatch):
    """Giving it up would help nobody; it comes back and finishes."""
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.02)
    monkeypatch.setattr(stream, "LOOK_AGAIN_S", 0.02)
    house = Household(node1=[TextDelta("Par"), 0.2, TextDelta("is"), WORDS[-1]])
    house.become(house.members[0])
    _, events = await house.read(LONG)
    assert events == WORDS


async def test_a_stream_that_nobody_could_go_on_with_ends_with_a_failure(monkeypatch):
    """Never a hang: the client is told after the longest gap of all."""
    monkeypatch.setattr(deadlines, "INTER_TOKEN_FLOOR_S", 0.02)
    monkeypatch.setattr(stream, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(deadlines, "INTER_TOKEN_MAX_S", 0.06)
    house = Household(node1=[CALL, STALL], node2=WORDS)
    _, events = await house.read(LONG)
    assert events[0] == CALL
    assert events[1].code == "timeout"
    assert house.is_tidy


async def test_a_stream_whose_node_answers_no_nudge_goes_on_elsewhere():
    """Long before any gap is too long for the speed of its machine."""
    house = Storytellers(peers=Neighbours("node2"), node1=[(0, REFUSED)], node2=[(5, STALL)])
    _, events = await house.read(LONG)
    assert text_of(events) == WHOLE_STORY
    assert house.told == [house.members[1].node_id]
    assert house.is_tidy


async def test_a_silent_stream_whose_node_is_suspected_goes_on_elsewhere():
    """Suspicion shortens the patience; it does not end it."""
    house = Storytellers(node1=[(0, REFUSED)], node2=[(5, STALL)])
    answer = await house.gateway.submit(LONG)
    events = [event for _ in range(5) for event in await anext(answer.events)]
    house.replace(2, replace(house.members[1], state="suspect"))
    events += [event async for batch in answer.events for event in batch]
    assert text_of(events) == WHOLE_STORY
    assert house.is_tidy


async def test_a_suspect_that_goes_on_speaking_is_read_to_its_end():
    """Tokens are the better proof, also while the next is being waited for."""
    slowly = [TextDelta("Par"), 0.1, TextDelta("is"), 0.1, WORDS[-1]]
    house = Household(node1=[REFUSED], node2=slowly, node3=WORDS)
    answer = await house.gateway.submit(LONG)
    events = list(await anext(answer.events))
    going_on = asyncio.ensure_future(anext(answer.events))
    await asyncio.sleep(0)
    house.replace(2, replace(house.members[1], state="suspect"))
    events += await going_on
    house.replace(2, replace(house.members[1], state="alive"))
    events += [event async for batch in answer.events for event in batch]
    assert events == WORDS
    assert house.asked == ["node1", "node2"]


async def test_a_place_in_the_next_node_s_queue_may_be_told_in_the_middle(monkeypatch):
    """The pause has a reason, and a client may read it."""
    monkeypatch.setattr("meshd.gateway.beginning.QUEUED_WORD_S", 0.0)
    house = Household(
        node1=[TextDelta("Par", (1,)), GONE],
        node2=[Queued(1, 0.5), TextDelta("is", (2,)), WORDS[-1]],
    )
    _, events = await house.read(LONG)
    assert Queued(1, 0.5) in events
    assert text_of(events) == "Paris"


async def test_a_client_that_leaves_in_the_middle_frees_the_slot():
    """Closing the events closes the stream behind them."""
    house = Household(node1=[TextDelta("Par"), STALL])
    answer = await house.gateway.submit(LONG)
    assert await anext(answer.events) == [TextDelta("Par")]
    await answer.events.aclose()
    assert house.closed == ["node1"]
    assert house.is_tidy
    assert house.history.body("r1", 0.0)["state"] == "cancelled"


async def test_a_client_that_never_reads_frees_the_slot_as_well():
    """An answer that is closed before its first batch was taken."""
    house = Household(node1=[TextDelta("Par"), STALL])
    answer = await house.gateway.submit(LONG)
    await answer.events.aclose()
    assert house.is_tidy


async def test_a_client_that_leaves_at_a_seam_frees_the_next_slot():
    """The node that was to go on is let go as well."""
    house = Household(node1=[TextDelta("Par", (1,)), GONE], node2=[STALL])
    answer = await house.gateway.submit(LONG)
    await anext(answer.events)
    going_on = asyncio.ensure_future(anext(answer.events))
    await house.until_asked("node2")
    going_on.cancel()
    await asyncio.gather(going_on, return_exceptions=True)
    await answer.events.aclose()
    assert house.is_tidy


async def test_what_became_of_a_stream_is_written_down():
    """Both attempts, why each was made, and how the whole ended."""
    house = Storytellers(node1=[(5, GONE)])
    await house.read(LONG)
    story = house.history.body("r1", 0.0)
    attempts = [(each["node"], each["why"], each["outcome"]) for each in story["attempts"]]
    assert attempts == [("node1", "first", "failed"), ("node2", "continuation", "finished")]
    assert (story["state"], story["completion_tokens"]) == ("done", len(STORY))


async def test_nothing_is_kept_of_an_answer_that_is_not_text():
    """The parts of a raw answer are large, and nobody could go on with them."""
    parts = [RawPart(bytes(1_000)) for _ in range(5)]
    house = Household(node1=[RawHead(200, "audio/wav"), *parts, GONE])
    house.become(member(1, model(capabilities=("raw",))))
    answer = await house.gateway.submit(chat(kind="raw", stream=True))
    events = [event async for batch in answer.events for event in batch]
    assert events[1:-1] == parts
    assert "not text" in events[-1].message
