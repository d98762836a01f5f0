"""Who may talk to this node from a browser, and by which names it answers."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.origin import check_host, check_origin, check_owner, cors_lines

OWN = frozenset({"attic", "mesh.example.org"})


@pytest.mark.parametrize(
    "host",
    [
        None,
        "localhost",
        "localhost:8787",
        "LOCALHOST.:8787",
        "app.localhost",
        "127.0.0.1:8787",
        "[::1]:8787",
        "[fe80::1%25eth0]:8787",
        "192.168.1.5",
        "10.0.0.1:1",
        "[2001:db8::1]",
        "attic.local:8787",
        "host.docker.internal",
        "nas.home.arpa",
        "Attic",
        "mesh.example.org:443",
    ],
)
def test_local_names_and_addresses_are_answered(host):
    """No name here can be an attacker's; an address cannot be rebound at all."""
    check_host(host, OWN)


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:8787", "localhost.evil.com", "127.0.0.1.evil.com", "[bad", "", ":80"],
)
def test_other_names_are_refused(host):
    """A page can make its own name point at 127.0.0.1; the browser then trusts it."""
    with pytest.raises(ApiError, match="does not answer as") as caught:
        check_host(host, OWN)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:5173",
        "http://0.0.0.0:80",
        "http://[::1]:3000",
        "http://tauri.localhost",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://1abc",
        "vscode-file://vscode-app",
        "http://192.168.1.5:8787",
        "HTTP://192.168.1.5:8787",
    ],
)
def test_local_pages_and_applications_may_ask(origin):
    """And so may pages that this server itself serves."""
    check_origin(origin, "192.168.1.5:8787")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.com",
        "http://localhost.evil.com",
        "http://192.168.1.6:8787",
        "chrome-extension://abc",
        "javascript://localhost",
        "http://[bad",
    ],
)
def test_other_pages_may_not(origin):
    """A web site cannot spend this machine's time behind its owner's back."""
    with pytest.raises(ApiError, match="may not use this node") as caught:
        check_origin(origin, "192.168.1.5:8787")
    assert caught.value.status == 403


def test_without_a_host_nothing_is_the_same_origin():
    """HTTP/1.0 has none."""
    with pytest.raises(ApiError):
        check_origin("https://evil.com", None)


def test_a_page_is_told_that_it_may_read():
    """The origin itself, never a star, and never more than one line of it."""
    lines = cors_lines("http://localhost:é").splitlines()
    assert lines[0] == "access-control-allow-origin: http://localhost:%C3%A9"
    assert lines[1] == "vary: origin"
    assert "x-mesh-node" in lines[2]


HERE = "127.0.0.1"
LOCAL = {"host": "127.0.0.1:8787"}


@pytest.mark.parametrize(
    ("headers", "remote", "vouched"),
    [
        (LOCAL, HERE, False),
        (LOCAL, "::1", False),
        ({}, HERE, False),
        ({"host": "localhost:8787"}, HERE, False),
        (LOCAL | {"origin": "http://127.0.0.1:8787"}, HERE, False),
        ({"host": "attic.local:8787"}, "192.168.1.9", True),
        ({"host": "attic.local", "origin": "http://attic.local"}, "192.168.1.9", True),
        ({"host": "attic", "x-forwarded-for": "10.0.0.1"}, HERE, True),
    ],
)
def test_the_owner_asks_from_here_or_with_a_key(headers, remote, vouched):
    """Over loopback by an address or `localhost`; or vouched for by a key, from anywhere."""
    check_owner(headers, remote, vouched=vouched)


@pytest.mark.parametrize(
    ("headers", "remote", "vouched", "why"),
    [
        (LOCAL, "192.168.1.9", False, "192.168.1.9 is another machine"),
        (LOCAL, None, False, "another machine"),
        (LOCAL, "", False, "another machine"),
        (LOCAL | {"x-forwarded-for": "10.0.0.1"}, HERE, False, "a proxy"),
        (LOCAL | {"via": "1.1 x"}, HERE, False, "a proxy"),
        ({"host": "evil.local:8787"}, HERE, False, "not 'evil.local:8787'"),
        ({"host": "evil.local", "origin": "http://evil.local"}, HERE, False, "not 'evil.local'"),
        (LOCAL | {"origin": "http://localhost:3000"}, HERE, False, "localhost:3000"),
        (LOCAL | {"origin": "http://127.0.0.1:3000"}, HERE, True, "127.0.0.1:3000"),
        (LOCAL | {"origin": "app://obsidian.md"}, HERE, False, "obsidian"),
        (LOCAL | {"origin": "file://"}, HERE, True, "file://"),
        (LOCAL | {"origin": "null"}, HERE, True, "null"),
        ({"origin": "http://"}, HERE, True, "http://"),
    ],
)
def test_nobody_else_asks_who_may_be_in_the_mesh(headers, remote, vouched, why):
    """Not other machines, not proxies, no name that can be rebound, and no page but our own."""
    with pytest.raises(ApiError) as caught:
        check_owner(headers, remote, vouched=vouched)
    assert (caught.value.status, caught.value.code) == (403, "owner_only")
    assert why in caught.value.message
