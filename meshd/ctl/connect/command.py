"""`meshctl connect [CLIENT]`: prints a client's configuration, or writes it where the client reads.

Printing is the default and touches nothing. `--write` merges into the client's own file, shows the
difference, and keeps the file as it was beside it; where that cannot be done safely it says why
and prints instead. A second run finds nothing to change.
"""

from __future__ import annotations

import difflib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from meshd.ctl import client, exits
from meshd.ctl.connect import agents, others
from meshd.ctl.connect.merge import InTheWay
from meshd.ctl.connect.recipe import Model, Recipe, Target
from meshd.ctl.console import Body, complain, node_of, progress, shaped, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Cell, Column, Screen, table
from meshd.replacing import replace_file

RECIPES: Mapping[str, Recipe] = {
    "aider": agents.AIDER,
    "claude-code": agents.CLAUDE_CODE,
    "codex": agents.CODEX,
    "continue": others.CONTINUE,
    "cursor": others.CURSOR,
    "home-assistant": others.HOME_ASSISTANT,
    "llm": agents.LLM,
    "ollama": others.OLLAMA,
    "open-webui": others.OPEN_WEBUI,
    "openai": others.OPENAI,
    "opencode": agents.OPENCODE,
    "zed": others.ZED,
}
"""Every client by the name that is typed."""

NEW_FILE_MODE = 0o600
"""Of a file that was not there: a key may stand in it."""

OWNER_MODE = 0o700
"""What an owner may do. Files that were there are often everybody's to read."""

FILE_MAX_BYTES = 1024 * 1024
"""A configuration that is longer is something else."""


def connect(args: Namespace) -> int:
    """FAILURE when `--write` was asked for and something is in the way."""
    if args.client is None:
        if args.write:
            raise Trouble(exits.USAGE, "--write: for which client? `meshctl connect` lists them")
        show(args, {"clients": {name: each.what for name, each in RECIPES.items()}}, _list_lines)
        return exits.OK
    recipe = RECIPES.get(args.client)
    if recipe is None:
        known = ", ".join(RECIPES)
        raise Trouble(
            exits.USAGE, f"'{args.client}' is not a client known here; there are: {known}"
        )
    if args.write and recipe.merge is None:
        raise Trouble(
            exits.USAGE,
            f"{args.client} reads no file that could be written here; run it without --write",
        )
    target = _target(args)
    place = _place(recipe)
    return (
        _write(args, recipe, target, place) if args.write else _print(args, recipe, target, place)
    )


def _list_lines(body: Body, screen: Screen) -> list[str]:
    rows = [(Cell(name, "bold"), Cell(what)) for name, what in body["clients"].items()]
    return [
        *table((Column("CLIENT"), Column("CONNECTS")), rows, screen),
        "",
        "`meshctl connect CLIENT` prints what it needs; --write puts it into the client's file.",
    ]


def _print(args: Namespace, recipe: Recipe, target: Target, place: Path | None) -> int:
    text = recipe.text(target)
    body = {"client": args.client, "file": str(place) if place else None, "text": text}
    if not args.json and place is not None:
        progress(f"# for {place}; `meshctl connect {args.client} --write` merges it in")
    show(args, body, lambda body, _screen: str(body["text"]).splitlines())
    _hint(args, recipe, target)
    return exits.OK


def _write(args: Namespace, recipe: Recipe, target: Target, place: Path | None) -> int:
    assert place is not None
    assert recipe.merge is not None
    old = _read(place)
    try:
        new = recipe.merge(old or "", target, args.force)
    except InTheWay as reason:
        _print(args, recipe, target, place)
        insist = "" if args.force else ", or insist with --force where a value is in the way"
        complain(f"{place} was left alone: {reason}. Put the lines above in by hand{insist}")
        return exits.FAILURE
    backup = None
    if new != old:
        if not args.json:
            progress("".join(_difference(old or "", new, place)).rstrip("\n"))
        backup = _replace(place, old, new, secret=bool(target.key) and target.key in new)
    show(args, {"client": args.client, "file": str(place), "backup": backup, "changed": new != old},
         _written_lines)  # fmt: skip
    _hint(args, recipe, target)
    return exits.OK


