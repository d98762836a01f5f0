"""Who saw whom in which state, and when: the notebook of whoever observes a mesh.

What is kept are changes: (when, who says it, about whom, which state). `wait` blocks until a claim
about them holds, and is woken by each new entry; nothing here sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping

Change = tuple[float, str, str, str]
"""When (monotonic s), who says it, about whom, which state."""


class Sightings:
    """Filled by observers in threads of their own, asked by a test or a benchmark."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.changes: list[Change] = []
        self.states: dict[str, dict[str, str]] = {}
        """Who says it -> about whom -> the state said last."""
        self.heard_at: dict[str, float] = {}
        """When each observer last said anything (monotonic s)."""

    def note(self, observer: str, states: Mapping[str, str], at: float) -> None:
        """The observer says this, and nothing else, of these subjects."""
        with self.news:
            seen = self.states.setdefault(observer, {})
            for subject, state in states.items():
                if seen.get(subject) != state:
                    self.changes.append((at, observer, subject, state))
                    seen[subject] = state
            self.heard_at[observer] = at
            self.news.notify_all()

    def forget(self, observer: str) -> None:
        """The observer's process was replaced: what it says next is all new."""
        with self.news:
            self.states.pop(observer, None)
            self.heard_at.pop(observer, None)

    def wait(self, claim: Callable[[], object], limit_s: float, what: str) -> float:
        """Block until the claim holds, asked after each sighting; seconds waited."""
        started = time.monotonic()
        with self.news:
            held = self.news.wait_for(claim, limit_s)
        assert held, f"not within {limit_s} s: {what}\n{self.table()}"
        return time.monotonic() - started

    def stay(self, seconds: float) -> None:
        """Go on observing for so long: what should not happen gets its chance."""
        end = time.monotonic() + seconds
        with self.news:
            self.news.wait_for(lambda: time.monotonic() >= end, max(0.0, seconds))

    def agree(
        self, state: str, observers: Collection[str], subjects: Collection[str], since: float = 0.0
    ) -> bool:
        """Whether each observer, heard after `since`, holds each subject for `state`."""
        return all(
            self.heard_at.get(one, 0.0) > since
            and all(self.states[one].get(other) == state for other in subjects)
            for one in observers
        )

    def seen_at(self, state: str, subject: str, observers: Collection[str], since: float) -> float:
        """When the last of the observers saw the subject in that state for the first time."""
        first: dict[str, float] = {}
        for at, observer, about, shown in list(self.changes):
            if at >= since and about == subject and shown == state and observer in observers:
                first.setdefault(observer, at)
        missing = set(observers) - set(first)
        assert not missing, f"{missing} never saw {subject} {state}\n{self.table()}"
        return max(first.values())

    def shown(self, state: str, since: float = 0.0) -> set[tuple[str, str]]:
        """Every (observer, subject) that was in this state since then, however shortly."""
        return {
            (one, other)
            for at, one, other, shown in list(self.changes)
            if at >= since and shown == state
        }

    def false_deaths(self, since: float, *gone: str) -> set[tuple[str, str]]:
        """Every (observer, subject) shown dead since then whose subject was not among `gone`.

        What those that are gone said themselves does not count.
        """
        return {
            (one, other)
            for one, other in self.shown("dead", since)
            if other not in gone and one not in gone
        }

    def table(self) -> str:
        """Who sees whom how, one observer a line, for a failed assertion."""
        return "\n".join(
            f"{name}: " + ", ".join(f"{who} {state}" for who, state in sorted(states.items()))
            for name, states in sorted(self.states.items())
        )
