"""The member table: one row per node, and the immutable view made from the rows.

A row is what this node holds of another, changed in place; a view is what everybody else in the
daemon sees, swapped in whole. Only rows that changed since the last view are made into new
`Member`s, so a view costs little when little happened.

Rows of the dead and the left stay as tombstones until they expire. The table is bounded: when it is
full a newcomer takes the place of the oldest tombstone, or is turned away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType

from meshd.core.membership.member import Member, MeshView
from meshd.core.membership.replay import ReplayWindow
from meshd.core.membership.roll import Roll
from protocol.frozen import frozen
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import Endpoint, Update

LIVING = frozenset({"alive", "suspect"})
GONE = frozenset({"dead", "left"})

PAST_BOOTS_MAX = 4
"""Earlier runs of a node that are remembered, so that one that comes back is known for a clone."""

DISPROVED_MAX = 8
"""Refuted accusers remembered per node: well above those whose confirmation counts."""


@dataclass(slots=True)
class Row:
    """What is held of one node. Times are this node's monotonic seconds."""

    node_id: str
    name: str
    public_key: str
    state: str
    incarnation: int
    boot_id: int
    endpoints: tuple[Endpoint, ...]
    changed_at: float
    reason: str
    accuser: str | None = None
    address: Endpoint | None = None
    capacity: CapacityRecord | None = None
    load: LoadRecord | None = None
    load_at: float = 0.0
    heard_at: float = 0.0
    rtt_s: float | None = None
    window: ReplayWindow | None = None
    """Frames of the current run, None until the first arrives."""
    past_boots: tuple[int, ...] = ()
    quarantine_until: float = 0.0
    believed: bool = True
    """False after a wake, until an answer shows that what arrives is not from before it."""
    disproved: dict[str, float] = field(default_factory=dict)
    """Accusers at this incarnation whose word direct contact has since refuted, and when."""
    beat_at: float = float("-inf")
    """When the node last got a heartbeat of ours."""
    told_at: float = float("-inf")
    asked_at: float = float("-inf")
    pulled_at: float = float("-inf")

    def claim(self) -> Update:
        """What this node would tell another about the row."""
        return Update(
            self.node_id,
            self.state,
            self.incarnation,
            self.boot_id,
            self.name,
            self.public_key,
            self.endpoints,
            self.accuser,
        )

    def describe(self, claim: Update) -> None:
        """Take over what the owner said of itself at the claim's incarnation."""
        self.name = claim.name
        self.public_key = claim.public_key
        self.endpoints = claim.endpoints
        self.incarnation = claim.incarnation

    def disprove(self, accusers: Iterable[str], now: float) -> None:
        """The node was heard from: what was said of it until now was wrong."""
        for accuser in accusers:
            self.disproved.pop(accuser, None)
            self.disproved[accuser] = now
        while len(self.disproved) > DISPROVED_MAX:
            del self.disproved[next(iter(self.disproved))]

    def new_run(self, boot_id: int) -> None:
        """The node has restarted: nothing that its last run said of itself holds any more."""
        self.past_boots = (*self.past_boots, self.boot_id)[-PAST_BOOTS_MAX:]
        self.boot_id = boot_id
        self.window = None
        self.capacity = None
        self.load = None

    def member(self) -> Member:
        """The row as everybody else sees it."""
        return Member(
            node_id=self.node_id,
            name=self.name,
            public_key=self.public_key,
            state=self.state,
            incarnation=self.incarnation,
            boot_id=self.boot_id,
            endpoints=self.endpoints,
            address=self.address,
            capacity=self.capacity,
            load=self.load,
            load_at=self.load_at,
            heard_at=self.heard_at,
            changed_at=self.changed_at,
            reason=self.reason,
            rtt_s=self.rtt_s,
        )


@frozen
class Change:
    """A row went from one state to another; `before` is None for a new row."""

    row: Row
    before: str | None


def row_from(claim: Update, now: float, reason: str) -> Row:
    """A row for a node heard of for the first time."""
    return Row(
        node_id=claim.node_id,
        name=claim.name,
        public_key=claim.public_key,
        state=claim.state,
        incarnation=claim.incarnation,
        boot_id=claim.boot_id,
        endpoints=claim.endpoints,
        changed_at=now,
        reason=reason,
        accuser=claim.accuser,
    )


@dataclass(slots=True)
class Table:
    """All rows, this node's own included, under `rows[self_id]`."""

    self_id: str
    members_max: int
    rows: dict[str, Row] = field(default_factory=dict)
    peers: Roll = field(default_factory=Roll)
    """Everybody but this node who is alive or suspect."""
    suspects: dict[str, None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    """State changes that the machine has not yet acted on; emptied within each input."""
    dropped: list[str] = field(default_factory=list)
    """Nodes whose rows are gone, likewise."""
    _dirty: dict[str, None] = field(default_factory=dict)
    _members: dict[str, Member] = field(default_factory=dict)
    _view: MeshView | None = None

    @property
    def nodes(self) -> int:
        """Living nodes, this one included."""
        return len(self.peers) + 1

    @property
    def stale(self) -> bool:
        """Whether `view()` would differ from the last one."""
        return bool(self._dirty)

    def add(self, row: Row) -> bool:
        """Take a new row in; False when the table is full of living nodes."""
        if len(self.rows) >= self.members_max and not self._make_room():
            return False
        self.rows[row.node_id] = row
        self._file(row)
        self.changes.append(Change(row, None))
        return True

    def move(self, row: Row, state: str, reason: str, now: float) -> None:
        """Change a row's state, and say why."""
        before = row.state
        row.state, row.reason, row.changed_at = state, reason, now
        self._file(row)
        self.changes.append(Change(row, before))

    def drop(self, node_id: str) -> None:
        """Forget a row."""
        del self.rows[node_id]
        self.peers.discard(node_id)
        self.suspects.pop(node_id, None)
        self.dropped.append(node_id)
        self._dirty[node_id] = None

    def touch(self, row: Row) -> None:
        """Something of the row changed that a view shows."""
        self._dirty[row.node_id] = None

    def view(self) -> MeshView:
        """The whole table now; the same object as before when nothing changed."""
        if self._view is None or self._dirty:
            for node_id in self._dirty:
                row = self.rows.get(node_id)
                if row is None:
                    self._members.pop(node_id, None)
                else:
                    self._members[node_id] = row.member()
            self._dirty.clear()
            version = 1 if self._view is None else self._view.version + 1
            self._view = MeshView(self.self_id, MappingProxyType(dict(self._members)), version)
        return self._view

    def _file(self, row: Row) -> None:
        self._dirty[row.node_id] = None
        if row.node_id != self.self_id and row.state in LIVING:
            self.peers.add(row.node_id)
        else:
            self.peers.discard(row.node_id)
        if row.state == "suspect":
            self.suspects[row.node_id] = None
        else:
            self.suspects.pop(row.node_id, None)

    def _make_room(self) -> bool:
        tombstones = [row for row in self.rows.values() if row.state in GONE]
        if not tombstones:
            return False
        self.drop(min(tombstones, key=lambda row: row.changed_at).node_id)
        return True
