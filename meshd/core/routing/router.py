"""Filter, score, pick: the choice itself, and what has to be remembered between choices.

The router reads one immutable membership view, never waits, and draws chance only from the `rng` it
was given: the same view, ledger and seed give the same choice. `explain` reads the survey of a
`choose` without the lease, so what it prints is what would have happened.

A choice sifts first (`board`): only nodes whose floor is near the best score are scored in full, at
most SCORED_MAX of them, drawn at random where more are that near: among so many near-equals any is
good, and routers that draw differently do not meet.

Two scores closer than PROBE_RATIO are decided by records that may be a second old. Such a pair is
worth asking (`Decision.probe`); `reconsider` chooses again with the answers, and keeps them for the
choices until the next records.

Not here: sockets, time-outs as timers, retries. The gateway runs the attempts and tells the router
how each one went: `spoke` at its first event, `failed`, or `succeeded` when its answer was whole,
`finished` when it also gave all of that answer, `release` always.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from meshd.core.membership.member import MeshView
from meshd.core.routing.board import Board
from meshd.core.routing.breaker import EVERY_MODEL, Breakers
from meshd.core.routing.catalogue import Catalogue, Offer
from meshd.core.routing.cost import Price, price_of
from meshd.core.routing.decision import Candidate, Decision
from meshd.core.routing.demand import Demand, demand_of
from meshd.core.routing.experience import Completion, Experiences
from meshd.core.routing.hardware import ANY_MACHINE, assumed_rates, busy_beside, is_measured
from meshd.core.routing.ledger import Lease, Ledger
from meshd.core.routing.lengths import OutputLengths
from meshd.core.routing.pick import lot, near_equals
from meshd.core.routing.weighing import SCORED_MAX, Recent, Weighing, score
from protocol.jobs import Job
from protocol.load import ModelLoad

__all__ = ["SCORED_MAX", "Candidate", "Completion", "Decision", "Router"]

RTT_UNMEASURED_S = 0.002
"""Assumed round trip to a peer that has not been measured: a busy Wi-Fi."""

BROKEN_CODES = frozenset({"engine_failed", "unreachable", "timeout", "unauthorized"})
"""Failures that are the node's fault and open its breaker. The others say "not now" (full,
draining) or "not this" (a bad request), and exclude the node from this request only."""

PROBE_RATIO = 1.0
"""Scores closer than this may be in the wrong order: at a busy machine, one job more in a second
that nobody has told of yet doubles a wait. Simulated, means are up to 4 % better than with 0.25,
and 1 % worse on one trace of long prompts."""

PROBE_AGE_S = 0.1
"""Younger records are as good as a probe's answer by the time that the request arrives."""

PROBE_WORTH_S = 0.1
"""Shorter requests are not probed for: a probe may take a tenth of this."""


