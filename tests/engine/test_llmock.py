"""LLMock breaks answers the way real providers do, and judges whoever asked.

What the engine says of each fault is enough for its caller to behave well: the test asks again as a
router would, when it is told that this can help and after the wait that it is told, and LLMock
finds nothing to fault.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import pytest_asyncio

from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Failure, Finish, Job
from tests.engine.peers import BIN, free_port, needs_peer, running

pytestmark = [
    needs_peer("llmock"),
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MODEL = "gpt-4o-mini"
JOB = Job("r", "chat", MODEL, messages=({"role": "user", "content": "Hello"},), stream=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llmock():
    """LLMock, adopted: the engine, and a client for its admin endpoints."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (str(BIN / "llmock"), "serve", "--port", str(port), "--context-window", "64")
    async with running(command, f"{url}/health"), aiohttp.ClientSession(url) as admin:
        # No listing may take the fault that is meant for an answer.
        engine = UpstreamEngine(url, MODEL, refresh_s=3_600.0)
        await engine.start()
        try:
            yield engine, admin
        finally:
            await engine.close()


async def break_next(admin, **fault):
    """The next answer suffers this."""
    async with admin.post("/_llmock/scenario", json={"behaviors": [fault]}) as response:
        assert response.status < 300, await response.text()


async def verdict_of(admin):
    """What LLMock finds wrong: the codes of its findings."""
    async with admin.get("/_llmock/verdict") as response:
        told = await response.json()
    return [finding["code"] for finding in told["findings"]]


async def asked_again(engine, answer, failure):
    """As a router does it that has nobody else."""
    assert failure.elsewhere
    await asyncio.sleep(failure.retry_after_s)
    return await answer(engine, JOB)


FAULTS = {
    "rate limit": ({"type": "fail", "status": 429, "retry_after": 1}, "overloaded"),
    "outage": ({"type": "fail", "status": 503}, "overloaded"),
    "error": ({"type": "fail", "status": 500}, "engine_failed"),
    "disconnect": (
        {"type": "stream_fault", "kind": "disconnect", "after_chunks": 2},
        "engine_failed",
    ),
    "truncate": ({"type": "stream_fault", "kind": "truncate", "after_chunks": 2}, "engine_failed"),
    "malformed": (
        {"type": "stream_fault", "kind": "malformed", "after_chunks": 2},
        "engine_failed",
    ),
}


UNSEEN = {"malformed_chunk_ignored"}
"""LLMock's one warning: it has written the rest of a stream before it can see that its client hung
up at the broken chunk, which the failure above proves."""


async def test_every_fault_is_seen_and_survived(llmock, answer):
    """Each has its name, none looks like an answer, and LLMock's verdict is clean."""
    engine, admin = llmock
    for fault, code in FAULTS.values():
        await break_next(admin, **fault)
        _, others = await answer(engine, JOB)
        assert isinstance(others[-1], Failure)
        assert others[-1].code == code
        text, others = await asked_again(engine, answer, others[-1])
        assert text
        assert isinstance(others[-1], Finish)
    assert set(await verdict_of(admin)) <= UNSEEN


async def test_a_request_that_is_wrong_is_not_sent_again(llmock, answer):
    """Neither here nor anywhere else: a 400 stays one."""
    engine, admin = llmock
    long = Job("r", "chat", MODEL, messages=({"role": "user", "content": "word " * 500},))
    _, (failure,) = await answer(engine, long)
    assert failure.code == "context_length_exceeded"
    assert not failure.elsewhere
    assert set(await verdict_of(admin)) <= UNSEEN


async def test_a_slow_first_token_is_waited_for(llmock, answer):
    """Patience is the router's business, not the engine's."""
    engine, admin = llmock
    await break_next(admin, type="slow_first_token", seconds=1)
    text, (finish,) = await answer(engine, JOB)
    assert text
    assert finish.prompt_s >= 0.9
