"""How much this node trusts its own senses (Lifeguard's local health).

A detector that is itself slow sees everybody else fall silent. So it keeps a score of its own
slowness and stretches its own intervals and timeouts by `score + 1`:

- a probe was answered in time: one better;
- a helper we asked sent neither ack nor nack, although it was heard meanwhile: one worse (the
  asker's own side is at fault: the helper is alive, and would have said so);
- this node had to refute a suspicion: one worse;
- this node was late for its own deadline: one worse. The most direct sign of all, and the only
  one that works in a mesh of two, where there is no helper to ask.

A failed probe alone says nothing: its target may simply be dead.
"""

from __future__ import annotations


class LocalHealth:
    """A score between 0 (well) and `worst`."""

    def __init__(self, worst: int) -> None:
        self.score = 0
        self._worst = worst

    def better(self) -> None:
        """Something went as it should."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        """Something hints that the fault is ours."""
        self.score = min(self._worst, self.score + by)

    def stretch(self, seconds: float) -> float:
        """An own interval or timeout, made longer by bad health."""
        return seconds * (self.score + 1)
