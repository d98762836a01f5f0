"""Attempts: silent replacement before the commit, honesty after it, nothing leaked ever."""

import asyncio
from random import Random

import pytest

from meshd.core.ports import RequestFailed
from meshd.core.routing import deadlines
from meshd.core.routing.router import Router
from meshd.gateway import ATTEMPTS_MAX, MeshGateway
from protocol.jobs import Failure, Finish, TextDelta
from tests.core.routing.fleet import chat, load, member, model, model_load, view

DONE = Finish("stop", 3, 2)
REFUSED = Failure("overloaded", "full", elsewhere=True)
BROKEN = Failure("engine_failed", "crashed", elsewhere=True)
STALL = "stall"


class Household:
    """Three nodes that answer by script; records who was asked and which streams were closed."""

    def __init__(self, **scripts):
        self.scripts = scripts
        self.asked = []
        self.jobs = []
        self.closed = []
        best_first = [load(model_load(generation_tps=tps)) for tps in (1000.0, 100.0, 10.0)]
        self.members = [member(i + 1, load=record) for i, record in enumerate(best_first)]
        self.router = Router(Random(1))
        self.gateway = MeshGateway(
            self.router, lambda: view(*self.members), self.generate, status=dict, members=dict
        )

    async def generate(self, to, job):
        self.asked.append(to.name)
        self.jobs.append(job)
        try:
            for step in self.scripts[to.name]:
                if step == STALL:
                    await asyncio.sleep(3600)
                yield [step]
        finally:
            self.closed.append(to.name)

    async def read(self, job):
        """Submit and read to the end: (head, events)."""
        answer = await self.gateway.submit(job)
        events = [event async for batch in answer.events for event in batch]
        return answer.head, events


WORDS = [TextDelta("Par"), TextDelta("is"), DONE]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_best_node_answers(stream):
    """The whole answer arrives, streamed or not, and the lease is gone."""
    house = Household(node1=WORDS)
    head, events = await house.read(chat(stream=stream))
    assert events == WORDS
    assert (head.node_name, head.attempts, head.request_id) == ("node1", 1, "r1")
    assert len(house.router.ledger) == 0


@pytest.mark.parametrize("fault", [REFUSED, BROKEN])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_that_fails_before_the_first_word_is_replaced_silently(fault, stream):
    """The client sees one answer; the head tells that it took two attempts."""
    house = Household(node1=[fault], node2=WORDS)
    head, events = await house.read(chat(stream=stream))
    assert events == WORDS
    assert (head.node_name, head.attempts) == ("node2", 2)
    assert house.closed == ["node1", "node2"]
    assert len(house.router.ledger) == 0


async def test_a_stalled_node_is_replaced(monkeypatch):
    """Nothing for the whole patience: the next node gets the job, the stalled stream is closed."""
    monkeypatch.setattr(deadlines, "FIRST_EVENT_FLOOR_S", 0.05)
    monkeypatch.setattr(deadlines, "PATIENCE_FACTOR", 0.0)
    house = Household(node1=[STALL], node2=WORDS)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name) == (WORDS, "node2")
    assert house.closed == ["node1", "node2"]


async def test_an_answer_in_one_piece_is_replaced_up_to_its_end():
    """Nothing has reached the client, so a crash in the middle costs only time."""
    house = Household(node1=[TextDelta("Par"), BROKEN], node2=WORDS)
    head, events = await house.read(chat(stream=False))
    assert (events, head.node_name, head.attempts) == (WORDS, "node2", 2)


async def test_a_stream_that_breaks_after_its_first_word_says_so():
    """The client has seen text: the failure is passed on, not papered over."""
    house = Household(node1=[TextDelta("Par"), BROKEN], node2=WORDS)
    _, events = await house.read(chat(stream=True))
    assert events == [TextDelta("Par"), BROKEN]
    assert house.asked == ["node1"]


async def test_a_stream_that_just_ends_before_its_first_word_counts_as_broken():
    """No finish, no failure: an engine that broke its contract is replaced."""
    house = Household(node1=[], node2=WORDS)
    head, _ = await house.read(chat(stream=True))
    assert head.node_name == "node2"


