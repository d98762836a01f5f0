"""Every setting of the daemon, declared once: its flag, environment variable and TOML key.

`OPTIONS` is the one table. An option's name is its flag without the dashes, and the other two
spellings follow from it: `--mesh-key-file`, `MESHD_MESH_KEY_FILE`, `mesh_key_file`. The command
line, the config file, `meshctl config check` and the tests all read this table, so a setting
cannot exist in one place and be missing in another.

A reader turns what was written (text from a flag or the environment, any TOML value from a file)
into the values of the fields it fills, or raises ValueError with words that say how to write it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

from meshd.address import PORT_MAX, format_host_port, parse_host_port
from meshd.core.routing.courtesy import SHARES
from protocol.frozen import frozen
from protocol.limits import NAME_MAX_CHARS

LOG_FORMATS = ("text", "json")
NAME_SHAPE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_MAX_CHARS - 1}}}")

SIZES = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
SIZE_SHAPE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(MB|GB|MIB|GIB)")
SPANS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
SPAN_SHAPE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|h)")
FOR_EVER = "forever"

Values = tuple[object, ...]
Reader = Callable[[object, Path], Values]


def node_name(text: str) -> str:
    """A node name made of any text: a host name's first label, odd characters as dashes."""
    label = text.split(".", 1)[0]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-_")
    return plain[:NAME_MAX_CHARS].rstrip("-_") or "node"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text; write it in quotes, and not empty")
    return value.strip()


def _read_listen(value: object, base: Path) -> Values:
    return parse_host_port(_text(value), zero_ok=True)


def _read_mesh(value: object, base: Path) -> Values:
    host, port = parse_host_port(_text(value), zero_ok=True)
    if port == PORT_MAX:
        raise ValueError(f"port {port} leaves none for the relay, which takes the next one")
    return host, port, port + 1 if port else 0


