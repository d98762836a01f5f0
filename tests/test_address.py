"""HOST:PORT both ways."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.address import format_host_port, is_address, is_loopback, parse_host_port

HOSTS = st.sampled_from(["127.0.0.1", "kitchen.local", "::1", "fe80::1%eth0", "2001:db8::7"])


@given(host=HOSTS, port=st.integers(1, 65_535))
def test_what_is_printed_can_be_pasted_back(host: str, port: int) -> None:
    """Formatting and parsing are inverse, brackets and scopes included."""
    assert parse_host_port(format_host_port(host, port)) == (host, port)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    """Nothing but ValueError comes out of a parser that reads what people type."""
    with contextlib.suppress(ValueError):
        assert format_host_port(*parse_host_port(text, zero_ok=True))


@pytest.mark.parametrize("text", ["", ":80", "a:", "a:b", "1:2:3", "[1.2.3.4]:5", "[::1]", "a:1\n"])
def test_half_an_address_is_refused(text: str) -> None:
    """No part is guessed."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are tested with the settings
        parse_host_port(text)


def test_port_zero_is_for_those_who_bind() -> None:
    """A peer at port 0 cannot be called."""
    assert parse_host_port("a:0", zero_ok=True) == ("a", 0)
    with pytest.raises(ValueError, match="outside 1-65535"):
        parse_host_port("a:0")


def test_loopback_is_a_range_and_a_name() -> None:
    """Only what no other machine can reach counts."""
    inside = ["127.0.0.1", "127.255.0.1", "::1", "localhost", "node.localhost"]
    outside = ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "kitchen"]
    assert all(is_loopback(host) for host in inside)
    assert not any(is_loopback(host) for host in outside)


def test_address_needs_no_look_up() -> None:
    """Scopes included: only names go to the resolver's thread."""
    assert is_address("192.0.2.1")
    assert is_address("fe80::1%eth0")
    assert not is_address("pi.local")
