"""What all commands share: which node is asked, and how its answer is printed.

An answer that lacks what this version needs is somebody else's server or another version of the
daemon; it is reported as that, in one line, and never as a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from io import TextIOWrapper
from typing import Any, TypeVar

from meshd import __version__
from meshd.cli import open_streams
from meshd.ctl import client, exits
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Screen, harmless, screen_of

SCHEMA_VERSION = 1
"""Of every `--json` body that a node does not number itself."""

Body = Mapping[str, Any]
T = TypeVar("T")


def ready_streams() -> None:
    """Nothing to read where standard input is closed (`<&-`), nobody to read where an output is;
    and a letter that the other side has no code for is a question mark, not the end."""
    open_streams()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def node_of(args: Namespace, timeout_s: float = client.TIMEOUT_S) -> client.Node:
    """The node that `--node` names. Raises Trouble for what is no URL."""
    key = os.environ.get(client.KEY_VARIABLE)
    return client.Node(args.node, api_key=key, timeout_s=timeout_s)


def shaped(shape: Callable[[Body], T], body: Body) -> T:
    """`shape(body)`; Trouble when the body lacks what `shape` needs."""
    try:
        return shape(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Trouble(
            exits.FAILURE,
            f"the answer is not one of meshd {__version__} ({type(error).__name__}: {error}); "
            "see it with --json, and compare `meshd version` there",
        ) from None


def show(args: Namespace, body: Body, lines: Callable[[Body, Screen], list[str]]) -> None:
    """The body as `lines` of it, or whole with --json."""
    if args.json:
        print_lines([json.dumps(numbered(body), indent=2)])
    else:
        screen = screen_now()
        print_lines(shaped(lambda body: lines(body, screen), body))


def show_event(event: Body) -> None:
    """One of several bodies that one command prints with --json: a line each, as it happens."""
    print_lines([json.dumps(numbered(event))])
    sys.stdout.flush()


def numbered(body: Body) -> Body:
    """The body with its schema version in front."""
    return {"schema_version": SCHEMA_VERSION, **body}


def screen_now() -> Screen:
    """What standard output can show."""
    return screen_of(sys.stdout, os.environ)


def print_lines(lines: Iterable[str]) -> None:
    """Data, on standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def complain(text: str) -> None:
    """A diagnostic, on standard error."""
    sys.stderr.write(f"meshctl: {harmless(text)}\n")


def progress(text: str) -> None:
    """What is happening, on standard error; for people who wait."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
