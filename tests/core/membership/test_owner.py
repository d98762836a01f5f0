"""Only this node speaks for itself, and it answers everything that is said of it."""

from __future__ import annotations

import pytest

from meshd.core.membership.owner import FOREIGN_RUNS_MAX, RAISES_OF_THE_PAST, Owner
from meshd.core.membership.precedence import INCARNATION_MAX
from meshd.core.membership.table import row_from
from tests.core.membership.builders import BOOT, ME, claim


def _owner() -> Owner:
    return Owner(row_from(claim(ME, incarnation=100), 0.0, "test"))


@pytest.mark.parametrize(
    ("state", "incarnation", "boot", "outcome", "after"),
    [
        ("alive", 100, BOOT, "", 100),
        ("alive", 99, BOOT, "", 100),
        ("alive", 99, 8, "", 100),
        ("suspect", 99, BOOT, "answer", 100),
        ("dead", 99, 8, "answer", 100),
        ("suspect", 100, BOOT, "raised", 101),
        ("dead", 100, BOOT, "raised", 101),
        ("left", 100, BOOT, "raised", 101),
        ("alive", 100, 8, "raised", 101),
        ("alive", 500, BOOT, "raised", 501),
        ("dead", 500, 8, "raised", 501),
    ],
)
def test_the_answer_to_each_claim(
    state: str, incarnation: int, boot: int, outcome: str, after: int
) -> None:
    """The table of the module's head, row by row."""
    owner = _owner()
    assert owner.hear(claim(ME, state, incarnation, boot_id=boot)) == outcome
    assert owner.row.incarnation == after


def test_an_absurd_incarnation_is_not_chased() -> None:
    """Nobody can push this node to where it cannot rise any more."""
    owner = _owner()
    assert owner.hear(claim(ME, "dead", INCARNATION_MAX + 1)) == ""
    assert owner.row.incarnation == 100


def test_an_own_rise_is_one_step() -> None:
    """A changed address is a new incarnation."""
    owner = _owner()
    owner.rise()
    assert owner.row.incarnation == 101


def test_a_run_that_keeps_getting_ahead_is_a_clone() -> None:
    """Our past is remembered in a few versions; it cannot grow. Said once."""
    owner = _owner()
    outcomes = [
        owner.hear(claim(ME, "alive", owner.row.incarnation + 5, boot_id=8))
        for _ in range(RAISES_OF_THE_PAST + 2)
    ]
    assert outcomes == ["raised", "raised", "clone", "raised", "raised"]


def test_counted_runs_are_bounded() -> None:
    """Inventing runs fills no memory."""
    owner = _owner()
    for boot in range(1_000, 1_000 + 3 * FOREIGN_RUNS_MAX):
        owner.hear(claim(ME, "alive", owner.row.incarnation + 1, boot_id=boot))
    assert len(owner._foreign) <= FOREIGN_RUNS_MAX
