"""Only who knows the code comes in, and nobody learns it by asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b, sha256
from random import Random
from typing import cast

import pytest
import spake2  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from nacl.exceptions import CryptoError

from meshd.net.pairing.exchange import (
    EXCHANGE_S,
    EXCHANGES_MAX,
    NONCE,
    OFFERS_MAX,
    Entry,
    Offers,
)
from meshd.net.pairing.invitation import CODE_LASTS_S, TRIES_MAX, code_invitation, draw_token
from meshd.net.pairing.refusal import WORDS, PairingError
from protocol.pairing import (
    PairConfirm,
    PairHello,
    PairRefusal,
    PairReply,
    PairWelcome,
    decode_pairing,
    decode_welcome,
    encode_pairing,
)
from tests.net.pairing.people import (
    ANNA,
    BERT,
    CODE,
    MALLORY,
    WELCOME,
    WRONG,
    Member,
    newcomer,
    outcome,
    pair,
)


def entropy(seed: int) -> Callable[[int], bytes]:
    """The random source of a newcomer with this seed."""
    return Random(seed).randbytes


def test_the_right_code_gives_the_welcome() -> None:
    """The newcomer reads exactly what the member gave, and the member knows whose key came in."""
    member = Member()
    assert pair(member, newcomer("1234 5678")) == WELCOME
    assert [one.public_key for one in member.admitted] == [BERT.public_key]


def test_a_wrong_code_gives_nothing_and_costs_a_try() -> None:
    """The refusal says what a person can do; the window stays open for the other tries."""
    member = Member()
    assert outcome(member, newcomer(WRONG)) == WORDS["wrong"]
    assert member.tries_left == [TRIES_MAX - 1]
    assert not member.admitted


def test_five_wrong_codes_close_the_window() -> None:
    """After the fifth even the right code is refused, and nothing is open any more."""
    member = Member()
    tried = [outcome(member, newcomer(WRONG, seed=seed)) for seed in range(TRIES_MAX)]
    assert tried == [WORDS["wrong"]] * TRIES_MAX
    assert outcome(member, newcomer()) == WORDS["closed"]
    assert member.tries_left == []


def test_the_fifth_try_may_still_be_the_right_one() -> None:
    """Four mistypings are forgiven."""
    member = Member()
    for seed in range(TRIES_MAX - 1):
        outcome(member, newcomer(WRONG, seed=seed))
    assert outcome(member, newcomer()) == "in"


def test_guessing_side_by_side_gives_no_more_tries() -> None:
    """Exchanges begun before the window closed end with it: five tags are judged, no sixth."""
    member = Member()
    guesses = [newcomer(WRONG, seed=seed) for seed in range(EXCHANGES_MAX)]
    replies = [member.hear(guess.hello, f"caller {i}") for i, guess in enumerate(guesses)]
    tags = [cast(bytes, g.receive(reply)) for g, reply in zip(guesses, replies, strict=True)]
    answers = [decode_pairing(member.hear(tag, f"caller {i}")) for i, tag in enumerate(tags)]
    closed = [PairRefusal("closed")] * (EXCHANGES_MAX - TRIES_MAX)
    assert answers == [PairRefusal("wrong")] * TRIES_MAX + closed


def test_one_exchange_judges_one_tag() -> None:
    """A second tag in the same exchange is not looked at, right or wrong."""
    member, entry = Member(), newcomer()
    right = cast(bytes, entry.receive(member.hear(entry.hello)))
    member.hear(encode_pairing(PairConfirm(bytes(32))))
    assert decode_pairing(member.hear(right)) == PairRefusal("closed")


def test_breaking_off_costs_no_try() -> None:
    """The member's reply says nothing about the code, so hanging up is no guess."""
    member = Member()
    for seed in range(2 * TRIES_MAX):
        member.now += EXCHANGE_S
        member.hear(newcomer(WRONG, seed=seed).hello, f"caller {seed}")
    assert member.tries_left == [TRIES_MAX]
    assert outcome(member, newcomer()) == "in"


