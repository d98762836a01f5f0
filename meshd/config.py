"""Where a setting comes from: flag, environment, file or default, and what the daemon is told.

The rules:

- flag > environment > file > default, value by value; where each came from is kept in `origins`;
- a key that nobody knows is an error that names it and the nearest one that exists. A setting that
  silently does nothing is worse than a daemon that does not start: a mistyped `mesh_key_file`
  would leave the node alone without a word. This holds for `MESHD_*` variables too;
- a value is checked even where a stronger one hides it, so removing a flag brings no surprise;
- relative paths in a file are relative to that file; on the command line, to the working folder.

Not checked here, because only their owners can: whether a port is free, whether a key file is
readable by its owner only, whether an HTTP address that other machines reach has API keys, whether
an engine's SPEC makes sense.
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from meshd.address import LOOPBACK_OF, format_host_port
from meshd.core.residency.plan import KEEP_ALIVE_S
from meshd.core.routing.courtesy import QUEUE_WAIT_S, USUAL_SHARE
from meshd.options import BY_KEY, FOR_EVER, OPTIONS, Option, expanded, node_name
from protocol.frozen import frozen

CONFIG_MAX_BYTES = 1024 * 1024
"""Longest config file read: a full one is about 2 KiB, so anything near this is another file."""

ENVIRONMENT_PREFIX = "MESHD_"
CONFIG_VARIABLE = "MESHD_CONFIG"


class ConfigError(Exception):
    """The settings cannot be used; the text is one line that names the key and the remedy."""


@frozen
class Settings:
    """What `meshd run` was told, after flag > environment > file > default."""

    state_dir: Path
    name: str
    http_host: str = "127.0.0.1"
    http_port: int = 8787
    mesh_host: str = "0.0.0.0"  # noqa: S104 - peers live on other machines; CURVE guards it
    mesh_port: int = 8788
    relay_port: int = 8789
    """Mesh port + 1; 0 (any free port) where the mesh port is 0."""
    peers: tuple[str, ...] = ()
    mdns: bool = True
    interfaces: tuple[str, ...] = ()
    mesh_key_file: Path | None = None
    engines: tuple[str, ...] = ()
    model_dirs: tuple[Path, ...] = ()
    catalog: bool = True
    adopt: bool = True
    memory_reserve_bytes: int | None = None
    """None: a share of the machine (meshd.core.residency.plan.reserve_bytes)."""
    keep_alive_s: float = KEEP_ALIVE_S
    queue_wait_s: float = QUEUE_WAIT_S
    on_battery: str = USUAL_SHARE
    """This and the next three: a share of the slots (meshd.core.routing.courtesy)."""
    when_hot: str = USUAL_SHARE
    when_used: str = USUAL_SHARE
    under_pressure: str = USUAL_SHARE
    log_format: str = "text"
    origins: dict[str, str] = field(default_factory=dict)
    """Field name -> where its value came from, for people."""


# The layers, weakest first


@frozen
class Layer:
    """One place settings come from: its values by key, and how it names a key to people."""

    values: Mapping[str, object]
    name_of: Callable[[str], str]
    base: Path


def load_settings(
    flags: Mapping[str, object], env: Mapping[str, str], file: Path | None
) -> Settings:
    """Merge the layers. `flags` holds option keys (`mesh_key_file`), None where not given.

    Raises ConfigError for an unknown key, a value that cannot be read, or a file that cannot.
    """
    found: dict[str, Any] = {}
    origins = {f.name: "default" for f in fields(Settings) if f.name != "origins"}
    for layer in _layers(flags, env, file):
        for key, option in _known(layer):
            try:
                values = option.read(layer.values[key], layer.base)
            except ValueError as error:
                raise ConfigError(f"{layer.name_of(key)}: {error}") from None
            found.update(zip(option.fields, values, strict=True))
            origins.update(dict.fromkeys(option.fields, layer.name_of(key)))
    if "state_dir" not in found:
        found["state_dir"] = default_state_dir()
    found.setdefault("name", node_name(socket.gethostname()))
    settings = Settings(**found, origins=origins)
    _check_ports(settings)
    return settings


def _check_ports(settings: Settings) -> None:
    """The daemon must not stand in its own way, and then tell people to stop whoever does."""
    port, hosts = settings.http_port, {settings.http_host, settings.mesh_host}
    if port not in {settings.mesh_port, settings.relay_port} - {0}:
        return
    if len(hosts) == 1 or not hosts.isdisjoint(LOOPBACK_OF):
        origins = settings.origins
        raise ConfigError(
            f"http ({origins['http_port']}) and mesh ({origins['mesh_port']}) both want port "
            f"{port}: the mesh takes {settings.mesh_port} and {settings.relay_port}"
        )


def _layers(
    flags: Mapping[str, object], env: Mapping[str, str], file: Path | None
) -> Iterable[Layer]:
    here = Path.cwd()
    if file is not None:
        text = read_text(file)
        base = file.parent.resolve()
        yield Layer(_parse(text, file), lambda key: f"{file}{_line_of(text, key)}: {key}", base)
    variables = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in sorted(env.items())
        if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE
    }
    yield Layer(variables, lambda key: f"environment {ENVIRONMENT_PREFIX}{key.upper()}", here)
    given = {key: value for key, value in flags.items() if value is not None}
    yield Layer(given, lambda key: f"flag --{key.replace('_', '-')}", here)


def _known(layer: Layer) -> Iterable[tuple[str, Option]]:
    """The layer's options; an unknown key, or one option spelt twice, is an error."""
    seen: dict[str, str] = {}
    for key in layer.values:
        option = BY_KEY.get(key)
        if option is None:
            raise ConfigError(
                f"{layer.name_of(key)}: there is no such setting{_nearest(layer, key)}"
            )
        if option.name in seen:
            raise ConfigError(f"{layer.name_of(key)}: the same as {seen[option.name]!r}; keep one")
        seen[option.name] = key
        yield key, option


