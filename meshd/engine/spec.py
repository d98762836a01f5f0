"""Engine SPEC strings: one line on a command line that says what runs here.

`KIND:TARGET[,key=value...]`, or `KIND:key=value,...` where the kind has no target:

    llamacpp:PATH[,ctx=4096][,slots=4][,threads=N][,model=ID]     PATH may be `bundled`
    mlx:PATH[,ctx=8192][,slots=4][,model=ID]                      PATH is a folder
    openai:URL[,model=ID][,slots=8][,key_env=NAME][,key_file=PATH][,can=WORD+WORD...]
    emulated:[name=..][,model=..][,prompt_tps=..][,generation_tps=..][,slots=..][,load_s=..]
             [,memory_gb=..][,ctx=..][,tokens=..][,fault=..][,fault_after=N][,fault_every=N]
             [,can=WORD+WORD...]

`can` is what a model can do, in the words of `CAPABILITIES`: all that an adopted server's models
can, in place of what the server says; what an emulated one can besides chat and tools.

The text is split at commas that begin a `key=`, so a path or URL may hold commas of its own.
Each kind is a table of keys; a key that is not in the table is an error that shows the table.

A server's API key is never written in a SPEC, where every user of the machine could read it in the
list of processes: `key_env` names the variable that holds it, `key_file` the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from protocol.frozen import frozen

CAPABILITIES = (
    "chat",
    "completion",
    "tools",
    "vision",
    "audio",
    "embedding",
    "transcription",
    "speech",
    "image",
)
"""What can be asked of a model; the mesh sends a request only where its word is offered."""

FAULTS = ("stall", "slow", "crash", "refuse", "truncate")
"""What an emulated machine can be told to do wrong; `emulated` says what each one means."""

SLOTS_MAX = 256
"""llama.cpp's own limit of sequences in one context (LLAMA_MAX_SEQ)."""

CONTEXT_MAX_TOKENS = 16_777_216
"""Beyond any model made; catches a count of bytes given as tokens."""


class SpecError(ValueError):
    """A SPEC that cannot be understood; the text names the part, and what would be right."""


@frozen
class LlamaSpec:
    """A GGUF file to run with llama.cpp. 0 means: choose for me."""

    path: str
    ctx: int = 0
    slots: int = 4
    threads: int = 0
    model: str = ""


@frozen
class MlxSpec:
    """A model folder to run with MLX. 0 means: choose for me."""

    path: str
    ctx: int = 0
    slots: int = 4
    model: str = ""


@frozen
class UpstreamSpec:
    """A running OpenAI-compatible server to adopt. Without `model`, all that it lists."""

    url: str
    model: str = ""
    slots: int = 8
    key_env: str = ""
    key_file: str = ""
    can: tuple[str, ...] = ()


@frozen
class EmulatedSpec:
    """A machine made of numbers."""

    name: str = ""
    model: str = "emulated"
    prompt_tps: float = 1000.0
    generation_tps: float = 50.0
    slots: int = 4
    load_s: float = 0.0
    memory_gb: float = 1.0
    ctx: int = 32_768
    tokens: int = 0
    fault: str = ""
    fault_after: int = 0
    fault_every: int = 1
    can: tuple[str, ...] = ()


EngineSpec = LlamaSpec | MlxSpec | UpstreamSpec | EmulatedSpec


def parse(text: str) -> EngineSpec:
    """The engine that `text` asks for. Raises SpecError."""
    kind, colon, rest = text.strip().partition(":")
    make = KINDS.get(kind)
    if make is None or not colon:
        raise SpecError(
            f"engine {text!r}: begin with one of {', '.join(f'{known}:' for known in KINDS)}"
        )
    return make(rest)


def _llamacpp(rest: str) -> LlamaSpec:
    path, options = _target("llamacpp", rest, "PATH", "llamacpp:/models/some.gguf")
    return LlamaSpec(path, **_read("llamacpp", options, LLAMA_KEYS))


def _mlx(rest: str) -> MlxSpec:
    path, options = _target("mlx", rest, "PATH", "mlx:/models/folder")
    return MlxSpec(path, **_read("mlx", options, MLX_KEYS))


