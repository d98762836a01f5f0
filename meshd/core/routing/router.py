"""Filter, score, pick: the choice itself, and what has to be remembered between choices.

The router reads one immutable membership view, never waits, and draws chance only from the `rng` it
was given: the same view, ledger and seed give the same choice. `explain` is `choose` without the
lease, so what it prints is what would have happened.

Not here: sockets, time-outs as timers, retries. The gateway runs the attempts and tells the router
how each one ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

from meshd.core.membership.member import MeshView
from meshd.core.routing.breaker import Breakers
from meshd.core.routing.catalogue import Catalogue, Offer
from meshd.core.routing.cost import Cost, expected_completion
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import BREAKER, Gate, blocked_by, gates
from meshd.core.routing.ledger import Lease, Ledger
from meshd.core.routing.pick import pick

RTT_UNMEASURED_S = 0.002
"""Assumed round trip to a peer that has not been measured: a busy Wi-Fi."""

BROKEN_CODES = frozenset({"engine_failed", "unreachable", "timeout"})
"""Failures that are the node's fault and open its breaker. The others say "not now" (full,
draining) or "not this" (a bad request), and exclude the node from this request only."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One offer with everything that was considered about it."""

    offer: Offer
    gates: tuple[Gate, ...]
    cost: Cost
    age_s: float

    @property
    def blocked_by(self) -> tuple[str, ...]:
        return blocked_by(self.gates)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one choice. `chosen` is None when no candidate was eligible."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    alternatives: int
    """Eligible candidates besides the chosen one."""
    reason: str


class Router:
    """The routing state of one node."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._catalogue: Catalogue | None = None
        self.ledger = Ledger()
        self.breakers = Breakers()

    def catalogue(self, view: MeshView) -> Catalogue:
        """The offers of a view, built once per view."""
        if self._catalogue is None or self._catalogue.view is not view:
            self._catalogue = Catalogue(view)
        return self._catalogue

    def choose(
        self, view: MeshView, demand: Demand, now: float, excluded: Collection[str] = ()
    ) -> Decision:
        """The best node for `demand`, leaving out the ids in `excluded`."""
        candidates = self._candidates(view, demand, now, excluded)
        eligible = [x for x in candidates if not x.blocked_by]
        if not eligible:
            eligible = [x for x in candidates if x.blocked_by == (BREAKER,)]
        if not eligible:
            return Decision(None, tuple(candidates), 0, _why_nobody(candidates))
        chosen = pick([(x.cost.total_s, x) for x in eligible], self._rng)
        return Decision(
            chosen, tuple(candidates), len(eligible) - 1, _why(chosen, eligible, view.self_id)
        )

    def dispatch(self, chosen: Candidate, now: float) -> Lease:
        """Account for an attempt at the chosen node, from now until `release`."""
        offer = chosen.offer
        return self.ledger.take(
            offer.member.node_id, offer.model.model_id, chosen.cost.service_s, now
        )

    def succeeded(self, lease: Lease) -> None:
        """The attempt produced its first event."""
        self.breakers.succeeded(lease.node_id, lease.model_id)

    def failed(self, lease: Lease, code: str, now: float) -> None:
        """The attempt ended without an answer, for the reason `code` (protocol.jobs.FAILURES)."""
        if code in BROKEN_CODES:
            self.breakers.failed(lease.node_id, lease.model_id, now)

    def release(self, lease: Lease) -> None:
        """The attempt is over. Idempotent."""
        self.ledger.release(lease)

    def _candidates(
        self, view: MeshView, demand: Demand, now: float, excluded: Collection[str]
    ) -> list[Candidate]:
        offers = self.catalogue(view).offers(demand.model)
        return [self._weigh(offer, view, demand, now, excluded) for offer in offers]

    def _weigh(
        self, offer: Offer, view: MeshView, demand: Demand, now: float, excluded: Collection[str]
    ) -> Candidate:
        member = offer.member
        assert member.load is not None
        node_id, model_id = member.node_id, demand.model
        local = node_id == view.self_id
        rtt_s = 0.0 if local else (member.rtt_s or RTT_UNMEASURED_S)
        age_s = max(0.0, now - member.load_at)
        cost = expected_completion(
            demand,
            member.load,
            offer.load,
            self.ledger.outstanding(node_id, model_id, member.load_at - rtt_s),
            rtt_s=rtt_s,
            age_s=age_s,
            error_ratio=self.breakers.error_ratio(node_id, model_id),
        )
        verdicts = gates(
            offer,
            demand,
            breaker_open_s=self.breakers.open_for_s(node_id, model_id, now),
            excluded=node_id in excluded,
        )
        return Candidate(offer, verdicts, cost, age_s)


def _why(chosen: Candidate, eligible: Sequence[Candidate], self_id: str) -> str:
    """One line for the `x-mesh-route-reason` header."""
    place = "local" if chosen.offer.member.node_id == self_id else "peer"
    if len(eligible) == 1:
        return f"{place}; only candidate"
    return f"{place}; soonest of {len(eligible)}, expected {chosen.cost.total_s:.2f} s"


def _why_nobody(candidates: Sequence[Candidate]) -> str:
    """What stands in the way, per node, in one line."""
    parts = []
    for candidate in candidates:
        details = [gate.detail for gate in candidate.gates if not gate.ok]
        parts.append(f"{candidate.offer.member.name}: {', '.join(details)}")
    return "; ".join(parts)
