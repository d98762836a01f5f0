"""A stream survives its machine: killed, stopped, drained, or only its worker process gone."""

import json
import os
import signal
import threading
from pathlib import Path

import openai
import pytest

from tests.e2e.daemons import wait_until

MODEL = "smollm2-135m-instruct"
LOAD_LIMIT_S = 90
"""A cold disk and a busy machine; usually two seconds."""

QUESTION = [{"role": "user", "content": "Tell a long story about a lighthouse and its keeper."}]
PONDERED = [
    {"role": "user", "content": f"<<think {'hm so and then ' * 20}>>\n<<say {'it is ' * 9}>>"}
]
EMULATED = "emulated:model=echo,prompt_tps=20000,generation_tps=40,slots=4,tokens=90"


def client_of(daemon):
    """The official client, without retries that could hide an error."""
    return openai.OpenAI(base_url=daemon.base_url, api_key="unused", max_retries=0, timeout=90)


def holder(entry, request_id, living):
    """The one of the `living` nodes that works on a request, as the entry node tells.

    Between a kill and the next attempt no living node holds it: that is waited for."""
    held = ""

    def known():
        nonlocal held
        attempts = attempts_of(entry, request_id)
        held = next((each["node"] for each in attempts if each["outcome"] == "running"), "")
        return held in living

    wait_until(known, 10, f"a living node works on {request_id}")
    return held


def attempts_of(entry, request_id):
    """The attempts at a request, less those that another outran: a second one starts beside a node
    that is in doubt, as any may be on a machine that is busy with other tests."""
    attempts = entry.get(f"/mesh/v1/requests/{request_id}")["attempts"]
    return [each for each in attempts if each["outcome"] != "outrun"]


class Reading:
    """One stream that is read in a thread, as any program would."""

    def __init__(self, entry, request_id, **asked):
        self.pieces = []
        self.failure = None
        self.chunks = []
        self.thread = threading.Thread(target=self.read, args=(entry, request_id, asked))
        self.thread.start()

    def read(self, entry, request_id, asked):
        """To its end, or to whatever the client raises."""
        try:
            with client_of(entry) as client:
                for chunk in client.chat.completions.create(
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_headers={"x-request-id": request_id},
                    **asked,
                ):
                    self.chunks.append(chunk)
                    self.pieces += [words_of(each.delta) for each in chunk.choices]
        except openai.OpenAIError as error:
            self.failure = error

    @property
    def text(self):
        """What has been read so far."""
        return "".join(self.pieces)

    def until(self, words):
        """Returns once so many words are there."""
        wait_until(lambda: len(self.text.split()) >= words, 60, f"{words} words have come")

    def finished(self):
        """The whole text; one id, one created, an account, and no error."""
        self.thread.join(120)
        assert self.failure is None
        assert len({(chunk.id, chunk.created) for chunk in self.chunks}) == 1
        assert self.chunks[-1].usage is not None
        return self.text


def words_of(delta):
    """What was thought, and what was said."""
    return (getattr(delta, "reasoning_content", None) or "") + (delta.content or "")


def mesh(launch, count, *engine):
    """`count` serving nodes by name, and an entry node without a model."""
    first = launch("node1", *engine)
    rest = [launch(f"node{n + 1}", "--peer", first.peer, *engine) for n in range(1, count)]
    nodes = {node.name: node for node in (first, *rest)}
    entry = launch("entry", *[word for n in nodes.values() for word in ("--peer", n.peer)])
    for node in (*nodes.values(), entry):
        node.wait_ready(60)
    return entry, nodes


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_greedy_stream_is_the_same_though_two_of_three_nodes_are_killed(launch):
    """SmolLM2, the official client, kill -9 twice: byte for byte the uninterrupted answer."""
    entry, nodes = mesh(launch, 3, "--engine", "llamacpp:bundled,slots=1,threads=1")
    wait_until(lambda: len(entry.serving(MODEL)) == 3, LOAD_LIMIT_S, "three nodes have it warm")
    asked = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 240}
    asked["extra_body"] = {"ignore_eos": True}  # long enough to be still under way at each kill
    whole = Reading(entry, "whole", **asked)
    plain = whole.finished()
    reading = Reading(entry, "broken", **asked)
    for words in (20, 50):
        reading.until(words)
        nodes.pop(holder(entry, "broken", nodes)).kill()
    assert reading.finished() == plain
    usage = reading.chunks[-1].usage
    assert usage.completion_tokens == whole.chunks[-1].usage.completion_tokens
    assert usage.prompt_tokens == whole.chunks[-1].usage.prompt_tokens
    whys = [each["why"] for each in attempts_of(entry, "broken")]
    assert whys[0] == "first"
    assert whys.count("continuation") == 2, "a busy machine may be late besides, and tried anew"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_in_the_middle_costs_a_pause(launch):
    """Only the model's process dies; its own node starts it again and goes on."""
    entry, nodes = mesh(launch, 1, "--engine", "llamacpp:bundled,threads=1")
    wait_until(lambda: len(entry.serving(MODEL)) == 1, LOAD_LIMIT_S, "the model is warm")
    asked = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 160}
    asked["extra_body"] = {"ignore_eos": True}
    plain = Reading(entry, "whole", **asked).finished()
    reading = Reading(entry, "broken", **asked)
    reading.until(20)
    for worker in children_of(nodes["node1"].process.pid):
        os.kill(worker, signal.SIGKILL)
    assert reading.finished() == plain
    assert len(attempts_of(entry, "broken")) == 2


