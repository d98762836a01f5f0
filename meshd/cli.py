"""`meshd`: the daemon's command line.

Built on argparse: typer takes 125-140 ms to import on a two-core machine where argparse takes 12,
and the daemon owes its first answer on /health within 0.7 s of process start.

Exit codes: 0 stopped as asked, 1 could not start or serve (one line says why), 2 the command line
or the settings are wrong (one line names the key).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from meshd import __version__
from meshd.config import CONFIG_VARIABLE, ConfigError, Settings, closest, find_config, load_settings
from meshd.options import OPTIONS

USAGE_EXIT = 2

CERTIFICATES_VARIABLE = "SSL_CERT_FILE"
"""OpenSSL's, on every system: where trusted certificates are."""

RUN_EPILOG = f"""\
Each flag is also an environment variable (--mesh-key-file: MESHD_MESH_KEY_FILE) and a key of the
TOML file (mesh_key_file); a flag beats the environment, which beats the file. Lists in the
environment are separated by commas (MESHD_PEER) or semicolons (MESHD_ENGINE). The file is
--config, else {CONFIG_VARIABLE}, else the one in the usual place: `meshctl config path` names it,
and `meshctl config check` shows each value and its origin.
"""


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line that names the flag."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**(options | {"allow_abbrev": False}))

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_EXIT, f"{self.prog}: {message}; `{self.prog} --help` tells more\n")

    def take(self, args: argparse.Namespace, words: list[str]) -> list[str]:
        """Put the words where this command has room for some, and give back what is left."""
        for action in self._actions:
            if action.nargs == argparse.OPTIONAL and not action.option_strings:
                if words and getattr(args, action.dest) is None and not action.choices:
                    setattr(args, action.dest, words[0])
                    words = words[1:]
            elif action.nargs == argparse.ZERO_OR_MORE:
                setattr(args, action.dest, [*getattr(args, action.dest), *words])
                words = []
        return words

    def flags(self) -> list[str]:
        """Every flag of this command."""
        return [word for action in self._actions for word in action.option_strings]


def parse(
    parser: Parser, commands: dict[str, Parser], argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse, or exit 2 with a line that names what was not understood and what is near it.

    Words that may be left out may stand behind flags, where argparse no longer looks for them."""
    args, rest = parser.parse_known_args(argv)
    command = commands.get(getattr(args, "command", None) or "", parser)
    if not any(word.startswith("-") for word in rest):
        rest = command.take(args, rest)
    if rest:
        _refuse(command, rest)
    return args


def _refuse(command: Parser, rest: Sequence[str]) -> NoReturn:
    unknown = next((word for word in rest if word.startswith("-")), None)
    if unknown is None:
        command.error(f"unexpected argument {rest[0]!r}")
    flag = unknown.split("=", 1)[0]
    near = closest(flag, command.flags())
    command.error(f"unknown flag {flag}" + (f" (did you mean {near}?)" if near else ""))


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the parser of each command by name."""
    parser = Parser(prog="meshd", description="One machine of the mesh.")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    run = sub.add_parser("run", help="serve until stopped", epilog=RUN_EPILOG)
    add_settings(run)
    version = sub.add_parser("version", help="print the version")
    return parser, {"run": run, "version": version}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags of every setting, and `--config`."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with the same settings")
    for option in OPTIONS:
        if option.switch:
            parser.add_argument(option.flag, action="store_const", const=True, help=option.help)
        else:
            action = "append" if option.many else "store"
            parser.add_argument(
                option.flag, action=action, metavar=option.metavar, help=option.help
            )


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that these arguments, the environment and the config file make together."""
    flags = {option.key: getattr(args, option.key) for option in OPTIONS}
    return load_settings(flags, os.environ, find_config(args.config, os.environ))


def open_streams() -> None:
    """Open standard streams that are closed (`<&-`), to nothing. Their numbers would go to the next
    sockets: what is written to a stream would go there, and libuv ends a process for closing one.
    """
    nowhere = Path(os.devnull)
    sys.stdin = sys.stdin or nowhere.open()
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")


@contextmanager
def no_certificates() -> Iterator[None]:
    """Let OpenSSL find none for a while. aiohttp reads all of the system's as it is imported, for a
    client that the daemon does not use: 2 MB, and a tenth of its start."""
    own = os.environ.get(CERTIFICATES_VARIABLE)
    os.environ[CERTIFICATES_VARIABLE] = os.devnull
    try:
        yield
    finally:
        del os.environ[CERTIFICATES_VARIABLE]
        if own is not None:
            os.environ[CERTIFICATES_VARIABLE] = own


def _complain(error: ConfigError, log_format: str | None) -> None:
    """In the form that the command line asks for: the other settings are not to be had."""
    if log_format != "json":
        sys.stderr.write(f"meshd: {error}\n")
        return
    import logging  # not for meshctl

    from meshd.logs import log_to_stderr

    log_to_stderr(log_format)
    logging.getLogger(__name__).error("%s", error)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `meshd`. Returns the exit code; argparse itself exits for --help."""
    open_streams()
    parser, commands = build_parser()
    args = parse(parser, commands, argv)
    if args.command == "version":
        print(f"meshd {__version__}")  # noqa: T201 - this is the command's output
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE_EXIT
    try:
        settings = settings_from(args)
    except ConfigError as error:
        _complain(error, args.log_format)
        return USAGE_EXIT
    gc.disable()  # nothing of what is imported goes away again; `run` turns it on
    with no_certificates():
        from meshd.daemon import run  # after the settings are known to be good

    return run(settings, lambda: (settings_from(args), find_config(args.config, os.environ)))
