"""Claims of meshd.engine.scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.scheduler import SHARE_MIN_TOKENS, Placement, Row, Scheduler, common_prefix


def begin(scheduler: Scheduler, key: int, prompt: list[int], **options) -> Placement:
    """Submit a turn and place it."""
    scheduler.submit(key, prompt, **options)
    (placement,) = scheduler.place()
    return placement


def step(scheduler: Scheduler) -> list[Row]:
    """One pass; every output samples token 7."""
    rows = scheduler.plan()
    scheduler.ran(rows)
    for row in rows:
        if row.wants_output:
            scheduler.sampled(row.slot, 7)
    return rows


def test_nothing_to_do_is_idle():
    """An empty scheduler plans nothing, so its owner can sleep."""
    scheduler = Scheduler(2, 32)
    assert scheduler.is_idle
    assert scheduler.plan() == []


def test_a_prompt_is_read_in_pieces_and_sampled_at_its_end():
    """Only the last piece wants an output."""
    scheduler = Scheduler(1, 4)
    begin(scheduler, 1, [1, 2, 3, 4, 5, 6])
    assert step(scheduler) == [Row(0, [1, 2, 3, 4], 0, wants_output=False)]
    assert step(scheduler) == [Row(0, [5, 6], 4, wants_output=True)]
    assert step(scheduler) == [Row(0, (7,), 6, wants_output=True)]


def test_a_generating_turn_takes_part_in_every_pass():
    """A long prompt never freezes somebody's stream."""
    scheduler = Scheduler(2, 4)
    begin(scheduler, 1, [1])
    step(scheduler)
    begin(scheduler, 2, list(range(40)))
    passes = [step(scheduler) for _ in range(8)]
    assert all(rows[0] == Row(0, (7,), 1 + at, wants_output=True) for at, rows in enumerate(passes))


def test_prompts_share_a_pass():
    """Equally, and what the shorter one leaves goes to the longer one."""
    scheduler = Scheduler(2, 8)
    begin(scheduler, 1, list(range(100)))
    begin(scheduler, 2, [1] * 5)
    rows = scheduler.plan()
    assert [(row.slot, len(row.tokens)) for row in rows] == [(1, 4), (0, 4)]


def test_a_short_prompt_is_read_alone_but_not_twice_in_a_row():
    """Its first word comes soon, and a flood of them does not hold up the long one."""
    scheduler = Scheduler(2, 8)
    begin(scheduler, 1, list(range(100)))
    begin(scheduler, 2, [1, 2])
    assert [(row.slot, len(row.tokens)) for row in step(scheduler)] == [(1, 2)]
    scheduler.finish(1)
    begin(scheduler, 3, [3, 4])
    assert [(row.slot, len(row.tokens)) for row in step(scheduler)] == [(1, 2), (0, 6)]


def test_turns_start_in_order_of_arrival():
    """First come, first served."""
    scheduler = Scheduler(1, 8)
    for key in (5, 6, 7):
        scheduler.submit(key, [key])
    order = []
    for _ in range(3):
        (placement,) = scheduler.place()
        order.append(placement.key)
        scheduler.finish(placement.slot)
    assert order == [5, 6, 7]


def test_a_turn_continues_where_the_last_one_left():
    """The second turn of a conversation reads only what is new."""
    scheduler = Scheduler(2, 32)
    first = begin(scheduler, 1, [1, 2, 3])
    step(scheduler)
    step(scheduler)
    scheduler.finish(first.slot)
    second = begin(scheduler, 2, [1, 2, 3, 7, 8, 9])
    assert (second.slot, second.reused) == (first.slot, 4)
    assert scheduler.plan() == [Row(0, [8, 9], 4, wants_output=True)]


def test_a_long_beginning_is_copied_from_another_slot():
    """Even while that one runs; the copy is the new slot's to change."""
    scheduler = Scheduler(2, 1_000)
    shared = list(range(SHARE_MIN_TOKENS))
    begin(scheduler, 1, [*shared, 5])
    step(scheduler)
    placement = begin(scheduler, 2, [*shared, 6, 6])
    assert placement == Placement(2, 1, SHARE_MIN_TOKENS, source=0)
    assert scheduler.plan()[-1] == Row(1, [6, 6], SHARE_MIN_TOKENS, wants_output=True)
    step(scheduler)
    scheduler.finish(0)
    assert begin(scheduler, 3, [*shared, 5, 7, 8]).slot == 0


def test_a_short_beginning_is_not_worth_a_copy():
    """Reading it costs less."""
    scheduler = Scheduler(2, 1_000)
    shared = list(range(SHARE_MIN_TOKENS - 1))
    begin(scheduler, 1, [*shared, 5])
    step(scheduler)
    assert begin(scheduler, 2, [*shared, 6]) == Placement(2, 1, 0)


