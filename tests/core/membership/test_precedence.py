"""The merge is a join, so order, duplicates and detours cannot matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.membership.precedence import merge, supersedes
from protocol.messages import MEMBER_STATES, Update
from tests.core.membership.builders import A, B, claim, endpoint

CLAIMS = st.builds(
    lambda state, incarnation, boot, host, accuser: claim(
        A, state, incarnation, boot_id=boot, endpoints=(endpoint(host),), accuser=accuser
    ),
    st.sampled_from(MEMBER_STATES),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.sampled_from([None, A, B]),
)


@given(CLAIMS, CLAIMS)
def test_merge_is_commutative(one: Update, other: Update) -> None:
    """Who hears what first makes no difference."""
    assert merge(one, other) == merge(other, one)


@given(CLAIMS, CLAIMS, CLAIMS)
def test_merge_is_associative(one: Update, two: Update, three: Update) -> None:
    """By which detour a claim comes makes no difference."""
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(CLAIMS)
def test_merge_is_idempotent(one: Update) -> None:
    """Hearing something twice makes no difference."""
    assert merge(one, one) == one


@given(CLAIMS, CLAIMS)
def test_a_claim_that_supersedes_wins_the_merge(one: Update, other: Update) -> None:
    """The rule that rows are changed by and the merge of records are the same order."""
    wins = supersedes(one, other.incarnation, other.state)
    loses = supersedes(other, one.incarnation, one.state)
    assert not (wins and loses)
    assert merge(one, other) in ((one,) if wins else (other,) if loses else (one, other))


@pytest.mark.parametrize(
    ("state", "incarnation", "held", "held_incarnation", "wins"),
    [
        ("alive", 5, "alive", 5, False),
        ("alive", 6, "alive", 5, True),
        ("alive", 5, "suspect", 5, False),
        ("alive", 6, "suspect", 5, True),
        ("alive", 5, "dead", 5, False),
        ("alive", 6, "dead", 5, True),
        ("alive", 6, "left", 5, True),
        ("suspect", 5, "alive", 5, True),
        ("suspect", 4, "alive", 5, False),
        ("suspect", 5, "dead", 5, False),
        ("dead", 5, "suspect", 5, True),
        ("dead", 5, "alive", 5, True),
        ("dead", 4, "alive", 5, False),
        ("dead", 5, "left", 5, False),
        ("left", 5, "dead", 5, True),
        ("left", 4, "alive", 5, False),
    ],
)
def test_swim_s_table_row_by_row(
    state: str, incarnation: int, held: str, held_incarnation: int, wins: bool
) -> None:
    """Alive needs a higher incarnation; suspect and dead win at an equal one; left is final."""
    assert supersedes(claim(A, state, incarnation), held_incarnation, held) is wins


def test_claims_about_different_nodes_are_never_merged() -> None:
    """That would be our own mistake, and stops at once."""
    with pytest.raises(AssertionError):
        merge(claim(A), claim(B))
