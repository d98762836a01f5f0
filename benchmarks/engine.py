"""How fast is the llama.cpp engine? `python -m benchmarks.engine [--json]`

Beside a real llama-server with the same model, threads and slots, in the same minute, in turn. How,
and what the figures do not say: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine_rival import RivalError, complete, llama_server
from benchmarks.machine import cpu_s, describe, rss_mb
from benchmarks.measure import say
from benchmarks.servers import Server, StartError
from meshd.engine import openmp
from meshd.engine.bundled import bundled_gguf
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.jobs import Failure, Finish, Job, Sampling, TextDelta

STREAMS = (1, 2, 4, 8)
TOKENS = 128
"""Per stream unless asked otherwise: long enough for the prompt's few tokens not to matter."""

STREAM_CONTEXT = 512
LONG_CONTEXT = 4_608
"""Holds the 4,000-token prompt and an answer."""

LONG_PROMPT_TOKENS = 4_000
PREFIX_TOKENS = 2_000
IDLE_S = 5.0
SETTLE_S = 0.5
"""After a kill, for the kernel to take the pages back; and before idling is measured."""

PARTS = ("streams", "ttft", "prefix", "python", "unload", "idle")


class AnswerError(Exception):
    """A request that must not fail did."""


@dataclass(frozen=True, slots=True)
class Took:
    """One answer: when its first text came, from the asking, and its account."""

    first_s: float
    finish: Finish


async def ask(engine: LlamaEngine, job: Job) -> Took:
    """One answer to its end. Raises AnswerError."""
    began = time.perf_counter()
    first = 0.0
    last = None
    async with aclosing(engine.generate(job)) as stream:
        async for batch in stream:
            if not first and isinstance(batch[0], TextDelta):
                first = time.perf_counter() - began
            last = batch[-1]
    if isinstance(last, Failure) or not isinstance(last, Finish):
        raise AnswerError(str(last))
    return Took(first, last)


def job(prompt: str | tuple[int, ...], tokens: int, **sampling: Any) -> Job:
    """A greedy completion of exactly `tokens` tokens."""
    return Job(
        "r",
        "completion",
        "m",
        prompt=prompt if isinstance(prompt, str) else None,
        prompt_tokens=None if isinstance(prompt, str) else prompt,
        max_tokens=tokens,
        sampling=Sampling(temperature=0.0, **sampling),
        extras={"ignore_eos": True},
    )


def words(count: int, seed: int) -> tuple[int, ...]:
    """`count` token ids, the same for the same seed and different from the first on otherwise."""
    return tuple(1_000 + (seed * 7_919 + index * 31) % 40_000 for index in range(count))


@asynccontextmanager
async def loaded(slots: int, context: int, threads: int) -> AsyncIterator[LlamaEngine]:
    """The engine with the bundled model."""
    engine = LlamaEngine(
        bundled_gguf(), WorkerOptions(context=context, slots=slots, threads=threads, model_id="m")
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def ours_tps(engine: LlamaEngine, streams: int, tokens: int, round_: int) -> float:
    """Tokens a second of `streams` answers at once."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(streams):
            group.create_task(ask(engine, job(_opening(round_, index), tokens)))
    return streams * tokens / (time.perf_counter() - began)


async def rival_tps(rival: Server, streams: int, tokens: int, round_: int) -> float:
    """The same of llama-server."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(complete(rival.port, _opening(round_, index), tokens))
            for index in range(streams)
        ]
    return sum(task.result() for task in tasks) / (time.perf_counter() - began)


def _opening(round_: int, index: int) -> str:
    return f"Chapter {round_}, part {index}. Once upon a time"


async def throughput(
    threads: int, tokens: int, rounds: int, home: Path
) -> dict[str, dict[str, Any]]:
    """Tokens a second at each number of streams, in turn with llama-server's."""
    figures: dict[str, dict[str, Any]] = {}
    for streams in STREAMS:
        async with loaded(streams, STREAM_CONTEXT, threads) as engine:
            with llama_server(
                home, bundled_gguf(), slots=streams, context=STREAM_CONTEXT, threads=threads
            ) as rival:
                figures[str(streams)] = await _paired(engine, rival, streams, tokens, rounds)
        say(f"  {streams} streams: {figures[str(streams)]}")
    return figures


