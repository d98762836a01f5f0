"""A real llama-server beside our engine: the one inside xllamacpp, run by `.peers/bin/python`.

Both are asked for streams, as people read them. What this one sends is only counted, so that a
client's parsing is not held against it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import servers
from benchmarks.servers import Server

PEER_PYTHON = Path(".peers/bin/python")

ANSWER_LIMIT_S = 300.0
"""For one answer: a minute's work on two cores that others use as well."""

PREDICTED = re.compile(rb'"tokens_predicted":(\d+)')
"""How many tokens an event of the stream says there were."""


class RivalError(Exception):
    """llama-server did not answer; the text says why."""


PROGRAM = """\
import sys, threading, xllamacpp
path, port, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = path, port, ["127.0.0.1"]
params.n_parallel, params.n_ctx, params.kv_unified = slots, slots * context, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cache_ram_mib, params.ui = 0, False
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@contextmanager
def llama_server(
    home: Path, model: Path, *, slots: int, context: int, threads: int
) -> Iterator[Server | None]:
    """llama-server with `context` tokens per slot; None where xllamacpp is not installed."""
    if not PEER_PYTHON.exists():
        yield None
        return
    port = servers.free_port()
    numbers = (str(number) for number in (port, slots, context, threads))
    command = [str(PEER_PYTHON), "-c", PROGRAM, str(model), *numbers]
    with servers.process(
        "llama-server",
        command,
        lambda: servers.answers(port, "/health"),
        home,
        port=port,
        limit_s=60.0,
    ) as made:
        yield made


async def complete(port: int, prompt: str, tokens: int) -> int:
    """A greedy completion of exactly `tokens` tokens; how many there were. Raises RivalError."""
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "cache_prompt": False,
        "stream": True,
    }
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            answer = await _post(port, json.dumps(body).encode())
    except TimeoutError:
        raise RivalError(f"llama-server took more than {ANSWER_LIMIT_S:.0f} s") from None
    counts = PREDICTED.findall(answer)
    if not counts:
        raise RivalError(f"llama-server answered {answer[:400]!r}")
    return int(counts[-1])


async def _post(port: int, body: bytes) -> bytes:
    """All bytes of the answer, read as they come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /completion HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + body)
        return await reader.read()
    finally:
        writer.close()
