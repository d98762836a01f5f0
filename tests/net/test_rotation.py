"""However news of revocations travel, everybody ends with one key that no revoked node was told."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.net.rotation import (
    RENEW_STEP_S,
    fingerprint,
    founded,
    merge,
    mesh_key,
    renew,
    renew_wait_s,
    revoke,
    sound,
)
from meshd.net.trust import TrustError, derive_mesh_key
from protocol.trust import EPOCH_MAX, REVOKED_MAX, TrustRecord

KEY = derive_mesh_key(b"k" * 32)
START = founded(KEY)
X, Y, ANNA, BERT, CARL = (f"{digit}" * 32 for digit in "89123")

IDS = st.sampled_from((X, Y, ANNA, BERT))
STATES = st.builds(
    lambda epoch, secret, excluded, revoked: TrustRecord(
        START.mesh, epoch, bytes([secret]) * 32, tuple(sorted(excluded)), tuple(sorted(revoked))
    ),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sets(IDS),
    st.sets(IDS),
)


@settings(deadline=None)
@given(STATES, STATES, STATES)
def test_states_merge_in_any_order_and_any_number_of_times(
    one: TrustRecord, two: TrustRecord, three: TrustRecord
) -> None:
    """Commutative, associative, idempotent: late, doubled and reordered news do no harm."""
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one


@settings(deadline=None)
@given(STATES, STATES)
def test_an_old_state_said_again_changes_nothing(one: TrustRecord, two: TrustRecord) -> None:
    """What was merged once is included for ever: a replay has no effect."""
    merged = merge(one, two)
    assert merge(merged, one) == merged
    assert merge(merged, two) == merged


def test_revoking_draws_a_key_that_the_node_is_not_told() -> None:
    """A new epoch, a new key, and the id on both lists."""
    state = revoke(START, X, b"n" * 32)
    assert state == TrustRecord(START.mesh, 1, b"n" * 32, (X,), (X,))
    assert sound(state)


def test_the_label_outlives_the_key() -> None:
    """Adverts and envelopes stay as they are, so nothing in flight is refused."""
    rotated = mesh_key(revoke(START, X, b"n" * 32))
    assert rotated.label == KEY.label
    assert rotated.server_public == derive_mesh_key(b"n" * 32).server_public != KEY.server_public
    assert mesh_key(START) == KEY


def test_two_revokers_at_once_converge_and_one_mends_the_key() -> None:
    """Each told its key to the other's victim; the merge is unsound, and a renewal cures it."""
    by_anna, by_bert = revoke(START, X, b"a" * 32), revoke(START, Y, b"b" * 32)
    merged = merge(by_anna, by_bert)
    assert merged.revoked == (X, Y)
    assert not sound(merged)
    mended = renew(merged, b"c" * 32)
    assert sound(mended)
    assert merge(mended, by_anna) == merge(mended, by_bert) == mended


def test_two_menders_at_once_end_sound() -> None:
    """Both keys were kept from everybody revoked, so either may win."""
    merged = merge(revoke(START, X, b"a" * 32), revoke(START, Y, b"b" * 32))
    both = merge(renew(merged, b"c" * 32), renew(merged, b"d" * 32))
    assert sound(both)
    assert both.secret == b"d" * 32


def test_a_higher_epoch_wins_over_a_greater_key() -> None:
    """Newer is newer; the key's own value only breaks ties."""
    older = revoke(START, X, b"\xff" * 32)
    assert merge(renew(older, b"\0" * 32), older).secret == b"\0" * 32


def test_a_revoked_key_cannot_come_back_under_a_higher_epoch_unnoticed() -> None:
    """X, before it is revoked everywhere, pushes a key of its own: the merge is unsound."""
    by_anna = revoke(START, X, b"a" * 32)
    by_x = replace(START, epoch=9, secret=b"x" * 32)
    merged = merge(by_anna, by_x)
    assert merged.secret == b"x" * 32
    assert not sound(merged)
    assert renew(merged, b"n" * 32).epoch == 10


def test_members_mend_one_after_the_other() -> None:
    """The smallest id that is alive and not revoked begins; who is alone waits for nobody."""
    state = merge(revoke(START, X, b"a" * 32), revoke(START, ANNA, b"b" * 32))
    alive = (ANNA, BERT, CARL, X)
    assert renew_wait_s(state, BERT, alive) == 0.0
    assert renew_wait_s(state, CARL, alive) == RENEW_STEP_S
    assert renew_wait_s(state, CARL, ()) == 0.0


def test_a_gossiping_mesh_agrees_whatever_happens_when() -> None:
    """Ten members, four revocations by different people, random meetings: one sound state."""
    rng = Random(7)
    states = [START] * 10
    for victim in range(4):
        actor = rng.randrange(10)
        states[actor] = revoke(states[actor], f"{victim:032x}", rng.randbytes(32))
    for _ in range(200):
        one, other = rng.sample(range(10), 2)
        states[one] = states[other] = merge(states[one], states[other])
    states = [merge(state, renew(states[0], rng.randbytes(32))) for state in states]
    assert {state.revoked for state in states} == {tuple(f"{v:032x}" for v in range(4))}
    met = states[0]
    for state in states:
        met = merge(met, state)
    assert sound(met)


def test_trust_of_another_mesh_is_refused() -> None:
    """Two meshes never become one by talking."""
    with pytest.raises(TrustError, match="offered to mesh"):
        merge(START, founded(derive_mesh_key(b"o" * 32)))


def test_revoking_twice_is_said() -> None:
    """It is done already, and a second key would serve nobody."""
    with pytest.raises(TrustError, match="revoked already"):
        revoke(revoke(START, X, b"n" * 32), X, b"m" * 32)


def test_revocations_are_bounded_and_the_bound_is_the_same_everywhere() -> None:
    """Beyond it nobody is revoked silently, and merging two full lists still has one result."""
    full = replace(START, revoked=tuple(f"{n:032x}" for n in range(0, 2 * REVOKED_MAX, 2)))
    with pytest.raises(TrustError, match="start a new mesh"):
        revoke(full, X, b"n" * 32)
    other = replace(START, revoked=tuple(f"{n:032x}" for n in range(1, 2 * REVOKED_MAX, 2)))
    assert len(merge(full, other).revoked) == REVOKED_MAX
    assert merge(full, other) == merge(other, full)


def test_epochs_end() -> None:
    """After two thousand million rotations a person is asked, rather than a counter overflown."""
    with pytest.raises(TrustError, match="start a new mesh"):
        renew(replace(START, epoch=EPOCH_MAX), b"n" * 32)


def test_fingerprints_tell_states_apart_and_nothing_more() -> None:
    """For a person who compares two screens."""
    state = revoke(START, X, b"n" * 32)
    assert fingerprint(state) == fingerprint(replace(state)) != fingerprint(START)
    assert len(fingerprint(state)) == 16
