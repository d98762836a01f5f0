"""Four questions to the router that no average answers: a burst, a machine that fails fast, a
machine that becomes slow, and what a decision costs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from time import perf_counter

from benchmarks import routing_work as works
from benchmarks.routing_fleet import Fleet
from benchmarks.routing_machine import GPU, HOUSEHOLD, MAC_LARGE, Machine, Request, Spec
from benchmarks.routing_policies import CHAT, Meshd
from meshd.core.membership.member import MeshView
from meshd.core.routing.demand import Demand
from meshd.core.routing.router import Router

BURST = 64
BURSTS = 20
SPEC_EQUAL = (MAC_LARGE,) * 8

SINKHOLE_REQUESTS = 2_000
SINKHOLE_AFTER = 20

SLOW_FACTOR = 4.0
SLOWED_AT_S = 600.0
SLOWED_PLACE = 0
SHARE_WINDOW = 40
"""Requests over which a share is taken: a window of 40 tells a quarter from a half."""

DECISIONS = 300


def burst_ratio() -> float:
    """64 equal requests at once on frozen records: when the busiest machine is done over the ideal.
    The worse of two: unequal machines and one entry node, eight equal machines and eight entry
    nodes that know nothing of each other.

    Ideal is the time by which all machines together can have done 64 such requests."""
    return max(_burst(HOUSEHOLD, entries=1), _burst(SPEC_EQUAL, entries=works.ENTRIES))


def _burst(specs: Sequence[Spec], entries: int) -> float:
    ratios = []
    for seed in range(BURSTS):
        requests = [Request(number, 1.0, number % entries, 600, 220) for number in range(BURST)]
        fleet = Fleet(specs, Random(seed), heartbeat_s=0.0, wrong_ratio=0.0)
        outcome = fleet.run(requests, _Frozen(fleet, Random(seed)))
        ratios.append(max(outcome.took_s.values()) / _ideal_s(specs, requests))
    return statistics.mean(ratios)


def _ideal_s(specs: Sequence[Spec], requests: Sequence[Request]) -> float:
    """When the machines have done as many as there are requests, each working without a pause."""
    ends: list[float] = []
    for spec in specs:
        machine = Machine(spec, (1.0, 1.0), caches=False)
        for request in requests:
            machine.submit(request, 0.0)
        while machine.running:
            ended = machine.advance(machine.next_event())
            ends += [machine.now] * len(ended)
    return sorted(ends)[len(requests) - 1]


class _Frozen(Meshd):
    """Ours without live probes and moves: the records of the start are all there is."""

    moves = False

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        router = self.routers[request.entry]
        demand = Demand("model", CHAT, request.prompt_tokens, request.output_tokens)
        decision = router.choose(self.view(request.entry), demand, now)
        assert decision.chosen is not None
        place = int(decision.chosen.offer.member.node_id, 16)
        self._dispatch(request, place, decision.chosen, now)
        return place, 0.0


def sinkhole_share() -> float:
    """A fast machine that answers every request with an error after 1 ms: the share of attempts
    that it gets after the first SINKHOLE_AFTER attempts of all. The node itself keeps quiet about
    its errors: its records call it idle."""
    shares = []
    for seed in range(3):
        rng = Random(seed)
        work = works.synthetic(SINKHOLE_REQUESTS, rng)
        rate = 0.8 * works.capacity_rps(HOUSEHOLD[1:], work)
        fleet = Fleet(HOUSEHOLD, rng)
        fleet.machines[0].fails = True
        outcome = fleet.run(works.arrivals(work, rate, rng), Meshd(fleet, rng))
        assert len(outcome.took_s) == len(work), "a request was lost to the sinkhole"
        after = [place for _, place in outcome.sent[SINKHOLE_AFTER:]]
        shares.append(after.count(0) / len(after))
    return max(shares)


def slowed_completions() -> int:
    """A GPU PC becomes four times slower in the middle of a run: how many jobs it has completed
    since when the share of the requests that it is sent first is its new share. That share is taken
    from the end of the same run; reached is the mean of SHARE_WINDOW requests within a quarter of
    it (of the old share's distance from it, where that is more)."""
    return max(_slowed(seed) for seed in range(3))


def _slowed(seed: int) -> int:
    rng = Random(seed)
    work = works.synthetic(4_000, rng)
    rate = 0.6 * works.capacity_rps(HOUSEHOLD, work)
    fleet = Fleet(HOUSEHOLD, rng)
    machine = fleet.machines[SLOWED_PLACE]
    completed: list[tuple[float, int]] = []

    def slow() -> None:
        machine.advance(fleet.now)
        machine.speed = 1.0 / SLOW_FACTOR
        fleet.plan(SLOWED_PLACE)
        count()

    def count() -> None:
        completed.append((fleet.now, machine.completed))
        fleet.at(fleet.now + 0.5, count)

    fleet.at(SLOWED_AT_S, slow)
    sent = fleet.run(works.arrivals(work, rate, rng), Meshd(fleet, rng)).sent
    before = _share([place for at, place in sent if at < SLOWED_AT_S])
    since = [(at, place) for at, place in sent if at >= SLOWED_AT_S]
    settled = _share([place for _, place in since[len(since) // 2 :]])
    reached = settled + max(0.25 * settled, 0.25 * (before - settled))
    for begin in range(len(since) - SHARE_WINDOW):
        window = since[begin : begin + SHARE_WINDOW]
        if _share([place for _, place in window]) <= reached:
            at = window[0][0]
            done = max(count for when, count in completed if when <= max(at, completed[0][0]))
            return done - completed[0][1]
    return machine.completed - completed[0][1]


def _share(places: Sequence[int]) -> float:
    return Counter(places)[SLOWED_PLACE] / max(1, len(places))


def decision_ms(nodes: int) -> float:
    """Median milliseconds of one choice and its accounting, a new record arriving before each."""
    rng = Random(nodes)
    specs = [replace(GPU, prompt_tps=rng.uniform(25, 4_000)) for _ in range(nodes)]
    fleet = Fleet(specs, rng, heartbeat_s=0.0)
    router = Router(rng)
    demand = Demand("model", CHAT, 600, 220)
    took = []
    for number in range(DECISIONS):
        place = number % nodes
        fleet.hear(place, fleet.machines[place].load())
        view = MeshView("0" * 32, fleet.members, fleet.version)
        begin = perf_counter()
        decision = router.choose(view, demand, number * 1e-3)
        assert decision.chosen is not None
        lease = router.dispatch(decision.chosen, number * 1e-3)
        took.append(perf_counter() - begin)
        router.release(lease)
    return 1_000 * statistics.median(took)
