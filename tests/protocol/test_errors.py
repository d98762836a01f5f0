"""The error family: few codes, words for people, nothing of the payload."""

from __future__ import annotations

import pytest

from protocol.errors import ProtocolError, UnknownMessageError


def test_an_error_carries_its_code_and_says_it() -> None:
    """Receivers count by the code; people read both."""
    error = ProtocolError("range", "port 0")
    assert (error.code, error.detail, str(error)) == ("range", "port 0", "range: port 0")


def test_an_unknown_message_is_one_of_the_family() -> None:
    """Who catches ProtocolError catches it, who wants to tell it apart can."""
    error = UnknownMessageError(31)
    assert isinstance(error, ProtocolError)
    assert (error.code, error.kind) == ("unknown", 31)


def test_no_error_has_a_code_of_its_own() -> None:
    """The number of counters is fixed here and not by what arrives."""
    with pytest.raises(AssertionError):
        ProtocolError("surprise", "")


def test_every_code_has_a_meaning() -> None:
    """SPEC.md prints them."""
    assert len(ProtocolError.CODES) == 9
    assert all(ProtocolError.CODES.values())
