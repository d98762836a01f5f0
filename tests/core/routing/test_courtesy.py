"""What is offered while the machine is needed for something else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.ports import HostReading
from meshd.core.routing.courtesy import Courtesy, offered_slots, share_of

CALM = HostReading(16 << 30, 8 << 30, "normal")
CHOSEN = Courtesy(on_battery="one", when_hot="half", when_used="full", under_pressure="half")


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, "full"),
        ({"on_battery": True}, "one"),
        ({"hot": True}, "half"),
        ({"owner_active": True}, "full"),
        ({"pressure": "warn"}, "half"),
        ({"pressure": "critical", "on_battery": True, "hot": True}, "one"),
        ({"owner_active": True, "hot": True}, "half"),
    ],
)
def test_the_smallest_share_of_all_causes_holds(changes: dict[str, object], share: str) -> None:
    """Each cause has a share that the owner chose."""
    assert share_of(replace(CALM, **changes), CHOSEN) == share


@pytest.mark.parametrize(
    ("slots", "share", "offered"),
    [(4, "full", 4), (4, "half", 2), (5, "half", 2), (1, "half", 1), (4, "one", 1), (0, "full", 1)],
)
def test_one_slot_is_always_left(slots: int, share: str, offered: int) -> None:
    """A node that nobody may use should be drained."""
    assert offered_slots(slots, share) == offered
