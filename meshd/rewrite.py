"""Changing one setting in the owner's TOML file, and nothing else in it.

Comments, order and blank lines stay as they are. A value is checked as the daemon would read it
before anything is written, and the file is replaced whole, so power that fails leaves the old one.
"""

from __future__ import annotations

from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from meshd.config import ConfigError, closest
from meshd.options import BY_KEY, OPTIONS, Option
from meshd.replacing import PUBLIC_MODE, replace_file


def option_named(word: str) -> Option:
    """The option of a key as people write it (`no-mdns`, `no_mdns`). Raises ConfigError."""
    option = BY_KEY.get(word.replace("-", "_"))
    if option is None:
        near = closest(word.replace("-", "_"), [option.key for option in OPTIONS])
        hint = f"did you mean {near}?" if near else "`meshctl config check` lists them"
        raise ConfigError(f"{word}: there is no such setting; {hint}")
    return option


def with_setting(text: str, option: Option, words: list[str], base: Path) -> str:
    """`text` with the option set to what a person typed; no words take it out. Raises ConfigError.

    Several words, or one for an option that may be given several times, make a list. Paths stay as
    typed: relative ones are relative to the file's folder `base`.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"the settings file is not valid TOML: {error}") from None
    spelled = next((key for key in document if BY_KEY.get(key.replace("-", "_")) is option), None)
    if not words:
        if spelled is not None:
            document.remove(spelled)
        return tomlkit.dumps(document)
    value = _value(option, words)
    try:
        option.read(value, base)
    except ValueError as error:
        raise ConfigError(f"{option.key}: {error}") from None
    document[spelled or option.key] = value
    return tomlkit.dumps(document)


def save(file: Path, text: str) -> None:
    """Replace a file whole, keeping its mode and its owner; of a link, the file that it leads to.
    Raises ConfigError."""
    try:
        real = file.resolve()
        there = real.exists()
        mode = real.stat().st_mode & 0o777 if there else PUBLIC_MODE
        replace_file(real, text.encode(), mode=mode, like=real if there else real.parent)
    except PermissionError:
        told = "this account may not write it; if it is the service's, try again with sudo"
        raise ConfigError(f"{file}: {told}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None


def _value(option: Option, words: list[str]) -> object:
    if option.many:
        return words
    if len(words) > 1:
        raise ConfigError(f"{option.key}: takes one value, not {len(words)}")
    if option.switch:
        truths = {"true": True, "yes": True, "on": True, "1": True}
        truths |= {"false": False, "no": False, "off": False, "0": False}
        truth = truths.get(words[0].lower())
        if truth is None:
            raise ConfigError(f"{option.key}: {words[0]!r} is neither true nor false")
        return truth
    return words[0]
