"""What `meshctl pair` shows, and what it concludes from looks at the window."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.ctl.invited import Vigil, door_place, invited_lines, present
from meshd.ctl.screen import Screen

CODE = {"code": "1234 5678", "expires_s": 120.0, "door": 8790}
TOKEN = {"token": "meshd-join-abc", "expires_s": 600.0, "door": 8790}
OPEN = {"door": 8790, "invitations": [{"kind": "code", "expires_s": 60.0, "tries_left": 5}]}
CLOSED = {"door": None, "invitations": []}


def members(*rows: tuple[str, str]) -> dict[str, Any]:
    """A members body of these names and states; the first is the node asked."""
    listed = [
        {"id": name[0] * 4, "name": name, "state": state, "endpoints": ["192.168.1.20:8788"]}
        for name, state in rows
    ]
    return {"self": listed[0]["id"], "members": listed}


ALONE = members(("kitchen", "alive"))
BOTH = members(("kitchen", "alive"), ("attic", "alive"))


def vigil(kind: str = "code") -> Vigil:
    return Vigil(kind, present(ALONE))


def test_a_code_comes_with_the_exact_line_to_type() -> None:
    """How long it is good for, and where to knock if nobody is found."""
    text = "\n".join(invited_lines(CODE, ALONE, Screen()))
    assert "\n    1234 5678\n" in text
    assert "Within 2 min" in text
    assert "\n    meshctl join 1234 5678\n" in text
    assert "--at 192.168.1.20:8790" in text


def test_a_token_needs_no_place() -> None:
    """It holds the places itself."""
    text = "\n".join(invited_lines(TOKEN, ALONE, Screen()))
    assert "\n    meshctl join meshd-join-abc\n" in text
    assert "Within 10 min" in text
    assert "--at" not in text


def test_the_code_stands_out_on_a_terminal() -> None:
    """And what came from the node cannot move the cursor."""
    assert "    \x1b[1m1234 5678\x1b[0m" in invited_lines(CODE, ALONE, Screen(colour=True))
    wild = invited_lines(CODE | {"code": "12\x1b[2J34"}, ALONE, Screen())
    assert "\x1b" not in "".join(wild)


@pytest.mark.parametrize(
    ("endpoints", "door", "place"),
    [
        (["192.168.1.20:8788", "10.0.0.1:8788"], 8790, "192.168.1.20:8790"),
        (["[fe80::1%eth0]:8788"], 8790, "[fe80::1%eth0]:8790"),
        ([], 8790, None),
        (["192.168.1.20:8788"], None, None),
    ],
)
def test_the_place_is_the_best_address_with_the_doors_port(
    endpoints: list[str], door: int | None, place: str | None
) -> None:
    """None where either is not known."""
    body = members(("kitchen", "alive"))
    body["members"][0]["endpoints"] = endpoints
    assert door_place({"door": door}, body) == place


def test_who_is_there_when_the_window_has_closed_came_through_it() -> None:
    """The invitation ends before its user is a member."""
    watch = vigil()
    assert watch.look(OPEN, ALONE, 60.0) == []
    seen = watch.look(CLOSED, BOTH, 59.0)
    assert [each.words for each in seen] == ["attic is in the mesh"]
    assert seen[0].event == {"joined": {"id": "aaaa", "name": "attic"}}
    assert (watch.open, watch.came) == (False, True)


def test_who_is_there_while_the_window_is_open_came_another_way() -> None:
    """It is said, once, and the window is still waited for."""
    watch = vigil()
    assert [each.words for each in watch.look(OPEN, BOTH, 60.0)] == ["attic is in the mesh"]
    assert watch.look(CLOSED, BOTH, 59.0) == []
    assert (watch.open, watch.came) == (False, False)


def test_a_node_that_was_only_in_doubt_is_no_news() -> None:
    """A suspect is taken back a moment later."""
    doubtful = members(("kitchen", "alive"), ("attic", "suspect"))
    watch = Vigil("code", present(doubtful))
    assert watch.look(CLOSED, BOTH, 60.0) == []


def test_a_wrong_code_is_said_when_it_was_tried() -> None:
    """With the tries that are left; the first look has nothing to compare with."""
    watch = vigil()
    fewer = {"door": 1, "invitations": [{"kind": "code", "expires_s": 58.0, "tries_left": 3}]}
    assert watch.look(OPEN, ALONE, 60.0) == []
    seen = watch.look(fewer, ALONE, 58.0)
    assert [each.event for each in seen] == [{"wrong": {"tries_left": 3}}]
    assert watch.look(fewer, ALONE, 58.0) == []


@pytest.mark.parametrize(
    ("kind", "remaining_s", "is_open"),
    [("code", 60.0, True), ("code", 57.0, True), ("code", 20.0, False), ("token", 60.0, False)],
)
def test_another_invitation_is_not_this_one(kind: str, remaining_s: float, is_open: bool) -> None:
    """Told apart by kind, and by when they end."""
    watch = vigil(kind)
    watch.look(OPEN, ALONE, remaining_s)
    assert watch.open is is_open