def test_the_last_prompt_token_is_always_read_again():
    """Its output is where the answer begins."""
    scheduler = Scheduler(1, 32)
    begin(scheduler, 1, [1, 2, 3])
    step(scheduler)
    scheduler.finish(0)
    assert begin(scheduler, 2, [1, 2, 3]).reused == 2


def test_a_turn_may_refuse_what_a_slot_holds():
    """Reproducible answers read their prompt anew."""
    scheduler = Scheduler(1, 32)
    begin(scheduler, 1, [1, 2, 3])
    step(scheduler)
    scheduler.finish(0)
    assert begin(scheduler, 2, [1, 2, 3], reuse=False).reused == 0


def test_a_shared_greeting_does_not_wipe_out_a_long_conversation():
    """A small common beginning is no reason to take a slot that holds much more."""
    scheduler = Scheduler(2, 64)
    begin(scheduler, 1, list(range(60)))
    step(scheduler)
    scheduler.finish(0)
    assert begin(scheduler, 2, [0, 1, *range(100, 140)]).slot == 1


def test_the_slot_that_was_idle_longest_goes_first():
    """When nothing is shared and nothing is empty."""
    scheduler = Scheduler(2, 32)
    begin(scheduler, 1, [1] * 9)
    begin(scheduler, 2, [2] * 9)
    step(scheduler)
    scheduler.finish(1)
    scheduler.finish(0)
    assert begin(scheduler, 3, [3] * 9).slot == 1


def test_cancelling_a_running_turn_frees_its_slot_at_once():
    """The waiting turn takes it before the next pass."""
    scheduler = Scheduler(1, 32)
    begin(scheduler, 1, [1, 2])
    scheduler.submit(2, [3])
    assert scheduler.cancel(1) == 0
    assert [placement.key for placement in scheduler.place()] == [2]


def test_cancelling_a_waiting_turn_forgets_it():
    """It never starts, and no slot changes."""
    scheduler = Scheduler(1, 32)
    begin(scheduler, 1, [1])
    scheduler.submit(2, [2])
    assert scheduler.cancel(2) is None
    scheduler.finish(0)
    assert scheduler.is_idle


def test_cancelling_an_unknown_turn_does_nothing():
    """It may have finished while the word was under way."""
    assert Scheduler(1, 32).cancel(99) is None


def test_a_slot_that_lost_its_memory_reads_the_prompt_from_the_start():
    """Some models cannot forget a part; then everything is read."""
    scheduler = Scheduler(1, 32)
    begin(scheduler, 1, [1, 2, 3])
    step(scheduler)
    scheduler.finish(0)
    begin(scheduler, 2, [1, 2, 3, 4])
    scheduler.forget_all()
    assert scheduler.plan() == [Row(0, [1, 2, 3, 4], 0, wants_output=True)]


def test_a_turn_counts_on_no_slot_that_has_just_lost_its_memory():
    """Two that begin alike come together where a model cannot forget a part: what the first one
    could not keep is not there to be copied for the second."""
    scheduler = Scheduler(2, 1_000)
    shared = list(range(SHARE_MIN_TOKENS + 1))
    begin(scheduler, 1, [*shared, 5])
    step(scheduler)
    scheduler.finish(0)
    for key in (2, 3):
        scheduler.submit(key, shared)
    placements = scheduler.place()
    assert next(placements) == Placement(2, 0, SHARE_MIN_TOKENS)
    scheduler.forget(0)
    assert next(placements) == Placement(3, 1, 0)


def test_a_turn_without_tokens_is_our_own_mistake():
    """Callers refuse empty prompts before they come here."""
    with pytest.raises(AssertionError):
        Scheduler(1, 32).submit(1, [])


@given(
    prompts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), max_size=12),
    slots=st.integers(1, 4),
    budget=st.integers(4, 16),
)
def test_every_prompt_is_read_once_in_order_within_the_budget(prompts, slots, budget):
    """Whatever arrives: positions have no gaps, passes keep their bound, and all turns end."""
    scheduler = Scheduler(slots, budget)
    for key, prompt in enumerate(prompts):
        scheduler.submit(key, prompt)
    held: dict[int, list[int]] = {slot: [] for slot in range(slots)}
    keys: dict[int, int] = {}
    while not scheduler.is_idle:
        for placement in scheduler.place():
            keys[placement.slot] = placement.key
            del held[placement.slot][placement.reused :]
        rows = scheduler.plan()
        assert 0 < sum(len(row.tokens) for row in rows) <= budget
        scheduler.ran(rows)
        for row in rows:
            assert row.position == len(held[row.slot])
            held[row.slot].extend(row.tokens)
            if row.wants_output:
                assert held[row.slot] == prompts[keys[row.slot]]
                scheduler.finish(row.slot)


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix_is_the_longest_one(left, right):
    """Equal up to there, different after."""
    size = common_prefix(left, right)
    assert left[:size] == right[:size]
    assert size == min(len(left), len(right)) or left[size] != right[size]
