"""The two rules beside ours that need most telling: Prequal's probes and SGLang's trees; and the
list of all.

Each is written from its published description (benchmarks/METHODOLOGY.md names the sources), with
its published parameters.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.routing_fleet import RTT_S, Fleet
from benchmarks.routing_machine import Request
from benchmarks.routing_policies import (
    Base,
    Counting,
    LeastById,
    LeastInFlight,
    PeakEwma,
    PowerOfTwo,
    RoundRobin,
    Uniform,
)
from protocol.jobs import Finish


@dataclass(slots=True)
class Probe:
    """One answer in Prequal's pool."""

    place: int
    at: float
    in_flight: int
    latency_s: float
    uses: int


class Prequal(Base):
    """Hot-cold lexicographic over a pool of asynchronous probes (NSDI 24). When the pool has run
    dry, as it does at a household's rates, its synchronous mode: five probes, waited for."""

    HOT_QUANTILE = 2**-0.25
    POOL = 16
    AGE_S = 1.0
    PER_QUERY = 3
    SYNCHRONOUS = 5
    USES = 2

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.pools: list[list[Probe]] = [[] for _ in self.places]
        self.seen: list[deque[int]] = [deque([0], maxlen=128) for _ in self.places]
        self.latency: list[dict[int, deque[float]]] = [{} for _ in self.places]
        self.at_start: dict[int, int] = {}
        self.oldest_next = [True] * len(self.places)

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        entry, left = request.entry, self.left(tried)
        pool = [x for x in self.pools[entry] if now - x.at <= self.AGE_S and x.uses > 0]
        self.pools[entry] = pool
        usable = [probe for probe in pool if probe.place in left]
        spent_s = 0.0
        if len(usable) < 2:
            usable, spent_s = self._ask(entry, left, self.SYNCHRONOUS), RTT_S
        chosen = self._pick(entry, usable)
        place = chosen.place
        chosen.in_flight += 1
        chosen.uses -= 1
        self._remove_one(entry)
        self.fleet.at(now + RTT_S, lambda: self._probe(entry))
        machine = self.fleet.machines[place]
        self.at_start[request.number] = len(machine.running) + len(machine.waiting)
        return place, spent_s

    def _pick(self, entry: int, pool: list[Probe]) -> Probe:
        known = sorted(self.seen[entry])
        hot = known[min(len(known) - 1, int(self.HOT_QUANTILE * len(known)))]
        cold = [probe for probe in pool if probe.in_flight <= hot]
        if cold:
            return min(cold, key=lambda probe: probe.latency_s)
        return min(pool, key=lambda probe: probe.in_flight)

    def _remove_one(self, entry: int) -> None:
        """One probe a query goes, the oldest and the worst in turn."""
        pool = self.pools[entry]
        if len(pool) <= 2:
            return
        oldest = min(pool, key=lambda probe: probe.at)
        worst = max(pool, key=lambda probe: (probe.in_flight, probe.latency_s))
        pool.remove(oldest if self.oldest_next[entry] else worst)
        self.oldest_next[entry] = not self.oldest_next[entry]

    def _probe(self, entry: int) -> None:
        self.pools[entry] += self._ask(entry, list(self.places), self.PER_QUERY)
        del self.pools[entry][: -self.POOL]

    def _ask(self, entry: int, places: Sequence[int], count: int) -> list[Probe]:
        answers = []
        for place in self.rng.sample(list(places), min(count, len(places))):
            load = self.fleet.now_at(place)
            jobs = load.in_flight + load.queued
            self.seen[entry].append(jobs)
            latency_s = self._latency(place, jobs)
            answers.append(Probe(place, self.fleet.now, jobs, latency_s, self.USES))
        return answers

    def _latency(self, place: int, count: int) -> float:
        """The machine's median latency at about this many requests in flight."""
        known = self.latency[place]
        if not known:
            return 0.0
        nearest = min(known, key=lambda at: abs(at - count))
        return sorted(known[nearest])[len(known[nearest]) // 2]

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        count = self.at_start.pop(request.number, 0)
        took_s = finish.queue_s + finish.prompt_s + finish.generation_s
        self.latency[place].setdefault(count, deque(maxlen=16)).append(took_s)

    def failed(self, request: Request, place: int, now: float) -> None:
        count = self.at_start.pop(request.number, 0)
        self.latency[place].setdefault(count, deque(maxlen=16)).append(0.001)


class CacheAware(Counting):
    """SGLang's router: the machine that has most of the prompt when that is half of it, else the
    one with most room; the shortest queue when they are out of balance."""

    MATCH_RATIO = 0.5
    ABSOLUTE = 32
    RELATIVE = 1.1
    BLOCKS_MAX = 10_000

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.trees: list[list[OrderedDict[bytes, int]]] = [
            [OrderedDict() for _ in self.places] for _ in self.places
        ]

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        left, entry = self.left(tried), request.entry
        counts = {place: len(self.own[entry][place]) for place in left}
        most, least = max(counts.values()), min(counts.values())
        trees = self.trees[entry]
        if most - least > self.ABSOLUTE and most > self.RELATIVE * least:
            place = min(left, key=lambda x: counts[x])
        else:
            matched = {x: self._matched(trees[x], request) for x in left}
            place = max(left, key=lambda x: matched[x])
            if matched[place] <= self.MATCH_RATIO:
                sizes = {x: sum(trees[x].values()) for x in left}
                smallest = min(sizes.values())
                place = self.rng.choice([x for x in left if sizes[x] == smallest])
        self._remember(trees[place], request)
        return self.sent(request, place, now)

    def _matched(self, tree: OrderedDict[bytes, int], request: Request) -> float:
        held = 0
        for cut in request.blocks:
            if cut.key not in tree:
                break
            held = cut.size_bytes
        return held / max(1, request.prompt_tokens)

    def _remember(self, tree: OrderedDict[bytes, int], request: Request) -> None:
        before = 0
        for cut in request.blocks:
            tree[cut.key] = cut.size_bytes - before
            tree.move_to_end(cut.key)
            before = cut.size_bytes
        if not request.blocks:
            tree[request.number.to_bytes(8, "little")] = request.prompt_tokens
        while len(tree) > self.BLOCKS_MAX:
            tree.popitem(last=False)


RIVALS: dict[str, type[Base]] = {
    "round_robin": RoundRobin,
    "random": Uniform,
    "least_in_flight": LeastInFlight,
    "least_in_flight_by_id": LeastById,
    "power_of_two": PowerOfTwo,
    "peak_ewma": PeakEwma,
    "prequal": Prequal,
    "cache_aware": CacheAware,
}
"""Policies beside ours, by their names in the output."""
