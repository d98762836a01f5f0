"""The outcome of one choice, and what was weighed for it.

Most choices are acted on and forgotten, so only what acting needs is made at once: the chosen
candidate, and the pair worth a live probe. The whole survey (every candidate, every gate, every
term) is made by the same code when somebody asks for it; ask before the next dispatch, or it is a
survey of that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.cost import Cost
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import Gate, blocked_by, refusal


@dataclass(slots=True, eq=False)
class Candidate:
    """One offer with what was considered about it."""

    offer: Offer
    cost: Cost
    score_s: float
    """The cost's sum."""
    age_s: float
    """How old the node's records were."""
    demand: Demand
    batch: float
    """The crowding that the cost assumes (`Price.batch`)."""
    cached_ratio: float
    """Share of the prompt that the node seems to hold."""
    gates: tuple[Gate, ...] = ()
    """Verdicts in a survey; empty on a chosen candidate, which passed."""

    @property
    def blocked_by(self) -> tuple[str, ...]:
        return blocked_by(self.gates)


@dataclass(slots=True, eq=False)
class Decision:
    """`chosen` is None when no candidate was eligible."""

    chosen: Candidate | None
    near: tuple[Candidate, ...]
    """The chosen candidate and the next best ones, scored, best first."""
    probe: tuple[Candidate, Candidate] | None
    """Two whose scores are too close for records of their age: ask both for their load now, and
    call `Router.reconsider` with the answers that come in time."""
    alternatives: int
    """Eligible candidates besides the chosen one; counted up to ALTERNATIVES_MAX."""
    survey: Callable[[], Sequence[Candidate]] = field(repr=False)
    self_id: str
    _surveyed: tuple[Candidate, ...] | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Everybody who offers the model, with gates and terms."""
        if self._surveyed is None:
            self._surveyed = tuple(self.survey())
        return self._surveyed

    @property
    def reason(self) -> str:
        """One line for the `x-mesh-route-reason` header; without a choice, what stands in the way,
        per node."""
        if self.chosen is None:
            return _why_nobody(self.candidates)
        place = "local" if self.chosen.offer.member.node_id == self.self_id else "peer"
        if not self.alternatives:
            return f"{place}; only candidate"
        cached = f", {self.chosen.cached_ratio:.0%} cached" if self.chosen.cached_ratio else ""
        expected = f"expected {self.chosen.cost.expected_s:.2f} s{cached}"
        return f"{place}; best of {self.alternatives + 1}, {expected}"

    @property
    def failure_code(self) -> str:
        """Without a choice, which failure that is (protocol.jobs.FAILURES): `unsupported` (422),
        `context_length_exceeded` (400), `insufficient_memory` (507) or `overloaded` (503)."""
        return refusal([candidate.blocked_by for candidate in self.candidates])


def _why_nobody(candidates: Sequence[Candidate]) -> str:
    parts = []
    for candidate in candidates:
        details = [gate.detail for gate in candidate.gates if not gate.ok]
        parts.append(f"{candidate.offer.member.name}: {', '.join(details)}")
    return "; ".join(parts)
