"""An `mlx_lm server` that is already running is adopted like any other OpenAI server.

The real server, with the real tokenizer and the cut-down weights. What it does its own way: it
repeats the role in every delta and in the last, it sends comments while it reads the prompt, its
usage chunk calls itself a `chat.completion`, and it hangs up on whoever asks for its models while
the hub's cache folder does not exist.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Finish, Job, Sampling, TextDelta
from tests.engine.mlx_folder import needs_mlx, small_mlx_folder

pytestmark = [needs_mlx, pytest.mark.slow, pytest.mark.timeout(120)]

START_S = 90.0
"""For the server's imports: ten seconds on a quiet machine."""


@asynccontextmanager
async def mlx_server(home):
    """`python -m mlx_lm server` on a free port, with its hub at `home`: its URL and its model."""
    folder = await asyncio.to_thread(small_mlx_folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlx_lm", "server", "--model", str(folder)),
        *("--port", str(port), "--host", "127.0.0.1"),
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "MLX_DISABLE_COMPILE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await until_it_serves(url)
        yield url, str(folder)
    finally:
        process.terminate()
        await process.wait()


async def until_it_serves(url):
    """Poll its health, because a foreign process tells nobody that it is ready."""
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
        while not await is_up(session, url):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def is_up(session, url):
    """Does it answer?"""
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def question(model) -> Job:
    """A short question to `model`."""
    said = ({"role": "user", "content": "Where is the sea?"},)
    return Job("r", "chat", model, messages=said, max_tokens=8, sampling=Sampling(temperature=0.0))


async def test_a_server_that_cannot_list_its_models_serves_the_one_that_is_named(tmp_path, answer):
    """Without a hub cache it hangs up on the question; the owner's word is enough."""
    async with mlx_server(tmp_path / "absent") as (url, model):
        nameless, named = UpstreamEngine(url), UpstreamEngine(url, model)
        try:
            await nameless.start()
            await named.start()
            assert nameless.models() == ()
            _, (failure,) = await answer(nameless, question(model))
            assert "model=ID" in failure.message
            text, (finish,) = await answer(named, question(model))
            assert text
            assert finish.completion_tokens == 8
        finally:
            await named.close()
            await nameless.close()


async def test_a_running_mlx_server_is_adopted(tmp_path, answer):
    """Its model is found by itself; a stream and a plain answer say the same, and both end with
    the server's own count."""
    (tmp_path / "hub").mkdir()
    async with mlx_server(tmp_path) as (url, model):
        engine = UpstreamEngine(url)
        try:
            await engine.start()
            assert [record.model_id for record in engine.models()] == [model]
            job = replace(question(model), stream=True)
            batches = [batch async for batch in engine.generate(job)]
            events = [event for batch in batches for event in batch]
            assert {type(event) for event in events[:-1]} == {TextDelta}
            assert isinstance(events[-1], Finish)
            assert (events[-1].reason, events[-1].completion_tokens) == ("length", 8)
            assert events[-1].prompt_tokens > 3
            plain, (finish,) = await answer(engine, question(model))
            assert plain == "".join(event.text for event in events[:-1])
            assert finish.completion_tokens == 8
        finally:
            await engine.close()
