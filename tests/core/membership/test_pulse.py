"""What is news about a load, and how often it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.pulse import Pulse, load_changed, moved
from protocol.load import LoadRecord
from tests.core.membership.builders import capacity, load

GIB = 2**30


@pytest.mark.parametrize(
    ("before", "after", "floor", "is_news"),
    [
        (0, 1, 0, True),
        (10, 11, 0, False),
        (10, 12, 0, True),
        (100.0, 89.0, 0, True),
        (100.0, 90.0, 0, False),
        (0.0, 0.04, 0.05, False),
        (0.0, 0.06, 0.05, True),
    ],
)
def test_a_number_moved_when_it_beats_ratio_and_floor(
    before: float, after: float, floor: float, is_news: bool
) -> None:
    """A tenth of the larger one, and more than the noise."""
    assert moved(before, after, 0.1, floor) is is_news


@pytest.mark.parametrize(
    ("after", "is_news"),
    [
        (load(), False),
        (load(sequence=9), False),
        (load(1), True),
        (load(pressure="warn"), True),
        (load(accepting=False), True),
        (load(draining=True), True),
        (load(memory_available_bytes=8 * GIB - 200 * 2**20), False),
        (load(memory_available_bytes=7 * GIB), True),
        (load(models=()), True),
        (load(models=(replace(load().models[0], warm=False),)), True),
        (load(models=(replace(load().models[0], backlog_s=0.02),)), False),
        (load(models=(replace(load().models[0], generation_tps=20.0),)), True),
        (load(prefix_digest=b"x"), False),
    ],
)
def test_what_counts_as_a_changed_load(after: LoadRecord, is_news: bool) -> None:
    """Flags, models that come or go, and numbers that moved; not noise, and not the digest."""
    assert load_changed(load(), after, 0.1) is is_news


def _pulse() -> Pulse:
    return Pulse(MembershipConfig(), capacity(9), load(sequence=9), now=0.0)


def test_records_are_numbered_here() -> None:
    """Whatever numbers the caller gives, peers see them grow from one."""
    pulse = _pulse()
    assert (pulse.capacity.version, pulse.sent.sequence) == (1, 1)
    pulse.report(load(3), 1.0)
    assert pulse.renew(1.0)
    assert pulse.heartbeat(5).load.sequence == 2


def test_news_is_due_at_once_but_not_more_than_four_times_a_second() -> None:
    """The first change goes out now, the next one a quarter of a second later."""
    pulse = _pulse()
    assert pulse.report(load(1), 10.0) == 10.0
    assert pulse.renew(10.0)
    assert pulse.report(load(2), 10.1) == 10.25


def test_noise_is_not_due_but_goes_out_in_the_end() -> None:
    """A small change waits for the refresh, and nothing at all is sent for no change."""
    pulse = _pulse()
    assert pulse.report(load(memory_available_bytes=8 * GIB - 1), 1.0) is None
    assert not pulse.renew(59.0)
    assert pulse.renew(60.0)
    assert not pulse.renew(60.0)


def test_a_beat_names_the_record_that_peers_hold() -> None:
    """While only noise differs, the short word vouches for the record sent."""
    pulse = _pulse()
    pulse.report(load(memory_available_bytes=8 * GIB - 1), 1.0)
    assert pulse.beat(5).load_sequence == pulse.heartbeat(5).load.sequence == 1
    assert pulse.load.sequence == 1


def test_a_capacity_that_says_nothing_new_is_not_news() -> None:
    """Versions grow with content, not with calls."""
    pulse = _pulse()
    assert not pulse.announce(capacity(77))
    assert pulse.announce(capacity(77, chip="another"))
    assert pulse.capacity_message().capacity.version == 2


def test_beats_go_round_in_a_large_mesh() -> None:
    """Fifty peers at a time, all of them in turn; a small mesh has no turns."""
    pulse = _pulse()
    assert [pulse.next_place(120) for _ in range(4)] == [0, 50, 100, 30]
    assert [pulse.next_place(10) for _ in range(2)] == [0, 0]
