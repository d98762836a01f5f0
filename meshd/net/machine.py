"""The membership machine as the mesh thread drives it.

The machine itself is `meshd.core.membership.machine.Membership`. The thread needs no more of it
than this, and a test may drive something smaller. Times are monotonic seconds of this process;
every call returns effects to be carried out in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from meshd.core.effects import Effect
from meshd.core.membership.member import MeshView
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import ControlMessage, Endpoint

Letter = Callable[[float], Sequence[Effect]]
"""Something to ask of the machine; called in the mesh thread with the time."""


class Machine(Protocol):
    """See `meshd.core.membership.machine` for what each call means."""

    def receive(  # noqa: PLR0917
        self,
        sender: str,
        boot_id: int,
        sequence: int,
        message: ControlMessage,
        now: float,
        link: str | None = None,
    ) -> Sequence[Effect]: ...

    def candidate(
        self, link: str, now: float, *, node_id: str | None = None, typed: bool = False
    ) -> Sequence[Effect]: ...

    def link_up(self, link: str, now: float, host: str = "") -> Sequence[Effect]: ...

    def link_down(self, link: str, cause: str, now: float) -> Sequence[Effect]: ...

    def relay_heard(self, node_id: str, now: float) -> Sequence[Effect]: ...

    def relay_failed(self, node_id: str, cause: str, now: float) -> Sequence[Effect]: ...

    def report(self, load: LoadRecord, now: float) -> Sequence[Effect]: ...

    def announce(self, capacity: CapacityRecord, now: float) -> Sequence[Effect]: ...

    def evict(self, node_ids: Collection[str], now: float) -> Sequence[Effect]: ...

    def start_over(self, now: float) -> Sequence[Effect]: ...

    def readdress(self, endpoints: tuple[Endpoint, ...], now: float) -> Sequence[Effect]: ...

    def woke(self, now: float) -> Sequence[Effect]: ...

    def leave(self, now: float) -> Sequence[Effect]: ...

    def tick(self, now: float) -> Sequence[Effect]: ...

    def deadline(self) -> float: ...

    def view(self) -> MeshView: ...

    def remembered(self) -> tuple[str, ...]: ...
