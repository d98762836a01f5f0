"""Waiting longer each time, but never for ever, and never in step."""

from __future__ import annotations

from random import Random

import pytest

from meshd.core.membership.backoff import Slots, redial_wait_s
from meshd.core.membership.config import MembershipConfig

CONFIG = MembershipConfig(redial_jitter_ratio=0.0)


@pytest.mark.parametrize(
    ("failures", "failing_s", "wait_s"),
    [
        (0, 0.0, 0.25),
        (1, 0.0, 0.25),
        (2, 0.3, 0.5),
        (3, 1.0, 1.0),
        (4, 2.0, 2.0),
        (9, 60.0, 2.0),
        (10_000, 599.0, 2.0),
        (10_000, 601.0, 15.0),
    ],
)
def test_waits_double_to_two_seconds_and_rest_after_ten_minutes(
    failures: int, failing_s: float, wait_s: float
) -> None:
    """The table of the module's head, row by row."""
    assert redial_wait_s(failures, failing_s, Random(1), CONFIG) == wait_s


def test_waits_are_spread() -> None:
    """Two nodes that failed together do not try again together."""
    rng = Random(1)
    waits = {redial_wait_s(4, 1.0, rng, MembershipConfig()) for _ in range(20)}
    assert len(waits) == 20
    assert all(1.6 <= wait_s <= 2.4 for wait_s in waits)


def test_slots_keep_their_distance() -> None:
    """Times wanted at once come out one after the other; a free one comes at once."""
    slots = Slots(0.2)
    assert [slots.next(1.0), slots.next(1.0), slots.next(5.0)] == [1.0, 1.2, 5.0]