def _written_lines(body: Body, _screen: Screen) -> list[str]:
    if not body["changed"]:
        return [f"{body['file']} says it already."]
    kept = f"; as it was: {body['backup']}" if body["backup"] else ""
    return [f"{body['file']} is written{kept}"]


def _hint(args: Namespace, recipe: Recipe, target: Target) -> None:
    if not args.json:
        for line in recipe.hints(target):
            progress(f"# {line}")


def _target(args: Namespace) -> Target:
    """What is connected to: the node's URL, and its models as it lists them now."""
    root = (args.base_url or args.node).rstrip("/").removesuffix("/v1").rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise Trouble(exits.USAGE, f"--base-url: '{root}' is not http://HOST:PORT")
    key = args.key or os.environ.get(client.KEY_VARIABLE) or ""
    if not (root + key).isprintable() or " " in root + key:
        raise Trouble(exits.USAGE, "--base-url and --key hold neither spaces nor line breaks")
    try:
        models = shaped(_models, node_of(args).get("/v1/models"))
    except Trouble:
        if args.model is None:
            raise
        models = []
    wanted = _wanted(args.model, models)
    return Target(root, wanted, tuple(models) or (wanted,), key)


def _wanted(name: str | None, models: list[Model]) -> Model:
    """The model of that name, or the one that a person would start with: it has been listed first
    by `_models`."""
    for model in models:
        if name is None or model.model_id == name:
            return model
    if name is None:
        raise Trouble(exits.FAILURE, "no node of this mesh offers a model that can chat")
    if not name.isprintable():
        raise Trouble(exits.USAGE, "--model holds characters that cannot be printed")
    if models:
        progress(f"# no node offers {name} now; there are: {', '.join(m.model_id for m in models)}")
    return Model(name)


def _models(body: Body) -> list[Model]:
    """Those that can chat and can be written down, what is in memory first."""
    rows: list[Any] = [row for row in body["data"] if "chat" in row["capabilities"]]
    rows.sort(key=lambda row: row["status"]["value"] != "loaded")
    return [
        Model(row["id"], row["max_model_len"] or 0, tuple(row["capabilities"]))
        for row in rows
        if row["id"].isprintable()
    ]


def _place(recipe: Recipe) -> Path | None:
    """The file the client reads: the first one that is there, else the first one."""
    if recipe.place is None:
        return None
    places = recipe.place(os.environ, Path.home(), sys.platform)
    return next((place for place in places if place.exists()), places[0])


def _read(place: Path) -> str | None:
    """None for a file that is not there. Raises Trouble."""
    try:
        raw = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Trouble(exits.FAILURE, f"{place} cannot be read: {error.strerror}") from None
    if len(raw) > FILE_MAX_BYTES:
        raise Trouble(exits.FAILURE, f"{place} has more than {FILE_MAX_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Trouble(exits.FAILURE, f"{place} is not UTF-8") from None


def _replace(place: Path, old: str | None, new: str, *, secret: bool) -> str | None:
    """Writes the file in one step; where one was there, it stays beside it. The backup's path.
    The file keeps its mode, but for what others may do with one that holds a `secret`."""
    real = place.resolve()
    mode = NEW_FILE_MODE
    backup = None
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        if old is not None:
            mode = real.stat().st_mode & 0o777
            backup = _free(real.with_name(f"{real.name}.before-{time.strftime('%Y%m%d-%H%M%S')}"))
            replace_file(backup, old.encode(), mode=mode)
        replace_file(real, new.encode(), mode=mode & OWNER_MODE if secret else mode)
    except OSError as error:
        raise Trouble(exits.FAILURE, f"{place} cannot be written: {error.strerror}") from None
    return str(backup) if backup else None


def _free(place: Path) -> Path:
    """`place`, with a number behind where one is there: two runs in a second are two copies."""
    numbered = (place.with_name(f"{place.name}-{number}") for number in count(2))
    return next(each for each in chain([place], numbered) if not each.exists())


def _difference(old: str, new: str, place: Path) -> list[str]:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(place), str(place), n=2
    )
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]
