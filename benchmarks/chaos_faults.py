"""What befalls the machines of the chaos benchmark, and how each is put right again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from random import Random

from tests.netns.fleet import HTTP, MESH, Fleet
from tests.netns.networks import apart, loss, no_way

LOST_PERCENT = 20
"""Of the frames of a bad Wi-Fi, each way."""

GRACE_S = 6.5
"""A daemon that is told to stop lets answers finish for five seconds."""

Mend = Callable[[], None]


class House:
    """A fleet and its troubles. `askers` are the nodes that nothing befalls."""

    def __init__(self, fleet: Fleet, askers: tuple[str, ...], chance: Random) -> None:
        self.fleet = fleet
        self.askers = askers
        self.chance = chance
        self._rules: dict[str, tuple[str, ...]] = {}

    def forbid(self, name: str, *rules: str) -> Mend:
        """Frames of this node are dropped, until that is taken back."""
        self._rules[name] = rules
        self._apply()

        def allow() -> None:
            del self._rules[name]
            self._apply()

        return allow

    def _apply(self) -> None:
        self.fleet.lan.forbid(*(rule for rules in self._rules.values() for rule in rules))

    def restart(self, name: str) -> None:
        """Start the daemon again, in whatever way it ended."""
        self.fleet.nodes[name].stop()
        self.fleet.nodes[name].start(http=HTTP, mesh=MESH)


def killed(house: House, name: str) -> Mend:
    """kill -9."""
    house.fleet.kill(name)
    return lambda: house.restart(name)


def ended(house: House, name: str) -> Mend:
    """SIGTERM, as a service manager sends it."""
    house.fleet.signal(signal.SIGTERM, name)
    return lambda: house.restart(name)


def stopped(house: House, name: str) -> Mend:
    """SIGSTOP: it is there, and does nothing."""
    house.fleet.signal(signal.SIGSTOP, name)

    def wake() -> None:
        house.fleet.signal(signal.SIGCONT, name)

    return wake


def cut(house: House, name: str) -> Mend:
    """The cable is pulled."""
    host = house.fleet.host(name)
    house.fleet.lan.cut(host)
    return lambda: house.fleet.lan.mend(host)


def deaf(house: House, name: str) -> Mend:
    """Nothing reaches it."""
    return house.forbid(name, no_way(None, house.fleet.host(name)))


def mute(house: House, name: str) -> Mend:
    """Nothing that it sends arrives."""
    return house.forbid(name, no_way(house.fleet.host(name), None))


def parted(house: House, name: str) -> Mend:
    """It and one of the askers do not hear each other, while everybody else hears both."""
    other = house.fleet.host(house.chance.choice(house.askers))
    return house.forbid(name, *apart([house.fleet.host(name)], [other]))


def lossy(house: House, name: str) -> Mend:
    """A bad Wi-Fi."""
    port = house.fleet.host(name).port
    lost = loss(LOST_PERCENT)
    return house.forbid(name, f'iifname "{port}" {lost}', f'oifname "{port}" {lost}')


def drained(house: House, name: str) -> Mend:
    """Its owner wants it for something else, for a while."""
    node = house.fleet.nodes[name]
    node.ask("POST", "/mesh/v1/drain", {})

    def resume() -> None:
        node.ask("POST", "/mesh/v1/resume", {})

    return resume


FAULTS: Mapping[str, Callable[[House, str], Mend]] = {
    fault.__name__: fault
    for fault in (killed, ended, stopped, cut, deaf, mute, parted, lossy, drained)
}

LEAST_S: Mapping[str, float] = {"ended": GRACE_S}
"""Faults that last at least so long."""

STARTS: frozenset[str] = frozenset({"killed", "ended"})
"""Those after which the daemon starts anew, which takes it longer to be itself again."""
