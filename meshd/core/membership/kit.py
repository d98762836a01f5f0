"""What every part of membership works with: its settings, its alarms, its dice, and its way out."""

from __future__ import annotations

from dataclasses import field
from random import Random

from meshd.core.effects import Effect, Notice
from meshd.core.membership.agenda import Agenda
from meshd.core.membership.config import MembershipConfig
from protocol.frozen import frozen


@frozen
class Kit:
    """One per node, shared by its parts. `effects` collects what the current input brings about."""

    config: MembershipConfig
    rng: Random
    agenda: Agenda = field(default_factory=Agenda)
    effects: list[Effect] = field(default_factory=list)

    def say(self, level: str, text: str) -> None:
        """Something a person may want to read."""
        self.effects.append(Notice(level, text))
