"""A node without a model answers through one that has it, with the official client."""

import threading
import time

import openai
import pytest

from tests.e2e.daemons import wait_until

EMULATED = "emulated:model=echo,prompt_tps=20000,generation_tps=400,slots=2"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def client_of(daemon):
    """The official client, without retries that could hide an error."""
    return openai.OpenAI(base_url=daemon.base_url, api_key="unused", max_retries=0, timeout=15)


@pytest.fixture
def pair(launch):
    """An entry node without engines and a serving node, joined by --peer."""
    serving = launch("serving", "--engine", EMULATED).wait_ready()
    entry = launch("entry", "--peer", serving.peer).wait_ready()
    wait_until(lambda: entry.get("/v1/models")["data"], 5, "entry lists the peer's model")
    return entry, serving


def test_a_plain_answer_comes_from_the_other_node(pair):
    """The header names it; required keys are present."""
    entry, _ = pair
    with client_of(entry) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="echo", messages=QUESTION, max_tokens=12
        )
    answer = raw.parse()
    assert raw.headers["x-mesh-node"] == "serving"
    assert raw.headers["x-mesh-attempts"] == "1"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12


def test_a_streamed_answer_equals_the_plain_one(pair):
    """Same seed, same text, with usage at the end because it was asked for."""
    entry, _ = pair
    asked = {"model": "echo", "messages": QUESTION, "seed": 7, "temperature": 0, "max_tokens": 30}
    with client_of(entry) as client:
        plain = client.chat.completions.create(**asked)
        chunks = list(
            client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_an_unknown_model_is_a_404_that_lists_what_there_is(pair):
    """The client raises NotFoundError with the words of the mesh."""
    entry, _ = pair
    with client_of(entry) as client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert refused.value.code == "model_not_found"
    assert "echo" in refused.value.message


def test_a_client_that_leaves_frees_the_slot_on_the_other_node(launch):
    """The serving node's load record shows no work in flight soon after."""
    slow = "emulated:model=echo,prompt_tps=20000,generation_tps=5,slots=1"
    serving = launch("serving", "--engine", slow).wait_ready()
    entry = launch("entry", "--peer", serving.peer).wait_ready()
    wait_until(lambda: entry.get("/v1/models")["data"], 5, "entry lists the peer's model")

    def in_flight():
        rows = serving.get("/mesh/v1/members")["members"]
        return next(row["load"]["in_flight"] for row in rows if row["name"] == "serving")

    with client_of(entry) as client:
        stream = client.chat.completions.create(model="echo", messages=QUESTION, stream=True)
        next(iter(stream))
        wait_until(lambda: in_flight() == 1, 2, "the request shows in the load record")
        stream.close()
    wait_until(lambda: in_flight() == 0, 2, "the slot is free again")


def test_a_forwarded_request_never_hops_twice(launch):
    """Three in a row, each knowing all others: the answer comes from the owner, in one hop."""
    owner = launch("owner", "--engine", EMULATED).wait_ready()
    middle = launch("middle", "--peer", owner.peer).wait_ready()
    entry = launch("entry", "--peer", middle.peer).wait_ready()
    wait_until(lambda: entry.get("/v1/models")["data"], 5, "the model is known through gossip")
    with client_of(entry) as client:
        raw = client.chat.completions.with_raw_response.create(model="echo", messages=QUESTION)
    assert raw.headers["x-mesh-node"] == "owner"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_peer_killed_before_its_first_word_is_never_noticed(launch):
    """100 times kill -9 on the node that is prefilling: every answer arrives, from another."""
    rounds = 100
    fast = "emulated:model=echo,prompt_tps=40,generation_tps=4000,slots=4"
    steady = "emulated:model=echo,prompt_tps=30,generation_tps=4000,slots=4"
    keeper = launch("keeper", "--engine", steady).wait_ready()
    victims = [
        launch(f"victim{number}", "--peer", keeper.peer, "--engine", fast) for number in range(2)
    ]
    entry = launch("entry", "--peer", keeper.peer).wait_ready()
    answered_by = []
    for number in range(rounds):
        victim = victims[number % len(victims)]
        other = victims[(number + 1) % len(victims)]
        victim.wait_ready()
        wait_until(
            lambda name=victim.name: entry.states().get(name) == "alive",
            10,
            f"{victim.name} is back for round {number}",
        )
        if number:
            other.wait_ready()
        outcome: list[object] = []

        def ask(outcome=outcome):
            with client_of(entry) as client:
                raw = client.chat.completions.with_raw_response.create(
                    model="echo", messages=QUESTION, max_tokens=4
                )
                outcome.append((raw.headers["x-mesh-node"], raw.parse()))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.05)
        victim.kill()
        victim.start()
        asking.join(15)
        assert outcome, f"round {number} has no answer"
        answered_by.append(outcome[0][0])
    assert len(answered_by) == rounds
    assert len(set(answered_by)) > 1
