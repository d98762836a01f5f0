"""Claims of meshd.engine.adoption: recorded servers on real sockets, and a real llama-server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshd.api import ollama_models
from meshd.core.ports import EngineError
from meshd.core.stats import load_guess_s
from meshd.engine import adoption
from meshd.engine.adoption import USUAL_SPOTS, Spot, adopters
from meshd.engine.bundled import bundled_gguf
from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Finish, Job
from tests.engine import test_habits as recorded

PEER_PYTHON = Path(".peers/bin/python").absolute()
LLAMA_SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_parallel, params.n_ctx, params.kv_unified, params.ui = 2, 1024, False, False
server = xllamacpp.Server(params)
threading.Event().wait()
"""
ASKED = {"/api/tags", "/api/ps", "/api/show", "/api/v0/models", "/v1/models", "/props"}
"""All that may be asked of a server that was not given a job."""


class Recorded:
    """A server that answers as recorded and keeps what it was asked."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.body: dict[str, Any] = {}
        self.shown: dict[str, Any] = {}
        """What `/api/show` says of each model, where not the same of all."""
        self.port = 0

    @asynccontextmanager
    async def adopted(self, kind: str, **named: Any):
        """The engine for this server, as one of a kind, or as one that its owner `named`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        url = f"http://127.0.0.1:{self.port}"
        (engine,) = [UpstreamEngine(url, **named)] if named else adopters(spots=[Spot(kind, url)])
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        answer = self.answers.get(request.path)
        if request.path == "/api/show" and self.shown:
            answer = self.shown[(await request.json())["model"]]
        if request.path == "/v1/chat/completions":
            self.body = await request.json()
            return web.json_response(
                {
                    "model": self.body["model"],
                    "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
                }
            )
        return web.json_response(answer, status=404 if answer is None else 200)


def ids(engine: UpstreamEngine) -> list[str]:
    return [record.model_id for record in engine.models()]


OLLAMA = {"/api/tags": recorded.TAGS, "/api/ps": recorded.PS, "/api/show": recorded.SHOW}


@pytest.mark.parametrize(
    ("kind", "answers", "model"),
    [
        ("ollama", OLLAMA, "llama3.2"),
        ("lm-studio", {"/api/v0/models": recorded.LM_STUDIO}, "granite-3.0-2b-instruct"),
        ("vllm", {"/v1/models": recorded.VLLM}, "Qwen/Qwen3-8B"),
        (
            "llama-server",
            {"/v1/models": recorded.LLAMA, "/props": recorded.PROPS},
            "smollm2-135m-instruct",
        ),
    ],
)
async def test_each_kind_is_adopted_without_a_single_inference(
    kind: str, answers: dict[str, object], model: str
) -> None:
    """Lists and properties are all that is asked for."""
    server = Recorded(**answers)
    async with server.adopted(kind) as engine:
        assert model in ids(engine)
        assert next(load for load in engine.stats() if load.model_id == model).warm
    assert set(server.asked) <= ASKED


async def test_a_model_on_an_adopted_servers_disk_costs_its_size() -> None:
    """Whoever has the small one loaded elsewhere need not be passed over for it, nor the large."""
    async with Recorded(**(OLLAMA | {"/api/ps": {"models": []}})).adopted("ollama") as engine:
        sizes = {record.model_id: record.size_bytes for record in engine.models()}
        assert all(sizes.values())
        told = {load.model_id: load.load_s for load in engine.stats()}
        assert told == {model_id: load_guess_s(size) for model_id, size in sizes.items()}


async def test_ollamas_details_are_asked_for_once() -> None:
    """A digest is a digest: a hundred models are not asked about again at every look."""
    server = Recorded(**OLLAMA)
    async with server.adopted("ollama") as engine:
        await engine._refresh()
    assert server.asked.count("/api/show") == len(recorded.TAGS["models"])
    assert server.asked.count("/api/ps") == 2


async def test_a_job_asks_for_the_model_by_the_servers_own_name(answer) -> None:
    """Whatever name the client used for it."""
    server = Recorded(**OLLAMA)
    async with server.adopted("ollama") as engine:
        text, (finish,) = await answer(
            engine, Job("r", "chat", "llama3.2", messages=({"role": "user", "content": "q"},))
        )
    assert (text, isinstance(finish, Finish)) == ("hi", True)
    assert server.asked[-1] == "/v1/chat/completions"


