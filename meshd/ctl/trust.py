"""`meshctl pair`, `join` and `revoke`: who is in the mesh. The node that is asked does the work.

These are for the machine's owner: a node refuses them to other machines (exit code 4).
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

from meshd.ctl import client, exits
from meshd.ctl.console import (
    Body,
    complain,
    node_of,
    print_lines,
    progress,
    screen_now,
    shaped,
    show,
    show_event,
)
from meshd.ctl.exits import Trouble
from meshd.ctl.invited import Seen, Vigil, invited_lines, present
from meshd.ctl.peers import peers_lines
from meshd.ctl.screen import Screen, clean
from meshd.ctl.words import seconds_words

PAIR = "/mesh/v1/pair"
JOIN = "/mesh/v1/join"
REVOKE = "/mesh/v1/revoke"
MEMBERS = "/mesh/v1/members"

LOOK_INTERVAL_S = 0.5
"""Pause between two looks while somebody waits: two small questions each."""

ARRIVAL_WAIT_S = 5.0
"""How long to look for a node that was let in: it introduces itself within half a second."""

CHANGE_TIMEOUT_S = 60.0
"""Longest wait for a join or a revocation: both wait up to half a minute for other machines."""


# pair


def pair(args: Namespace) -> int:
    """FAILURE when the window closed and nobody came."""
    node = node_of(args)
    if args.cancel:
        show(args, node.delete(PAIR), lambda body, screen: ["no pairing window is open any more"])
        return exits.OK
    members = node.get(MEMBERS)
    known = shaped(present, members)
    invited = node.post(PAIR, {"token": args.token})
    if args.json:
        show_event(invited)
    else:
        lines = partial(invited_lines, members=members, screen=screen_now())
        print_lines(shaped(lines, invited))
        sys.stdout.flush()
    if args.no_wait:
        return exits.OK
    expires_s = shaped(lambda body: float(body["expires_s"]), invited)
    return _attend(args, node, Vigil("token" if args.token else "code", known), expires_s)


def _attend(args: Namespace, node: client.Node, vigil: Vigil, expires_s: float) -> int:
    """Say who comes, until the window has closed."""
    until = time.monotonic() + expires_s
    try:
        progress("waiting for the other machine; Ctrl-C stops waiting, the window stays open ...")
        expired = _watch(args, node, vigil, until)
    except KeyboardInterrupt:
        left = seconds_words(max(0.0, until - time.monotonic()))
        progress(f"not waiting any more; open for {left}, or until `meshctl pair --cancel`")
        raise
    if args.json:
        show_event({"closed": "used" if vigil.came else "unused"})
    if vigil.came:
        return exits.OK
    early = "was closed: too many wrong codes, another `meshctl pair`, or --cancel"
    complain(f"nobody came; the window {'has expired' if expired else early}")
    return exits.FAILURE


def _watch(args: Namespace, node: client.Node, vigil: Vigil, until: float) -> bool:
    """Look until the window is closed and its newcomer is here. Whether its time had run out."""
    closed_at: float | None = None
    while closed_at is None or not (vigil.came or time.monotonic() > closed_at + ARRIVAL_WAIT_S):
        time.sleep(LOOK_INTERVAL_S)
        members = node.get(MEMBERS)
        left_s = until - time.monotonic()
        look = partial(vigil.look, members=members, remaining_s=left_s)
        for each in shaped(look, node.get(PAIR)):
            _tell(args, each)
        if closed_at is None and not vigil.open:
            closed_at = time.monotonic()
    return closed_at >= until - LOOK_INTERVAL_S


def _tell(args: Namespace, seen: Seen) -> None:
    if args.json:
        show_event(seen.event)
    else:
        print_lines([clean(seen.words, screen_now())])
        sys.stdout.flush()


# join


def join(args: Namespace) -> int:
    """OK once the node was let in, even where no other member has answered it yet."""
    node = node_of(args, CHANGE_TIMEOUT_S)
    where = f"at {args.at}" if args.at else "where the code was made"
    progress(f"asking to be let in {where}; this takes up to half a minute ...")
    joined = node.post(JOIN, {"code": " ".join(args.code), "at": args.at})
    members = _members_met(node)
    show(args, {**joined, **members}, partial(_joined_lines, url=args.node))
    if not shaped(_others, members):
        complain("let in, but no other node has answered yet; `meshctl peers` tells when")
    return exits.OK


def _members_met(node: client.Node) -> Body:
    """Who is there, as soon as anybody else is."""
    until = time.monotonic() + ARRIVAL_WAIT_S
    members = node.get(MEMBERS)
    while not shaped(_others, members) and time.monotonic() < until:
        time.sleep(LOOK_INTERVAL_S)
        members = node.get(MEMBERS)
    return members


def _others(members: Body) -> set[str]:
    return present(members) - {members["self"]}


def _joined_lines(body: Body, screen: Screen, *, url: str) -> list[str]:
    sponsors = ", ".join(body["sponsors"]) or "a member"
    head = f"this node is in mesh {body['mesh']}; let in by {sponsors}"
    others = ["", *peers_lines(body, screen, url=url)] if _others(body) else []
    return [screen.paint(clean(head, screen), "good"), *others]


# revoke


def revoke(args: Namespace) -> int:
    """FAILURE when the person said no; USAGE where nobody can be asked and --yes is missing."""
    node = node_of(args, CHANGE_TIMEOUT_S)
    if not args.yes and not _meant(args, node):
        complain("nothing was changed")
        return exits.FAILURE
    show(args, node.post(REVOKE, {"node": args.target}), _revoked_lines)
    return exits.OK


def _meant(args: Namespace, node: client.Node) -> bool:
    if not sys.stdin.isatty():
        raise Trouble(exits.USAGE, "revoke asks before it acts; without a terminal, add --yes")
    found = shaped(partial(_matches, target=args.target), node.get(MEMBERS))
    screen = screen_now()
    sys.stderr.write(
        f"Put {clean(_described(args.target, found), screen)} out of the mesh, and change the mesh "
        "key?\nIt comes back only as a new machine: with a new state directory, by pairing. [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _matches(members: Body, target: str) -> list[dict[str, Any]]:
    return [row for row in members["members"] if target in {row["name"], row["id"]}]


def _described(target: str, found: Sequence[Body]) -> str:
    """Who would be put out. Raises Trouble when the name is several nodes'."""
    if len(found) > 1:
        ids = ", ".join(row["id"] for row in found)
        raise Trouble(exits.FAILURE, f"several nodes are called {target}; name one by id: {ids}")
    if not found:
        return f"{target} (no node that is known here now)"
    row = found[0]
    place = f" at {row['address']}" if row.get("address") else ""
    return f"{row['name']} ({row['id']}, {row['state']}{place})"


def _revoked_lines(body: Body, screen: Screen) -> list[str]:
    told = ", ".join(body["told"]) or "nobody else is there"
    silent = ", ".join(body["silent"])
    lines = [
        f"{body['node']} is out of the mesh; the mesh key has been changed (epoch {body['epoch']})",
        f"told: {told}",
        *([f"silent: {silent} (told as soon as they meet another member)"] if silent else []),
    ]
    return [clean(line, screen) for line in lines]
