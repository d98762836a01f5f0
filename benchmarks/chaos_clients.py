"""Clients of the chaos benchmark, in every dialect: each asks, reads to the last word, asks again.

`python -m benchmarks.chaos_clients SEED ASKERS SECONDS` inside a node's network namespace; one JSON
object a line for each answer. With 0 seconds every question is asked once, in order.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import aiohttp

PORT = 18_787
"""Of the endpoint in each namespace; `tests.netns.fleet` starts daemons there."""

QUESTIONS = 80
"""Different ones; each dialect and form comes eight times, six of them streamed."""

LONGEST_S = 90.0
"""An answer that takes longer has failed."""

PAUSE_MAX_S = 0.3
"""Between two questions of one client."""

AT_ONCE = 6
"""Clients that ask when every question is asked once."""

WORDS = ("the", "grey", "sea", "and", "one", "ship", "went", "by", "while", "nobody", "spoke")

Event = Mapping[str, Any]
Piece = tuple[str, str]
"""What it is (`text`, `thought`, `call`, `end`), and its words."""


@dataclass
class Heard:
    """What one client got. Times are monotonic seconds."""

    number: int
    form: str
    began_at: float
    status: int = 0
    attempts: int = 0
    error: str = ""
    pause_s: float = 0.0
    """The longest between two words."""
    took_s: float = 0.0
    said: dict[str, str] = field(default_factory=dict)

    def take(self, pieces: Iterator[Piece]) -> bool:
        """Add them; whether there was a word among them."""
        grown = False
        for kind, words in pieces:
            if words:
                self.said[kind] = self.said.get(kind, "") + words
                grown = True
        return grown


def of_openai(event: Event) -> Iterator[Piece]:
    """Chat and completions, whole or streamed."""
    for choice in event.get("choices", ()):
        said = choice.get("delta") or choice.get("message") or {}
        yield "thought", said.get("reasoning_content") or ""
        yield "text", said.get("content") or choice.get("text") or ""
        for call in said.get("tool_calls") or ():
            yield "call", (call["function"].get("name") or "") + call["function"]["arguments"]
        yield "end", choice.get("finish_reason") or ""


def of_anthropic(event: Event) -> Iterator[Piece]:
    """Messages, whole or streamed."""
    blocks = [event["delta"]] if event["type"] == "content_block_delta" else event.get("content")
    for block in blocks or ():
        yield "thought", block.get("thinking", "")
        yield "text", block.get("text", "")
    last = event.get("delta", event)
    yield "end", last.get("stop_reason") or ""


def of_ollama(event: Event) -> Iterator[Piece]:
    """Chat and generate, whole or streamed."""
    yield "text", event["message"]["content"] if "message" in event else event["response"]
    yield "end", event.get("done_reason") or ""


def of_responses(event: Event) -> Iterator[Piece]:
    """Responses, whole or streamed."""
    if event.get("type") == "response.output_text.delta":
        yield "text", event["delta"]
    elif event.get("object") == "response":
        for item in event["output"]:
            for part in item.get("content", ()):
                yield "text", part.get("text", "")
        yield "end", event["status"]
    elif event.get("type") in {"response.completed", "response.incomplete"}:
        yield "end", event["response"]["status"]


def _spelled(number: int, count: int) -> str:
    return " ".join(Random(number).choices(WORDS, k=count))


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _thoughtful(number: int) -> str:
    return f"<<think {_spelled(number, 60)}>>\n<<say {_spelled(number + 1, 20 + number)}>>"


PARAMETERS = {"type": "object", "properties": {"where": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"it": {"enum": [_spelled(0, 60)]}}, "required": ["it"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
Form = tuple[str, Callable[[Event], Iterator[Piece]], Callable[[int, str, int], dict[str, Any]]]
"""Path, what an event says, and the body for a number, a plain question and a length."""

FORMS: Mapping[str, Form] = {
    "chat": (
        "/v1/chat/completions",
        of_openai,
        lambda _, text, most: {"messages": _turn(text), "max_tokens": most, "ignore_eos": True},
    ),
    "thought": (
        "/v1/chat/completions",
        of_openai,
        lambda number, _, __: {"messages": _turn(_thoughtful(number))},
    ),
    "schema": (
        "/v1/chat/completions",
        of_openai,
        lambda _, text, __: {"messages": _turn(text), "response_format": FORMAT},
    ),
    "tools": (
        "/v1/chat/completions",
        of_openai,
        lambda number, _, __: {
            "messages": _turn(
                f"<<say {_spelled(number, 40)}>>\n"
                f"<<call look {json.dumps({'where': _spelled(number, 40)})}>>"
            ),
            "tools": [TOOL],
        },
    ),
    "completion": (
        "/v1/completions",
        of_openai,
        lambda _, text, most: {"prompt": text, "max_tokens": most, "ignore_eos": True},
    ),
    "messages": (
        "/v1/messages",
        of_anthropic,
        lambda _, text, most: {"messages": _turn(text), "max_tokens": most},
    ),
    "messages-thought": (
        "/v1/messages",
        of_anthropic,
        lambda number, _, __: {"messages": _turn(_thoughtful(number)), "max_tokens": 400},
    ),
    "ollama-chat": (
        "/api/chat",
        of_ollama,
        lambda _, text, most: {"messages": _turn(text), "options": {"num_predict": most}},
    ),
    "ollama-generate": (
        "/api/generate",
        of_ollama,
        lambda _, text, most: {"prompt": text, "options": {"num_predict": most}},
    ),
    "responses": (
        "/v1/responses",
        of_responses,
        lambda _, text, most: {"input": text, "max_output_tokens": most},
    ),
}


async def ask(session: aiohttp.ClientSession, number: int) -> Heard:
    """One question, to the last word of its answer or to whatever came instead."""
    form = list(FORMS)[number % len(FORMS)]
    path, read, make = FORMS[form]
    text = f"Tell me story number {number}. " * (1 + number % 5)
    stream = number // len(FORMS) % 4 != 3
    body = {"model": "toy", "stream": stream} | make(number, text, 20 + number * 37 % 140)
    heard = Heard(number, form, time.monotonic())
    try:
        async with session.post(f"http://127.0.0.1:{PORT}{path}", json=body) as answer:
            heard.status = answer.status
            heard.attempts = int(answer.headers.get("x-mesh-attempts", "0"))
            last_at = time.monotonic()
            async for event in _events(answer):
                if trouble := _trouble(event):
                    heard.error = json.dumps(trouble)
                    break
                if heard.take(read(event)):
                    now = time.monotonic()
                    heard.pause_s, last_at = max(heard.pause_s, now - last_at), now
        if not heard.error and "end" not in heard.said:
            heard.error = "the answer has no end"
    except (aiohttp.ClientError, TimeoutError) as error:
        heard.error = repr(error)
    heard.took_s = time.monotonic() - heard.began_at
    return heard


def _trouble(event: Event) -> Any:
    """What a dialect says of an answer that failed; None where it did not."""
    failed = event["response"] if event.get("type") == "response.failed" else event
    return failed.get("error")


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """The objects of an answer: the one of a whole answer, or those of a stream as they come."""
    kind = answer.content_type
    if kind == "application/json":
        yield await answer.json()
        return
    async for line in answer.content:
        packed = line.strip()
        if kind == "text/event-stream":
            name, _, packed = packed.partition(b": ")
            if name != b"data" or packed == b"[DONE]":
                continue
        if packed:
            yield json.loads(packed)


async def main(seed: int, askers: int, seconds: float) -> None:
    """Ask until the time is over; print each answer as it is there."""
    until = time.monotonic() + seconds
    limit = aiohttp.ClientTimeout(total=LONGEST_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=limit, connector=connector) as session:
        if not seconds:
            turns = asyncio.Semaphore(AT_ONCE)

            async def once(number: int) -> None:
                async with turns:
                    _print(await ask(session, number))

            await asyncio.gather(*map(once, range(QUESTIONS)))
            return

        async def client(number: int) -> None:
            chance = Random(seed * 1_000 + number)
            while time.monotonic() < until:
                _print(await ask(session, chance.randrange(QUESTIONS)))
                await asyncio.sleep(chance.uniform(0, PAUSE_MAX_S))

        await asyncio.gather(*map(client, range(askers)))


def _print(heard: Heard) -> None:
    print(json.dumps(asdict(heard)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
