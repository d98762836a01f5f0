"""`meshctl drain` and `resume`: whether the node that is asked takes work.

A drain takes a moment: streams go on at other nodes. The command looks for at most MOVE_S whether
all have gone, and says what is left; with --wait it stays until nothing is. For the machine's
owner: a node refuses it to other machines (exit code 4). A daemon that is started again takes work.
"""

from __future__ import annotations

import time
from argparse import Namespace

from meshd.ctl import client, exits
from meshd.ctl.console import Body, node_of, progress, shaped, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Screen, clean
from meshd.ctl.words import counted

MOVE_S = 1.5
"""How long a drain is watched without --wait: moving a stream takes a prefill elsewhere."""

WAIT_MAX_S = 150.0
"""Longest wait with --wait: a node lets nothing finish for longer than two minutes."""

LOOK_EVERY_S = 0.1
"""Pause between two looks at what is left."""


def drain(args: Namespace) -> int:
    """FAILURE when --wait was for nothing."""
    node = node_of(args)
    body: Body = node.post("/mesh/v1/drain", {})
    if args.wait and _left(body):
        progress(f"{body.get('node')}: waiting for {_work(body)} to end")
    body = _watched(node, body, WAIT_MAX_S if args.wait else MOVE_S)
    show(args, body, _drained)
    if args.wait and _left(body):
        raise Trouble(exits.FAILURE, f"{_work(body)} did not end within {WAIT_MAX_S:.0f} s")
    return exits.OK


def resume(args: Namespace) -> int:
    """The node takes work again."""
    show(args, node_of(args).post("/mesh/v1/resume", {}), _resumed)
    return exits.OK


def _watched(node: client.Node, body: Body, limit_s: float) -> Body:
    """The newest word of the node, when nothing is left or the time is over."""
    until = time.monotonic() + limit_s
    while _left(body) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        body = node.get("/mesh/v1/drain")
    return body


def _left(body: Body) -> int:
    return shaped(lambda body: int(body["running"]) + int(body["waiting"]), body)


def _work(body: Body) -> str:
    return counted(_left(body), "request")


def _drained(body: Body, screen: Screen) -> list[str]:
    name = clean(body["node"], screen)
    if not _left(body):
        ends = "`meshctl resume` ends that, and so does a restart"
        return [f"{name} takes no work now, and nothing is left here; {ends}"]
    left = f"{_work(body)} that no other node can carry on with will be finished here"
    return [f"{name} takes no work now; {left}; `meshctl drain --wait` waits for that"]


def _resumed(body: Body, screen: Screen) -> list[str]:
    return [f"{clean(body['node'], screen)} takes work again"]