def children_of(pid):
    """The processes that a process has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in listed for child in task.read_text().split()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fate", "question"),
    [
        ("killed", QUESTION),
        ("stopped", QUESTION),
        ("drained", QUESTION),
        ("terminated", QUESTION),
        ("killed", PONDERED),
        ("drained", PONDERED),
    ],
    ids=["killed", "stopped", "drained", "terminated", "killed-thinking", "drained-thinking"],
)
def test_a_stream_goes_on_when_its_node_is(fate, question, launch):
    """The same words as without, in one stream; a comment tells of it, the client does not. So too
    where it breaks off inside a thought."""
    entry, nodes = mesh(launch, 2, "--engine", EMULATED)
    wait_until(lambda: len(entry.serving("echo")) == 2, 30, "both nodes serve")
    asked = {"model": "echo", "messages": question, "seed": 3}
    plain = Reading(entry, "whole", **asked).finished()
    reading = Reading(entry, "broken", **asked)
    reading.until(10)
    victim = nodes[holder(entry, "broken", nodes)]
    fates = {
        "killed": victim.kill,
        "stopped": lambda: victim.process.send_signal(signal.SIGSTOP),
        "drained": lambda: victim.ask("POST", "/mesh/v1/drain", {}),
        "terminated": victim.process.terminate,
    }
    fates[fate]()
    try:
        text = reading.finished()
    finally:
        victim.process.send_signal(signal.SIGCONT)
    assert text == plain
    attempts = attempts_of(entry, "broken")
    assert [(each["why"], each["outcome"]) for each in attempts] == [
        ("first", "failed"),
        ("continuation", "finished"),
    ]


@pytest.mark.timeout(120)
def test_a_node_that_hangs_before_its_first_word_is_replaced_soon(launch):
    """SIGSTOP while it reads the prompt: it answers no nudge, so another is asked beside it."""
    slow = "emulated:model=echo,prompt_tps=10,generation_tps=4000,slots=4"
    entry, nodes = mesh(launch, 2, "--engine", slow)
    wait_until(lambda: len(entry.serving("echo")) == 2, 30, "both nodes serve")
    reading = Reading(entry, "hung", model="echo", messages=QUESTION, max_tokens=4)
    wait_until(lambda: "hung" in json.dumps(entry.get("/mesh/v1/requests")), 10, "it has begun")
    victim = nodes[holder(entry, "hung", nodes)]
    victim.process.send_signal(signal.SIGSTOP)
    try:
        assert reading.finished()
    finally:
        victim.process.send_signal(signal.SIGCONT)
    attempts = attempts_of(entry, "hung")
    assert attempts[-1]["node"] != victim.name
    assert attempts[-1]["started_s"] < 5


@pytest.mark.timeout(120)
def test_what_cannot_go_on_ends_with_an_error_the_client_understands(launch):
    """One node, and it is gone: the official client raises, with the reason in words."""
    entry, nodes = mesh(launch, 1, "--engine", EMULATED)
    wait_until(lambda: len(entry.serving("echo")) == 1, 30, "the node serves")
    reading = Reading(entry, "broken", model="echo", messages=QUESTION)
    reading.until(10)
    nodes["node1"].kill()
    reading.thread.join(60)
    assert isinstance(reading.failure, openai.APIError)
    assert "Ask again" in str(reading.failure)
