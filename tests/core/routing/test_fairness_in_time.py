"""One who floods, and four who ask now and then: an evening of one machine, in virtual time."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from meshd.core.routing.fairness import FairQueue, Shares, Ticket
from tests.core.routing.test_fairness import ANNA, ticket


class Evening:
    """One machine in virtual time. A job keeps a slot for about a second; four light people ask
    for a tenth of a slot each; the flood, if there is one, always has fifty jobs waiting."""

    def __init__(self, *, slots: int, seed: int) -> None:
        self.line = FairQueue(Shares(0.0), slots)
        self.rng = Random(seed)
        self.agenda: list[tuple[float, int, str, Ticket | None]] = []
        self.begun: set[int] = set()
        self.took: list[float] = []

    def plan(self, at: float, person: str, running: Ticket | None = None) -> None:
        heapq.heappush(
            self.agenda, (at, len(self.agenda) + self.rng.getrandbits(40), person, running)
        )

    def light_p99_s(self, *, flood: bool) -> float:
        """The 99th percentile of the light people's time from question to end."""
        for number in range(1, 5):
            self.plan(self.rng.expovariate(0.1), f"{number:016x}")
        for _ in range(50 if flood else 0):
            self.plan(0.0, ANNA)
        while self.agenda[0][0] < 3_000.0:
            now, _, person, running = heapq.heappop(self.agenda)
            self.step(now, person, running)
        return sorted(self.took)[int(len(self.took) * 0.99)]

    def step(self, now: float, person: str, running: Ticket | None) -> None:
        """A question, or the end of an answer."""
        if running is None:
            self.line.arrive(ticket(person, 200, now), now)
        else:
            self.line.end(running, 0, 100)
        if running is None and person != ANNA:
            self.plan(now + self.rng.expovariate(0.1), person)
        elif running is not None and person != ANNA:
            self.took.append(now - running.arrived)
        elif running is not None:
            self.plan(now, ANNA)
        self.line.start_next(now)
        for number in self.line.running.keys() - self.begun:
            self.begun.add(number)
            started = self.line.running[number]
            self.plan(now + self.rng.uniform(0.8, 1.2), started.person, started)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_flood_at_most_doubles_the_tail_of_four_light_people(slots: int, seed: int) -> None:
    """Their 99th percentile beside what it is without the flood."""
    alone = Evening(slots=slots, seed=seed).light_p99_s(flood=False)
    beside = Evening(slots=slots, seed=seed).light_p99_s(flood=True)
    assert beside <= 2.0 * alone
