"""How long a suspect has to prove that it lives.

Lifeguard's idea: one accuser may itself be the sick one, so its word alone waits long; each
independent accuser makes the accusation more likely and the wait shorter:

    T(C) = max - (max - min) * ln(C + 1) / ln(K + 1),   not below min

with C confirmations heard of the K that are expected, `min = mult * max(1, log10 N) * interval`,
and `max = 6 * min`. The first accuser is not a confirmation.

In a mesh of two or three there are not K others. memberlist then sets K to 0, and one node's word
kills at the minimum: small meshes flap. Here the accuser's own repeated probes, one interval apart,
stand in for the confirmations nobody else can give, and the floor is doubled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from meshd.core.membership.config import MembershipConfig

ACCUSERS_MAX = 8
"""Accusers remembered per suspicion: well above any K, so that a repeated voice is not counted."""


def suspicion_floor_s(nodes: int, config: MembershipConfig) -> float:
    """The shortest wait in a mesh of `nodes` (this one included), in seconds."""
    floor_s = config.suspicion_mult * max(1.0, math.log10(nodes)) * config.probe_interval_s
    return 2.0 * floor_s if nodes <= config.small_mesh_max else floor_s


def suspicion_timeout_s(confirmations: int, expected: int, floor_s: float, max_s: float) -> float:
    """Wait in seconds after `confirmations` of the `expected` ones. Lifeguard, section III-B."""
    if expected < 1:
        return floor_s
    share = math.log(confirmations + 1) / math.log(expected + 1)
    return max(floor_s, max_s - (max_s - floor_s) * share)


@dataclass(slots=True)
class Suspicion:
    """One suspicion of one node at one incarnation. `floor_s` and `max_s` are stretched by our own
    health, `plain_floor_s` is not; `others` is how many nodes besides us and the suspect could
    confirm it."""

    started_at: float
    floor_s: float
    max_s: float
    plain_floor_s: float
    expected: int
    others: int
    accusers: list[str] = field(default_factory=list)
    repeats: int = 0

    def accuse(self, accuser: str) -> bool:
        """Take an accuser in; whether it is a new one that brings the verdict nearer."""
        if accuser in self.accusers or len(self.accusers) >= ACCUSERS_MAX:
            return False
        self.accusers.append(accuser)
        return len(self.accusers) <= self.expected + 1

    def repeat(self) -> None:
        """Our own probe failed again: it stands in for a confirmation that nobody can give."""
        if self.repeats < self.expected - self.others:
            self.repeats += 1

    def convict(self) -> None:
        """Another node's wait is over already: all confirmations are in, and how well we are does
        not matter for what that node has seen."""
        self.repeats = self.expected
        self.floor_s = self.plain_floor_s

    @property
    def confirmations(self) -> int:
        """Confirmations that count, at most the expected ones."""
        return min(self.expected, max(0, len(self.accusers) - 1) + self.repeats)

    @property
    def verdict_at(self) -> float:
        """When the suspect is dead, if nothing is heard of it (the clock of `started_at`)."""
        return self.started_at + suspicion_timeout_s(
            self.confirmations, self.expected, self.floor_s, self.max_s
        )


def begin_suspicion(nodes: int, stretch: int, now: float, config: MembershipConfig) -> Suspicion:
    """A suspicion that starts now in a mesh of `nodes`, at a local health factor of `stretch`."""
    plain_floor_s = suspicion_floor_s(nodes, config)
    floor_s = plain_floor_s * stretch
    return Suspicion(
        started_at=now,
        floor_s=floor_s,
        max_s=floor_s * config.suspicion_max_mult,
        plain_floor_s=plain_floor_s,
        expected=config.suspicion_confirmations,
        others=max(0, nodes - 2),
    )
