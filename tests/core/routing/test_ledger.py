"""Leases: never lost, never counted twice, never below zero."""

from meshd.core.routing import ledger as rules
from meshd.core.routing.ledger import NOTHING, Ledger, Outstanding


def test_a_lease_counts_until_a_newer_record_arrives():
    """After that the node itself accounts for the work."""
    ledger = Ledger()
    ledger.take("a", "m", 3.0, now=10.0)
    ledger.take("a", "m", 4.0, now=11.0)
    assert ledger.outstanding("a", "m", since=9.0) == Outstanding(2, 7.0)
    assert ledger.outstanding("a", "m", since=10.0) == Outstanding(1, 4.0)
    assert ledger.outstanding("a", "m", since=11.0) == NOTHING


def test_leases_are_kept_apart_by_node_and_model():
    """Another model's queue is not this one's."""
    ledger = Ledger()
    ledger.take("a", "m", 3.0, now=1.0)
    assert ledger.outstanding("a", "other", since=0.0).jobs == 0
    assert ledger.outstanding("b", "m", since=0.0).jobs == 0


def test_releasing_twice_is_harmless():
    """The second release finds nothing to subtract."""
    ledger = Ledger()
    lease = ledger.take("a", "m", 3.0, now=1.0)
    keeps = ledger.take("a", "m", 3.0, now=1.0)
    ledger.release(lease)
    ledger.release(lease)
    assert ledger.in_flight("a") == 1
    ledger.release(keeps)
    assert ledger.in_flight("a") == 0
    assert len(ledger) == 0


def test_a_forgotten_lease_expires():
    """It can mislead the router for LEASE_S, not for ever."""
    ledger = Ledger()
    ledger.take("a", "m", 3.0, now=0.0)
    ledger.take("b", "m", 3.0, now=rules.LEASE_S)
    assert ledger.in_flight("a") == 0
    assert ledger.in_flight("b") == 1


def test_the_ledger_is_bounded():
    """The oldest lease gives way."""
    ledger = Ledger()
    for _ in range(rules.LEASES_MAX + 10):
        ledger.take("a", "m", 0.0, now=0.0)
    assert len(ledger) == rules.LEASES_MAX
