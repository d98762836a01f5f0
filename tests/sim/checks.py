"""What must be true after every single step, whatever happens to the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshd.core.membership.table import GONE, LIVING

if TYPE_CHECKING:
    from tests.sim.shell import SimNode

Held = tuple[str, int]
"""State and incarnation that one node holds of another."""

AGENDA_PER_ROW = 16
LINKS_PER_ROW = 3
SPARE = 600
"""Alarms and links that do not belong to a row: errands, remembered probes, typed peers."""


class Checks:
    """Watches one mesh. Raises AssertionError naming the nodes."""

    def __init__(self, *, every_row: bool) -> None:
        self._every_row = every_row
        self._held: dict[tuple[int, str], Held] = {}
        """By the observing process (its boot id) and the node observed."""
        self._truth: dict[str, int] = {}
        self.on_death: Callable[[str, str], None] = lambda by, whom: None

    def after(self, node: SimNode) -> None:
        """Check one node after one input."""
        parts = node.machine._parts
        own = parts.owner.row
        me = node.who.node_id
        self._truth[me] = max(self._truth.get(me, 0), own.incarnation)
        assert own.state in {"alive", "left"}, f"{node.who.name} holds itself for {own.state}"
        if self._every_row:
            for row in parts.table.rows.values():
                self._check_row(node, row.node_id, (row.state, row.incarnation))
        self._check_bounds(node)

    def _check_row(self, observer: SimNode, subject: str, held: Held) -> None:
        before = self._held.get((observer.boot_id, subject))
        if before == held:
            return
        self._held[observer.boot_id, subject] = held
        state, incarnation = held
        what = f"{observer.who.name} of {subject[-4:]}: {before} -> {held}"
        truth = self._truth.get(subject, 0)
        assert incarnation <= truth, f"an incarnation nobody spoke, {what}, owner {truth}"
        if before is None:
            return
        assert incarnation >= before[1], f"incarnation went back, {what}"
        if before[0] in GONE and state in LIVING:
            assert incarnation > before[1], f"revived by somebody else, {what}"
        if state == "dead" and before[0] != "dead":
            self.on_death(observer.who.node_id, subject)

    def _check_bounds(self, node: SimNode) -> None:
        parts, config = node.machine._parts, node.mesh.config
        rows = len(parts.table.rows)
        assert rows <= config.members_max, "member table beyond its bound"
        assert len(parts.post.rumours) <= config.members_max, "more rumours than members"
        assert len(parts.links) <= LINKS_PER_ROW * rows + config.candidates_max, "too many links"
        assert len(parts.kit.agenda) <= AGENDA_PER_ROW * rows + SPARE, "too many alarms"
