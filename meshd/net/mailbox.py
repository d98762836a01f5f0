"""What other threads want said to the mesh thread: bounded, and only the latest of each kind.

The gateway, the engines and discovery must never wait for membership, and membership must never
work through a backlog of things that are no longer true. So a letter has a subject, a newer letter
replaces an unread one of the same subject, and there is room for a fixed number of subjects.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

SUBJECTS_MAX = 4_096
"""Unread subjects: four per member of the largest mesh. Beyond it letters are refused."""


class Mailbox(Generic[T]):
    """Letters by subject, oldest first. Every method may be called from any thread."""

    def __init__(self, subjects_max: int = SUBJECTS_MAX) -> None:
        self._lock = threading.Lock()
        self._letters: dict[Hashable, T] = {}
        self._subjects_max = subjects_max
        self.dropped = 0
        """Letters refused because there was no room."""

    def post(self, subject: Hashable, letter: T) -> bool:
        """Leave a letter, in place of an unread one of the same subject; False when refused."""
        with self._lock:
            self._letters.pop(subject, None)
            if len(self._letters) >= self._subjects_max:
                self.dropped += 1
                return False
            self._letters[subject] = letter
            return True

    def take(self) -> list[T]:
        """Every unread letter."""
        with self._lock:
            letters = list(self._letters.values())
            self._letters.clear()
            return letters
