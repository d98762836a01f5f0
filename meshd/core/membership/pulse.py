"""What this node says of itself, and how often.

Heartbeats go straight to every peer, up to fifty of them; in a larger mesh each beat goes to the
next fifty, so the cost per node stays and the period grows. A load that changed by more than a
tenth goes out at once, but at most four times a second. An unchanged load is not repeated: each
probe and each answer to one names the record that still holds, a `Beat` does where no probe came
by for a while, and a receiver that missed the record asks for it. That is repair, and may be rare:
life is proven by probes.

What counts as changed: any flag, any model that came, went or turned warm, and any number that
moved by more than the ratio and by more than its floor. The floors keep small noise quiet: one
percent of memory is not news, and neither is a backlog of 20 ms.
"""

from __future__ import annotations

import dataclasses

from meshd.core.membership.config import MembershipConfig
from protocol.load import CapacityRecord, LoadRecord, ModelLoad
from protocol.messages import Beat, Capacity, Heartbeat

FLAGS = ("pressure", "accepting", "on_battery", "hot", "owner_active", "draining")
FLOORS: dict[str, float] = {
    "in_flight": 0.0,
    "queued": 0.0,
    "memory_available_bytes": 256 * 1024**2,
    "reserved_bytes": 0.0,
    "loop_lag_s": 0.05,
    "error_ratio": 0.02,
}
"""Numbers of a load record, and the change that is too small to matter."""

MODEL_FLAGS = ("model_id", "warm", "slots")
MODEL_FLOORS: dict[str, float] = {
    "in_flight": 0.0,
    "queued": 0.0,
    "backlog_s": 0.05,
    "prompt_tps": 1.0,
    "generation_tps": 0.5,
    "load_s": 0.05,
}
"""The same for each model's part."""


def moved(before: float, after: float, ratio: float, floor: float) -> bool:
    """Whether a number changed by more than the floor and more than the ratio of the larger."""
    change = abs(after - before)
    return change > floor and change > ratio * max(abs(before), abs(after))


def load_changed(before: LoadRecord, after: LoadRecord, ratio: float) -> bool:
    """Whether the difference between two records is worth a message of its own."""
    if len(before.models) != len(after.models):
        return True
    if _differs(before, after, FLAGS, FLOORS, ratio):
        return True
    return any(
        _differs(one, other, MODEL_FLAGS, MODEL_FLOORS, ratio)
        for one, other in zip(before.models, after.models, strict=True)
    )


def _differs(
    before: LoadRecord | ModelLoad,
    after: LoadRecord | ModelLoad,
    flags: tuple[str, ...],
    floors: dict[str, float],
    ratio: float,
) -> bool:
    if any(getattr(before, flag) != getattr(after, flag) for flag in flags):
        return True
    return any(
        moved(getattr(before, name), getattr(after, name), ratio, floor)
        for name, floor in floors.items()
    )


class Pulse:
    """This node's load and capacity, and when they are due. Stamps both with growing numbers."""

    def __init__(
        self, config: MembershipConfig, capacity: CapacityRecord, load: LoadRecord, now: float
    ) -> None:
        self._config = config
        self._place = 0
        self.capacity = dataclasses.replace(capacity, version=1)
        self.load = dataclasses.replace(load, sequence=1)
        """The newest reading, under the number of the record that peers hold."""
        self.sent = self.load
        """The record that peers hold."""
        self._sent_at = now

    def announce(self, capacity: CapacityRecord) -> bool:
        """Take a new capacity record; whether it says anything new."""
        capacity = dataclasses.replace(capacity, version=self.capacity.version)
        if capacity == self.capacity:
            return False
        self.capacity = dataclasses.replace(capacity, version=capacity.version + 1)
        return True

    def report(self, load: LoadRecord, now: float) -> float | None:
        """Take a new reading; when it should go out, None if with a later beat."""
        self.load = dataclasses.replace(load, sequence=self.sent.sequence)
        if not load_changed(self.sent, self.load, self._config.load_change_ratio):
            return None
        return max(now, self._sent_at + self._config.load_interval_s)

    def renew(self, now: float) -> bool:
        """Decide whether this beat carries the load; the record to send is then `sent`."""
        ratio, old = self._config.load_change_ratio, now - self._sent_at
        stale = self.load != self.sent and old >= self._config.load_refresh_s
        if not stale and not load_changed(self.sent, self.load, ratio):
            return False
        self.load = self.sent = dataclasses.replace(self.load, sequence=self.sent.sequence + 1)
        self._sent_at = now
        return True

    def heartbeat(self, incarnation: int) -> Heartbeat:
        """The full record."""
        return Heartbeat(incarnation, self.capacity.version, self.sent)

    def beat(self, incarnation: int) -> Beat:
        """The short word that it still holds."""
        return Beat(incarnation, self.capacity.version, self.sent.sequence)

    def capacity_message(self) -> Capacity:
        """What this machine is and offers."""
        return Capacity(self.capacity)

    def next_place(self, peers: int) -> int:
        """Where in the roll of peers this beat starts."""
        most = self._config.straight_peers
        place = self._place if peers > most else 0
        self._place = (place + most) % max(1, peers)
        return place
