"""`meshctl models load|unload|pin|unpin`: what is in the memory of the node that is asked.

For the machine's owner: a node refuses it to other machines (exit code 4).
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from meshd.ctl import exits
from meshd.ctl.console import Body, node_of, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Screen, clean

ACTIONS = ("load", "unload", "pin", "unpin")
"""What can be done with a model."""

LOAD_TIMEOUT_S = 600.0
"""Longest wait for a load: 40 GB from a slow disk take seven minutes."""


def change_model(args: Namespace) -> int:
    """FAILURE when the node refuses; its arithmetic is the message."""
    if not args.model:
        raise Trouble(exits.USAGE, f"models {args.action}: which one? `meshctl models` lists them")
    if args.force and args.action != "load":
        raise Trouble(exits.USAGE, "--force is for `models load`")
    wanted = {"model": args.model} | ({"force": True} if args.force else {})
    node = node_of(args, LOAD_TIMEOUT_S)
    body = node.post(f"/mesh/v1/models/{args.action}", wanted)
    show(args, body, partial(_lines, action=args.action))
    return exits.OK


def _lines(body: Body, screen: Screen, *, action: str) -> list[str]:
    state = "in memory" if body["warm"] else "not in memory"
    pinned = ", pinned" if body["pinned"] else ""
    held = f"{body['reserved_bytes'] / 1e9:.2f} GB"
    return [f"{clean(body['model'], screen)} is {state}{pinned}; models here hold {held} of memory"]
