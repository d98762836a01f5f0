"""Attempts until one answers: silent replacement before the commit, nothing leaked ever."""

import asyncio
from dataclasses import replace

import pytest

from meshd.core.ports import RequestFailed
from meshd.core.routing import deadlines
from meshd.core.routing.hedge import HedgePolicy
from meshd.gateway import ATTEMPTS_MAX, beginning
from meshd.gateway.beginning import is_clearly_sooner
from protocol.jobs import Failure, Queued
from tests.core.routing.fleet import chat, load, member, model, model_load
from tests.gateway.household import (
    BROKEN,
    GONE,
    REFUSED,
    STALL,
    WORDS,
    Household,
    Neighbours,
    places_of,
)


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


async def test_a_node_whose_key_is_refused_is_named_and_not_asked_first_again():
    """Its owner's settings are wrong, whatever is asked; whoever asked learns whose they are."""
    shut = Failure("unauthorized", "upstream http://127.0.0.1:8000 refuses it", elsewhere=True)
    house = Household(node1=[shut], node2=WORDS)
    await house.read(chat())
    await house.read(chat())
    assert house.asked == ["node1", "node2", "node2"]
    alone = Household(node1=[shut], node2=[shut], node3=[shut])
    with pytest.raises(RequestFailed) as refused:
        await alone.gateway.submit(chat())
    named = [f"At node{n}: {shut.message}" for n in (1, 2, 3)]
    assert refused.value.failure.message in named


async def test_attempts_are_bounded():
    """A storm of refusals ends after ATTEMPTS_MAX."""
    scripts = {f"node{number}": [REFUSED] for number in range(1, 20)}
    house = Household(**scripts)
    house.become(*[member(number) for number in range(1, 20)])
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


async def test_the_engine_sees_the_canonical_name_and_a_request_id_of_its_own():
    """Two attempts of one request must not be confused by a peer that gets both."""
    house = Household(node1=[REFUSED], node2=WORDS)
    await house.read(chat(stream=True, model="SMOLLM2:latest"))
    assert [job.model for job in house.jobs] == ["smollm2", "smollm2"]
    assert [job.request_id for job in house.jobs] == ["r1.1", "r1.2"]


class Eager(HedgePolicy):
    """Hedges after 10 ms, `budget` times."""

    def __init__(self, hedges=100):
        super().__init__()
        self.hedges = hedges
        self.seen = []

    def delay_s(self, demand, now):
        """The same for everybody."""
        return 0.01

    def spent(self):
        """Until the budget is gone."""
        self.hedges -= 1
        return self.hedges >= 0

    def observed(self, demand, first_byte_s):
        """Remembered."""
        self.seen.append(first_byte_s)


async def test_a_late_first_byte_is_hedged_and_the_first_winner_kept():
    """The second speaks first: the client reads it, and the first is closed."""
    hedges = Eager()
    house = Household(hedges=hedges, node1=[STALL], node2=WORDS)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name, head.attempts) == (WORDS, "node2", 2)
    assert house.closed == ["node1", "node2"]
    assert house.is_tidy
    assert len(hedges.seen) == 1
    story = house.history.body("r1", 0.0)
    assert [each["outcome"] for each in story["attempts"]] == ["outrun", "finished"]
    assert [each["why"] for each in story["attempts"]] == ["first", "hedge"]


async def test_a_hedge_loads_no_model():
    """A second that has yet to read the weights would not be sooner, and another model might have
    to go for them; the budget is for those that can help."""
    hedges = Eager()
    house = Household(hedges=hedges, node1=[0.05, *WORDS], node2=WORDS, node3=WORDS)
    cold = load(model_load(warm=False, load_s=30.0))
    house.become(house.members[0], *[replace(each, load=cold) for each in house.members[1:]])
    _, events = await house.read(chat(stream=True))
    assert (events, house.asked, hedges.hedges) == (WORDS, ["node1"], 100)


