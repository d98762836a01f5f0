"""Time and the network.

The network is TCP as membership sees it: connections that carry frames in order, whose losses show
up as delay (a retransmission after 0.2 s, doubling), that end with an event at the dialler when the
other process ends, and that time out after three seconds of a cut cable, as ZeroMQ's heartbeats do.
Above that it can be worse than TCP: frames may be dropped (a full queue), doubled and reordered.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

Action = Callable[[], None]

RTO_S = 0.2
"""TCP's shortest retransmission timeout on Linux."""

KEEPALIVE_S = 3.0
"""ZeroMQ's HEARTBEAT_TIMEOUT: how long a connection survives a cut."""


@dataclass(slots=True)
class Weather:
    """How good the network is now. Probabilities per frame."""

    latency_s: float = 0.0003
    jitter_s: float = 0.0004
    loss: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    reorder_s: float = 0.0
    """Frames overtake each other by up to this much; 0 keeps TCP's order."""


@dataclass(slots=True, eq=False)
class Connection:
    """One TCP connection: `caller` dialled `link` and reached `listener`."""

    caller: str
    listener: str
    link: str
    open: bool = True
    arrived: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    """When the last frame arrives, towards the listener (True) and back."""


class World:
    """The clock, the dice, and who can reach whom. Hosts are names; a port is part of a link."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.weather = Weather()
        self.steps = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._serial = 0
        self._cut: dict[tuple[str, str], None] = {}

    def after(self, delay_s: float, action: Action) -> None:
        """Do this later."""
        self._serial += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._serial, action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            self.steps += 1
            action()
        self.now = end

    def run_until(self, true: Callable[[], bool], most_s: float, every_s: float = 0.01) -> float:
        """Let time pass until something is true; how long that took. AssertionError when late."""
        start = self.now
        while not true():
            assert self.now - start < most_s, f"not within {most_s} s"
            self.run(every_s)
        return self.now - start

    # Cables

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Frames from one host to the other vanish from now on."""
        self._cut[source, target] = None
        if both:
            self._cut[target, source] = None

    def heal(self) -> None:
        """All cables are whole again."""
        self._cut.clear()

    def carries(self, source: str, target: str) -> bool:
        """Whether frames from one host reach the other."""
        return (source, target) not in self._cut

    def flight_s(self, connection: Connection, towards_listener: bool) -> float | None:
        """How long the next frame on this connection travels; None when it is lost for good."""
        weather, rng = self.weather, self.rng
        if weather.drop and rng.random() < weather.drop:
            return None
        flight = weather.latency_s + rng.random() * weather.jitter_s
        rto = RTO_S
        while weather.loss and rng.random() < weather.loss:
            flight += rto
            rto *= 2
        if weather.reorder_s:
            return flight + rng.random() * weather.reorder_s
        at = max(self.now + flight, connection.arrived[towards_listener])
        connection.arrived[towards_listener] = at
        return at - self.now
