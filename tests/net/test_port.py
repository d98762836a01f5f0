"""The mesh port opens where it is told, or says why not."""

from __future__ import annotations

import errno
import socket

import pytest

from meshd.net.port import BindError, MeshPort, bind_advice


def connects(family: socket.AddressFamily, host: str, port: int) -> int:
    """What a knock at the port gives: 0, or an errno."""
    with socket.socket(family) as knocker:
        return knocker.connect_ex((host, port))


def test_any_free_port_is_found() -> None:
    """And it takes knocks at once, before any ROUTER is there."""
    port = MeshPort("127.0.0.1", 0)
    assert connects(socket.AF_INET, "127.0.0.1", port.number) == 0
    port.close()


def test_a_closed_port_refuses() -> None:
    """For a process that ends on purpose, as for one that dies."""
    port = MeshPort("127.0.0.1", 0)
    port.close()
    port.close()
    assert connects(socket.AF_INET, "127.0.0.1", port.number) == errno.ECONNREFUSED


def test_every_address_of_both_families_is_heard() -> None:
    """`::` means the whole machine."""
    port = MeshPort("::", 0)
    assert connects(socket.AF_INET, "127.0.0.1", port.number) == 0
    assert connects(socket.AF_INET6, "::1", port.number) == 0
    port.close()


def test_a_taken_port_is_said_with_what_to_do() -> None:
    """One line that names the port."""
    port = MeshPort("127.0.0.1", 0)
    with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port.number}.*choose another port"):
        MeshPort("127.0.0.1", port.number)
    port.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "2001:db8::1"])
def test_an_address_of_another_machine_is_said(host: str) -> None:
    """A name that nobody knows, too."""
    with pytest.raises(BindError, match="choose an address of this machine"):
        MeshPort(host, 0)


def test_a_low_port_is_said() -> None:
    """Tests run as root, who may open it; so only the words."""
    advice = bind_advice("0.0.0.0", 88, PermissionError(errno.EACCES, "Permission denied"))
    assert advice.endswith("Permission denied; choose a port above 1023 with --mesh HOST:PORT")
