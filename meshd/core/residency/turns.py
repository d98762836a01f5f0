"""Whose turn is it in memory, where models that do not fit together are all asked for?

A busy model is never ended. So while somebody asks for it all day, another that needs its place
would never come in. Here they take turns:

- a job whose model needs the place of busy ones waits for them, in order of arrival;
- once it has waited GRACE_S, no new job starts in the models in its way: what runs ends, what comes
  waits behind it. Shorter waits pass by themselves, and stop nobody;
- a model that came in by waiting has a stretch of STRETCH_S: so long nobody makes its new jobs
  wait, and a lull of less than LULL_S between two of them does not put it out. Then it gives way as
  the others did before. Two models that are busy all day alternate, and spend their time on answers
  and not on loading;
- a batch job stops nobody until it has waited as long as it gives way in any queue, and comes in at
  a moment when nobody asks; what came in like that has no stretch;
- who waits tries again when one of the models that were busy then has become idle: those whose
  place it asked for, or another whose place may be enough; and after those who came earlier, or
  are interactive where it is not, and wait for the same place.

How long it will take is an estimate, for routing and for whoever waits: what is left of a stretch,
one answer's time for what runs to end, and the loads.

Left out on purpose: stopping what runs, which costs its reader more than waiting costs others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from meshd.core.residency.residents import Resident
from meshd.core.routing.fairness import BATCH_PATIENCE_S

GRACE_S = 3.0
"""How long a model waits before the ones in its way take no new jobs: short answers end sooner, and
then it comes in without having stopped anybody."""

STRETCH_S = 30.0
"""How long a model that waited may serve: several answers, and several times its load, so that most
time goes to answers; two stretches are less than anybody waits (`courtesy.QUEUE_WAIT_S`)."""

LULL_S = 2.0
"""A model in its stretch that nobody asks anything for so long gives its place up: an agent's next
question comes sooner, after a tool has run."""

DRAIN_GUESS_S = 5.0
"""Until what runs in a busy model has ended: about one answer's time."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One job that waits: for room, or because its model is to give way."""

    model_id: str
    since: float
    behind: tuple[str, ...] = ()
    """The busy models whose place its model needs; empty while that has not been asked, and where
    its model is in memory."""
    busy: tuple[str, ...] = ()
    """All that were busy when that was asked: the place of another one may be enough as well."""
    why: str = ""
    """The sum, for people."""
    batch: bool = False

    def stops_in_s(self, now: float) -> float:
        """So long it stops nobody; 0 or less: the models in its way take no new jobs."""
        patience_s = BATCH_PATIENCE_S if self.batch else GRACE_S
        return self.since + patience_s - now

    def gives_way(self, now: float) -> bool:
        """Whether interactive jobs go before it now."""
        return self.batch and self.stops_in_s(now) > 0


class Turns:
    """Who waits for memory on one machine, and who has a stretch in it. Times are monotonic
    seconds. As many may wait as are let in: a node lets in so many of each model as it has slots.
    """

    def __init__(self) -> None:
        self._line: list[Waiting] = []
        self._until: dict[str, float] = {}
        """Model -> end of its stretch; of models in memory only."""

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._line)

    def enter(self, model_id: str, now: float, *, batch: bool = False) -> Waiting:
        """A job waits from now on; until it leaves."""
        self._line.append(Waiting(model_id, now, batch=batch))
        return self._line[-1]

    def leave(self, waiting: Waiting) -> None:
        """It waits no longer."""
        self._line.remove(waiting)

    def position(self, waiting: Waiting, now: float) -> int:
        """Its place in the line, counted from 1."""
        return self._order(now).index(waiting) + 1

    def interactive(self, model_id: str) -> int:
        """How many of those who wait for this model are no batch jobs."""
        return sum(each.model_id == model_id and not each.batch for each in self._line)

    def came_in(self, model_id: str, now: float) -> None:
        """It is in memory. Its stretch begins where it waited for others to go; those are no longer
        in anybody's way to it."""
        for each in self._line:
            if each.model_id == model_id and each.behind:
                each.behind = ()
                if not each.gives_way(now):
                    self._until[model_id] = now + STRETCH_S

    def went(self, model_id: str) -> None:
        """It is no longer in memory."""
        self._until.pop(model_id, None)

    def gives_way_to(self, model_id: str, now: float) -> str:
        """The model before whose turn this one starts no new job; empty where it may."""
        if not self._line or self._stretch_s(model_id, now) > 0:
            return ""
        waits = (each for each in self._line if model_id in each.behind)
        return next((each.model_id for each in waits if each.stops_in_s(now) <= 0), "")

    def kept(self, residents: Iterable[Resident], now: float) -> list[Resident]:
        """The same, where those stay as if they were busy that had only a lull in their stretch."""
        return [
            replace(each, busy=True)
            if self._stretch_s(each.model_id, now) > 0 and now - each.last_used_s < LULL_S
            else each
            for each in residents
        ]

    def may_try(self, waiting: Waiting, residents: Sequence[Resident], now: float) -> bool:
        """Whether loading its model, or starting in it, may succeed now."""
        if self.gives_way_to(waiting.model_id, now):
            return False
        if not waiting.behind:
            return True
        mine = set(waiting.behind)
        earlier = takewhile(lambda each: each.model_id != waiting.model_id, self._order(now))
        if any(mine.intersection(each.behind) for each in earlier):
            return False
        busy = {each.model_id for each in residents if each.busy}
        return not mine.union(waiting.busy) <= busy

    def is_next(self, waiting: Waiting, now: float) -> bool:
        """Its turn is certain: all in its way take no new jobs, and it is the first for whom."""
        ways = {self.gives_way_to(each, now) for each in waiting.behind}
        return ways == {waiting.model_id}

    def wait_s(
        self, model_id: str, behind: Sequence[str], now: float, load_s: Callable[[str], float]
    ) -> float:
        """About how long an interactive job that came now would wait until its model can be loaded,
        which needs the place of those `behind`, or gives way; 0 where it need not wait. `load_s`
        says what a load of a model takes."""
        first = self.gives_way_to(model_id, now)
        if first:
            return DRAIN_GUESS_S + load_s(first) + STRETCH_S + DRAIN_GUESS_S
        if not behind:
            return 0.0
        mine = (each.stops_in_s(now) for each in self._line if each.model_id == model_id)
        longest_s = max(self._stretch_s(each, now) for each in behind)
        return max(longest_s, min((GRACE_S, *mine)), 0.0) + DRAIN_GUESS_S

    def _order(self, now: float) -> list[Waiting]:
        """In which they try: interactive ones first, then in order of arrival."""
        return sorted(self._line, key=lambda each: each.gives_way(now))

    def _stretch_s(self, model_id: str, now: float) -> float:
        """What is left of its stretch."""
        return max(0.0, self._until.get(model_id, 0.0) - now)