def _nearest(layer: Layer, key: str) -> str:
    near = closest(key, [option.key for option in OPTIONS])
    if near is None:
        return f"; there are {', '.join(option.key for option in OPTIONS)}"
    return f"; did you mean {layer.name_of(near).split(' ')[-1]}?"


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that a person who typed `word` most likely meant, if any is near."""
    from difflib import get_close_matches  # only on the way to an error message

    return next(iter(get_close_matches(word, known, n=1)), None)


def read_text(file: Path) -> str:
    """A config file as it is, its ends of lines too. Raises ConfigError."""
    try:
        if file.stat().st_size > CONFIG_MAX_BYTES:
            raise ConfigError(f"{file}: larger than {CONFIG_MAX_BYTES} bytes; not a config file?")
        raw = file.read_bytes()
        return raw.decode("utf-8-sig")  # an editor's mark in front is none of TOML's
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line}: not UTF-8 text; save it as UTF-8") from None


def _parse(text: str, file: Path) -> dict[str, object]:
    import tomllib  # most nodes have no file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: not a config file: nested too deep") from None
    return {key.replace("-", "_"): value for key, value in table.items()}


def _line_of(text: str, key: str) -> str:
    spelled = re.escape(key).replace("_", "[-_]")
    shape = re.compile(rf"""\s*\[*["']?{spelled}["']?\s*[\]=.]""")
    numbers = (number for number, line in enumerate(text.splitlines(), 1) if shape.match(line))
    return next((f", line {number}" for number in numbers), "")


# Defaults that depend on the machine


def default_state_dir() -> Path:
    """Where a person's own daemon keeps its state; services name theirs with --state-dir."""
    from platformdirs import user_state_path

    return user_state_path("meshd", appauthor=False)


def find_config(told: str | None, env: Mapping[str, str]) -> Path | None:
    """The config file to read: the one told (flag, then MESHD_CONFIG), else the first usual place
    that has one, else None. Raises ConfigError when the one told is not there."""
    word = told or env.get(CONFIG_VARIABLE)
    if word:
        file = named_config(word)
        try:
            there = file.is_file()
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
        if not there:
            raise ConfigError(f"{file}: no such config file")
        return file
    return next((place for place in usual_places() if os.access(place, os.R_OK)), None)


def named_config(word: str) -> Path:
    """The config file that somebody named, there or not. Raises ConfigError."""
    try:
        return expanded(word)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def usual_places(system: str = sys.platform) -> tuple[Path, ...]:
    """Where a config file is looked for when none is named, in order: the person's own, then that
    of the machine's service."""
    from platformdirs import user_config_path

    own = user_config_path("meshd", appauthor=False) / "config.toml"
    etc = Path("/etc/meshd/config.toml")
    if system == "darwin":
        return own, Path("/Library/Application Support/meshd/config.toml"), etc
    return own, etc


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """(key, value as a person would write it, origin) of every setting, for `config check`."""
    shown = {
        "http": format_host_port(settings.http_host, settings.http_port),
        "mesh": format_host_port(settings.mesh_host, settings.mesh_port),
        "no_mdns": str(not settings.mdns).lower(),
        "no_catalog": str(not settings.catalog).lower(),
        "no_adopt": str(not settings.adopt).lower(),
        "memory_reserve": _size(settings.memory_reserve_bytes),
        "keep_alive": _span(settings.keep_alive_s),
        "queue_wait": _span(settings.queue_wait_s),
    }
    return [
        (o.key, shown.get(o.key, _plain(settings, o)), settings.origins[o.fields[0]])
        for o in OPTIONS
    ]


def _plain(settings: Settings, option: Option) -> str:
    value = getattr(settings, option.fields[0])
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str("" if value is None else value)
    )


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.12g}MB"


def _span(seconds: float) -> str:
    return FOR_EVER if seconds == math.inf else f"{seconds:.12g}s"