def _upstream(rest: str) -> UpstreamSpec:
    url, options = _target("openai", rest, "URL", "openai:http://127.0.0.1:11434")
    if not re.match(r"https?://[^/\s]", url):
        raise SpecError(f"engine openai:{url}: URL must begin with http:// or https:// and a host")
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise SpecError(f"engine openai:{url}: {error}") from None
    spec = UpstreamSpec(url.rstrip("/"), **_read("openai", options, UPSTREAM_KEYS))
    if spec.key_env and spec.key_file:
        raise SpecError(f"engine openai:{url}: key_env or key_file, not both")
    return spec


def _emulated(rest: str) -> EmulatedSpec:
    target, options = _split(rest)
    if target:
        raise SpecError(f"engine emulated: {target!r} is not key=value{_known(EMULATED_KEYS)}")
    return EmulatedSpec(**_read("emulated", options, EMULATED_KEYS))


KINDS: Mapping[str, Callable[[str], EngineSpec]] = {
    "llamacpp": _llamacpp,
    "mlx": _mlx,
    "openai": _upstream,
    "emulated": _emulated,
}


def _count(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= highest):
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(value)

    return read


def _number(lowest: float, highest: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        wanted = f"a number from {lowest:g} to {highest:g}"
        try:
            number = float(value)
        except ValueError:
            raise ValueError(wanted) from None
        if not lowest <= number <= highest:
            raise ValueError(wanted)
        return number

    return read


def _word(value: str) -> str:
    if not value or len(value) > 128 or not value.isprintable():
        raise ValueError("1 to 128 printable characters")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value):
        raise ValueError("the name of an environment variable, not the key itself")
    return value


def _fault(value: str) -> str:
    if value not in FAULTS:
        raise ValueError(f"one of {', '.join(FAULTS)}")
    return value


def _abilities(value: str) -> tuple[str, ...]:
    words = value.split("+")
    if not set(words) <= set(CAPABILITIES):
        raise ValueError(f"words of {', '.join(CAPABILITIES)}, joined by +")
    return tuple(dict.fromkeys(words))


Keys = Mapping[str, Callable[[str], Any]]

LLAMA_KEYS: Keys = {
    "ctx": _count(16, CONTEXT_MAX_TOKENS),
    "slots": _count(1, SLOTS_MAX),
    "threads": _count(1, 1024),
    "model": _word,
}
MLX_KEYS: Keys = {
    "ctx": _count(16, CONTEXT_MAX_TOKENS),
    "slots": _count(1, SLOTS_MAX),
    "model": _word,
}
UPSTREAM_KEYS: Keys = {
    "model": _word,
    "slots": _count(1, 65_535),
    "key_env": _variable,
    "key_file": _word,
    "can": _abilities,
}
EMULATED_KEYS: Keys = {
    "name": _word,
    "model": _word,
    "prompt_tps": _number(0.001, 1e9),
    "generation_tps": _number(0.001, 1e9),
    "slots": _count(1, 65_535),
    "load_s": _number(0.0, 86_400.0),
    "memory_gb": _number(0.0, 1e6),
    "ctx": _count(16, CONTEXT_MAX_TOKENS),
    "tokens": _count(0, CONTEXT_MAX_TOKENS),
    "fault": _fault,
    "fault_after": _count(0, CONTEXT_MAX_TOKENS),
    "fault_every": _count(1, 1_000_000),
    "can": _abilities,
}


def _split(rest: str) -> tuple[str, list[str]]:
    """The target (empty where the text begins with `key=`), and the options."""
    parts = re.split(r",(?=[a-z_]+=)", rest)
    if re.match(r"[a-z_]+=", parts[0]):
        return "", parts
    return parts[0].rstrip(","), parts[1:]


def _target(kind: str, rest: str, what: str, example: str) -> tuple[str, list[str]]:
    target, options = _split(rest)
    if not target:
        raise SpecError(f"engine {kind}: {what} is missing, as in {example}")
    return target, options


def _read(kind: str, options: list[str], keys: Keys) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in keys:
            raise SpecError(f"engine {kind}: unknown key {key!r}{_known(keys)}")
        if key in values:
            raise SpecError(f"engine {kind}: {key} is given twice")
        try:
            values[key] = keys[key](value)
        except ValueError as error:
            raise SpecError(f"engine {kind}: {key}={value}: must be {error}") from None
    return values


def _known(keys: Keys) -> str:
    return f" (known keys: {', '.join(keys)})"
