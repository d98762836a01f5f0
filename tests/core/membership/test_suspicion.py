"""How long a suspect has, row by row."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.suspicion import (
    ACCUSERS_MAX,
    begin_suspicion,
    suspicion_floor_s,
    suspicion_timeout_s,
)

CONFIG = MembershipConfig()


@pytest.mark.parametrize(
    ("nodes", "floor_s"),
    [(2, 1.2), (3, 1.2), (4, 0.6), (10, 0.6), (30, 0.8863), (100, 1.2), (1_000, 1.8)],
)
def test_the_floor_grows_with_the_logarithm_and_doubles_in_small_meshes(
    nodes: int, floor_s: float
) -> None:
    """2.4 x max(1, log10 N) x 250 ms, twice that up to three nodes."""
    assert suspicion_floor_s(nodes, CONFIG) == pytest.approx(floor_s, abs=1e-4)


@pytest.mark.parametrize(
    ("confirmations", "expected", "timeout_s"),
    [
        (0, 2, 4.5),
        (1, 2, 2.1341),
        (2, 2, 0.75),
        (0, 3, 4.5),
        (1, 3, 2.625),
        (2, 3, 1.5281),
        (3, 3, 0.75),
        (0, 0, 0.75),
    ],
)
def test_each_confirmation_shortens_the_wait_by_less(
    confirmations: int, expected: int, timeout_s: float
) -> None:
    """Lifeguard's formula between a maximum of 4.5 s and a floor of 0.75 s."""
    got = suspicion_timeout_s(confirmations, expected, 0.75, 4.5)
    assert got == pytest.approx(timeout_s, abs=1e-4)


def test_the_wait_never_falls_below_the_floor() -> None:
    """More confirmations than expected change nothing."""
    assert suspicion_timeout_s(9, 2, 0.75, 4.5) == 0.75


def test_a_lone_accuser_waits_the_maximum() -> None:
    """Its word alone may be that of the sick one."""
    suspicion = begin_suspicion(10, 1, 0.0, CONFIG)
    assert suspicion.accuse("a")
    assert suspicion.verdict_at == pytest.approx(3.6)


def test_independent_accusers_bring_the_verdict_to_the_floor() -> None:
    """Two more voices are enough; the same voice twice is one."""
    suspicion = begin_suspicion(10, 1, 0.0, CONFIG)
    assert [suspicion.accuse(who) for who in "aabca"] == [True, False, True, True, False]
    assert suspicion.verdict_at == pytest.approx(0.6)


def test_voices_beyond_the_expected_ones_are_no_news() -> None:
    """They are remembered, so as not to be counted again, but not passed on."""
    suspicion = begin_suspicion(10, 1, 0.0, CONFIG)
    news = [suspicion.accuse(str(who)) for who in range(20)]
    assert news == [True] * 3 + [False] * 17
    assert len(suspicion.accusers) == ACCUSERS_MAX


@pytest.mark.parametrize(("nodes", "repeats"), [(2, 2), (3, 1), (4, 0), (10, 0)])
def test_own_repeated_probes_stand_in_only_for_missing_others(nodes: int, repeats: int) -> None:
    """At two nodes nobody else can confirm, at three one can, above that the others must."""
    suspicion = begin_suspicion(nodes, 1, 0.0, CONFIG)
    suspicion.accuse("me")
    for _ in range(5):
        suspicion.repeat()
    assert suspicion.confirmations == repeats


def test_bad_health_stretches_the_whole_suspicion() -> None:
    """A node that knows it is slow gives others more time."""
    suspicion = begin_suspicion(10, 3, 0.0, CONFIG)
    assert suspicion.verdict_at == pytest.approx(10.8)
    for who in "abc":
        suspicion.accuse(who)
    assert suspicion.verdict_at == pytest.approx(1.8)


def test_another_node_s_verdict_brings_ours_to_the_plain_floor() -> None:
    """Its wait is over already, and our own health has no part in what it has seen."""
    suspicion = begin_suspicion(10, 3, 0.0, CONFIG)
    suspicion.convict()
    assert suspicion.verdict_at == pytest.approx(0.6)
