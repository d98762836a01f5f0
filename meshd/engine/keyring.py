"""The API keys of servers that are used: read on this machine, sent to that server, nowhere else.

A key comes from a variable or from a file that only its owner can read. It is in no message to a
peer, no log and no answer; errors name where it should have been and never what was there.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from meshd.core.ports import EngineError
from meshd.engine.spec import UpstreamSpec

KEY_MAX_BYTES = 4_096
"""Longer than any key or token; a file beyond it is another file."""


def upstream_key(spec: UpstreamSpec, env: Mapping[str, str]) -> str:
    """The key that a SPEC points at; empty where it points at none. Raises EngineError."""
    if spec.key_env:
        return _checked(env.get(spec.key_env, ""), f"the variable {spec.key_env}", spec)
    if spec.key_file:
        return _checked(_read(Path(spec.key_file).expanduser(), spec), spec.key_file, spec)
    return ""


def _read(file: Path, spec: UpstreamSpec) -> str:
    try:
        mode = file.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise EngineError(
                f"engine openai:{spec.url}: others can read the key in {file}; chmod 600 it"
            )
        with file.open("rb") as opened:
            return opened.read(KEY_MAX_BYTES + 1).decode("utf-8", "replace")
    except OSError as error:
        raise EngineError(
            f"engine openai:{spec.url}: the key in {file} cannot be read: {error.strerror}"
        ) from None


def _checked(text: str, place: str, spec: UpstreamSpec) -> str:
    """A key that can stand in a header."""
    key = text.strip()
    if not key or len(key) > KEY_MAX_BYTES or not key.isascii() or not key.isprintable():
        raise EngineError(f"engine openai:{spec.url}: there is no API key in {place}")
    return key