class Router:
    """The routing state of one node."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._catalogue: Catalogue | None = None
        self._boards: dict[str, Board] = {}
        self._self_id = ""
        self._now = 0.0
        self.ledger = Ledger()
        self.breakers = Breakers()
        self.paths = Breakers()
        """The ways to nodes, as EVERY_MODEL."""
        self._recent = Recent(self.ledger, self.breakers, self.paths)
        self.experiences = Experiences()
        self.lengths = OutputLengths()

    def catalogue(self, view: MeshView) -> Catalogue:
        """The offers of a view."""
        if self._catalogue is None:
            self._catalogue = Catalogue(view)
        elif self._catalogue.view is not view:
            self._catalogue.update(view)
        self._self_id = view.self_id
        return self._catalogue

    def demand(self, job: Job, model: str) -> Demand:
        """The demand of a job for the canonical model id `model`, its length as learnt here."""
        return demand_of(job, model, self.lengths.expected, cut=self._is_telling(model))

    def choose(
        self, view: MeshView, demand: Demand, now: float, excluded: Collection[str] = ()
    ) -> Decision:
        """The best node for `demand`, leaving out the ids in `excluded`."""
        board = self._board(view, demand.model, now)
        weighing = Weighing(self._recent, board, demand, now, excluded)
        near = weighing.best(self._rng) or weighing.last_resort()
        return self._decide(near, weighing.alternatives(len(near)), weighing.survey)

    def reconsider(
        self, decision: Decision, fresh: Mapping[str, ModelLoad], now: float
    ) -> Decision:
        """The same choice with the loads that nodes (by id) told a moment ago. Who has not
        answered keeps the score of its record. The answers serve later choices, too."""
        if not fresh or decision.chosen is None or self._catalogue is None:
            return decision
        self._now = now
        demand = decision.chosen.demand
        shelf = self._catalogue.shelf(demand.model)
        near = []
        for candidate in decision.near:
            node_id = candidate.offer.member.node_id
            load, place = fresh.get(node_id), shelf.places.get(node_id)
            if load is None or place is None:
                near.append(candidate)
                continue
            offer = Offer(shelf.offers[place].member, candidate.offer.model, load, now)
            shelf.put(offer)
            price = self._price(offer, is_new=False)
            near.append(
                score(
                    self._recent, offer, price, demand, cached_ratio=candidate.cached_ratio, now=now
                )
            )
        return self._decide(near, decision.alternatives, decision.survey, final=True)

    def dispatch(self, chosen: Candidate, now: float) -> Lease:
        """Account for an attempt at the chosen node, from now until `release`."""
        offer = chosen.offer
        node_id, model_id = offer.member.node_id, offer.model.model_id
        if self.breakers.entries:
            self.breakers.tried(node_id, model_id, now)
        if self.paths.entries:
            self.paths.tried(node_id, EVERY_MODEL, now)
        return self.ledger.take(
            node_id,
            model_id,
            chosen.cost.service_s,
            now,
            job_class=chosen.demand.job_class,
            batch=chosen.batch,
            prefill_s=chosen.cost.prefill_s,
        )

    def spoke(self, lease: Lease) -> None:
        """The attempt produced its first event."""
        if self.breakers.entries:
            self.breakers.spoke(lease.node_id, lease.model_id)
        if self.paths.entries:
            self.paths.succeeded(lease.node_id, EVERY_MODEL)

    def succeeded(self, lease: Lease) -> None:
        """The attempt brought an answer to its end."""
        if self.breakers.entries:
            self.breakers.succeeded(lease.node_id, lease.model_id)

    def failed(self, lease: Lease, code: str, now: float) -> None:
        """The attempt ended, and its answer did not: why, says `code` (protocol.jobs.FAILURES)."""
        if code in BROKEN_CODES:
            self.breakers.failed(lease.node_id, lease.model_id, now)
        if code == "unreachable":
            self.unreachable(lease.node_id, now)

    def finished(self, lease: Lease, seen: Completion, now: float) -> None:
        """The attempt's answer is whole. Not for attempts that were cut off, cancelled or taken
        over: they say nothing of the length of an answer or the speed of a machine."""
        self.lengths.observe(lease.job_class, seen.output_tokens)
        node_id, model_id = lease.node_id, lease.model_id
        board = self._boards.get(model_id)
        taught = self.experiences.finished(node_id, model_id, seen, lease.batch, now)
        if taught and board is not None:
            board.learnt(node_id)

    def release(self, lease: Lease) -> None:
        """The attempt is over. Idempotent."""
        self.ledger.release(lease)

    def unreachable(self, node_id: str, now: float) -> None:
        """Something sent to this node failed on its way: nothing is sent there for a while,
        whatever the model, and whatever the membership believes."""
        self.paths.failed(node_id, EVERY_MODEL, now)

    def reachable(self, node_id: str) -> None:
        """Something came back from this node."""
        self.paths.succeeded(node_id, EVERY_MODEL)

    def restarted(self, node_id: str) -> None:
        """This node runs anew: it may be tried again at once."""
        self.breakers.restarted(node_id)
        self.paths.restarted(node_id)

    def _board(self, view: MeshView, model_id: str, now: float) -> Board:
        self._now = now
        shelf = self.catalogue(view).shelf(model_id)
        board = self._boards.get(model_id)
        if board is None or board.shelf is not shelf:
            known = self._catalogue.models() if self._catalogue else {}
            self._boards = {name: old for name, old in self._boards.items() if name in known}
            board = self._boards[model_id] = Board(shelf, self._price)
        board.follow(now)
        return board

    def _price(self, offer: Offer, is_new: bool) -> Price:
        member, load = offer.member, offer.load
        assert member.load is not None
        node_id, model_id = member.node_id, offer.model.model_id
        if is_new and load is not None:
            self.experiences.met(node_id, model_id, min(load.in_flight, load.slots))
        local = node_id == self._self_id
        assumed = ANY_MACHINE
        if self._catalogue is not None and not is_measured(offer):
            assumed = assumed_rates(offer, self._catalogue.offers(model_id))
        return price_of(
            member.load,
            load,
            at=offer.at,
            rtt_s=0.0 if local else (member.rtt_s or RTT_UNMEASURED_S),
            experience=self.experiences.of(node_id, model_id, self._now),
            assumed=assumed,
            busy_beside=busy_beside(offer),
        )

    def _is_telling(self, model_id: str) -> bool:
        board = self._boards.get(model_id)
        return board is None or board.telling > 0

    def _decide(
        self,
        near: Sequence[Candidate],
        alternatives: int,
        survey: Callable[[], Sequence[Candidate]],
        *,
        final: bool = False,
    ) -> Decision:
        if not near:
            return Decision(None, (), None, 0, survey, self._self_id)
        if len(near) == 1:
            return Decision(near[0], tuple(near), None, alternatives, survey, self._self_id)
        ordered = sorted(near, key=lambda each: each.score_s)
        chosen = self._pick(ordered)
        others = [each for each in ordered if each is not chosen]
        pair = None
        if not final and _worth_asking(chosen, others[0]):
            pair = (chosen, others[0])
        return Decision(chosen, (chosen, *others), pair, alternatives, survey, self._self_id)

    def _pick(self, ordered: Sequence[Candidate]) -> Candidate:
        equals = near_equals([(each.score_s, each) for each in ordered])
        if len(equals) == 1:
            return equals[0]
        session = equals[0].demand.session
        if session:
            return max(equals, key=lambda each: lot(session, each.offer.member.node_id))
        return self._rng.choice(equals)


def _worth_asking(first: Candidate, second: Candidate) -> bool:
    """Whether the answers to a probe could turn the choice, and be worth their time."""
    close = abs(first.score_s - second.score_s) <= PROBE_RATIO * min(first.score_s, second.score_s)
    old = max(first.age_s, second.age_s) > PROBE_AGE_S
    return close and old and first.score_s >= PROBE_WORTH_S
