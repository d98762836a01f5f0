"""What each command of `meshctl` does: ask a node, shape the answer, print, give an exit code.

What changes who is in the mesh is in `meshd.ctl.trust`, API keys in `meshd.ctl.keys`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from meshd import __version__
from meshd.cli import settings_from
from meshd.config import (
    ConfigError,
    Settings,
    describe,
    find_config,
    named_config,
    read_text,
    usual_places,
)
from meshd.ctl import client, exits, keys, trust
from meshd.ctl.completion import completion
from meshd.ctl.console import Body, complain, node_of, print_lines, screen_now, shaped, show
from meshd.ctl.drain import drain, resume
from meshd.ctl.exits import Trouble
from meshd.ctl.explain import explain_lines
from meshd.ctl.housing import change_model
from meshd.ctl.models import models_lines
from meshd.ctl.peers import peers_lines
from meshd.ctl.requests import requests
from meshd.ctl.screen import REDRAW, Cell, Column, Screen, clean, supports_redraw, table
from meshd.ctl.status import status_lines, troubles
from meshd.replacing import alone_in

WATCH_INTERVAL_S = 1.0
"""Pause between two looks of `status --watch`: loads change about once a second."""

WATCH_TIMEOUT_S = 3.0
"""A look that takes longer is given up, so that a stuck node shows as stuck."""


def status(args: Namespace) -> int:
    """Exit code DEGRADED when a node is lost, in doubt or short of memory, OK otherwise."""
    if args.watch:
        _watch(args)
    body = node_of(args).get("/mesh/v1/status")
    show(args, body, partial(status_lines, wide=args.wide))
    found = shaped(troubles, body)
    for trouble in found:
        complain(trouble)
    return exits.DEGRADED if found else exits.OK


def _watch(args: Namespace) -> None:
    """Look until interrupted. The first look must succeed; a later failure is said below what was
    seen last, and retried. With --json, one body a line."""
    node = node_of(args, WATCH_TIMEOUT_S)
    body, trouble = node.get("/mesh/v1/status"), ""
    redraw = supports_redraw(sys.stdout, os.environ) and not args.json
    while True:
        if redraw or not trouble:
            lines = [json.dumps(body)] if args.json else _screenful(body, args)
            print_lines([(REDRAW if redraw else "") + lines[0], *lines[1:]])
            sys.stdout.flush()
        if trouble:
            complain(trouble)
        time.sleep(WATCH_INTERVAL_S)
        try:
            body, trouble = node.get("/mesh/v1/status"), ""
        except Trouble as met:
            trouble = str(met)


def _screenful(body: Body, args: Namespace) -> list[str]:
    screen = screen_now()
    draw = partial(status_lines, screen=screen, wide=args.wide)
    return [*shaped(draw, body), *(clean(line, screen) for line in shaped(troubles, body))]


def peers(args: Namespace) -> int:
    body = node_of(args).get("/mesh/v1/members")
    show(args, body, partial(peers_lines, url=args.node, wide=args.wide))
    return exits.OK


def models(args: Namespace) -> int:
    if args.action is not None:
        return change_model(args)
    show(args, node_of(args).get("/v1/models"), models_lines)
    return exits.OK


def explain(args: Namespace) -> int:
    """FAILURE when no node could answer."""
    node = node_of(args)
    question = {
        "model": args.model or _first_model(node),
        "messages": [{"role": "user", "content": args.prompt}],
    }
    body = node.post("/mesh/v1/explain", question)
    show(args, body, explain_lines)
    return exits.OK if body.get("chosen") else exits.FAILURE


def _first_model(node: client.Node) -> str:
    offered = shaped(lambda body: [row["id"] for row in body["data"]], node.get("/v1/models"))
    if not offered:
        raise Trouble(exits.FAILURE, "no node of this mesh offers a model to explain a choice for")
    return str(offered[0])


def config(args: Namespace) -> int:
    """`path`: which file is read. `check`: every value and its origin, or what is wrong. `get`,
    `set`: one of them."""
    try:
        if args.action in {"get", "set"}:
            return _one_setting(args)
        if args.key is not None:
            raise Trouble(exits.USAGE, f"config {args.action} takes no word; --config names a file")
        file = find_config(args.config, os.environ)
        if args.action == "path":
            place = file or usual_places()[0]
            show(args, {"path": str(place), "exists": file is not None}, _path_lines)
        else:
            show(args, _settings_body(settings_from(args), file), _settings_lines)
    except ConfigError as error:
        raise Trouble(exits.USAGE, str(error)) from None
    return exits.OK


def _one_setting(args: Namespace) -> int:
    from meshd.rewrite import option_named, save, with_setting  # brings tomlkit, 40 ms

    if args.key is None or (args.action == "get" and args.values):
        raise Trouble(exits.USAGE, "say which setting: config get KEY, config set KEY VALUE")
    option = option_named(args.key)
    if args.action == "get":
        body = _settings_body(settings_from(args), find_config(args.config, os.environ))
        show(args, body["settings"][option.key], lambda row, screen: [row["value"]])
        return exits.OK
    found = named_config(args.config) if args.config else find_config(None, os.environ)
    file = found or usual_places()[0]
    with alone_in(file.resolve().parent, make=True):
        old = "" if _is_new(file) else read_text(file)
        save(file, with_setting(old, option, args.values, file.parent))
    said = " ".join(args.values) if args.values else "its default"
    when = LIVE_WORDS if option.live else LATER_WORDS
    body = {"file": str(file), "key": option.key, "value": args.values, "live": option.live}
    show(args, body, lambda body, screen: [f"{option.key} is {said} in {file}; {when}"])
    return exits.OK


def _is_new(file: Path) -> bool:
    """Raises ConfigError where nobody may look."""
    try:
        return not file.exists()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


LIVE_WORDS = "a running daemon takes it over within a few seconds"
LATER_WORDS = "it holds from the daemon's next start (`meshctl service stop`, then `start`)"


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


def top(args: Namespace) -> int:
    """See `meshd.ctl.top.top`."""
    from meshd.ctl.top import top as command

    return command(args)


def bench(args: Namespace) -> int:
    """See `meshd.ctl.bench.bench`."""
    from meshd.ctl.bench import bench as command  # brings threads and statistics, 20 ms

    return command(args)


def doctor(args: Namespace) -> int:
    """See `meshd.ctl.doctor.command.doctor`."""
    from meshd.ctl.doctor.command import doctor as command  # brings sockets and threads, 20 ms

    return command(args)


def service(args: Namespace) -> int:
    """See `meshd.ctl.service.command.service`."""
    from meshd.ctl.service.command import service as command  # brings subprocess, 15 ms

    return command(args)


def connect(args: Namespace) -> int:
    """See `meshd.ctl.connect.command.connect`."""
    from meshd.ctl.connect.command import connect as command  # brings difflib, tempfile: 20 ms

    return command(args)


def run(args: Namespace) -> int:
    """See `meshd.ctl.chat.run`."""
    from meshd.ctl import chat as talk

    return talk.run(args)


def chat(args: Namespace) -> int:
    """See `meshd.ctl.chat.chat`."""
    from meshd.ctl import chat as talk

    return talk.chat(args)


def version(args: Namespace) -> int:
    body = {"version": __version__, "python": sys.version.split()[0]}
    show(args, body, lambda body, screen: [f"meshctl {body['version']}"])
    return exits.OK


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "status": status,
    "peers": peers,
    "models": models,
    "explain": explain,
    "requests": requests,
    "drain": drain,
    "resume": resume,
    "pair": trust.pair,
    "join": trust.join,
    "revoke": trust.revoke,
    "keys": keys.keys,
    "top": top,
    "completion": completion,
    "bench": bench,
    "service": service,
    "doctor": doctor,
    "connect": connect,
    "run": run,
    "chat": chat,
    "config": config,
    "version": version,
}