async def _paired(
    engine: LlamaEngine, rival: Server | None, streams: int, tokens: int, rounds: int
) -> dict[str, Any]:
    ours, theirs = [], []
    for round_ in range(rounds + 1):
        peers = 0.0
        if rival and round_ % 2:  # whoever comes first meets another machine than who comes second
            peers = await rival_tps(rival, streams, tokens, round_)
        mine = await ours_tps(engine, streams, tokens, round_)
        if rival and not round_ % 2:
            peers = await rival_tps(rival, streams, tokens, round_)
        if round_:  # the first warms up
            ours.append(mine)
            theirs.append(peers)
    if rival is None:
        return {"tps": round(statistics.median(ours), 1)}
    ratios = [mine / peers for mine, peers in zip(ours, theirs, strict=True)]
    return {
        "tps": round(statistics.median(ours), 1),
        "llama_server_tps": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


async def ttft_ratio(engine: LlamaEngine, rounds: int) -> float:
    """Time to first token of a short prompt while a long one is read, by that alone."""
    ratios = []
    for round_ in range(rounds + 1):
        alone = await ask(engine, job(words(16, 100 + round_), 2, seed=1))
        long = job(words(LONG_PROMPT_TOKENS, 200 + round_), 1, seed=1)
        reading = asyncio.create_task(ask(engine, long))
        try:
            await asyncio.sleep(SETTLE_S)
            assert not reading.done(), "the long prompt was read before the short one was asked"
            beside = await ask(engine, job(words(16, 300 + round_), 2, seed=1))
        finally:
            await reading
        if round_:
            ratios.append(beside.first_s / alone.first_s)
    return round(statistics.median(ratios), 2)


async def second_turn_ratio(engine: LlamaEngine, rounds: int) -> float:
    """Prefill time of a prompt that goes on after one read before, by that one's."""
    ratios = []
    for round_ in range(rounds):
        prefix = words(PREFIX_TOKENS, 400 + round_)
        first = await ask(engine, job(prefix, 4))
        second = await ask(engine, job((*prefix, *words(20, 500 + round_)), 4))
        assert second.finish.cached_tokens >= PREFIX_TOKENS - 1
        ratios.append(second.finish.prompt_s / first.finish.prompt_s)
    return round(statistics.median(ratios), 4)


def python_share(threads: int) -> float:
    """Median of three runs at four streams."""
    shares = []
    for _ in range(3):
        command = [sys.executable, "-m", "benchmarks.engine_loop", str(bundled_gguf())]
        done = subprocess.run(
            [*command, "4", str(threads)],
            check=True,
            capture_output=True,
            text=True,
            env={**openmp.settings(bound=True), **os.environ},
        )
        shares.append(float(done.stdout))
    return round(statistics.median(shares), 4)


async def returned_ratio(engine: LlamaEngine, before_mb: float) -> float:
    """How much of the memory that came with the model goes with it."""
    held_mb = rss_mb(os.getpid())
    await engine.unload("m")
    await asyncio.sleep(SETTLE_S)
    return round((held_mb - rss_mb(os.getpid())) / (held_mb - before_mb), 4)


async def idle_ratio() -> float:
    """Cores used by a loaded engine that nobody asks."""
    await asyncio.sleep(SETTLE_S)
    before_s, began = cpu_s(os.getpid()), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    return round((cpu_s(os.getpid()) - before_s) / (time.perf_counter() - began), 4)


async def run(rounds: int, threads: int, tokens: int, only: set[str]) -> dict[str, Any]:
    """Everything asked for. Raises StartError or AnswerError."""
    result: dict[str, Any] = {}
    machine = describe({}) | {"threads": threads}
    if "streams" in only:
        with tempfile.TemporaryDirectory(prefix="meshd-bench-") as home:
            result["streams"] = await throughput(threads, tokens, rounds, Path(home))
    before_mb = rss_mb(os.getpid())
    async with loaded(2, LONG_CONTEXT, threads) as engine:
        if "ttft" in only:
            result["ttft_under_prefill_ratio"] = await ttft_ratio(engine, rounds)
            say(f"  ttft under prefill: {result['ttft_under_prefill_ratio']}x")
        if "prefix" in only:
            result["second_turn_prefill_ratio"] = await second_turn_ratio(engine, rounds)
            say(f"  second turn: {result['second_turn_prefill_ratio']}")
        if "idle" in only:
            result["idle_cpu_ratio"] = await idle_ratio()
        if "unload" in only:
            result["unload_returned_ratio"] = await returned_ratio(engine, before_mb)
    if "python" in only:
        result["python_share"] = await asyncio.to_thread(python_share, threads)
    return {**result, "machine": machine}


def table(result: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = ["streams  tokens/s  llama-server  ratio"]
    for streams, row in result.get("streams", {}).items():
        rival, ratio = row.get("llama_server_tps", "-"), row.get("ratio", "-")
        lines.append(f"{streams:>7}  {row['tps']:>8}  {rival:>12}  {ratio:>5}")
    lines += [f"{name}: {value}" for name, value in result.items() if not isinstance(value, dict)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both engines")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each answer (128)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part")
    args = parser.parse_args()
    try:
        result = asyncio.run(run(args.rounds, args.threads, args.tokens, set(args.only or PARTS)))
    except* (StartError, AnswerError, RivalError) as group:
        say(f"engine: {group.exceptions[0]}")
        result = None
    if result is None:
        return 1
    print(json.dumps(result) if args.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
