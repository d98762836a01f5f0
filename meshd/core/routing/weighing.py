"""One choice under way: the offers of one model weighed against one demand.

Sifting and scoring use the same prices, so what is left out could not have won: a node's floor is
never above its score. Where more than SCORED_MAX nodes are near, a random sample of them is scored.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from random import Random

from meshd.core.routing.board import Board
from meshd.core.routing.breaker import EVERY_MODEL, Breakers
from meshd.core.routing.catalogue import Offer
from meshd.core.routing.cost import Price, expected_completion
from meshd.core.routing.decision import Candidate
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import SOFT, fits, gates, is_open
from meshd.core.routing.ledger import Ledger
from protocol.frozen import frozen

SCORED_MAX = 24
"""Nodes scored in full for one choice: a household, and few enough for 0.1 ms."""

NEAR_RATIO = 0.25
"""Where there are more nodes, only those within this of the best are scored, and may be probed."""

ALTERNATIVES_MAX = 8
"""Alternatives counted: as many as the attempts of one request."""


@frozen
class Recent:
    """What one router remembers of what it did."""

    ledger: Ledger
    breakers: Breakers
    paths: Breakers


class Weighing:
    """The offers on a board, weighed for one demand at one moment."""

    def __init__(
        self, recent: Recent, board: Board, demand: Demand, now: float, excluded: Collection[str]
    ) -> None:
        self._recent = recent
        self._offers = board.offers
        self._prices = board.prices
        self._demand = demand
        self._now = now
        self._excluded = excluded
        self._cached = board.cached(demand.cuts)
        self._board = board

    def best(self, rng: Random) -> list[Candidate]:
        """The best candidates, scored, in no order; empty when nobody passes every gate."""
        places = range(len(self._offers))
        if len(self._offers) <= SCORED_MAX:
            return [self._score(place) for place in places if self._passes(place)]
        floors = self._board.floors(self._demand, self._cached, self._now)
        first = self._first(floors)
        if first is None:
            return []
        best = self._score(first)
        limit_s = best.score_s * (1.0 + NEAR_RATIO)
        near = [place for place, floor_s in enumerate(floors) if floor_s <= limit_s]
        near.remove(first)
        if len(near) >= SCORED_MAX:
            near = rng.sample(near, SCORED_MAX - 1)
        return [best, *(self._score(place) for place in near if self._passes(place))]

    def last_resort(self) -> list[Candidate]:
        """The candidates that only a soft gate holds back."""
        survey = [each for each in self.survey() if SOFT.issuperset(each.blocked_by)]
        for candidate in survey:
            candidate.gates = ()
        return survey

    def alternatives(self, scored: int) -> int:
        """Eligible candidates besides one of those that were scored, up to ALTERNATIVES_MAX."""
        if scored <= 1 and len(self._offers) <= SCORED_MAX:
            return 0
        found = max(0, scored - 1)
        if 0 < scored <= ALTERNATIVES_MAX and len(self._offers) > SCORED_MAX:
            found = -1
            for place in range(len(self._offers)):
                found += self._passes(place)
                if found >= ALTERNATIVES_MAX:
                    break
        return min(found, ALTERNATIVES_MAX)

    def survey(self) -> list[Candidate]:
        """Everybody, with every gate."""
        found = []
        for place, offer in enumerate(self._offers):
            candidate = self._score(place)
            node_id = offer.member.node_id
            candidate.gates = gates(
                offer,
                self._demand,
                breaker_open_s=self._open_for_s(self._recent.breakers, node_id, self._demand.model),
                unreachable_s=self._open_for_s(self._recent.paths, node_id, EVERY_MODEL),
                excluded=node_id in self._excluded,
            )
            found.append(candidate)
        return found

    def _first(self, floors: list[float]) -> int | None:
        """The place with the least floor that passes the gates."""
        left = floors.copy()
        while True:
            least_s = min(left)
            if least_s == inf:
                return None
            place = left.index(least_s)
            if self._passes(place):
                return place
            left[place] = inf

    def _passes(self, place: int) -> bool:
        """Whether every gate says yes; the same verdict as `gates`, without the words."""
        offer = self._offers[place]
        node_id = offer.member.node_id
        recent = self._recent
        return (
            is_open(offer)
            and fits(offer, self._demand)
            and node_id not in self._excluded
            and not (
                recent.breakers.entries
                and self._open_for_s(recent.breakers, node_id, offer.model.model_id)
            )
            and not (recent.paths.entries and self._open_for_s(recent.paths, node_id, EVERY_MODEL))
        )

    def _open_for_s(self, breakers: Breakers, node_id: str, model_id: str) -> float:
        return breakers.open_for_s(node_id, model_id, self._now)

    def _score(self, place: int) -> Candidate:
        cached_ratio = self._cached[place] if place < len(self._cached) else 0.0
        return score(
            self._recent,
            self._offers[place],
            self._prices[place],
            self._demand,
            cached_ratio=cached_ratio,
            now=self._now,
        )


def score(
    recent: Recent, offer: Offer, price: Price, demand: Demand, *, cached_ratio: float, now: float
) -> Candidate:
    """An offer scored in full."""
    node_id, model_id = offer.member.node_id, demand.model
    outstanding = recent.ledger.outstanding(node_id, model_id, price.at - price.rtt_s)
    breakers = recent.breakers
    cost = expected_completion(
        demand,
        price,
        outstanding,
        now,
        error_ratio=breakers.error_ratio(node_id, model_id, now) if breakers.entries else 0.0,
        cached_ratio=cached_ratio,
    )
    return Candidate(
        offer,
        cost,
        cost.total_s,
        now - price.at if now > price.at else 0.0,
        demand,
        price.batch(outstanding.jobs),
        cached_ratio,
    )