async def test_ollama_is_not_told_to_think_harder_with_a_model_that_cannot(answer) -> None:
    """It would refuse every request of an agent that names an effort."""
    server = Recorded(**OLLAMA)
    job = Job("r", "chat", "llama3.2", messages=(), extras={"reasoning_effort": "high", "x": 1})
    async with server.adopted("ollama") as engine:
        await answer(engine, job)
    assert (server.body["x"], "reasoning_effort" in server.body) == (1, False)


@pytest.mark.parametrize(("can", "effort"), [(["thinking"], "high"), ([], None)])
async def test_an_ollama_that_was_named_is_told_to_think_in_its_words_too(
    answer, can, effort
) -> None:
    """It is known by who its models belong to, and asked about each once. Its address stays in
    the engine's name: what runs it may be another machine than this one."""
    listing = {"data": [{"id": "q", "owned_by": "library"}, {"id": "w/q", "owned_by": "w"}]}
    show = {"capabilities": ["completion", "tools", *can]}
    server = Recorded(**{"/v1/models": listing, "/api/show": show})
    job = Job("r", "chat", "w/q", messages=(), extras={"reasoning_effort": "max"})
    async with server.adopted("", can=("chat",)) as engine:
        await engine._refresh()
        await answer(engine, job)
        assert engine.models()[0].capabilities == ("chat", *can)
        assert engine.models()[0].engine == engine.name.replace("upstream", "ollama")
    assert server.body.get("reasoning_effort") == effort
    assert server.asked.count("/api/show") == 2
    async with server.adopted("", slots=1) as engine:
        assert engine.models()[0].capabilities == ("chat", "completion", "tools", *can)


NAMED = {
    "q:latest": {"capabilities": ["completion", "tools"]},
    "e:latest": {"capabilities": ["embedding"]},
    "c:120b-cloud": {"capabilities": ["completion"], "remote_host": "https://ollama.com:443"},
}


@pytest.mark.parametrize(
    ("named", "offered"),
    [
        ("", {"q": ("chat", "completion", "tools"), "e": ("embedding",)}),
        ("q", {"q": ("chat", "completion", "tools")}),
        ("q:latest", {"q": ("chat", "completion", "tools")}),
        ("c:120b-cloud", {"c:120b-cloud": ("chat", "completion")}),
    ],
)
async def test_an_ollama_that_was_named_offers_what_it_runs_as_one_that_was_found(
    answer, named, offered
) -> None:
    """Under the same names, what makes vectors for nothing else, and what runs on the internet
    only where its owner named it."""
    listing = {"data": [{"id": name, "owned_by": "library"} for name in NAMED]}
    server = Recorded(**{"/v1/models": listing})
    server.shown = NAMED
    async with server.adopted("", model=named) as engine:
        assert {each.model_id: each.capabilities for each in engine.models()} == offered
        await answer(engine, Job("r", "chat", next(iter(offered)), messages=()))
    assert server.body["model"] in NAMED


async def test_an_ollama_that_was_named_tells_how_much_a_model_reads() -> None:
    """It cuts a longer prompt without a word: as it is loaded, and as it was last seen; before
    that, what its owner set or at most what it was made for, because what is refused for a guess
    would never be loaded."""
    info = {"a.context_length": 131_072}
    shown = {"capabilities": ["completion"], "model_info": info}
    listing = {"data": [{"id": name, "owned_by": "library"} for name in ("q:latest", "s")]}
    server = Recorded(**{"/v1/models": listing, "/api/ps": {"models": []}})
    server.shown = {"q:latest": shown, "s": shown | {"parameters": "num_ctx    8192"}}
    loaded = {"models": [{"name": "q:latest", "context_length": 4_096}]}
    told = []
    async with server.adopted("", slots=1) as engine:
        for running in ({"models": []}, loaded, {"models": []}, None):
            server.answers["/api/ps"] = running
            await engine._refresh()
            told.append([
                (record.context_length, load.warm)
                for record, load in zip(engine.models(), engine.stats(), strict=True)
            ])  # fmt: skip
    assert told == [
        [(131_072, False), (8_192, False)],
        [(4_096, True), (8_192, False)],
        [(4_096, False), (8_192, False)],
        [(4_096, True), (8_192, True)],
    ]


async def test_an_ollama_that_says_nothing_more_is_one_all_the_same(answer) -> None:
    """A proxy may let only what is below /v1 pass; its words for thinking would not."""
    listing = {"data": [{"id": "q", "owned_by": "library"}]}
    server = Recorded(**{"/v1/models": listing})
    job = Job("r", "chat", "q", messages=(), extras={"reasoning_effort": "max"})
    async with server.adopted("", slots=1) as engine:
        await engine._refresh()
        _, (finish,) = await answer(engine, job)
    assert isinstance(finish, Finish)
    assert "reasoning_effort" not in server.body
    assert server.asked.count("/api/show") == 1


