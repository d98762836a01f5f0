"""What each command of `meshctl` does: ask a node, shape the answer, print, give an exit code.

An answer that lacks what this version needs is somebody else's server or another version of the
daemon; it is reported as that, in one line, and never as a traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from meshd import __version__
from meshd.cli import settings_from
from meshd.config import ConfigError, Settings, describe, find_config, usual_places
from meshd.ctl import client, exits
from meshd.ctl.exits import Trouble
from meshd.ctl.explain import explain_lines
from meshd.ctl.models import models_lines
from meshd.ctl.peers import peers_lines
from meshd.ctl.screen import REDRAW, Cell, Column, Screen, screen_of, supports_redraw, table
from meshd.ctl.status import status_lines, troubles

SCHEMA_VERSION = 1
"""Of every `--json` body that a node does not number itself."""

WATCH_INTERVAL_S = 1.0
"""Pause between two looks of `status --watch`: loads change about once a second."""

WATCH_TIMEOUT_S = 3.0
"""A look that takes longer is given up, so that a stuck node shows as stuck."""

Body = Mapping[str, Any]
T = TypeVar("T")


def status(args: Namespace) -> int:
    """Exit code DEGRADED when a node is lost, in doubt or short of memory, OK otherwise."""
    if args.watch:
        _watch(args)
    body = _node(args).get("/mesh/v1/status")
    _show(args, body, partial(status_lines, wide=args.wide))
    found = _shaped(troubles, body)
    for trouble in found:
        _complain(trouble)
    return exits.DEGRADED if found else exits.OK


def _watch(args: Namespace) -> None:
    """Look until interrupted. The first look must succeed; a later failure is shown, and retried.
    With --json, one body a line."""
    node = _node(args, WATCH_TIMEOUT_S)
    body = node.get("/mesh/v1/status")
    redraw = supports_redraw(sys.stdout, os.environ) and not args.json
    while True:
        lines = [json.dumps(body)] if args.json else _screenful(body, args)
        _print([(REDRAW if redraw else "") + lines[0], *lines[1:]])
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL_S)
        try:
            body = node.get("/mesh/v1/status")
        except Trouble as trouble:
            _complain(str(trouble))


def _screenful(body: Body, args: Namespace) -> list[str]:
    show = partial(status_lines, screen=_screen(), wide=args.wide)
    return [*_shaped(show, body), *_shaped(troubles, body)]


def peers(args: Namespace) -> int:
    body = _node(args).get("/mesh/v1/members")
    _show(args, body, partial(peers_lines, url=args.node, wide=args.wide))
    return exits.OK


def models(args: Namespace) -> int:
    _show(args, _node(args).get("/v1/models"), models_lines)
    return exits.OK


def explain(args: Namespace) -> int:
    """FAILURE when no node could answer."""
    node = _node(args)
    question = {
        "model": args.model or _first_model(node),
        "messages": [{"role": "user", "content": args.prompt}],
    }
    body = node.post("/mesh/v1/explain", question)
    _show(args, body, explain_lines)
    return exits.OK if body.get("chosen") else exits.FAILURE


def _first_model(node: client.Node) -> str:
    offered = _shaped(lambda body: [row["id"] for row in body["data"]], node.get("/v1/models"))
    if not offered:
        raise Trouble(exits.FAILURE, "no node of this mesh offers a model to explain a choice for")
    return str(offered[0])


def config(args: Namespace) -> int:
    """`path`: which file is read. `check`: every value and its origin, or what is wrong."""
    try:
        file = find_config(args.config, os.environ)
        if args.action == "path":
            place = file or usual_places()[0]
            _show(args, {"path": str(place), "exists": file is not None}, _path_lines)
        else:
            _show(args, _settings_body(settings_from(args), file), _settings_lines)
    except ConfigError as error:
        raise Trouble(exits.USAGE, str(error)) from None
    return exits.OK


def _path_lines(body: Body, screen: Screen) -> list[str]:
    return [body["path"] + ("" if body["exists"] else " (not there: the defaults hold)")]


def _settings_body(settings: Settings, file: Path | None) -> Body:
    rows = describe(settings)
    return {
        "file": str(file) if file else None,
        "settings": {key: {"value": value, "origin": origin} for key, value, origin in rows},
    }


def _settings_lines(body: Body, screen: Screen) -> list[str]:
    columns = (Column("SETTING"), Column("VALUE"), Column("FROM"))
    rows = [
        (Cell(key, "bold"), Cell(row["value"] or "-"), Cell(row["origin"], "dim"))
        for key, row in body["settings"].items()
    ]
    return table(columns, rows, screen)


def version(args: Namespace) -> int:
    body = {"version": __version__, "python": sys.version.split()[0]}
    _show(args, body, lambda body, screen: [f"meshctl {body['version']}"])
    return exits.OK


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "status": status,
    "peers": peers,
    "models": models,
    "explain": explain,
    "config": config,
    "version": version,
}


# Asking and printing


def _node(args: Namespace, timeout_s: float = client.TIMEOUT_S) -> client.Node:
    key = os.environ.get(client.KEY_VARIABLE)
    return client.Node(args.node, api_key=key, timeout_s=timeout_s)


def _shaped(shape: Callable[[Body], T], body: Body) -> T:
    try:
        return shape(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Trouble(
            exits.FAILURE,
            f"the answer is not one of meshd {__version__} ({type(error).__name__}: {error}); "
            "see it with --json, and compare `meshd version` there",
        ) from None


def _show(args: Namespace, body: Body, lines: Callable[[Body, Screen], list[str]]) -> None:
    if args.json:
        _print([json.dumps({"schema_version": SCHEMA_VERSION, **body}, indent=2)])
    else:
        screen = _screen()
        _print(_shaped(lambda body: lines(body, screen), body))


def _screen() -> Screen:
    return screen_of(sys.stdout, os.environ)


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _complain(text: str) -> None:
    sys.stderr.write(f"meshctl: {text}\n")
