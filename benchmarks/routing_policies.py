"""Who chooses: the product's own router, the oracle, and the rules of others beside them.

Each rule is written from its published description (benchmarks/METHODOLOGY.md names the sources),
with its published parameters, and each entry node runs its own copy. Rules that count requests in
flight see the machines' heartbeats and, where that is kinder to them, their own dispatches since;
the probing rule sees the true present state at the price of a round trip that it does not wait for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from random import Random

from benchmarks.routing_fleet import RTT_S, Fleet
from benchmarks.routing_machine import MODEL, Request
from meshd.core.membership.member import MeshView
from meshd.core.routing.demand import Demand
from meshd.core.routing.experience import Completion
from meshd.core.routing.ledger import Lease
from meshd.core.routing.router import Candidate, Router
from meshd.gateway.beginning import is_clearly_sooner
from protocol.jobs import Finish
from protocol.load import ModelLoad

CHAT = frozenset({"chat"})
JOB_CLASS = "chat streamed"


def load_of(fleet: Fleet, place: int) -> ModelLoad:
    """What a machine's last heartbeat said."""
    record = fleet.members[f"{place:032x}"].load
    assert record is not None
    return record.models[0]


class Base:
    """A rule that learns nothing from what happens."""

    reads_records = False
    reads_backlog = False
    moves = False

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        self.fleet = fleet
        self.rng = rng
        self.places = range(len(fleet.machines))

    def left(self, tried: Sequence[int]) -> list[int]:
        """The machines that this request has not tried yet."""
        return [place for place in self.places if place not in tried] or list(self.places)

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        """See `Policy`."""
        raise NotImplementedError

    def elsewhere(self, request: Request, place: int, wait_s: float, now: float) -> int | None:
        """See `Policy`."""
        return None

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        """See `Policy`."""

    def failed(self, request: Request, place: int, now: float) -> None:
        """See `Policy`."""


class Oracle(Base):
    """Knows every queue, every length, every rate, and takes the machine that ends this request
    soonest. Greedy: it does not know what comes next."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        alone = sorted(
            (self.fleet.machines[place].alone_s(request), place) for place in self.left(tried)
        )
        best_s, best = math.inf, alone[0][1]
        for least_s, place in alone:
            if least_s >= best_s:
                break
            machine = self.fleet.machines[place]
            self.fleet.now_at(place)
            took_s = machine.would_end(request) - now
            if took_s < best_s:
                best_s, best = took_s, place
        return best, 0.0


class Meshd(Base):
    """The product: one `Router` per entry node, live probes and moves included."""

    reads_records = True
    reads_backlog = True
    moves = True

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.routers = [Router(Random(rng.random())) for _ in self.places]
        self.leases: dict[tuple[int, int], tuple[Lease, float, float]] = {}
        self._views: list[tuple[int, MeshView]] = [(-1, self._view(place)) for place in self.places]

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        router, view = self.routers[request.entry], self.view(request.entry)
        demand = self._demand(request)
        decision = router.choose(view, demand, now, {f"{place:032x}" for place in tried})
        spent_s = 0.0
        if decision.probe is not None:
            asked = [candidate.offer.member.node_id for candidate in decision.probe]
            fresh = {node_id: self.fleet.now_at(int(node_id, 16)) for node_id in asked}
            spent_s = RTT_S
            decision = router.reconsider(decision, fresh, now)
        if decision.chosen is None:
            return self.rng.choice(self.left(tried)), 0.0
        place = int(decision.chosen.offer.member.node_id, 16)
        self._dispatch(request, place, decision.chosen, now)
        return place, spent_s

    def elsewhere(self, request: Request, place: int, wait_s: float, now: float) -> int | None:
        """As `meshd.gateway.beginning` does it while a request waits."""
        router, here = self.routers[request.entry], f"{place:032x}"
        view = self.view(request.entry)
        decision = router.choose(view, self._demand(request), now, {here})
        lease, _, service_s = self.leases[request.number, place]
        if decision.chosen is None:
            return None
        if not is_clearly_sooner(decision.chosen.cost.total_s, wait_s + service_s):
            return None
        router.release(lease)
        del self.leases[request.number, place]
        target = int(decision.chosen.offer.member.node_id, 16)
        self._dispatch(request, target, decision.chosen, now)
        return target

    def _demand(self, request: Request) -> Demand:
        return Demand(
            MODEL,
            CHAT,
            max(1, round(request.prompt_tokens * request.guess)),
            self.routers[request.entry].lengths.expected(JOB_CLASS),
            JOB_CLASS,
            cuts=request.blocks,
        )

    def _dispatch(self, request: Request, place: int, chosen: Candidate, now: float) -> None:
        lease = self.routers[request.entry].dispatch(chosen, now)
        self.leases[request.number, place] = (lease, now, chosen.cost.service_s)

    def view(self, entry: int) -> MeshView:
        """What the entry node knows of the mesh."""
        version, view = self._views[entry]
        if version != self.fleet.version:
            view = self._view(entry)
            self._views[entry] = (self.fleet.version, view)
        return view

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        router = self.routers[request.entry]
        lease, sent, _ = self.leases.pop((request.number, place))
        router.succeeded(lease)
        total_s = now - sent
        seen = Completion.of(finish, total_s - finish.generation_s, total_s)
        router.finished(lease, seen, now)
        router.release(lease)

    def failed(self, request: Request, place: int, now: float) -> None:
        router = self.routers[request.entry]
        lease, _, _ = self.leases.pop((request.number, place))
        router.failed(lease, "engine_failed", now)
        router.release(lease)

    def _view(self, entry: int) -> MeshView:
        return MeshView(f"{entry:032x}", self.fleet.members, self.fleet.version)


class RoundRobin(Base):
    """Each entry node takes the machines in turn, from its own beginning."""

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.turn = [rng.randrange(len(self.places)) for _ in self.places]

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        left = self.left(tried)
        self.turn[request.entry] += 1
        return left[self.turn[request.entry] % len(left)], 0.0


class Uniform(Base):
    """Any machine."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        return self.rng.choice(self.left(tried)), 0.0