def test_two_minutes_and_it_is_over() -> None:
    """The window closes by itself, for exchanges that had begun before too."""
    member, entry = Member(), newcomer()
    member.now = CODE_LASTS_S - 1.0
    tag = cast(bytes, entry.receive(member.hear(entry.hello)))
    member.now = CODE_LASTS_S
    assert decode_pairing(member.hear(tag)) == PairRefusal("closed")
    assert outcome(member, newcomer()) == WORDS["closed"]


def test_an_exchange_ends_after_a_while() -> None:
    """Who confirms too late begins anew; the invitation lives on."""
    member, entry = Member(), newcomer()
    tag = cast(bytes, entry.receive(member.hear(entry.hello)))
    member.now += EXCHANGE_S
    assert decode_pairing(member.hear(tag)) == PairRefusal("closed")
    assert member.tries_left == [TRIES_MAX]


def test_a_code_admits_one_machine() -> None:
    """The second machine with the same code is refused, also when it was half way."""
    member, late = Member(), newcomer(seed=3)
    tag = cast(bytes, late.receive(member.hear(late.hello, "late")))
    assert outcome(member, newcomer()) == "in"
    assert decode_pairing(member.hear(tag, "late")) == PairRefusal("closed")
    assert outcome(member, newcomer(seed=4)) == WORDS["closed"]


def test_a_token_admits_one_machine_and_leaves_the_code_open() -> None:
    """Invitations are told apart by name; using one up says nothing about another."""
    member = Member()
    _, token = draw_token(Random(5).randbytes, ["192.168.1.20:8790"])
    member.offers.open(token, member.now)
    assert outcome(member, Entry(token, BERT.public_key, Random(6).randbytes)) == "in"
    assert outcome(member, Entry(token, BERT.public_key, Random(7).randbytes)) == WORDS["closed"]
    assert outcome(member, newcomer()) == "in"


def test_the_code_is_no_password_for_a_token() -> None:
    """A caller who names a token but knows only the digits is wrong."""
    member = Member()
    _, token = draw_token(Random(5).randbytes, [])
    member.offers.open(token, member.now)
    guess = replace(code_invitation(CODE), name=token.name)
    assert outcome(member, Entry(guess, BERT.public_key, Random(6).randbytes)) == WORDS["wrong"]


def test_a_new_code_replaces_the_old_one() -> None:
    """Typing `meshctl pair` again gives new digits, new time and new tries."""
    member = Member(code_invitation(WRONG))
    outcome(member, newcomer(CODE))
    member.offers.open(code_invitation(CODE), member.now)
    assert member.tries_left == [TRIES_MAX]
    assert outcome(member, newcomer(CODE)) == "in"


def test_invitations_are_bounded() -> None:
    """A script that forgets itself is told so; what is open stays open."""
    member = Member()
    for seed in range(OFFERS_MAX - 1):
        member.offers.open(draw_token(Random(seed).randbytes, [])[1], member.now)
    with pytest.raises(PairingError, match="wait until one is used"):
        member.offers.open(draw_token(Random(99).randbytes, [])[1], member.now)
    assert len(member.tries_left) == OFFERS_MAX


def test_exchanges_are_bounded() -> None:
    """A flood of callers is told to wait, and the room is free again after EXCHANGE_S."""
    member, hello = Member(), newcomer(WRONG).hello
    answers = [decode_pairing(member.hear(hello, f"{i}")) for i in range(EXCHANGES_MAX + 1)]
    assert answers[-1] == PairRefusal("busy")
    assert PairRefusal("busy") not in answers[:-1]
    member.now += EXCHANGE_S
    assert outcome(member, newcomer()) == "in"


