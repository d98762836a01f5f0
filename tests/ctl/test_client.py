"""Asking a node: every way it can fail is one line with its exit code."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from meshd.ctl.client import Node
from meshd.ctl.exits import UNREACHABLE, USAGE, Trouble


def trouble(node: Node) -> Trouble:
    with pytest.raises(Trouble) as caught:
        node.get("/mesh/v1/status")
    return caught.value


def test_a_slash_at_the_end_of_the_url_is_nothing(daemon: Any) -> None:
    """People paste URLs as browsers show them."""
    assert Node(daemon.url + "/").get("/v1/models")["object"] == "list"


def test_a_node_that_never_answers_is_given_up() -> None:
    """A connection that is accepted and then silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
        found = trouble(node)
    assert (found.code, "no answer in time" in str(found)) == (UNREACHABLE, True)


def test_a_port_that_speaks_something_else_is_said_so() -> None:
    """The mesh port, say, instead of the HTTP one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        node = Node(f"http://127.0.0.1:{other.getsockname()[1]}", timeout_s=5)

        def greet() -> None:
            with other.accept()[0] as guest:
                guest.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\r\n")
                guest.recv(1024)

        thread = threading.Thread(target=greet)
        thread.start()
        found = trouble(node)
        thread.join()
    assert (found.code, "does not speak HTTP" in str(found)) == (UNREACHABLE, True)


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8787", "ftp://x", "http://", "http://x:y", "http://a b", "http://a..b"),
        *(f"http://{'a' * 64}.local", "http://x/a b", "http://x/ü", "http://x\n"),
    ],
)
def test_what_is_no_url_is_wrong_usage(url: str) -> None:
    """Before anything is sent anywhere."""
    with pytest.raises(Trouble) as caught:
        Node(url)
    assert caught.value.code == USAGE


def test_a_key_may_bring_the_end_of_its_line(daemon: Any) -> None:
    """From a file of variables that another system wrote, say."""
    Node(daemon.url, api_key=" mk-1\r\n").get("/v1/models")
    assert daemon.asked[-1][1]["Authorization"] == "Bearer mk-1"


@pytest.mark.parametrize("key", ["ключ", "mk 1", "mk\n1", "mk\x001"])
def test_what_is_no_key_is_wrong_usage(key: str) -> None:
    """One line, which does not repeat it."""
    with pytest.raises(Trouble) as caught:
        Node("http://127.0.0.1:1", api_key=key)
    assert caught.value.code == USAGE
    assert key not in str(caught.value)
