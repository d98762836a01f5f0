"""The gateway as the HTTP server sees it."""

import asyncio

import pytest

from meshd.core.ports import RequestFailed
from meshd.gateway import MeshGateway, mesh, words
from tests.core.routing.fleet import chat, load, member, model
from tests.gateway.household import WORDS, Household


async def test_an_unknown_model_lists_what_there_is():
    """The sentence that a person needs."""
    house = Household()
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat(model="gpt-9"))
    failure = refused.value.failure
    assert (failure.code, failure.param) == ("model_not_found", "model")
    assert failure.message == ("The model 'gpt-9' is not offered by any node. Offered: smollm2.")


def gateway_of(house, **told):
    """Another gateway of the household, which is `told` more of its node."""
    return MeshGateway(house.router, house.view, house.generate, status=dict, members=dict, **told)


async def test_a_model_that_is_set_aside_here_is_not_said_to_be_unknown():
    """Official clients ask again after a failure: the last answer is what their user reads."""
    house = Household()
    aside = {"m": "m.gguf is corrupt"}
    gateway = gateway_of(house, aside=lambda name: aside.get(name, ""))
    with pytest.raises(RequestFailed, match=r"'m' is set aside .* m\.gguf is corrupt") as refused:
        await gateway.submit(chat(model="m"))
    assert refused.value.failure.code == "engine_failed"


@pytest.mark.parametrize("name", ["big", "BIG:latest", "auto"])
@pytest.mark.parametrize("state", ["suspect", "dead", "left"])
async def test_a_model_whose_node_is_away_is_no_wrong_name(name, state):
    """It may be there again in a moment: a client that hears "not found" gives up for good."""
    house = Household()
    big = member(2, model(model_id="big", capabilities=("chat",)), state=state)
    house.become(member(1, capacity=None), big, member(3, state=state, load=None))
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(chat(model=name))
    failure = refused.value.failure
    assert (failure.code, failure.retry_after_s) == ("unreachable", words.RETRY_AFTER_S)
    assert f"only by nodes that do not answer now: node2 ({state})." in failure.message


async def test_after_a_sleep_the_first_word_of_those_who_have_the_model_is_waited_for():
    """What they told before is of another day, and nobody offers anything for a moment."""
    house = Household(node2=WORDS)
    house.become(member(1, capacity=None), member(2, load=None))
    asking = asyncio.create_task(house.read(chat()))
    await asyncio.sleep(0.01)
    assert not asking.done()
    house.become(house.members[0], member(2))
    _, events = await asking
    assert events == WORDS


async def test_a_node_that_has_just_started_waits_for_whom_it_does_not_know_yet():
    """A client that asks again while its daemon is started anew gives up when it hears 404. Once
    the node has looked around, nobody is waited for."""
    house, looking_around = Household(node2=WORDS), [True]
    house.become(member(1, capacity=None))
    gateway = gateway_of(house, looking_around=lambda: bool(looking_around))
    known = asyncio.create_task(gateway.submit(chat()))
    wrong = asyncio.create_task(gateway.submit(chat(model="none")))
    await asyncio.sleep(0.01)
    assert not known.done()
    house.become(house.members[0], member(2))
    answer = await known
    assert [event async for batch in answer.events for event in batch] == WORDS
    looking_around.clear()
    with pytest.raises(RequestFailed, match="'none' is not offered by any node"):
        await wrong


async def test_who_is_not_heard_after_a_sleep_is_named(monkeypatch):
    """And not waited for without end; the model is no unknown one."""
    monkeypatch.setattr(mesh, "HEARD_WAIT_S", 0.0)
    house = Household()
    house.become(member(1, capacity=None), member(2, load=None))
    with pytest.raises(
        RequestFailed, match=r"do not answer now: node2 \(not heard yet\)"
    ) as refused:
        await house.gateway.submit(chat())
    assert refused.value.failure.code == "unreachable"


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
    house.become(member(1, load=record))
    with pytest.raises(RequestFailed) as refused:
        await house.gateway.submit(job)
    assert refused.value.failure.code == code
    assert house.asked == []


def test_models_are_merged_over_the_mesh():
    """One row per id, with every node that has it."""
    house = Household()
    big = model(model_id="big", context_length=9, emulated=True)
    house.replace(3, member(3, model(), big))
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