def test_a_key_put_in_between_ends_both_sides() -> None:
    """Mallory passes everything on but her own key for Bert's: Anna counts a wrong try."""
    member, entry = Member(), newcomer()
    hello = cast(PairHello, decode_pairing(entry.hello))
    forged = encode_pairing(replace(hello, public_key=MALLORY.public_key.hex()))
    tag = cast(bytes, entry.receive(member.hear(forged)))
    assert decode_pairing(member.hear(tag)) == PairRefusal("wrong")
    assert not member.admitted


def test_a_member_key_put_in_between_ends_both_sides() -> None:
    """The other way round: Bert would pin Mallory's key, and his tag tells Anna so."""
    member, entry = Member(), newcomer()
    reply = cast(PairReply, decode_pairing(member.hear(entry.hello)))
    forged = encode_pairing(replace(reply, public_key=MALLORY.public_key.hex()))
    tag = cast(bytes, entry.receive(forged))
    assert decode_pairing(member.hear(tag)) == PairRefusal("wrong")


def test_a_changed_welcome_is_not_believed() -> None:
    """One bit turned in the sealed welcome, and Bert takes nothing from it."""
    member, entry = Member(), newcomer()
    tag = cast(bytes, entry.receive(member.hear(entry.hello)))
    sealed = bytearray(cast(PairWelcome, decode_pairing(member.hear(tag))).sealed)
    sealed[len(sealed) // 2] ^= 1
    with pytest.raises(PairingError, match="nothing it said was believed"):
        entry.receive(encode_pairing(PairWelcome(bytes(sealed))))


def test_a_member_who_does_not_know_the_code_cannot_welcome_anybody() -> None:
    """Mallory with an own window and any welcome: Bert opens nothing of hers."""
    impostor = Offers(MALLORY.public_key, lambda _: WELCOME, Random(8).randbytes)
    impostor.open(code_invitation(WRONG), 0.0)
    entry = newcomer(CODE)
    reply, _ = impostor.receive("bert", entry.hello, 1.0)
    entry.receive(reply)
    with pytest.raises(PairingError, match="does not know the code"):
        entry.receive(encode_pairing(PairWelcome(bytes(200))))


def test_nothing_on_the_wire_opens_the_welcome() -> None:
    """An eavesdropper who broke the transport has shares, keys and tag; none of them is the key."""
    member, entry = Member(), newcomer()
    reply = member.hear(entry.hello)
    tag = cast(bytes, entry.receive(reply))
    sealed = cast(PairWelcome, decode_pairing(member.hear(tag))).sealed
    heard = entry.hello + reply + tag
    for start in range(len(heard) - 31):
        with pytest.raises(CryptoError):
            bindings.crypto_secretbox_open(sealed, NONCE, heard[start : start + 32])


def test_the_exchange_is_the_one_that_is_specified() -> None:
    """Tag and seal as the head of `protocol.pairing` derives them, computed here by hand."""
    member, entry = Member(), newcomer()
    password = code_invitation(CODE).password
    by_hand = spake2.SPAKE2_A(password, b"meshd newcomer", b"meshd member", entropy_f=entropy(2))
    assert b"A" + by_hand.start()[1:] == cast(PairHello, decode_pairing(entry.hello)).spake
    reply = member.hear(entry.hello)
    key = by_hand.finish(cast(PairReply, decode_pairing(reply)).spake)
    said = sha256(entry.hello).digest() + sha256(reply).digest()
    tag = blake2b(said, key=key, person=b"meshd pair tag", digest_size=32).digest()
    seal_key = blake2b(said, key=key, person=b"meshd pair seal", digest_size=32).digest()
    welcome = cast(PairWelcome, decode_pairing(member.hear(encode_pairing(PairConfirm(tag)))))
    opened = bindings.crypto_secretbox_open(welcome.sealed, bytes(24), seal_key)
    assert decode_welcome(opened) == WELCOME


def test_a_recorded_newcomer_is_no_newcomer() -> None:
    """What Bert said once, said again at a later window with the very same code, is a wrong try."""
    entry, first, later = newcomer(), Member(), Member()
    later.offers = Offers(ANNA.public_key, lambda _: WELCOME, Random(9).randbytes)
    later.offers.open(code_invitation(CODE), 0.0)
    tag = cast(bytes, entry.receive(first.hear(entry.hello)))
    later.hear(entry.hello)
    assert decode_pairing(later.hear(tag)) == PairRefusal("wrong")


def test_a_recorded_member_is_no_member() -> None:
    """What Anna said once, said again to another try of Bert's, opens nothing."""
    member, entry, again = Member(), newcomer(seed=2), newcomer(seed=3)
    reply = member.hear(entry.hello)
    welcome = member.hear(cast(bytes, entry.receive(reply)))
    again.receive(reply)
    with pytest.raises(PairingError, match="nothing it said was believed"):
        again.receive(welcome)


def test_a_revoked_machine_is_told_so_and_uses_nothing_up() -> None:
    """It knew the code, so it may know why; the invitation is still there for another machine."""
    member = Member(revoked=BERT.node_id)
    assert outcome(member, newcomer()) == WORDS["revoked"]
    assert outcome(member, newcomer(identity=MALLORY, seed=4)) == "in"


def test_a_share_that_is_no_point_is_refused() -> None:
    """The identity, our own share and garbage: each side says so, and nothing is counted."""
    member, entry = Member(), newcomer()
    for share in (b"A" + b"\1" + bytes(31), b"B" + bytes(32), b"A" + b"\xff" * 32):
        hello = encode_pairing(PairHello(b"", share, BERT.public_key.hex()))
        assert decode_pairing(member.hear(hello)) == PairRefusal("malformed")
    with pytest.raises(PairingError, match="its share is none"):
        entry.receive(encode_pairing(PairReply(b"B" + b"\1" + bytes(31), ANNA.public_key.hex())))
    assert member.tries_left == [TRIES_MAX]


def test_a_share_sent_back_is_refused() -> None:
    """Mirroring Bert's own share at him is the oldest trick against a password exchange."""
    entry = newcomer()
    share = cast(PairHello, decode_pairing(entry.hello)).spake
    with pytest.raises(PairingError, match="its share is none"):
        entry.receive(encode_pairing(PairReply(b"B" + share[1:], ANNA.public_key.hex())))


@pytest.mark.parametrize(
    "message", [PairReply(bytes(33), "00" * 32), PairWelcome(b""), PairRefusal("wrong")]
)
def test_a_member_takes_only_a_newcomers_part(
    message: PairReply | PairWelcome | PairRefusal,
) -> None:
    """Its own kinds of message, sent to it, are out of turn."""
    assert decode_pairing(Member().hear(encode_pairing(message))) == PairRefusal("malformed")


def test_a_welcome_before_a_reply_is_out_of_turn() -> None:
    """There is no key to open it with."""
    with pytest.raises(PairingError, match="out of turn"):
        newcomer().receive(encode_pairing(PairWelcome(b"")))


def test_a_second_reply_is_out_of_turn() -> None:
    """One tag per exchange, on the newcomer's side too."""
    member, entry = Member(), newcomer()
    reply = member.hear(entry.hello)
    entry.receive(reply)
    with pytest.raises(PairingError, match="out of turn"):
        entry.receive(reply)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"MSHD\x01" + tail))
def test_any_bytes_at_all_end_in_a_refusal(frame: bytes) -> None:
    """Neither side raises anything else; the member answers everybody something."""
    member = Member()
    assert isinstance(decode_pairing(member.hear(frame)), PairRefusal)
    assert member.tries_left == [TRIES_MAX]
    with pytest.raises(PairingError):
        newcomer().receive(frame)


def test_no_secret_shows_in_a_repr() -> None:
    """What ends in a log by accident tells neither a password nor a mesh key."""
    shown = repr([code_invitation(CODE), WELCOME, PairConfirm(b"t" * 32), Member().offers])
    assert CODE not in shown
    assert "kkkk" not in shown
    assert "tttt" not in shown
