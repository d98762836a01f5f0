"""Links under test, with a clock that rings their alarms."""

from __future__ import annotations

from random import Random

from meshd.core.effects import Effect
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.kit import Kit
from meshd.core.membership.link import link_of
from meshd.core.membership.links import Links
from protocol.messages import Endpoint
from tests.core.membership.builders import A, endpoint

E1, E2 = endpoint("10.0.0.5"), endpoint("10.0.0.6")
L1, L2 = link_of(E1), link_of(E2)
NAS = "nas.local:8788"
CONFIG = MembershipConfig(redial_jitter_ratio=0.0)


class Desk:
    """Links with a clock that rings their alarms."""

    def __init__(self, config: MembershipConfig = CONFIG) -> None:
        self.kit = Kit(config, Random(1))
        self.links = Links(self.kit)
        self.now = 100.0

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass; what was dialled and hung up meanwhile, and before it."""
        end = self.now + seconds
        while (key := self.kit.agenda.pop(end)) is not None:
            self.links.alarm(key[1], max(self.now, end))
        self.now = end
        return self.take()

    def take(self) -> list[Effect]:
        effects = list(self.kit.effects)
        self.kit.effects.clear()
        return effects

    def up(self, name: str, node_id: str) -> None:
        """The link comes up and is answered by this node."""
        self.links.up(name, self.now)
        self.links.answered(name, node_id, self.now)

    def reach(self, node_id: str = A, *endpoints: Endpoint) -> None:
        """A member that is connected at its first address."""
        places = endpoints or (E1,)
        self.links.seek(node_id, places, self.now)
        self.advance(0.0)
        self.up(link_of(places[0]), node_id)
        self.take()
