"""What it takes to connect a client, and what every recipe is made with. Pure.

A recipe has a text that is printed, and, where the client reads one file of the person who runs
it, a merge of that text into that file. What a client keeps in a database or in a container's
environment is only printed.

The provider is called `mesh` everywhere. API keys stand in a file only where the client has no
other way to read one; with keys off any word does, and `mesh` is it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol.frozen import frozen

PROVIDER = "mesh"
DUMMY_KEY = "mesh"
"""What is sent while keys are off: most clients refuse to send none."""

KEY_VARIABLE = "MESH_API_KEY"
"""Where clients that can read a variable find the key. Zed makes this name of the provider's."""

CONTEXT_USUAL = 8_192
"""Told to clients that must be told one, of a model whose context length is not known."""

OUTPUT_SHARE = 4
"""An answer may take this part of the context, where a client wants to know."""


@frozen
class Model:
    """One model of the mesh. `context_length` is 0 when unknown."""

    model_id: str
    context_length: int = 0
    capabilities: tuple[str, ...] = ("chat",)

    @property
    def told_context(self) -> int:
        """Its context length, or a usual one."""
        return self.context_length or CONTEXT_USUAL


@frozen
class Target:
    """What a client is to be pointed at. `root` is the node's URL without `/v1`; `key` is `""`
    where none is needed; `models` are all that can chat, `model` among them."""

    root: str
    model: Model
    models: tuple[Model, ...]
    key: str = ""

    @property
    def base_url(self) -> str:
        """Where OpenAI's dialect begins."""
        return f"{self.root}/v1"

    @property
    def key_or_dummy(self) -> str:
        """A word for clients that will not ask without one."""
        return self.key or DUMMY_KEY


Merge = Callable[[str, Target, bool], str]
Place = Callable[[Mapping[str, str], Path, str], tuple[Path, ...]]
"""Environment, home and `sys.platform` to the files a client reads, best first."""


@frozen
class Recipe:
    """How one client is connected."""

    what: str
    text: Callable[[Target], str]
    hints: Callable[[Target], list[str]]
    """What else a person must know or do, in lines."""
    place: Place | None = None
    merge: Merge | None = None
    """The file's text and whether to insist, to its new text. Raises InTheWay."""


def below(variable: str, folder: str, *names: str) -> Place:
    """Files below the folder that `variable` names (`""`: none does), else below `folder` of the
    home."""

    def place(env: Mapping[str, str], home: Path, _platform: str) -> tuple[Path, ...]:
        base = Path(env[variable]) if env.get(variable) else home / folder
        return tuple([base / name for name in names])

    return place


def no_hints(_target: Target) -> list[str]:
    """Nothing else to know."""
    return []


def exports(**variables: str) -> str:
    """Variables as a shell sets them."""
    return lines(*[f"export {name}={shlex.quote(value)}" for name, value in variables.items()])


def lines(*each: str) -> str:
    """Lines as a text."""
    return "\n".join(each) + "\n"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
