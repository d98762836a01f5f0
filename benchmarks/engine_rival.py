"""A real llama-server beside our engine: the one inside xllamacpp, run by `.peers/bin/python`.

It is asked for whole answers, not streams, so that no client's reading is counted against it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.servers import Server

PEER_PYTHON = Path(".peers/bin/python")

ANSWER_LIMIT_S = 300.0
"""For one answer: a minute's work on two cores that others use as well."""


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
    """A greedy completion of exactly `tokens` tokens; how many there were."""
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "cache_prompt": False,
    }
    answer = await asyncio.to_thread(_post, port, body)
    predicted: int = answer["tokens_predicted"]
    return predicted


def _post(port: int, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request(
            "POST", "/completion", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except TimeoutError:
        raise RivalError(f"llama-server took more than {ANSWER_LIMIT_S:.0f} s") from None
    finally:
        connection.close()
    if response.status != 200:
        raise RivalError(f"llama-server answered {response.status}: {answer}")
    return answer
