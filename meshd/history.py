"""What became of every request that entered here: the choice, the attempts, the times.

The gateway writes as it goes, through the `Story` that `History.opened` gives it, and nothing is
worded or rounded before somebody asks: a request costs a few references, below 5 us in all. What
is kept is bounded twice. STORIES_MAX requests that have ended, OPEN_MAX that run; and of the
choices, which hold candidates with their terms, as many as CANDIDATES_MAX candidates: beyond that
the oldest requests keep their attempts and lose the reasons.

A first choice keeps the candidates that were near it, because only they were weighed to the end;
any later one, and one of nobody, which are rare, keep everybody with every gate.

Nothing here can hold a prompt or an answer: of a job only the names on its envelope are taken. A
person is the hash that fair shares go by.

Times are this node's monotonic seconds, given by the caller; bodies hold ages and durations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from meshd.core.routing.decision import Candidate, Decision
from meshd.core.routing.demand import Demand
from meshd.core.routing.explain import decision_body
from protocol.jobs import Failure, Finish, Job

STORIES_MAX = 1_000
"""Ended requests kept: an evening of a household, a quarter of a second of the fastest node; at
about 1 KiB each, 1 MiB."""

OPEN_MAX = 8_192
"""Requests that run at once: as many as leases of one router. Beyond, the oldest is not listed."""

CANDIDATES_MAX = 2_048
"""Candidates in all choices that are kept. Each is about 1 KiB, and holds on to the load record it
was weighed by, 1 to 3 KiB: 8 MiB. With ten nodes that is 200 choices, with a thousand two."""

ATTEMPTS_MAX = 16
"""Attempts kept for one request: all that a gateway makes, its two seams and its moves."""

DETAIL_MAX_CHARS = 300
"""Of what a node said when it failed: the first sentence or two."""

RECENT = 100
"""Requests in a list, unless more are asked for."""

WHYS = ("first", "retry", "hedge", "move", "continuation")
"""What an attempt is for."""

OUTCOMES = ("running", "finished", "failed", "outrun", "moved", "cancelled")
"""How an attempt ended: `outrun` by a hedge, `moved` while it waited, `cancelled` with the client;
`failed` also where another node then carried on."""


class Attempt:
    """One try at one node."""

    __slots__ = (
        "ended_at",
        "failure",
        "first_at",
        "node",
        "node_id",
        "outcome",
        "started_at",
        "why",
    )

    def __init__(self, node_id: str, node: str, why: str, now: float) -> None:
        self.node_id = node_id
        self.node = node
        self.why = why
        self.started_at = now
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.outcome = "running"
        self.failure: Failure | None = None

    def first_byte(self, now: float) -> None:
        """Its first event of an answer is here."""
        self.first_at = now

    def ended(self, outcome: str, now: float, failure: Failure | None = None) -> None:
        """One of OUTCOMES, and what the node said where it failed. The first word holds."""
        if self.ended_at is None:
            self.outcome = outcome
            self.ended_at = now
            self.failure = failure


class Story:
    """One request, from its arrival to its end. Written by the gateway; every call is cheap."""

    __slots__ = (
        "asked", "attempts", "candidates", "choices", "ended_at", "first_at", "history", "kind",
        "last", "number", "opened_at", "person", "position", "priority", "request_id", "stream",
        "wait_s",
    )  # fmt: skip

    def __init__(self, history: History, number: int, job: Job, now: float) -> None:
        self.history = history
        self.number = number
        self.request_id = job.request_id
        self.kind = job.kind
        self.asked = job.model
        self.person = job.person
        self.priority = job.priority
        self.stream = job.stream
        self.opened_at = now
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.last: Finish | Failure | None = None
        self.position = 0
        self.wait_s = 0.0
        self.choices: list[tuple[Demand, Decision]] = []
        self.candidates = 0
        self.attempts: list[Attempt] = []

    def decided(self, demand: Demand, decision: Decision) -> None:
        """A choice was made, also one of nobody. Say it before the dispatch that follows. That
        nobody is free to help an attempt that runs is no choice."""
        nobody = decision.chosen is None
        if nobody and self.attempts and self.attempts[-1].ended_at is None:
            return
        if len(self.choices) < ATTEMPTS_MAX:
            plain = not nobody and not self.choices
            kept = decision.near if plain else decision.candidates
            self.choices.append((demand, _only(decision, kept)))
            self.candidates += len(kept)

    def attempt_started(self, node_id: str, node: str, now: float, why: str = "first") -> Attempt:
        """A try at a node begins; `why` is one of WHYS. The caller ends it."""
        attempt = Attempt(node_id, node, why, now)
        if len(self.attempts) < ATTEMPTS_MAX:
            self.attempts.append(attempt)
        return attempt

    def queued(self, position: int, wait_s: float) -> None:
        """Where it waits now, as the serving node last said; 0 when it no longer waits."""
        self.position = position
        self.wait_s = wait_s

    def first_byte(self, now: float) -> None:
        """The first event of the answer is on its way to the client."""
        self.first_at = now
        self.position = 0

    def finished(self, last: Finish | Failure | None, now: float) -> None:
        """It is over; None when the client left. The first word holds."""
        if self.ended_at is None:
            self.last = last
            self.ended_at = now
            self.history.ended(self)

    @property
    def state(self) -> str:
        """queued, running, done, failed or cancelled."""
        if self.ended_at is None:
            return "queued" if self.position and self.first_at is None else "running"
        if isinstance(self.last, Finish):
            return "done"
        return "failed" if isinstance(self.last, Failure) else "cancelled"


class History:
    """The requests of one node's endpoint."""

    def __init__(self, *on_end: Callable[[Story], object]) -> None:
        """`on_end` are told of each request that is over; they must be cheap, and keep nothing."""
        self._on_end = on_end
        self._open: dict[int, Story] = {}
        self._ended: deque[Story] = deque(maxlen=STORIES_MAX)
        self._reasoned: deque[Story] = deque()
        """Ended stories that still hold their choices, oldest first."""
        self._candidates = 0
        self._next = 1

    def opened(self, job: Job, now: float) -> Story:
        """A request has arrived; whoever calls this also calls `finished` on what it returns."""
        story = Story(self, self._next, job, now)
        self._next += 1
        self._open[story.number] = story
        if len(self._open) > OPEN_MAX:
            del self._open[next(iter(self._open))]
        return story

    def ended(self, story: Story) -> None:
        """For `Story.finished` alone."""
        self._open.pop(story.number, None)
        for tell in self._on_end:
            tell(story)
        self._ended.append(story)
        self._reasoned.append(story)
        self._candidates += story.candidates
        while self._candidates > CANDIDATES_MAX or len(self._reasoned) > STORIES_MAX:
            oldest = self._reasoned.popleft()
            self._candidates -= oldest.candidates
            oldest.choices.clear()

    def __len__(self) -> int:
        return len(self._open) + len(self._ended)

    def ended_stories(self) -> Iterator[Story]:
        """What has ended and is kept, newest first."""
        return reversed(self._ended)

    def recent_body(self, now: float, limit: int = RECENT) -> dict[str, Any]:
        """The body of `/mesh/v1/requests`: newest first, what runs before what has ended."""
        rows = [_row(story, now) for story in islice(self._newest(), max(0, limit))]
        return {"open": len(self._open), "requests": rows}

    def body(self, request_id: str, now: float) -> dict[str, Any] | None:
        """The body of `/mesh/v1/requests/ID`; of several with this id the newest."""
        found = next((each for each in self._newest() if each.request_id == request_id), None)
        return None if found is None else _full(found, now)

    def _newest(self) -> Iterator[Story]:
        yield from reversed(self._open.values())
        yield from reversed(self._ended)


