"""What an Ollama client may set beside its words: `options`, `format`, `think`, `keep_alive`.

Sampling options become `Sampling`; what a model is loaded with (`num_ctx`, `num_gpu` ...) is the
business of the node that holds it, and asking for another context must not reload a model that
others are using. Such options have no effect here, and the header `x-mesh-left-out` names them.
No prompt is ever cut to `num_ctx`: what does not fit the model's own context is refused by the
engine, which counts.

Two liberties that Ollama's server takes are taken here too, because its clients rely on them: whole
numbers may come as floats (`8192.0` is what Home Assistant sends), and numbers below the first that
makes sense mean "no limit" (`num_predict`, -1 and -2) or "any" (`seed`, -1).

Options nobody here knows travel on in `Job.extras` (`typical_p`, `mirostat` ...), where engines
that know them find them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from meshd.api.errors import bad_type, bad_value
from meshd.api.fields import Fields, json_type
from meshd.api.job import TOKENS_MAX, TOP_LOGPROBS_MAX, read_sampling, read_stop
from meshd.api.turns import left_out
from protocol.frozen import frozen
from protocol.jobs import Sampling

LOAD_OPTIONS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "numa",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mmap",
    "use_mlock",
    "embedding_only",
    "penalize_newline",
)
"""Options without effect here: they concern how a model is loaded, or no engine has them left."""

COUNTS = frozenset({"num_predict", "top_k", "seed"})
"""Options that are whole numbers, also where they come as floats."""

THINK_LEVELS = ("low", "medium", "high", "max")

UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""Go's units of time, in seconds."""

DURATION_MAX_CHARS = 40
"""Of a duration; `2562047h47m16.854775807s` is the longest that Go knows."""

NAME_MAX_CHARS = 40
"""Of an unknown field's name in a header."""

_PART = re.compile(rf"(\d+(?:\.\d*)?|\.\d+)({'|'.join(UNITS_S)})?", re.ASCII)
_DURATION = re.compile(rf"[-+]?(?:{_PART.pattern})+", re.ASCII)
"""A duration in Go's words: `5m`, `1h30m`, `-1s`; a bare number counts seconds."""


@frozen
class Options:
    """What `options` asked for. `ignored` names what has no effect here, in the client's words."""

    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    extras: Mapping[str, Any]
    ignored: tuple[str, ...]


def read_options(fields: Fields) -> Options:
    """Takes `options` out of a body. Raises ApiError (400)."""
    given = fields.mapping("options") or {}
    known = {name: _whole(value) if name in COUNTS else value for name, value in given.items()}
    options = Fields(known, "options")
    ignored = tuple([name for name in LOAD_OPTIONS if options.take(name) is not None])
    most = options.integer("num_predict", -(2**31), TOKENS_MAX)
    stop = read_stop(options.take("stop") or None)
    sampling = read_sampling(options)
    if sampling.seed is not None and sampling.seed < 0:
        sampling = replace(sampling, seed=None)
    extras = {name: value for name, value in options.rest.items() if value is not None}
    return Options(sampling, most if most and most > 0 else None, stop, extras, ignored)


def read_format(value: Any) -> dict[str, Any] | None:
    """`format` as OpenAI's `response_format`. Raises ApiError (400)."""
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if type(value) is dict:
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": value}}
    if type(value) is str:
        raise bad_value("format", f"'format' is '{value[:40]}'; it must be \"json\" or a schema.")
    raise bad_type("format", f"'format' must be \"json\" or a schema, not {json_type(value)}.")


def read_think(value: Any) -> dict[str, Any]:
    """`think` in the words that chat templates and reasoning models have for it, as extras."""
    if value is None:
        return {}
    if type(value) is bool:
        return {"chat_template_kwargs": {"enable_thinking": value}}
    if value in THINK_LEVELS:
        return {"reasoning_effort": value}
    raise bad_value("think", f"'think' must be true, false or one of {', '.join(THINK_LEVELS)}.")


def read_keep_alive(value: Any) -> float | None:
    """`keep_alive` in seconds, None where it is not given. Raises ApiError (400)."""
    if value is None:
        return None
    if type(value) in (int, float):
        return float(value)
    if type(value) is not str:
        raise bad_type(
            "keep_alive",
            f"'keep_alive' must be a duration such as \"5m\", or seconds, not {json_type(value)}.",
        )
    if len(value) > DURATION_MAX_CHARS or not _DURATION.fullmatch(value):
        raise bad_value(
            "keep_alive", f"'keep_alive' is '{value[:40]}'; it must be a duration such as \"5m\"."
        )
    parts = _PART.findall(value)
    seconds = math.fsum([float(number) * UNITS_S[unit or "s"] for number, unit in parts])
    return -seconds if value.startswith("-") else seconds


def read_logprobs(fields: Fields) -> tuple[bool, int]:
    """Whether tokens come with their log probability, and with how many others."""
    wanted = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, TOP_LOGPROBS_MAX) or 0
    if top and not wanted:
        raise bad_value("top_logprobs", "'top_logprobs' needs 'logprobs': true.")
    return wanted, top


def unused_lines(keep_alive: float | None, options: Options, rest: Iterable[str]) -> str:
    """The header line that names what was sent and has no effect; `rest` are unknown fields."""
    own = ["keep_alive"] if keep_alive is not None else []
    return left_out([*own, *options.ignored, *[name[:NAME_MAX_CHARS] for name in rest]])


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value