async def test_the_first_may_still_win_against_its_hedge():
    """Whoever speaks first: here the one that was asked first."""
    house = Household(hedges=Eager(), node1=[0.05, *WORDS], node2=[STALL])
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name, head.attempts) == (WORDS, "node1", 2)
    assert house.closed == ["node2", "node1"]
    assert house.is_tidy


async def test_a_hedge_that_fails_leaves_the_first_alone():
    """Nobody else can take it; the first answers in its own time."""
    house = Household(hedges=Eager(), node1=[0.05, *WORDS], node2=[BROKEN], node3=[REFUSED])
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name) == (WORDS, "node1")
    assert house.is_tidy


async def test_a_first_that_fails_while_its_hedge_runs_waits_for_the_hedge():
    """No third attempt is needed."""
    house = Household(hedges=Eager(), node1=[0.03, BROKEN], node2=[0.06, *WORDS])
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name, house.asked) == (WORDS, "node2", ["node1", "node2"])
    assert house.is_tidy


async def test_when_the_first_and_its_hedge_fail_the_third_is_asked():
    """A hedge is an attempt like any other."""
    house = Household(hedges=Eager(), node1=[0.03, BROKEN], node2=[0.06, GONE], node3=WORDS)
    head, _ = await house.read(chat(stream=True))
    assert (head.node_name, head.attempts) == ("node3", 3)
    assert house.is_tidy


async def test_a_job_that_waits_in_a_queue_is_not_hedged():
    """Its node has said why nothing comes; a better queue is looked for instead."""
    house = Household(hedges=Eager(), node1=[Queued(1, 0.1), 0.1, *WORDS])
    await house.read(chat(stream=True))
    assert house.asked == ["node1"]


async def test_without_budget_nothing_is_hedged():
    """The budget is asked at the moment of the hedge."""
    house = Household(hedges=Eager(hedges=0), node1=[0.05, *WORDS])
    await house.read(chat(stream=True))
    assert house.asked == ["node1"]


async def test_what_may_have_an_effect_is_never_hedged():
    """A raw request may not be sent twice while the first still runs."""
    house = Household(hedges=Eager(), node1=[0.05, *WORDS])
    house.members[0] = member(1, model(capabilities=("raw",)))
    house.replace(2, member(2, model(capabilities=("raw",))))
    await house.read(chat(kind="raw", stream=True))
    assert len(house.asked) == 1


async def test_a_client_that_leaves_during_a_hedge_frees_both():
    """Cancelling the call closes both streams."""
    house = Household(hedges=Eager(), node1=[STALL], node2=[STALL])
    waiting = asyncio.create_task(house.gateway.submit(chat(stream=True)))
    await house.until_asked("node2")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert house.is_tidy
    assert house.history.body("r1", 0.0)["state"] == "cancelled"


async def test_waiting_in_a_queue_is_no_answer():
    """A node that queued the job and then broke is replaced without a word."""
    house = Household(node1=[Queued(3, 1.0), BROKEN], node2=WORDS)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name) == (WORDS, "node2")


@pytest.mark.parametrize("together", [True, False])
async def test_after_its_queue_the_job_is_answered(together):
    """The place and the first word may come in one batch."""
    steps = [[Queued(1, 0.1), *WORDS]] if together else [Queued(1, 0.1), *WORDS]
    house = Household(node1=steps)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name, head.attempts) == (WORDS, "node1", 1)


async def test_a_stream_that_waits_long_is_told_where_it_stands(monkeypatch):
    """The places come before the answer; the header names the node whose queue it is."""
    monkeypatch.setattr(beginning, "QUEUED_WORD_S", 0.03)
    waits = [Queued(2, 1.0), 0.04, Queued(1, 0.5), 0.01, *WORDS]
    house = Household(node1=waits)
    head, events = await house.read(chat(stream=True))
    assert (head.node_name, head.attempts) == ("node1", 1)
    assert head.queue_ms >= 30
    assert events == [Queued(1, 0.5), *WORDS]
    assert house.is_tidy


