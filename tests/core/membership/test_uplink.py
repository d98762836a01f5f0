"""Doubting oneself, for a while."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.uplink import Uplink

CONFIG = MembershipConfig()


@pytest.mark.parametrize(
    ("suspects", "peers", "begins"),
    [(2, 2, False), (3, 9, False), (4, 9, False), (5, 9, True), (3, 5, True), (3, 6, False)],
)
def test_a_doubt_begins_when_more_than_half_are_silent(
    suspects: int, peers: int, begins: bool
) -> None:
    """At least three suspects, and more than half of the peers."""
    uplink = Uplink(CONFIG, 9.9)
    assert uplink.observe(suspects, peers, 10.0) is begins
    assert uplink.frozen(10.0) is begins


def test_a_doubt_begins_once() -> None:
    """People are told once, not for every further suspect."""
    uplink = Uplink(CONFIG, 9.9)
    assert [uplink.observe(n, 9, 10.0) for n in (5, 6, 7)] == [True, False, False]


def test_a_doubt_ends_when_peers_are_heard_again() -> None:
    """With half of them back, and somebody heard all along, verdicts are free."""
    uplink = Uplink(CONFIG, 9.9)
    uplink.observe(5, 9, 10.0)
    uplink.heard(10.4)
    uplink.observe(4, 9, 10.5)
    assert not uplink.frozen(10.6)


def test_a_doubt_is_short_while_somebody_is_heard() -> None:
    """Then our uplink works, and the silent ones are to be judged."""
    uplink = Uplink(CONFIG, 9.9)
    uplink.observe(5, 9, 10.0)
    for tenth in range(100, 131):
        uplink.heard(tenth / 10)
    assert uplink.frozen(12.9)
    assert not uplink.frozen(13.1)


def test_a_doubt_is_long_while_nobody_is_heard_but_ends() -> None:
    """A machine without a network waits half a minute before it believes that all have ended."""
    uplink = Uplink(CONFIG, 9.9)
    uplink.observe(9, 9, 10.0)
    assert uplink.frozen(39.9)
    assert not uplink.frozen(40.1)


def test_a_few_last_words_do_not_end_a_doubt() -> None:
    """What was under way when the cable went is heard after the doubt began, and means nothing."""
    uplink = Uplink(CONFIG, 9.9)
    uplink.observe(9, 9, 10.0)
    uplink.heard(10.2)
    assert uplink.frozen(14.0)


def test_when_the_cable_is_back_everybody_gets_a_fair_chance() -> None:
    """The first one heard does not end the doubt for the others, nor do most of them."""
    uplink = Uplink(CONFIG, 9.9)
    uplink.observe(9, 9, 10.0)
    uplink.heard(20.0)
    assert uplink.frozen(20.1)
    uplink.observe(3, 9, 20.2)
    assert uplink.frozen(22.9)
    assert not uplink.frozen(23.1)
