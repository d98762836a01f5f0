"""What people read aloud and paste survives it, and what is damaged says so."""

from __future__ import annotations

import re
import secrets
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meshd.net.pairing.invitation import (
    CODE_LASTS_S,
    TOKEN_LASTS_S,
    TOKEN_PLACES_MAX,
    code_invitation,
    draw_code,
    draw_token,
    is_token,
    read_token,
    shown,
)
from meshd.net.pairing.refusal import PairingError

PLACES = ("192.168.1.20:8790", "[fe80::1%eth0]:8790", "anna.local:8790")
TOKEN, INVITATION = draw_token(Random(1).randbytes, PLACES)


def test_codes_are_eight_digits() -> None:
    """Leading zeros are kept: each digit is one of ten in each place."""
    codes = [draw_code(secrets.token_bytes) for _ in range(500)]
    assert all(re.fullmatch("[0-9]{8}", code) for code in codes)
    assert {code[0] for code in codes} == set("0123456789")
    assert draw_code(bytes) == "00000000"


@pytest.mark.parametrize("typed", ["12345678", "1234 5678", " 1234-5678\n", shown("12345678")])
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    """Blanks and dashes are how people group digits."""
    assert code_invitation(typed) == code_invitation("12345678")


@pytest.mark.parametrize("typed", ["", "1234567", "123456789", "1234567x", "١٢٣٤٥٦٧٨"])
def test_what_is_no_code_is_said_before_anybody_is_asked(typed: str) -> None:
    """A typing error that can be seen here costs no try there."""
    with pytest.raises(PairingError, match="type the 8 digits"):
        code_invitation(typed)


def test_a_code_lasts_two_minutes_and_a_token_ten() -> None:
    """One is for a person who walks, the other for a machine that boots."""
    assert (code_invitation("12345678").lasts_s, INVITATION.lasts_s) == (120.0, 600.0)
    assert (CODE_LASTS_S, TOKEN_LASTS_S) == (120.0, 600.0)


def test_a_token_is_one_line_that_can_be_read_again() -> None:
    """The same invitation and the same places, in letters and digits that survive any paste."""
    assert re.fullmatch(r"meshd-join-[a-z2-7]+", TOKEN)
    assert len(TOKEN) < 200
    assert read_token(TOKEN) == (INVITATION, PLACES)


@pytest.mark.parametrize("paste", [f" {TOKEN}\n", TOKEN.upper(), TOKEN[:40] + "\n" + TOKEN[40:]])
def test_a_token_survives_how_it_is_carried(paste: str) -> None:
    """Blanks around it, a terminal that wraps it, a QR reader that shouts."""
    assert is_token(paste)
    assert read_token(paste) == (INVITATION, PLACES)


@settings(deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_changed_token_is_never_read_as_another(place: int, letter: str) -> None:
    """One letter turned: it is said to be damaged."""
    assume(TOKEN[place] != letter)
    with pytest.raises(PairingError, match="copy it again"):
        read_token(TOKEN[:place] + letter + TOKEN[place + 1 :])


@pytest.mark.parametrize("extra", range(5))
def test_a_token_is_written_in_one_way_only(extra: int) -> None:
    """The last letter holds spare bits at some lengths; turning those is a change too."""
    token, _ = draw_token(Random(1).randbytes, ["a" * (1 + extra) + ":1"])
    others = set("abcdefghijklmnopqrstuvwxyz234567") - {token[-1]}
    for letter in others:
        with pytest.raises(PairingError, match="copy it again"):
            read_token(token[:-1] + letter)


@settings(deadline=None)
@given(st.text(max_size=300) | st.integers(0, len(TOKEN) - 1).map(lambda end: TOKEN[:end]))
def test_what_is_no_token_is_said_to_be_damaged(text: str) -> None:
    """Cut short or something else altogether: one error, with what to do."""
    with pytest.raises(PairingError, match="copy it again"):
        read_token(text)


def test_a_token_carries_a_bounded_number_of_places() -> None:
    """The best ones: a machine with thirty addresses does not make a page of letters."""
    text, _ = draw_token(Random(1).randbytes, [f"10.0.0.{host}:8790" for host in range(30)])
    assert len(read_token(text)[1]) == TOKEN_PLACES_MAX


def test_two_tokens_have_nothing_in_common() -> None:
    """Neither name nor secret is used twice."""
    other = draw_token(Random(2).randbytes, PLACES)[1]
    assert INVITATION.name != other.name
    assert INVITATION.password != other.password
