"""Claims of meshd.engine.crashes."""

from __future__ import annotations

from meshd.engine.crashes import PAUSE_FIRST_S, WINDOW_S, CrashRecord


def test_each_crash_waits_longer_and_the_third_is_the_last():
    """Twice another chance, then set aside."""
    record = CrashRecord()
    pauses = [record.crashed(now) for now in (1.0, 2.0, 3.0)]
    assert pauses == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, None]


def test_crashes_far_apart_are_unrelated():
    """A model that falls over once a day goes on."""
    record = CrashRecord()
    pauses = [record.crashed(day * (WINDOW_S + 1.0)) for day in range(5)]
    assert pauses == [PAUSE_FIRST_S] * 5


def test_a_person_may_ask_for_another_try():
    """Clearing forgets what was."""
    record = CrashRecord()
    record.crashed(1.0)
    record.crashed(1.0)
    record.clear()
    assert record.crashed(1.0) == PAUSE_FIRST_S