def _only(decision: Decision, kept: tuple[Candidate, ...]) -> Decision:
    """The decision with these candidates, and without its hold on the mesh of that moment."""
    chosen, others = decision.chosen, decision.alternatives
    return Decision(chosen, kept, None, others, tuple, decision.self_id, kept)


def _row(story: Story, now: float) -> dict[str, Any]:
    last, attempts = story.last, story.attempts
    done = last if isinstance(last, Finish) else None
    return {
        "id": story.request_id,
        "state": story.state,
        "kind": story.kind,
        "model": _model_of(story),
        "person": story.person,
        "priority": story.priority,
        "stream": story.stream,
        "node": attempts[-1].node if attempts else None,
        "node_id": attempts[-1].node_id if attempts else None,
        "queue_position": story.position if story.state == "queued" else None,
        "queue_wait_s": _rounded(story.wait_s) if story.state == "queued" else None,
        "age_s": _since(story.opened_at, now),
        "ttft_s": _since(story.opened_at, story.first_at),
        "duration_s": _since(story.opened_at, story.ended_at),
        "prompt_tokens": done.prompt_tokens if done else None,
        "completion_tokens": done.completion_tokens if done else None,
        "attempts": len(attempts),
        "error": last.code if isinstance(last, Failure) else None,
    }


def _full(story: Story, now: float) -> dict[str, Any]:
    last = story.last
    return {
        **_row(story, now),
        "message": last.message[:DETAIL_MAX_CHARS] if isinstance(last, Failure) else None,
        "attempts": [_attempt_body(story, attempt) for attempt in story.attempts],
        "decisions": [decision_body(demand, decision) for demand, decision in story.choices],
    }


def _attempt_body(story: Story, attempt: Attempt) -> Mapping[str, Any]:
    failure = attempt.failure
    return {
        "node": attempt.node,
        "id": attempt.node_id,
        "why": attempt.why,
        "outcome": attempt.outcome,
        "started_s": _since(story.opened_at, attempt.started_at),
        "first_byte_s": _since(story.opened_at, attempt.first_at),
        "ended_s": _since(story.opened_at, attempt.ended_at),
        "code": failure.code if failure else None,
        "message": failure.message[:DETAIL_MAX_CHARS] if failure else None,
    }


def _model_of(story: Story) -> str:
    """The model's own name where it is known, else what was asked for."""
    return story.choices[0][0].model if story.choices else story.asked


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else _rounded(max(0.0, end - start))


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