class Counting(Base):
    """Rules on requests in flight: the last heartbeat's, and own dispatches since."""

    reads_records = True

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.own: list[dict[int, dict[int, float]]] = [defaultdict(dict) for _ in self.places]

    def pending(self, entry: int, place: int) -> int:
        """Requests that a machine has as far as an entry node knows."""
        load, since = load_of(self.fleet, place), self.fleet.members[f"{place:032x}"].load_at
        own = self.own[entry][place]
        return load.in_flight + load.queued + sum(1 for at in own.values() if at > since - RTT_S)

    def sent(self, request: Request, place: int, now: float) -> tuple[int, float]:
        """Note a dispatch."""
        self.own[request.entry][place][request.number] = now
        return place, 0.0

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        self.own[request.entry][place].pop(request.number, None)

    def failed(self, request: Request, place: int, now: float) -> None:
        self.own[request.entry][place].pop(request.number, None)


class LeastInFlight(Counting):
    """Fewest requests in flight, ties at random."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        counts = {place: self.pending(request.entry, place) for place in self.left(tried)}
        least = min(counts.values())
        ties = [place for place, count in counts.items() if count == least]
        return self.sent(request, self.rng.choice(ties), now)


class LeastById(Counting):
    """PAIR's rule: pending plus utilisation, ties to the lowest id."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        def burden(place: int) -> float:
            load = load_of(self.fleet, place)
            return self.pending(request.entry, place) + min(1.0, load.in_flight / load.slots)

        return self.sent(request, min(self.left(tried), key=burden), now)


class PowerOfTwo(Counting):
    """Two machines at random, the one with fewer requests in flight."""

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        left = self.left(tried)
        pair = self.rng.sample(left, min(2, len(left)))
        best = min(pair, key=lambda place: self.pending(request.entry, place))
        return self.sent(request, best, now)


class PeakEwma(Counting):
    """Peak latency times own requests in flight, of two machines at random (Finagle, tower)."""

    reads_records = False

    DECAY_S = 10.0
    DEFAULT_S = 1.0

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        super().__init__(fleet, rng)
        self.peak = [[(self.DEFAULT_S, 0.0)] * len(self.places) for _ in self.places]

    def choose(self, request: Request, now: float, tried: Sequence[int]) -> tuple[int, float]:
        left = self.left(tried)
        pair = self.rng.sample(left, min(2, len(left)))
        return self.sent(request, min(pair, key=lambda x: self._cost(request.entry, x, now)), now)

    def _cost(self, entry: int, place: int, now: float) -> float:
        peak_s, at = self.peak[entry][place]
        pending = len(self.own[entry][place])
        return peak_s * math.exp(-(now - at) / self.DECAY_S) * (pending + 1)

    def finished(self, request: Request, place: int, finish: Finish, now: float) -> None:
        self._learn(request, place, now)
        super().finished(request, place, finish, now)

    def failed(self, request: Request, place: int, now: float) -> None:
        self._learn(request, place, now)
        super().failed(request, place, now)

    def _learn(self, request: Request, place: int, now: float) -> None:
        took_s = now - self.own[request.entry][place].get(request.number, now)
        peak_s, at = self.peak[request.entry][place]
        kept = math.exp(-(now - at) / self.DECAY_S)
        peak_s = took_s if took_s > peak_s else peak_s * kept + took_s * (1.0 - kept)
        self.peak[request.entry][place] = (peak_s, now)
