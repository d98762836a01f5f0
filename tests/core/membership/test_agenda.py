"""Alarms ring once, in order, and cost no more memory than there are keys."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.membership.agenda import SLACK, Agenda


def test_an_empty_agenda_never_rings() -> None:
    """With nothing set the next alarm is infinitely far."""
    agenda = Agenda()
    assert agenda.next() == math.inf
    assert agenda.pop(1e9) is None


def test_alarms_ring_when_due_and_once() -> None:
    """An alarm is not taken before its time, and not twice."""
    agenda = Agenda()
    agenda.set(("probe", "a"), 2.0)
    assert agenda.pop(1.9) is None
    assert agenda.pop(2.0) == ("probe", "a")
    assert agenda.pop(2.0) is None
    assert len(agenda) == 0


def test_setting_again_moves_the_alarm() -> None:
    """The last time set is the only one that counts."""
    agenda = Agenda()
    agenda.set(("probe", "a"), 2.0)
    agenda.set(("probe", "a"), 5.0)
    assert agenda.at(("probe", "a")) == 5.0
    assert agenda.next() == 5.0


def test_a_cancelled_alarm_does_not_ring() -> None:
    """Cancelling is silent, whether or not the alarm was set."""
    agenda = Agenda()
    agenda.set(("probe", "a"), 2.0)
    agenda.cancel(("probe", "a"))
    agenda.cancel(("probe", "b"))
    assert agenda.at(("probe", "a")) is None
    assert agenda.next() == math.inf


def test_equal_times_ring_in_the_order_they_were_set() -> None:
    """Replays depend on it."""
    agenda = Agenda()
    for whom in "cab":
        agenda.set(("probe", whom), 1.0)
    assert [agenda.pop(1.0) for _ in range(3)] == [("probe", w) for w in "cab"]


def test_delay_moves_only_the_kinds_it_names() -> None:
    """Timers that judge others are put back, the rest keep their time."""
    agenda = Agenda()
    agenda.set(("ack", "a"), 1.0)
    agenda.set(("beat", ""), 2.0)
    agenda.delay({"ack"}, 5.0)
    assert agenda.at(("ack", "a")) == 6.0
    assert agenda.next() == 2.0


def test_memory_is_bounded_by_the_keys() -> None:
    """An alarm that is set a million times leaves no million entries behind."""
    agenda = Agenda()
    for at in range(10_000):
        agenda.set(("probe", "a"), float(at))
    assert len(agenda._heap) <= 2 * len(agenda) + SLACK + 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=60))
def test_it_behaves_as_a_sorted_list_would(settings: list[tuple[str, int]]) -> None:
    """Whatever is set and reset, alarms come out by time."""
    agenda, model = Agenda(), dict[str, int]()
    for whom, at in settings:
        agenda.set(("x", whom), float(at))
        model[whom] = at
    rung = []
    while (key := agenda.pop(math.inf)) is not None:
        rung.append(model[key[1]])
    assert rung == sorted(model.values())


def test_random_use_never_rings_early() -> None:
    """Mixed setting, cancelling and popping keeps the order of time."""
    agenda, rng, now = Agenda(), Random(3), 0.0
    for _ in range(2_000):
        key = ("x", str(rng.randrange(20)))
        agenda.set(key, now + rng.random())
        agenda.cancel(("x", str(rng.randrange(20))))
        now += rng.random() * 0.1
        agenda.pop(now)
        assert agenda.next() >= 0.0
    assert len(agenda) <= 20
