"""`meshctl keys`: API keys, made and taken back in the daemon's state directory; no node is asked.

A new key is the only line on standard output, so that a script can take it; what it is for goes to
standard error. Where the machine's service is installed and no other directory is told, the keys
are that daemon's: made anywhere else they would open nothing.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from dataclasses import replace

from meshd.address import format_host_port, is_loopback
from meshd.config import ConfigError, Settings, find_config, load_settings
from meshd.ctl import exits
from meshd.ctl.console import Body, print_lines, progress, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Cell, Column, Screen, table
from meshd.ctl.service.installed import state_dir_of
from meshd.replacing import alone_in

SERVICES = " (the machine's service: with sudo; another daemon's: --state-dir DIR)"

COLUMNS = (Column("NAME"), Column("MADE"))


def keys(args: Namespace) -> int:
    """USAGE when `add` or `remove` lacks a name, or `list` has one."""
    from meshd.api.keys import KeysError  # brings asyncio, 40 ms that other commands need not pay

    if (args.name is None) != (args.action == "list"):
        says = "takes no NAME" if args.name else "needs a NAME: whose key it is"
        raise Trouble(exits.USAGE, f"keys {args.action} {says}")
    try:
        settings = load_settings(
            {"state_dir": args.state_dir}, os.environ, find_config(args.config, os.environ)
        )
        place = state_dir_of(settings)
        whose = "" if place == settings.state_dir else SERVICES
        settings = replace(settings, state_dir=place)
        {"add": _add, "list": _list, "remove": _remove}[args.action](args, settings)
    except ConfigError as error:
        raise Trouble(exits.USAGE, str(error)) from None
    except KeysError as error:
        raise Trouble(exits.FAILURE, f"{error}{whose}") from None
    return exits.OK


def _add(args: Namespace, settings: Settings) -> None:
    from meshd.api.keys import add_key

    with alone_in(settings.state_dir, make=True):
        key = add_key(settings.state_dir, args.name, time.strftime("%Y-%m-%d"))
    if args.json:
        show(args, {"name": args.name, "key": key}, lambda body, screen: [])
        return
    print_lines([key])
    for line in _advice(args.name, settings):
        progress(line)


def _advice(name: str, settings: Settings) -> list[str]:
    """What to do with a new key."""
    kept = f"only its hash is kept, in {settings.state_dir}"
    lines = [
        f"This is {name}'s key, shown this once; {kept}.",
        "Clients send it as their API key; meshctl takes it from MESHCTL_API_KEY.",
    ]
    if is_loopback(settings.http_host):
        place = format_host_port("0.0.0.0", settings.http_port)  # noqa: S104 - advice, with a key
        lines.append(f"A node asks for it once it listens wider than loopback: --http {place}")
    return lines


def _list(args: Namespace, settings: Settings) -> None:
    from meshd.api.keys import list_keys

    rows = [{"name": key.name, "made": key.made} for key in list_keys(settings.state_dir)]
    show(args, {"keys": rows, "state_dir": str(settings.state_dir)}, _key_lines)


def _key_lines(body: Body, screen: Screen) -> list[str]:
    if not body["keys"]:
        return [f"no API keys in {body['state_dir']}; make one with `meshctl keys add NAME`"]
    rows = [(Cell(row["name"], "bold"), Cell(row["made"])) for row in body["keys"]]
    return table(COLUMNS, rows, screen)


def _remove(args: Namespace, settings: Settings) -> None:
    from meshd.api.keys import remove_key

    with alone_in(settings.state_dir):
        remove_key(settings.state_dir, args.name)
    words = f"{args.name}'s key opens nothing any more; a running node notices within a second"
    show(args, {"removed": args.name}, lambda body, screen: [words])
