"""One row of the member table, and the immutable view of the whole that the router reads.

Times are this node's own monotonic seconds; nothing in a view is a sender's clock. A view is
swapped in whole, so a reader never waits and never sees half a change.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.frozen import frozen
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import Endpoint


@frozen
class Member:
    """What this node holds of one node (itself included)."""

    node_id: str
    name: str
    public_key: str
    state: str
    """alive, suspect, dead or left."""
    incarnation: int
    boot_id: int
    endpoints: tuple[Endpoint, ...]
    """Every address the node advertises, best first."""
    address: Endpoint | None
    """The one in use from here, None when none has answered (or for this node itself)."""
    capacity: CapacityRecord | None
    load: LoadRecord | None
    load_at: float
    """When `load` was received (monotonic s)."""
    heard_at: float
    """When the node was last heard directly (monotonic s)."""
    changed_at: float
    """When `state` last changed (monotonic s)."""
    reason: str
    """Why it did, for people."""
    rtt_s: float | None
    """Smoothed control round trip, None until measured."""

    @property
    def routable(self) -> bool:
        """Alive, and known well enough to be given work."""
        return self.state == "alive" and self.load is not None and self.capacity is not None


@frozen
class MeshView:
    """Everybody this node knows, itself included."""

    self_id: str
    members: Mapping[str, Member]
    version: int

    @property
    def myself(self) -> Member:
        return self.members[self.self_id]
