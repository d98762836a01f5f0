"""From a host to addresses, without ever raising."""

from __future__ import annotations

import socket

import pytest

from meshd.net import lookup


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ((socket.AF_INET, ("192.0.2.7", 1)), "tcp://192.0.2.7:1"),
        ((socket.AF_INET6, ("::1", 2, 0, 0)), "tcp://[::1]:2"),
        ((socket.AF_INET6, ("fe80::1%eth0", 3, 0, 4)), "tcp://[fe80::1%4]:3"),
        ((socket.AF_INET6, ("fe80::1", 3, 0, 4)), "tcp://[fe80::1%4]:3"),
    ],
)
def test_address_is_written_as_libzmq_reads_it(address: lookup.Address, url: str) -> None:
    """A scope goes by its number, which every resolver gives."""
    assert lookup.endpoint_url(address) == url


@pytest.mark.parametrize("host", ["no-such-machine.invalid", "..", "a" * 64 + ".b", "\udcff"])
def test_unknown_name_has_no_addresses(host: str) -> None:
    """A name that cannot be resolved, or even encoded, is not an error of ours."""
    assert lookup.find_addresses(host, 1) == []


def test_where_a_socket_listens_that_was_bound_by_name() -> None:
    """Others need the address; what is an address already, or nobody's name, stays as it is."""
    assert lookup.listening_host("localhost") in {"127.0.0.1", "::1"}
    for host in ("0.0.0.0", "::", "fe80::1%nosuch0", "nobody.invalid"):
        assert lookup.listening_host(host) == host
