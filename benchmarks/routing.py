"""Which machine, and how near to the best? `python -m benchmarks.routing [--json] [--trace FILE]`

A household of ten unequal machines in virtual time, eight of them entry nodes, heartbeats once a
second, rates that are wrong by up to 30 % at first. The product's own router makes the choices;
beside it the rules of others, on the same requests. All figures of `policies` are multiples of a
greedy oracle that knows every queue, rate and length: 1.0 is as good as knowing everything.

Without `--trace` the requests are synthetic (`"trace": "synthetic"`), and a second set of policies
is measured on conversations, whose prompts repeat what was said before (`with_prefix_reuse`). How,
and what the figures do not say: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import routing_checks as checks
from benchmarks import routing_work as works
from benchmarks.machine import describe
from benchmarks.measure import say
from benchmarks.routing_fleet import Fleet
from benchmarks.routing_machine import HOUSEHOLD
from benchmarks.routing_policies import Base, Meshd, Oracle
from benchmarks.routing_rivals import RIVALS

LOAD = 0.8
HEARTBEAT_S = 1.0
WRONG_RATIO = 0.3

Figures = dict[str, float]


def compared(work: Sequence[Sequence[works.Sizes]], *, caches: bool) -> dict[str, Any]:
    """Every policy on every one of `work`, a list of requests per seed."""
    capacity = [works.capacity_rps(HOUSEHOLD, each) for each in work]
    best = measured(Oracle, work, capacity, caches=caches)
    policies: dict[str, Figures] = {}
    beside: dict[str, type[Base]] = {"meshd": Meshd, **RIVALS}
    for name, policy in beside.items():
        figures = measured(policy, work, capacity, caches=caches)
        policies[name] = {key: round(figures[key] / best[key], 3) for key in best}
        say(f"  {name}: {policies[name]}")
    return {
        "capacity_rps": round(statistics.mean(capacity), 3),
        "oracle_s": {key: round(value, 3) for key, value in best.items()},
        "policies": policies,
    }


def measured(
    policy: type[Base],
    work: Sequence[Sequence[works.Sizes]],
    capacity: Sequence[float],
    *,
    caches: bool,
) -> Figures:
    """Mean and 99th percentile of the time to the end, and the latter of that to the first token,
    in seconds, over the requests of all seeds."""
    took: list[float] = []
    first: list[float] = []
    for seed, sizes in enumerate(work):
        rng = Random(seed)
        requests = works.arrivals(sizes, LOAD * capacity[seed], rng)
        fleet = Fleet(
            HOUSEHOLD, rng, heartbeat_s=HEARTBEAT_S, wrong_ratio=WRONG_RATIO, caches=caches
        )
        outcome = fleet.run(requests, policy(fleet, Random(seed)))
        assert len(outcome.took_s) == len(requests), "a request was not answered exactly once"
        took += outcome.took_s.values()
        first += outcome.first_s.values()
    return {"mean": statistics.mean(took), "p99": p99(took), "ttft_p99": p99(first)}


def p99(seconds: Sequence[float]) -> float:
    """The value that one in a hundred exceeds."""
    return sorted(seconds)[int(0.99 * len(seconds))]


def figures(given: argparse.Namespace) -> dict[str, Any]:
    """Everything this benchmark says, but the machine."""
    seeds = range(given.seeds)
    body: dict[str, Any] = {"load": LOAD, "heartbeat_s": HEARTBEAT_S, "seeds": given.seeds}
    if given.trace is None:
        body["trace"] = "synthetic"
        work = [works.synthetic(given.requests, Random(seed)) for seed in seeds]
        say(f"{given.requests} synthetic requests, {given.seeds} seeds")
        body |= compared(work, caches=False)
        talks = [works.conversations(given.requests, Random(seed)) for seed in seeds]
        say(f"{given.requests} requests in conversations, {given.seeds} seeds")
        body["with_prefix_reuse"] = compared(talks, caches=True)
    else:
        sizes, clipped = works.trace(given.trace)
        sizes = sizes[: given.requests]
        reuse = any(each.blocks for each in sizes)
        body |= {"trace": given.trace.name, "clipped": clipped, "prefix_reuse": reuse}
        say(f"{len(sizes)} requests of {given.trace.name}, {given.seeds} seeds")
        body |= compared([sizes] * given.seeds, caches=reuse)
    body["requests"] = given.requests
    say("burst, sinkhole, slowed machine, decision time")
    body["burst_ratio"] = round(checks.burst_ratio(), 3)
    body["sinkhole_share"] = round(checks.sinkhole_share(), 4)
    body["slowed_completions"] = checks.slowed_completions()
    body["decision_ms"] = {
        str(nodes): round(checks.decision_ms(nodes), 4) for nodes in (2, 10, 50, 1_000)
    }
    return body


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing")
    parser.add_argument("--json", action="store_true", help="one JSON object in one line")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="a Mooncake or Azure trace")
    parser.add_argument("--seeds", type=int, default=2, help="runs, each with its own chances")
    parser.add_argument("--requests", type=int, default=3_000, help="the first so many of a trace")
    return parser.parse_args(words)


def main() -> None:
    """Exits 1 for a trace that cannot be read."""
    given = parse()
    try:
        body = figures(given)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"benchmarks.routing: {given.trace}: {error}") from error
    print(json.dumps({**body, "machine": describe({})}, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
