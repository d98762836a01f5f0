"""A node is drained in the middle of things: streams go on elsewhere, nobody notices."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import openai
import pytest

from tests.e2e.daemons import Daemon, wait_until, write_key

pytestmark = pytest.mark.timeout(90)  # three daemons, and answers that take seconds on purpose

SLOW = "emulated:model=echo,prompt_tps=20000,generation_tps=25,slots=4"
ASKED = {
    "model": "echo",
    "messages": [{"role": "user", "content": "Tell me of the sea."}],
    "max_tokens": 60,
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}


def client_of(daemon):
    """The official client, without retries that could hide an error."""
    return openai.OpenAI(base_url=daemon.base_url, api_key="unused", max_retries=0, timeout=30)


def meshctl(daemon, *words):
    """A command of `meshctl` asked of this daemon; what it said."""
    url = daemon.base_url.removesuffix("/v1")
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl", *words, "--node", url],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def household(tmp_path_factory):
    """Two nodes with the same model, and one without; all know each other."""
    home = tmp_path_factory.mktemp("drain")
    key = str(write_key(home / "mesh.key"))
    started: dict[str, Daemon] = {}
    with contextlib.ExitStack() as stack:
        for name in ("one", "two", "entry"):
            engine = () if name == "entry" else ("--engine", SLOW)
            peers = [word for each in started.values() for word in ("--peer", each.peer)]
            flags = ("--no-mdns", "--mesh-key-file", key, *peers, *engine)
            started[name] = Daemon(home, name, *flags)
            stack.callback(started[name].stop)
            started[name].start().wait_ready()
        entry, two = started["entry"], started["two"]
        wait_until(lambda: offers_of(entry) == ["one", "two"], 10, "the entry knows both")
        wait_until(lambda: two.states().get("entry") == "alive", 10, "everybody knows everybody")
        yield started


@pytest.fixture
def three(household):
    """The household, everybody taking work."""
    for name in ("one", "two"):
        meshctl(household[name], "resume")
        for seen_from in household.values():
            wait_until(lambda who=name, at=seen_from: not drains(at, who), 10, "all take work")
    return household


@pytest.mark.parametrize("asked_at", ["entry", "one"])
def test_a_drained_nodes_streams_go_on_elsewhere(three, asked_at):
    """The same bytes as an answer that nobody disturbed, in one response; and the node is empty."""
    with client_of(three[asked_at]) as client:
        calm = client.chat.completions.create(**ASKED).choices[0].message.content
        raw = client.chat.completions.with_raw_response.create(**ASKED, stream=True)
        serving = three[raw.headers["x-mesh-node"]]
        stream = raw.parse()
        text = ""
        drained = ""
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if len(text.split()) > 10 and not drained:
                drained = meshctl(serving, "drain")
    assert text == calm
    assert "nothing is left here" in drained
    assert serving.get("/mesh/v1/drain")["draining"]


def test_a_drained_node_is_left_alone_until_it_resumes(three):
    """Others answer, also what is asked at the node itself; `meshctl resume` ends it."""
    one, entry = three["one"], three["entry"]
    meshctl(one, "drain", "--wait")
    wait_until(lambda: drains(entry, "one"), 5, "the entry has heard of it")
    quick = {**ASKED, "max_tokens": 2}
    for asked_at in (entry, one):
        with client_of(asked_at) as client:
            raw = client.chat.completions.with_raw_response.create(**quick)
        assert raw.headers["x-mesh-node"] == "two"
    assert "takes work again" in meshctl(one, "resume")
    wait_until(lambda: not drains(entry, "one"), 5, "the entry has heard of that too")


def test_a_request_is_told_with_its_attempts(three):
    """`meshctl requests`, and one of them with every choice."""
    entry = three["entry"]
    with client_of(entry) as client:
        raw = client.chat.completions.with_raw_response.create(**{**ASKED, "max_tokens": 2})
    request_id = raw.headers["x-request-id"]
    assert request_id in meshctl(entry, "requests")
    told = meshctl(entry, "requests", request_id)
    assert f"{request_id}: done" in told
    assert "choice 1 of 1" in told
    assert raw.headers["x-mesh-node"] in told


def test_a_node_that_is_stopped_hands_its_streams_over(three):
    """SIGTERM is a drain: the client of another node notices nothing, and the exit code is 0. The
    last test, because the node is gone after it."""
    with client_of(three["entry"]) as client:
        calm = client.chat.completions.create(**ASKED).choices[0].message.content
        raw = client.chat.completions.with_raw_response.create(**ASKED, stream=True)
        serving = three[raw.headers["x-mesh-node"]]
        text = ""
        for chunk in raw.parse():
            text += chunk.choices[0].delta.content or ""
            if len(text.split()) == 10:
                serving.process.terminate()
    assert text == calm
    assert serving.stop() == 0
    told = three["entry"].get(f"/mesh/v1/requests/{raw.headers['x-request-id']}")
    assert [each["why"] for each in told["attempts"]] == ["first", "continuation"]
    assert told["attempts"][0]["code"] == "draining"


def offers_of(seen_from):
    """Names of the nodes that have the model, as seen from one."""
    rows = seen_from.get("/v1/models")["data"]
    return sorted(rows[0]["nodes"]) if rows else []


def drains(seen_from, name):
    """Whether a node's drain is known at another."""
    rows = seen_from.get("/mesh/v1/members")["members"]
    return next(row["load"]["draining"] for row in rows if row["name"] == name)