async def test_slots_are_what_llama_server_says() -> None:
    """It told us; no guess is needed."""
    server = Recorded(**{"/v1/models": recorded.LLAMA, "/props": recorded.PROPS})
    async with server.adopted("llama-server") as engine:
        assert engine.stats()[0].slots == 3


@pytest.mark.parametrize("kind", [spot.kind for spot in USUAL_SPOTS])
async def test_another_program_on_the_usual_port_is_left_alone(kind: str) -> None:
    """Somebody's web server is no model server."""
    server = Recorded(**{"/v1/models": {"a": 1}, "/api/tags": {"tags": []}, "/": {}})
    async with server.adopted(kind) as engine:
        assert ids(engine) == []


@pytest.mark.parametrize("kind", [spot.kind for spot in USUAL_SPOTS])
async def test_a_node_on_the_usual_port_is_left_alone(kind: str) -> None:
    """This one itself perhaps, which speaks Ollama's API too: it would ask itself without end."""
    model = {"id": "m", "created": 0, "quantisation": "Q4_0", "aliases": []}
    tags = json.loads(ollama_models.tags([model]).body)
    assert tags["models"][0]["digest"]
    server = Recorded(**OLLAMA | {"/v1/models": recorded.OURS, "/api/tags": tags})
    async with server.adopted(kind) as engine:
        assert ids(engine) == []


async def test_a_server_that_comes_and_goes_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that never was there is not worth a word."""
    monkeypatch.setattr(adoption, "ADOPT_EVERY_S", 0.01)
    with socket.socket() as free, caplog.at_level(logging.INFO, logger="meshd"):
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        (engine,) = adopters(spots=[Spot("vllm", f"http://127.0.0.1:{port}")])
        await engine.start()
        await asyncio.sleep(0.05)
        assert caplog.text == ""
        free.close()
        server = Recorded(**{"/v1/models": recorded.VLLM})
        server.port = port
        async with server.adopted("vllm"):
            await until(lambda: ids(engine) == ["Qwen/Qwen3-8B"])
        await until(lambda: ids(engine) == [])
        await engine.close()
    words = [line for line in caplog.messages if line.startswith(f"vllm http://127.0.0.1:{port}")]
    assert sum("found, with 1 models" in line for line in words) == 2
    assert sum("gone" in line for line in words) == 1


def test_a_server_that_the_owner_named_is_not_adopted_again() -> None:
    """By whatever name of loopback it was given; an address elsewhere takes nothing."""
    taken = ["http://localhost:11434/v1", "http://192.168.1.5:1234"]
    assert [engine.name for engine in adopters(taken)] == [
        "lm-studio http://127.0.0.1:1234",
        "llama-server http://127.0.0.1:8080",
        "vllm http://127.0.0.1:8000",
    ]


async def test_unloading_is_the_servers_own_business() -> None:
    """Said in one line."""
    async with Recorded(**OLLAMA).adopted("ollama") as engine:
        with pytest.raises(EngineError, match="belongs to ollama"):
            await engine.unload("llama3.2")


@pytest.mark.skipif(not PEER_PYTHON.exists(), reason="no xllamacpp in .peers: no llama-server")
@pytest.mark.timeout(90)
async def test_a_real_llama_server_is_adopted_and_answers(answer) -> None:
    """Its slots, its context and its model's name, and a real answer through it. 90 s: it loads a
    model on a machine that may be busy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        PEER_PYTHON,
        "-c",
        LLAMA_SERVER,
        str(bundled_gguf()),
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    (engine,) = adopters(spots=[Spot("llama-server", f"http://127.0.0.1:{port}")])
    try:
        await engine.start()
        await until(lambda: ids(engine) != [], engine)
        (record,), (load,) = engine.models(), engine.stats()
        assert (record.model_id, load.slots) == ("smollm2-135m-instruct", 2)
        assert record.context_length == 512
        job = Job(
            "r",
            "chat",
            record.model_id,
            messages=({"role": "user", "content": "Hi"},),
            max_tokens=4,
        )
        text, (finish,) = await answer(engine, job)
        assert isinstance(finish, Finish)
        assert text
    finally:
        await engine.close()
        process.kill()
        await process.wait()


async def until(is_so, engine: UpstreamEngine | None = None) -> None:
    """Wait until it is so, looking again now and then; the test's time limit is the bound."""
    while not is_so():  # a look is made on each turn
        await asyncio.sleep(0.02)
        if engine is not None:
            await engine._refresh()