async def test_what_no_other_node_could_do_better_is_refused_at_once():
    """A bad request is bad everywhere."""
    bad = Failure("bad_request", "stop is too long", elsewhere=False)
    house = Household(node1=[bad])
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat())
    assert refused.value.failure == bad
    assert house.asked == ["node1"]


async def test_when_all_refuse_the_last_reason_is_told():
    """Each node is asked once."""
    house = Household(node1=[REFUSED], node2=[REFUSED], node3=[BROKEN])
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat())
    assert refused.value.failure == BROKEN
    assert house.asked == ["node1", "node2", "node3"]
    assert len(house.router.ledger) == 0


async def test_attempts_are_bounded():
    """A storm of refusals ends after ATTEMPTS_MAX."""
    scripts = {f"node{number}": [REFUSED] for number in range(1, 20)}
    house = Household(**scripts)
    house.members = [member(number) for number in range(1, 20)]
    with pytest.raises(RequestFailed):
        await house.gateway.submit(chat())
    assert len(house.asked) == ATTEMPTS_MAX


async def test_a_client_that_leaves_while_waiting_frees_the_slot():
    """Cancelling the call closes the stream and gives the lease back."""
    house = Household(node1=[STALL])
    waiting = asyncio.create_task(house.gateway.submit(chat()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert house.closed == ["node1"]
    assert len(house.router.ledger) == 0


async def test_a_client_that_leaves_in_the_middle_frees_the_slot():
    """Closing the events closes the stream behind them."""
    house = Household(node1=[TextDelta("Par"), STALL])
    answer = await house.gateway.submit(chat(stream=True))
    assert await anext(answer.events) == [TextDelta("Par")]
    await answer.events.aclose()
    assert house.closed == ["node1"]
    assert len(house.router.ledger) == 0


async def test_a_stream_that_stalls_in_the_middle_ends_with_a_failure(monkeypatch):
    """Never a hang: the client is told after the longest gap allowed."""
    monkeypatch.setattr("meshd.gateway.INTER_TOKEN_MAX_S", 0.05)
    house = Household(node1=[TextDelta("Par"), STALL])
    _, events = await house.read(chat(stream=True))
    assert events[0] == TextDelta("Par")
    assert (events[1].code, events[1].elsewhere) == ("timeout", True)


async def test_the_engine_sees_the_canonical_name_and_a_request_id_of_its_own():
    """Two attempts of one request must not be confused by a peer that gets both."""
    house = Household(node1=[REFUSED], node2=WORDS)
    await house.read(chat(stream=True, model="SMOLLM2:latest"))
    assert [job.model for job in house.jobs] == ["smollm2", "smollm2"]
    assert [job.request_id for job in house.jobs] == ["r1.1", "r1.2"]


async def test_an_unknown_model_lists_what_there_is():
    """The sentence that a person needs."""
    house = Household()
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat(model="gpt-9"))
    failure = refused.value.failure
    assert (failure.code, failure.param) == ("model_not_found", "model")
    assert failure.message == ("The model 'gpt-9' is not offered by any node. Offered: smollm2.")


@pytest.mark.parametrize(
    ("job", "record", "code"),
    [
        (chat(tools=[{}]), load(), "unsupported"),
        (chat("x" * 100_000), load(), "context_length_exceeded"),
        (chat(), load(accepting=False), "overloaded"),
    ],
)
async def test_a_request_that_nobody_may_take_says_why(job, record, code):
    """Wrong kind, too long, or nobody free: three different answers."""
    house = Household()
    house.members = [member(1, load=record)]
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(job)
    assert refused.value.failure.code == code
    assert house.asked == []


def test_models_are_merged_over_the_mesh():
    """One row per id, with every node that has it."""
    house = Household()
    house.members[2] = member(3, model(), model(model_id="big", context_length=9, emulated=True))
    rows = {row["id"]: row for row in house.gateway.models()}
    assert rows["smollm2"]["nodes"] == ["node1", "node2", "node3"]
    assert rows["big"]["context_length"] == 9
    assert (rows["big"]["warm"], rows["big"]["emulated"]) == (False, True)


def test_explain_chooses_as_submit_would():
    """The same code, without the lease."""
    house = Household()
    body = house.gateway.explain(chat())
    assert body["chosen"] == "node1"
    assert len(house.router.ledger) == 0