def expanded(text: str) -> Path:
    """A path, its `~` or `~NAME` filled in. Raises ValueError where that is nobody's home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r} begins with the home of an account that is not here") from None


def _read_path(value: object, base: Path) -> Values:
    return (base / expanded(_text(value)),)


def _read_name(value: object, base: Path) -> Values:
    name = _text(value)
    if not NAME_SHAPE.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a node name; use 1-{NAME_MAX_CHARS} of a-z, 0-9, '-', '_' and '.', "
            f"such as {node_name(name)!r}"
        )
    return (name,)


def _read_log_format(value: object, base: Path) -> Values:
    if value not in LOG_FORMATS:
        raise ValueError(f"{value!r} is not a log format; choose {' or '.join(LOG_FORMATS)}")
    return (value,)


def _read_no(value: object, base: Path) -> Values:
    """Of a switch that turns off what is on without it."""
    return (not _truth(value),)


def _read_size(value: object, base: Path) -> Values:
    found = SIZE_SHAPE.fullmatch(value.strip().upper()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a size; write a number and a unit, such as '2GB'")
    return (round(float(found[1]) * SIZES[found[2]]),)


def _read_span(value: object, base: Path) -> Values:
    if value == FOR_EVER:
        return (math.inf,)
    found = SPAN_SHAPE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{value!r} is not a time; write a number and a unit, such as '30m', or '{FOR_EVER}'"
        )
    return (float(found[1]) * SPANS_S[found[2]],)


def _read_paths(value: object, base: Path) -> Values:
    found = _items(value, rf"[;\n{os.pathsep}]+")
    return (tuple(dict.fromkeys(base / expanded(piece) for piece in found)),)


def _read_share(value: object, base: Path) -> Values:
    if value not in SHARES:
        raise ValueError(f"{value!r} is not a share; choose {', '.join(SHARES[:-1])} or one")
    return (value,)


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    truth = words.get(str(value).strip().lower())
    if truth is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return truth


def _items(value: object, separators: str) -> tuple[str, ...]:
    """A list as it is; one text, as the environment gives it, cut at `separators`."""
    if isinstance(value, str):
        return tuple(piece.strip() for piece in re.split(separators, value) if piece.strip())
    if isinstance(value, list | tuple):
        return tuple(_text(piece) for piece in value)
    raise ValueError(f"{value!r} is not a list of texts")


def _read_peers(value: object, base: Path) -> Values:
    found = [parse_host_port(piece) for piece in _items(value, r"[,\s]+")]
    return (tuple(dict.fromkeys(format_host_port(*pair) for pair in found)),)


def _read_words(value: object, base: Path) -> Values:
    return (tuple(dict.fromkeys(_items(value, r"[,\s]+"))),)


def _read_engines(value: object, base: Path) -> Values:
    """Engine SPECs hold commas themselves, so one text is cut at semicolons."""
    return (_items(value, r"[;\n]+"),)


@frozen
class Option:
    """One setting. `fields` are the fields of Settings it fills, in the order `read` gives them."""

    name: str
    fields: tuple[str, ...]
    read: Reader
    metavar: str
    help: str
    many: bool = False
    live: bool = False
    """Whether a running daemon takes a new value over from its file."""

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return f"MESHD_{self.key.upper()}"

    @property
    def switch(self) -> bool:
        """Whether the flag stands alone."""
        return not self.metavar


OPTIONS: tuple[Option, ...] = (
    Option("state-dir", ("state_dir",), _read_path, "DIR", "keys, remembered peers and settings"),
    Option("name", ("name",), _read_name, "NAME", "what people call this node"),
    Option(
        "http",
        ("http_host", "http_port"),
        _read_listen,
        "HOST:PORT",
        "where clients ask; port 0: any",
    ),
    Option(
        "mesh",
        ("mesh_host", "mesh_port", "relay_port"),
        _read_mesh,
        "HOST:PORT",
        "where peers knock; the relay takes the next port",
    ),
    Option(
        "peer",
        ("peers",),
        _read_peers,
        "HOST:PORT",
        "a peer's mesh port, for networks without multicast; repeat for more",
        many=True,
    ),
    Option("no-mdns", ("mdns",), _read_no, "", "neither announce nor look for nodes"),
    Option(
        "interface",
        ("interfaces",),
        _read_words,
        "NAME",
        "use this network interface only; repeat for more",
        many=True,
    ),
    Option(
        "mesh-key-file",
        ("mesh_key_file",),
        _read_path,
        "FILE",
        "64 hexadecimal characters; nodes with the same key form a mesh",
    ),
    Option(
        "engine",
        ("engines",),
        _read_engines,
        "SPEC",
        "what answers here: llamacpp:PATH, mlx:PATH, openai:URL, emulated:model=..;"
        " repeat for more",
        many=True,
    ),
    Option(
        "model-dir",
        ("model_dirs",),
        _read_paths,
        "DIR",
        "also look for GGUF models here; repeat for more",
        many=True,
    ),
    Option("no-catalog", ("catalog",), _read_no, "", "offer no models but those of --engine"),
    Option(
        "no-adopt",
        ("adopt",),
        _read_no,
        "",
        "leave Ollama, LM Studio, llama-server and vLLM on this machine alone",
    ),
    Option(
        "memory-reserve",
        ("memory_reserve_bytes",),
        _read_size,
        "SIZE",
        "memory kept for other programs, such as 2GB; a tenth of it, up to 4GiB, when not given",
        live=True,
    ),
    Option(
        "keep-alive",
        ("keep_alive_s",),
        _read_span,
        "TIME",
        "how long a model nobody asks for stays in memory, such as 30m, or forever",
        live=True,
    ),
    Option(
        "queue-wait",
        ("queue_wait_s",),
        _read_span,
        "TIME",
        "the longest wait for a turn that is begun rather than refused, such as 2m, or forever",
        live=True,
    ),
    Option(
        "on-battery",
        ("on_battery",),
        _read_share,
        "SHARE",
        "requests taken at a time while on battery: full, half or one",
        live=True,
    ),
    Option(
        "when-hot",
        ("when_hot",),
        _read_share,
        "SHARE",
        "the same while the machine is hot",
        live=True,
    ),
    Option(
        "when-used",
        ("when_used",),
        _read_share,
        "SHARE",
        "the same while its owner works at the machine (noticed on macOS)",
        live=True,
    ),
    Option(
        "under-pressure",
        ("under_pressure",),
        _read_share,
        "SHARE",
        "the same while memory is short",
        live=True,
    ),
    Option("log-format", ("log_format",), _read_log_format, "FORMAT", "text or json"),
)

BY_KEY: dict[str, Option] = {option.key: option for option in OPTIONS}
"""Every spelling of a key; a list may also be called by its plural."""
BY_KEY |= {f"{option.key}s": option for option in OPTIONS if option.many}
