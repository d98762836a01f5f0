"""Putting our lines into somebody's configuration file without hurting it: text in, text out.

Three forms, each as careful as its syntax allows:

- JSON is decoded, merged and printed again, so it must be plain JSON: comments would be lost, and a
  file with comments is left alone;
- TOML and YAML are never rewritten. Our lines stand in a block between two comment lines, at the
  end or at the head, and a later run replaces that block and nothing else;
- a file of our own says so in its first line, and is replaced as a whole.

Whatever cannot be done safely is `InTheWay`, with the reason. What a file already says is kept:
where it says something else than we would, that is in the way too, unless the owner insists.
Merging twice changes nothing the second time.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

from protocol.frozen import frozen

BEGIN = "# >>> meshd: written by `meshctl connect`; a later run replaces these lines"
END = "# <<< meshd"
OWN = "# Written by `meshctl connect`; a later run replaces this file."

INDENT_USUAL = "  "
"""Of JSON, where a file does not show another."""


class InTheWay(Exception):
    """The file cannot be changed safely; the text says why."""


class Hold(Enum):
    """How firmly a value is meant."""

    OURS = auto()
    """Under a name of ours: replaced."""
    FIRM = auto()
    """Needed: another value there is in the way."""
    SOFT = auto()
    """Only where nothing is."""


@frozen
class Entry:
    """One value in a tree, by its path."""

    path: tuple[str, ...]
    value: Any
    hold: Hold = Hold.FIRM


def merged_json(text: str, entries: Sequence[Entry], *, force: bool = False) -> str:
    """`text` with the entries in it. Raises InTheWay."""
    tree = _decoded(text)
    before = json.dumps(tree)
    for entry in entries:
        _put(tree, entry, force=force)
    if text.strip() and json.dumps(tree) == before:
        return text
    return json.dumps(tree, indent=_indent(text), ensure_ascii=False) + "\n"


def with_block(text: str, lines: Sequence[str], *, at_head: bool = False) -> str:
    """`text` with our block of lines in it, `""` of lines taking it out."""
    rest = without_block(text, at_head=at_head)
    if not lines:
        return rest
    block = "\n".join([_begin(at_head=at_head), *lines, END]) + "\n"
    if at_head:
        return block + ("\n" + rest if rest else "")
    gap = "" if not rest else "\n" if rest.endswith("\n") else "\n\n"
    return rest + gap + block


def without_block(text: str, *, at_head: bool = False) -> str:
    """`text` without our block, and without the empty line that set it apart."""
    begin, end = re.escape(_begin(at_head=at_head)), re.escape(END)
    if at_head:
        return re.sub(rf"\A{begin}\n(?:.*\n)*?{end}\n\n?", "", text)
    return re.sub(rf"\n?^{begin}\n(?:.*\n)*?{end}\n", "", text, flags=re.MULTILINE)


def merged_toml(text: str, head: Mapping[str, Any], table: str, rows: Mapping[str, Any]) -> str:
    """`text` with `[table]` at its end, and with `head` in front of everything where none of its
    keys is there yet. Raises InTheWay."""
    bare = without_block(without_block(text, at_head=True))
    try:
        tree: Any = tomllib.loads(bare)
    except tomllib.TOMLDecodeError as error:
        raise InTheWay(f"it is not valid TOML ({error})") from None
    inner = tree
    for name in table.split("."):
        inner = inner.get(name, {}) if isinstance(inner, dict) else {}
    if inner:
        raise InTheWay(f"it has a table [{table}] that is not ours")
    lines = [] if any(key in tree for key in head) else toml_lines(head)
    whole = with_block(bare, [f"[{table}]", *toml_lines(rows)])
    whole = with_block(whole, lines, at_head=True)
    try:
        tomllib.loads(whole)
    except tomllib.TOMLDecodeError:  # the table above ours is written in one line, and so closed
        raise InTheWay(f"it has no room for a table [{table}]") from None
    return whole


def toml_lines(rows: Mapping[str, Any]) -> list[str]:
    """Strings and whole numbers as TOML. JSON's strings are TOML's."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in rows.items()]


