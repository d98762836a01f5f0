"""`meshctl`: what the mesh is doing, asked of any node. Parses, asks, prints, says how it went.

Built on argparse, http.client and own tables, so that the first words are there within 0.3 s of
pressing Enter on a two-core machine (typer and rich alone would take 0.25 s to import).

Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failure, 2 wrong usage,
3 no node answers, 4 not allowed, 5 the mesh is degraded (`status` only), 130 stopped.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Sequence
from typing import Any

from meshd import __version__
from meshd.cli import Parser, add_settings, parse
from meshd.ctl import client, exits
from meshd.ctl.commands import COMMANDS
from meshd.ctl.completion import SHELLS
from meshd.ctl.console import complain, ready_streams
from meshd.ctl.exits import Trouble
from meshd.ctl.housing import ACTIONS as HOUSING
from meshd.ctl.service.plan import ACTIONS as SERVICE_ACTIONS

EPILOG = f"""\
The node asked is --node URL, else {client.URL_VARIABLE}, else {client.DEFAULT_URL}; an API
key, where one is needed, comes from {client.KEY_VARIABLE}. Colours obey NO_COLOR.

exit codes: 0 ok, 1 failure, 2 wrong usage, 3 no node answers, 4 not allowed (API key refused, or
not the machine's owner), 5 degraded (status: a node is suspect, dead or short of memory)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `meshctl`. Returns the exit code; argparse itself exits for --help."""
    ready_streams()
    parser, commands = build_parser()
    args = parse(parser, commands, argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return exits.USAGE
    try:
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
    except Trouble as trouble:
        complain(str(trouble))
        return trouble.code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:  # `meshctl status | head` has read enough
        _drop_output()
        return exits.OK
    except OSError as error:  # most often a full disk that it was to write to
        _drop_output()
        complain(f"stopped by the system: {error}")
        return exits.FAILURE
    return code


def _drop_output() -> None:
    """What is still in the buffer goes nowhere, instead of failing once more at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the parser of each command by name."""
    parser = Parser(prog="meshctl", description="See and steer the mesh.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"meshctl {__version__}")
    url = os.environ.get(client.URL_VARIABLE) or client.DEFAULT_URL
    parser.add_argument("--node", metavar="URL", default=url, help="the node to ask")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    status = _command(sub, "status", "every node on one screen")
    status.add_argument("--watch", action="store_true", help="keep looking, once a second")
    status.add_argument("--wide", action="store_true", help="also address, chip, GPU, engines")
    peers = _command(sub, "peers", "the other nodes as seen from here")
    peers.add_argument("--wide", action="store_true", help="also why, age, endpoints, id")
    models = _command(sub, "models", "what can be asked for and who has it; load, unload, pin")
    models.add_argument("action", nargs="?", choices=HOUSING, help="on the node that is asked")
    models.add_argument("model", nargs="?", metavar="MODEL", help="which one")
    models.add_argument("--force", action="store_true", help="load beyond what memory allows")
    explain = _command(sub, "explain", "where a question would go, and why; asks no model")
    explain.add_argument("prompt", metavar="PROMPT", help="the question")
    explain.add_argument("--model", help="the model it is for (default: the first one offered)")
    work = _work_commands(sub)
    trust = _trust_commands(sub)
    service = _service_command(sub)
    doctor = _command(sub, "doctor", "what is wrong here, and what mends it")
    connect = _connect_command(sub)
    talk = _talk_commands(sub)
    config = sub.add_parser("config", help="check the settings of the daemon on this machine")
    config.add_argument("action", choices=("check", "path", "get", "set"), help="what to do")
    config.add_argument("key", metavar="KEY", nargs="?", help="get, set: which setting")
    config.add_argument("values", metavar="VALUE", nargs="*", help="set: none for the default")
    config.add_argument("--json", action="store_true", help="print JSON")
    add_settings(config)
    version = sub.add_parser("version", help="print the version")
    version.add_argument("--json", action="store_true", help="print JSON")
    named = {"status": status, "peers": peers, "models": models, "explain": explain, **work}
    named |= {"connect": connect, "service": service, "doctor": doctor, **talk, **_live(sub)}
    return parser, {**named, **trust, "config": config, "version": version}


def _work_commands(sub: Any) -> dict[str, Parser]:
    """What a node does, and whether it takes more."""
    requests = _command(sub, "requests", "what became of requests: where each went, and why")
    requests.add_argument("request", metavar="ID", nargs="?", help="one of them, with everything")
    drain = _command(sub, "drain", "take no new work; what runs goes on at other nodes")
    drain.add_argument("--wait", action="store_true", help="until nothing is left on the node")
    resume = _command(sub, "resume", "take work again after a drain")
    return {"requests": requests, "drain": drain, "resume": resume}


def _trust_commands(sub: Any) -> dict[str, Parser]:
    """Who is in the mesh, and who may ask it."""
    pair = _command(sub, "pair", "let another machine into the mesh: shows a code for it")
    kind = pair.add_mutually_exclusive_group()
    kind.add_argument("--token", action="store_true", help="a line for a machine without keyboard")
    kind.add_argument("--cancel", action="store_true", help="take back every code and token")
    pair.add_argument("--no-wait", action="store_true", help="do not wait for who comes")
    join = _command(sub, "join", "enter the mesh whose member shows this code")
    join.add_argument("code", metavar="CODE", nargs="+", help="the digits, or the token's line")
    join.add_argument("--at", metavar="HOST:PORT", help="that member, where it cannot be found")
    revoke = _command(sub, "revoke", "put a node out of the mesh and change the mesh key")
    revoke.add_argument("target", metavar="NODE", help="its name or id")
    revoke.add_argument("--yes", action="store_true", help="do not ask whether this is meant")
    keys = sub.add_parser("keys", help="the API keys of people who ask from other machines")
    keys.add_argument("action", choices=("add", "list", "remove"), help="what to do")
    keys.add_argument("name", metavar="NAME", nargs="?", help="whose key it is")
    keys.add_argument("--state-dir", metavar="DIR", help="the daemon's, where it is told another")
    keys.add_argument("--config", metavar="FILE", help="the daemon's settings")
    keys.add_argument("--json", action="store_true", help="print JSON")
    return {"pair": pair, "join": join, "revoke": revoke, "keys": keys}


def _live(sub: Any) -> dict[str, Parser]:
    """Watching and measuring."""
    top = _command(sub, "top", "the mesh at work, full screen")
    bench = _command(sub, "bench", "how fast each model answers, asked as a client asks")
    bench.add_argument("--model", help="this one only")
    bench.add_argument("--requests", type=_count, metavar="N", help="per model; a few if not told")
    bench.add_argument("--concurrency", type=_count, default=1, metavar="N", help="at a time")
    completion: Parser = sub.add_parser("completion", help="a script that completes our words")
    completion.add_argument("shell", choices=SHELLS, help="for which shell")
    return {"top": top, "bench": bench, "completion": completion}


def _service_command(sub: Any) -> Parser:
    """meshd as a service of this machine; no node is asked."""
    service: Parser = sub.add_parser("service", help="install, start, stop meshd as a service")
    service.add_argument("action", choices=SERVICE_ACTIONS, help="what to do")
    service.add_argument("--user", action="store_true", help="of your session, without root")
    service.add_argument("--run-as", metavar="NAME", help="the account of a machine's service")
    service.add_argument("--print", action="store_true", help="show what would be done")
    service.add_argument("--purge", action="store_true", help="uninstall: state and settings too")
    service.add_argument("--follow", action="store_true", help="logs: go on")
    service.add_argument("--lines", type=_count, default=100, metavar="N", help="logs: how many")
    service.add_argument("--json", action="store_true", help="status: print JSON")
    return service


def _talk_commands(sub: Any) -> dict[str, Parser]:
    """Asking a model from the terminal."""
    run = _command(sub, "run", "ask a model: one answer, or a conversation without a PROMPT")
    run.add_argument("model", metavar="MODEL", help="`meshctl models` lists them")
    run.add_argument("prompt", metavar="PROMPT", nargs="*", help="what is piped in goes in front")
    chat = _command(sub, "chat", "talk with a model")
    chat.add_argument("model", metavar="MODEL", nargs="?", help="(default: one in memory)")
    for talk in (run, chat):
        talk.add_argument("--system", metavar="TEXT", help="how to answer")
        talk.add_argument("--max-tokens", type=_count, metavar="N", help="of one answer, at most")
    return {"run": run, "chat": chat}


def _connect_command(sub: Any) -> Parser:
    """Other programs, pointed at the mesh."""
    connect = _command(sub, "connect", "make a client use the mesh: prints or writes its settings")
    connect.add_argument("client", nargs="?", metavar="CLIENT", help="which (default: list them)")
    connect.add_argument("--write", action="store_true", help="merge into the client's own file")
    connect.add_argument("--force", action="store_true", help="replace what is in the way there")
    connect.add_argument("--base-url", metavar="URL", help="the node's address for the client")
    connect.add_argument("--model", metavar="ID", help="the model to use (default: one in memory)")
    connect.add_argument("--key", metavar="KEY", help="the API key, where one is needed")
    return connect


def _count(text: str) -> int:
    """A whole number from 1 up. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no number of them; write 1 or more")
    return int(text)


def _command(sub: Any, name: str, words: str) -> Parser:
    command: Parser = sub.add_parser(name, help=words, epilog=EPILOG)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--node", metavar="URL", default=SUPPRESS, help="the node to ask")
    return command
