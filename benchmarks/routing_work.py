"""What is asked: requests from a trace of real traffic, or made up by a seed.

A trace keeps its order, its lengths and the rhythm of its arrivals; time is stretched or compressed
so that the offered load is a stated share of what the fleet can do. The fleet's capacity is the sum
of what each machine does of this very work when it always has more of it than slots, from an empty
cache.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random

from benchmarks.routing_machine import Machine, Request, Spec
from meshd.core.routing.prefix import Cut

CONTEXT_TOKENS = 32_768
"""Longest prompt and answer together; what is longer is clipped, and counted."""

BLOCK_TOKENS = 512
"""Tokens of one block of a Mooncake trace."""

ENTRIES = 8
GUESS_RATIO = 0.15
"""How far an entry node's estimate of a prompt's length is off (`meshd.core.routing.demand`)."""

CAPACITY_JOBS = 400


@dataclass(frozen=True, slots=True)
class Sizes:
    """One request before it has a time: `at` is in the trace's own seconds."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[Cut, ...] = ()


def synthetic(count: int, rng: Random) -> list[Sizes]:
    """Independent requests: prompts lognormal around 600 tokens, answers around 150, both with
    sigma 1, arriving at random."""
    found, at = [], 0.0
    for _ in range(count):
        at += rng.expovariate(1.0)
        found.append(Sizes(at, _lognormal(rng, 600, 1.0), _lognormal(rng, 150, 1.0)))
    return found


def conversations(count: int, rng: Random) -> list[Sizes]:
    """Talks of five turns on average: each turn's prompt holds all that was said before."""
    found: list[Sizes] = []
    begin, talk = 0.0, 0
    while len(found) < 2 * count:
        begin += rng.expovariate(0.2)
        talk += 1
        found += _talk(begin, talk, rng)
    found.sort(key=lambda sizes: sizes.at)
    return found[:count]


def _talk(begin: float, talk: int, rng: Random) -> Iterator[Sizes]:
    at, said, turn = begin, _lognormal(rng, 600, 1.0), 0
    blocks: tuple[Cut, ...] = ()
    while True:
        blocks = (*blocks, Cut(_key(talk, turn), said))
        output = _lognormal(rng, 150, 1.0)
        if said + output > CONTEXT_TOKENS:
            return
        yield Sizes(at, said, output, blocks)
        if rng.random() < 0.2:
            return
        blocks = (*blocks, Cut(_key(talk, turn + 1), said + output))
        said += output + _lognormal(rng, 60, 1.0)
        turn += 2
        at += rng.expovariate(1 / 60.0)


def trace(path: Path) -> tuple[list[Sizes], int]:
    """The requests of a trace file, and how many were clipped. Raises ValueError for a file that is
    neither format."""
    read: Callable[[Iterator[str]], Iterator[Sizes]]
    read = _mooncake if ".jsonl" in path.name else _azure
    found, clipped = [], 0
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for sizes in read(iter(lines)):
            prompt = min(sizes.prompt_tokens, CONTEXT_TOKENS - min(sizes.output_tokens, 4_096))
            clipped += prompt < sizes.prompt_tokens
            blocks = tuple(cut for cut in sizes.blocks if cut.size_bytes <= prompt)
            found.append(replace(sizes, prompt_tokens=prompt, blocks=blocks))
    if not found:
        raise ValueError(f"{path}: no requests in it")
    return found, clipped


def _mooncake(lines: Iterator[str]) -> Iterator[Sizes]:
    for line in lines:
        entry = json.loads(line)
        size = max(1, entry["input_length"])
        ids = entry.get("hash_ids", ())
        ends = [min(size, BLOCK_TOKENS * (place + 1)) for place in range(len(ids))]
        cuts = tuple(Cut(_key(each, 0), end) for each, end in zip(ids, ends, strict=True))
        yield Sizes(entry["timestamp"] / 1_000, size, max(1, entry["output_length"]), cuts)


def _azure(lines: Iterator[str]) -> Iterator[Sizes]:
    begin = None
    for row in csv.DictReader(lines):
        stamp = row["TIMESTAMP"].strip()
        at = datetime.fromisoformat(stamp[:26]).timestamp()
        begin = at if begin is None else begin
        prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        yield Sizes(at - begin, max(1, prompt), max(1, output))


def arrivals(work: Sequence[Sizes], rate_rps: float, rng: Random) -> list[Request]:
    """The work at a mean rate, each request at an entry node drawn at random."""
    span_s = max(1e-9, work[-1].at - work[0].at)
    stretch = len(work) / rate_rps / span_s
    return [
        Request(
            number=number,
            at=(sizes.at - work[0].at) * stretch + rng.random() * 1e-3,
            entry=rng.randrange(ENTRIES),
            prompt_tokens=sizes.prompt_tokens,
            output_tokens=sizes.output_tokens,
            blocks=sizes.blocks,
            guess=rng.uniform(1.0 - GUESS_RATIO, 1.0 + GUESS_RATIO),
        )
        for number, sizes in enumerate(work)
    ]


def capacity_rps(specs: Sequence[Spec], work: Sequence[Sizes]) -> float:
    """Requests of this work that the machines end in a second when they never lack any."""
    return sum(_saturated_rps(spec, work) for spec in specs)


def _saturated_rps(spec: Spec, work: Sequence[Sizes]) -> float:
    machine = Machine(spec, (1.0, 1.0), caches=False)
    step = max(1, len(work) // CAPACITY_JOBS)
    sample = work[::step]
    for number, sizes in enumerate(sample):
        machine.submit(Request(number, 0.0, 0, sizes.prompt_tokens, sizes.output_tokens), 0.0)
    ended, end = 0, math.inf
    while machine.running:
        end = machine.next_event()
        ended += len(machine.advance(end))
    return ended / end


def _lognormal(rng: Random, median: float, sigma: float) -> int:
    tokens = round(rng.lognormvariate(math.log(median), sigma))
    return min(max(1, tokens), CONTEXT_TOKENS // 2)


def _key(first: int, second: int) -> bytes:
    """Eight bytes that look like a hash, as the filter needs them to."""
    mixed = (first * 0x9E3779B97F4A7C15 + second * 0xC2B2AE3D27D4EB4F + 0x165667B19E3779F9) % 2**64
    mixed ^= mixed >> 31
    return (mixed * 0xBF58476D1CE4E5B9 % 2**64).to_bytes(8, "little")
