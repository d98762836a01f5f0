"""`meshctl pair`: what a person reads, and what is seen while the window is open. Pure.

The daemon says only what is open now and who is there now. What happened follows from two looks: a
node that is there and was not has come, fewer tries left mean a wrong code, and a window that is
gone was used, or is over. An invitation is used once, and ends before its user is a member; so a
node that appears while the window is open came another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.address import format_host_port, parse_host_port
from meshd.ctl.screen import Screen, clean
from meshd.ctl.words import seconds_words
from protocol.frozen import frozen

SAME_S = 5.0
"""Two invitations of one kind that end this near to each other are taken for one: the daemon gives
them no names, and a slow answer shifts what is known of their end."""

Body = Mapping[str, Any]


def invited_lines(invited: Body, members: Body, screen: Screen) -> list[str]:
    """The code, how long it is good for, and the line to type on the other machine."""
    lasts = seconds_words(invited["expires_s"])
    if "code" not in invited:
        line = screen.paint(f"meshctl join {clean(invited['token'], screen)}", "bold")
        return [f"Within {lasts}, on the machine that is to come in, once:", "", f"    {line}", ""]
    code = clean(invited["code"], screen)
    place = door_place(invited, members)
    return [
        "",
        f"    {screen.paint(code, 'bold')}",
        "",
        f"Within {lasts}, on the machine that is to come in:",
        "",
        f"    meshctl join {code}",
        "",
        *([f"Where that finds nobody, add: --at {clean(place, screen)}", ""] if place else []),
    ]


def door_place(invited: Body, members: Body) -> str | None:
    """Where the door is as `--at` takes it: the asked node's best address, the door's port."""
    mine = next((row for row in members["members"] if row["id"] == members["self"]), None)
    if mine is None or not mine["endpoints"] or not invited.get("door"):
        return None
    host, _ = parse_host_port(mine["endpoints"][0])
    return format_host_port(host, int(invited["door"]))


@frozen
class Seen:
    """One thing that happened: words for people, and an object for programs."""

    words: str
    event: Body


@dataclass(slots=True)
class Vigil:
    """Looks at one invitation of `kind` ("code" or "token"). `known` are ids that are no news."""

    kind: str
    known: set[str]
    tries_left: int | None = None
    open: bool = True
    came: bool = False
    """Whether a newcomer was seen when the window had closed: it came through it."""

    def look(self, invitations: Body, members: Body, remaining_s: float) -> list[Seen]:
        """What happened since the last look. `members` must have been asked for first: then who
        came through the window is never seen while it is still open."""
        mine = [
            row
            for row in invitations["invitations"]
            if row["kind"] == self.kind and abs(row["expires_s"] - remaining_s) < SAME_S
        ]
        self.open = bool(mine)
        return [*self._tries(mine), *self._arrivals(members)]

    def _tries(self, mine: list[Body]) -> list[Seen]:
        left = min((int(row["tries_left"]) for row in mine), default=None)
        before, self.tries_left = self.tries_left, left
        if left is None or before is None or left >= before:
            return []
        words = f"somebody tried a wrong code; tries left: {left}"
        return [Seen(words, {"wrong": {"tries_left": left}})]

    def _arrivals(self, members: Body) -> list[Seen]:
        here = present(members)
        new = [row for row in members["members"] if row["id"] in here - self.known]
        self.known |= here
        self.came = self.came or (bool(new) and not self.open)
        return [_arrival(row) for row in new]


def _arrival(row: Body) -> Seen:
    joined = {"id": row["id"], "name": row["name"]}
    return Seen(f"{row['name']} is in the mesh", {"joined": joined})


def present(members: Body) -> set[str]:
    """Ids of the nodes that are there now, the asked one included."""
    return {row["id"] for row in members["members"] if row["state"] in {"alive", "suspect"}}