async def test_a_node_that_breaks_after_a_place_was_told_is_still_replaced(monkeypatch):
    """A place is no part of the answer, so nothing is lost."""
    monkeypatch.setattr(beginning, "QUEUED_WORD_S", 0.0)
    house = Household(node1=[Queued(2, 1.0), BROKEN], node2=WORDS)
    _, events = await house.read(chat(stream=True))
    assert places_of(events) == [2]
    assert events[1:] == WORDS
    assert house.is_tidy


async def test_when_all_fail_after_a_place_was_told_the_stream_says_so(monkeypatch):
    """The head has left, so the failure comes as an event."""
    monkeypatch.setattr(beginning, "QUEUED_WORD_S", 0.0)
    house = Household(node1=[Queued(2, 1.0), BROKEN], node2=[BROKEN], node3=[REFUSED])
    _, events = await house.read(chat(stream=True))
    assert events == [Queued(2, 1.0), REFUSED]
    assert house.is_tidy


async def test_a_whole_answer_is_never_told_a_place(monkeypatch):
    """There is nobody to read it."""
    monkeypatch.setattr(beginning, "QUEUED_WORD_S", 0.0)
    house = Household(node1=[Queued(2, 1.0), *WORDS])
    _, events = await house.read(chat())
    assert events == WORDS


async def test_a_waiting_job_moves_to_a_node_that_became_better(monkeypatch):
    """Its place is given up, nothing of it is left behind."""
    monkeypatch.setattr(beginning, "MOVE_LOOK_S", 0.01)
    house = Household(node1=[Queued(9, 60.0), STALL], node2=WORDS)
    head, events = await house.read(chat(stream=True))
    assert (events, head.node_name) == (WORDS, "node2")
    story = house.history.body("r1", 0.0)
    assert [each["outcome"] for each in story["attempts"]] == ["moved", "finished"]
    assert house.is_tidy


async def test_a_waiting_job_stays_where_no_other_node_is_clearly_better(monkeypatch):
    """A place is not given up for a little."""
    monkeypatch.setattr(beginning, "MOVE_LOOK_S", 0.01)
    house = Household(node1=[Queued(1, 0.2), 0.1, *WORDS], node2=WORDS)
    head, _ = await house.read(chat(stream=True))
    assert (head.node_name, house.asked) == ("node1", ["node1"])


async def test_moves_are_bounded(monkeypatch):
    """A job that is sent round in circles stays in the end."""
    monkeypatch.setattr(beginning, "MOVE_LOOK_S", 0.01)
    queue = [Queued(9, 600.0), STALL]
    house = Household(node1=queue, node2=queue, node3=queue)
    reading = asyncio.create_task(house.read(chat(stream=True)))
    await asyncio.sleep(0.3)
    assert len(house.asked) == 1 + beginning.MOVES_MAX
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert house.is_tidy


@pytest.mark.parametrize(
    ("there_s", "here_s", "sooner"),
    [(0.5, 10.0, True), (5.9, 10.0, True), (6.1, 10.0, False), (0.1, 1.0, False)],
)
def test_clearly_sooner_is_by_ratio_and_by_seconds(there_s, here_s, sooner):
    """Two fifths of the time, and a second that a person notices."""
    assert is_clearly_sooner(there_s, here_s) is sooner


async def test_the_best_two_are_probed_when_their_records_leave_it_open():
    """The one that has become busy is not taken; who does not answer keeps its record."""
    busy = model_load(generation_tps=100.0, in_flight=2, queued=9, backlog_s=30.0)
    peers = Neighbours(loads={"node1": busy})
    house = Household(peers=peers, node1=WORDS, node2=WORDS)
    even = load(model_load(generation_tps=100.0))
    house.members[0] = replace(house.members[0], load=even)
    house.replace(2, replace(house.members[1], load=even))
    head, _ = await house.read(chat(stream=True, max_tokens=100))
    assert set(peers.probed) == {"node1", "node2"}
    assert head.node_name == "node2"
