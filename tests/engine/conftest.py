"""An OpenAI-compatible server for the adopted-server tests: real HTTP, emulated answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from meshd.engine.emulated import EmulatedEngine
from protocol.jobs import Failure, Finish, Job, Sampling, TextDelta


class OpenAIServer:
    """Speaks OpenAI's chat format for one EmulatedEngine, with a few real servers' habits:
    comments while it thinks, the role in every delta, usage in a chunk of its own."""

    def __init__(self, engine: EmulatedEngine) -> None:
        self.engine = engine
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[OpenAIServer]:
        """The server on a free port of loopback."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _models(self, _request: web.Request) -> web.Response:
        ids = [{"id": model.model_id, "object": "model"} for model in self.engine.models()]
        return web.json_response({"object": "list", "data": ids})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        stream = self.engine.generate(_job(body))
        if body.get("stream"):
            return await self._streamed(request, stream)
        return await self._plain(stream)

    async def _streamed(self, request, stream):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": thinking\n\n")
        async for batch in stream:
            for event in batch:
                await response.write(_sse(event))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _plain(self, stream):
        text = ""
        async for batch in stream:
            text += "".join(event.text for event in batch if isinstance(event, TextDelta))
            last = batch[-1]
        if isinstance(last, Failure):
            return web.json_response({"error": {"message": last.message}}, status=503)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": last.reason}
        return web.json_response({"choices": [choice], "usage": _usage(last)})


def _sse(event) -> bytes:
    if isinstance(event, TextDelta):
        delta = {"role": "assistant", "content": event.text}
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    elif isinstance(event, Finish):
        end = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": event.reason}
        chunks = [{"choices": [end]}, {"choices": [], "usage": _usage(event)}]
    else:
        chunks = [{"error": {"message": event.message}}]
    return b"".join(
        b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks
    )


def _usage(finish: Finish) -> dict[str, int]:
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
    }


def _job(body) -> Job:
    stop = body.get("stop", [])
    return Job(
        "upstream",
        "chat" if "messages" in body else "completion",
        body["model"],
        messages=tuple(body.get("messages", ())),
        prompt=body.get("prompt"),
        max_tokens=body.get("max_tokens"),
        stop=tuple([stop] if isinstance(stop, str) else stop),
        sampling=Sampling(seed=body.get("seed")),
        extras={"ignore_eos": bool(body.get("ignore_eos"))},
    )


async def answer(engine, job: Job) -> tuple[str, Sequence[object]]:
    """The whole text of an answer, and its other events."""
    text, others = "", []
    async for batch in engine.generate(job):
        for event in batch:
            if isinstance(event, TextDelta):
                text += event.text
            else:
                others.append(event)
    return text, others


@pytest.fixture(name="answer", scope="session")
def answer_function():
    """`answer(engine, job)`: the text and the other events."""
    return answer


@pytest.fixture(scope="session")
def openai_server():
    """`OpenAIServer`, to be entered with `async with openai_server(engine).serving()`."""
    return OpenAIServer