def merged_yaml_keys(text: str, rows: Mapping[str, str]) -> str:
    """`text`, a mapping, with `rows` at its end. Raises InTheWay."""
    bare = without_block(text)
    taken = [key for key in rows if re.search(rf"^{re.escape(key)}\s*:", bare, re.MULTILINE)]
    if taken:
        raise InTheWay(f"it sets {', '.join(taken)} already")
    if not _begins(bare, r"[\w-]+\s*:") or not all(map(_is_yaml_key, bare.splitlines())):
        raise InTheWay("it is not a list of plain 'key: value' lines")
    return with_block(bare, yaml_lines(rows))


def merged_yaml_items(text: str, items: Sequence[Mapping[str, Any]], key: str) -> str:
    """`text`, a list, with `items` at its end; no other item may have the same `key`. Raises
    InTheWay."""
    bare = without_block(text)
    if not _begins(bare, r"-(?:\s|$)") or not all(
        re.match(r"(?:-\s|-$|\s|#|---|$)", line) for line in bare.splitlines()
    ):
        raise InTheWay("it is not a list of items")
    taken = [
        item[key]
        for item in items
        if re.search(
            rf"^[-\s]\s+{key}:\s*[\"']?{re.escape(item[key])}[\"']?\s*$", bare, re.MULTILINE
        )
    ]
    if taken:
        raise InTheWay(f"it has {key} {', '.join(taken)} already")
    return with_block(bare, yaml_items(items))


def yaml_items(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """A list of flat mappings as YAML."""
    lines = []
    for item in items:
        rows = yaml_lines(item)
        lines += [f"- {rows[0]}", *[f"  {row}" for row in rows[1:]]]
    return lines


def yaml_lines(rows: Mapping[str, Any]) -> list[str]:
    """A flat mapping as YAML. JSON's values are YAML's."""
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in rows.items()]


def own_file(text: str, fresh: str, *, force: bool = False) -> str:
    """`fresh` in place of a file of ours. Raises InTheWay for one that is not."""
    if text.strip() and not text.startswith(OWN) and not force:
        raise InTheWay("there is one already, and it is not ours")
    return f"{OWN}\n{fresh}"


def _decoded(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise InTheWay("it is not plain JSON (comments would be lost)") from None
    if not isinstance(tree, dict):
        raise InTheWay("it does not hold a JSON object")
    return tree


def _put(tree: dict[str, Any], entry: Entry, *, force: bool) -> None:
    *branches, leaf = entry.path
    for depth, branch in enumerate(branches, 1):
        inner = tree.setdefault(branch, {})
        if not isinstance(inner, dict):
            raise InTheWay(f"its '{'.'.join(entry.path[:depth])}' is not an object")
        tree = inner
    there = tree.get(leaf)
    if leaf not in tree or entry.hold is Hold.OURS or (force and entry.hold is Hold.FIRM):
        tree[leaf] = entry.value
    elif entry.hold is Hold.FIRM and there != entry.value:
        raise InTheWay(f"it says {'.'.join(entry.path)} = {json.dumps(there)} already")


def _indent(text: str) -> str:
    found = re.search(r"^\{\r?\n([ \t]+)\"", text)
    return found[1] if found else INDENT_USUAL


def _begin(*, at_head: bool) -> str:
    return f"{BEGIN} (defaults)" if at_head else BEGIN


def _begins(text: str, shape: str) -> bool:
    """Whether the first line that says something stands at the margin, as ours do, and is of that
    shape; or there is none."""
    said = re.search(r"^(?!\s*(?:#|$)|---\s*$).+", text, re.MULTILINE)
    return said is None or re.match(shape, said[0]) is not None


def _is_yaml_key(line: str) -> bool:
    return not line.strip() or line.startswith("#") or bool(re.match(r"[\w-]+\s*:|\s|-\s", line))
