"""A real daemon with real models in a box of 1.5 GB: it says no, or makes room, and nothing is
ever killed for want of memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import threading

import pytest

from meshd.engine.bundled import bundled_gguf
from meshd.engine.ledger import Ledger
from tests.e2e import cgroups
from tests.e2e.daemons import Daemon, wait_until

BOX_BYTES = 1536 * 1024**2
CONTEXT = 8192
"""With four slots SmolLM2 then takes 0.99 GB: one of them fits into the box, two do not."""

AGENT_TOKENS = 200
"""Of an answer to an agent: seconds, and never a moment without one while two of them ask."""

LOAD_S = 60.0
"""For one load on a machine that may be busy: alone it takes a second."""

WHY_NOT = cgroups.whynot()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.timeout(300),  # three real models are loaded in turn, on a machine that may be busy
]


@pytest.fixture
def neighbour():
    """Another daemon outside of the box, which has promised as much as the box has."""
    ledger = Ledger()
    ledger.update({"elsewhere": (BOX_BYTES, 0)})
    with contextlib.closing(ledger):
        yield


@pytest.fixture
def boxed(tmp_path):
    """A daemon in the box that offers `a`, `b` and, far too large, `c`; and the box."""
    for name in "abc":
        copy = tmp_path / f"{name}.gguf"
        shutil.copy(bundled_gguf(), copy)
        with copy.open("ab") as file:
            file.write(name.encode())
    sizes = {"a": CONTEXT, "b": CONTEXT, "c": 8 * CONTEXT}
    engines = [
        f"llamacpp:{tmp_path}/{n}.gguf,ctx={ctx},model={n},threads=1" for n, ctx in sizes.items()
    ]
    flags = [word for engine in engines for word in ("--engine", engine)]
    daemon = Daemon(tmp_path, "boxed", "--no-mdns", "--no-adopt", "--no-catalog", *flags)
    with cgroups.box(BOX_BYTES) as box:
        try:
            daemon.start()
            assert daemon.process is not None
            box.put(daemon.process.pid)
            daemon.wait_ready(LOAD_S)
            wait_until(lambda: {"a", "b"} <= offered(daemon), LOAD_S, "a and b offered")
            yield daemon, box
        finally:
            daemon.stop()
            wait_until(lambda: not (box.folder / "cgroup.procs").read_text(), 10, "the box empty")


def offered(daemon: Daemon) -> set[str]:
    return {row["id"] for row in daemon.get("/v1/models")["data"]}


def ask(daemon: Daemon, model: str, tokens: int = 4) -> tuple[int, dict]:
    """Status and body of one chat request."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=2 * LOAD_S)
    messages = [{"role": "user", "content": "Count to one thousand."}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.usefixtures("neighbour")
def test_models_that_do_not_fit_together_take_turns_and_nothing_is_killed(boxed) -> None:
    """Each is answered, each load evicts the other; one that can never fit is 507 with its sum;
    one that needs a busy model's place has its turn, and every answer of the busy one is whole."""
    daemon, box = boxed
    for model in "abab":
        status, body = ask(daemon, model)
        assert status == 200, body
        assert body["usage"]["completion_tokens"] == 4

    status, body = ask(daemon, "c")
    assert (status, body["error"]["code"]) == (507, "insufficient_memory")
    assert "c needs " in body["error"]["message"]
    assert "KV cache" in body["error"]["message"]

    answers: list[tuple[int, dict]] = []
    stop = threading.Event()
    agents = [threading.Thread(target=keep_asking, args=(daemon, stop, answers)) for _ in range(2)]
    for agent in agents:
        agent.start()
    wait_until(lambda: in_flight(daemon) == len(agents), LOAD_S, "b busy")
    status, body = ask(daemon, "a")
    assert (status, body["usage"]["completion_tokens"]) == (200, 4)
    stop.set()
    for agent in agents:
        agent.join(2 * LOAD_S)
    assert {status for status, _ in answers} == {200}
    assert {body["usage"]["completion_tokens"] for _, body in answers} == {AGENT_TOKENS}

    assert box.kills() == 0


def keep_asking(daemon: Daemon, stop: threading.Event, answers: list[tuple[int, dict]]) -> None:
    """An agent at `b`: the next question comes with the answer."""
    while not stop.is_set():
        answers.append(ask(daemon, "b", tokens=AGENT_TOKENS))


def in_flight(daemon: Daemon) -> int:
    (member,) = daemon.get("/mesh/v1/members")["members"]
    return member["load"]["in_flight"]
