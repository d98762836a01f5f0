"""From settings to a running node, and from a signal to a clean end.

Exit codes: 0 after a signal, 1 when the node could not start, 2 when an engine SPEC cannot be
understood; one line on standard error says why and what to do. Standard output carries what a
person started the daemon to read: the endpoint, a line to try, and the mesh; the log goes to
standard error, and so does all of that where the log is JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import uvloop

from meshd.api.keys import KeysError
from meshd.api.server import BindError as HttpBindError
from meshd.config import Settings, usual_places
from meshd.core.ports import EngineError
from meshd.engine.cards import read_cards
from meshd.engine.places import Machine
from meshd.engine.roster import roster
from meshd.engine.spec import SpecError, parse
from meshd.host.probe import host_probe, settled_bytes
from meshd.logs import JSON, log_to_stderr
from meshd.net.mesh import MeshNet
from meshd.net.transport import BindError
from meshd.net.trust import TrustError
from meshd.node import LOOK_AROUND_S, Node
from meshd.notices import Notices
from meshd.notify import Notifier
from meshd.reload import Reread, Watch
from meshd.replacing import PRIVATE_MODE

log = logging.getLogger(__name__)

LOCK_FILE = "meshd.lock"

NAME_MODELS_S = 1.0
"""How long the introduction waits for the name of a model: a GGUF header is read in 20 ms."""


YOUNG_MAX = 10_000
"""Objects made since the collector last looked. Its own 700 is two requests' worth, and costs a
tenth of each; cycles are rare here, and ten thousand small objects are 1 MB."""


DESCRIPTORS_WANTED = 16_384
"""Open files and connections, as the units of `meshctl service` ask for. Shells give 1,024, or 256,
and whoever opens so many connections to the mesh port has clients of the endpoint turned away."""


class StartError(Exception):
    """The node cannot start; the text is one line for the owner."""


def run(settings: Settings, reread: Reread | None = None) -> int:
    """Run a node until SIGTERM or SIGINT. Returns the exit code. `reread` gives the settings as
    they would be now, for what can change while it runs."""
    log_to_stderr(settings.log_format)
    more_descriptors()
    try:
        with sole_owner(settings.state_dir):
            uvloop.run(_serve(settings, reread))
    except SpecError as error:
        _complain(error, settings.log_format)
        return 2
    except (
        StartError, BindError, HttpBindError, TrustError, KeysError, EngineError
    ) as error:  # fmt: skip
        _complain(error, settings.log_format)
        return 1
    return 0


async def _serve(settings: Settings, reread: Reread | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    specs = [parse(text) for text in settings.engines]
    _check_interfaces(settings)
    engines = roster(specs, settings, Machine(host_probe().read, settled_bytes, read_cards))
    notices = Notices()
    node = Node(settings, MeshNet(settings, notices.say), engines, host_probe(), notices)
    node.failed.add_done_callback(lambda _: stopped.set())
    manager = Notifier(os.environ)
    owned = [loop.create_task(manager.stay_alive(lambda: node.mesh_silent_s), name="alive")]
    try:
        await node.start()
        if reread is not None:
            file = reread()[1] or usual_places()[0]  # which `meshctl config set` makes
            watch = Watch(settings, reread, node.reconfigure)
            owned.append(loop.create_task(watch.watch(file), name="settings"))
        manager.say("READY=1", f"STATUS={node.base_url}")
        await _first_models(node, settings)
        _check(node)
        settle()
        _tell(introduction(node, settings.name), settings.log_format)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), LOOK_AROUND_S)
        if not stopped.is_set():
            _tell(_mesh_line(node), settings.log_format)
        await stopped.wait()
        _check(node)
    finally:
        manager.say("STOPPING=1")
        await node.close()
        for task in owned:
            task.cancel()


def _check_interfaces(settings: Settings) -> None:
    """Raises StartError for interfaces of which there is none. With mDNS, one that comes later is
    waited for, and the log says so; without it nobody would ever look again."""
    known = [name for _, name in socket.if_nameindex()]
    if settings.mdns or not settings.interfaces or not set(settings.interfaces).isdisjoint(known):
        return
    raise StartError(
        f"there is no network interface {', '.join(settings.interfaces)} "
        f"({settings.origins['interfaces']}); there are: {', '.join(known)}"
    )


async def _first_models(node: Node, settings: Settings) -> None:
    """Wait a moment for an engine to say what it offers, so that the line to try names a model."""
    deadline = asyncio.get_running_loop().time() + NAME_MODELS_S
    while settings.engines and not node.offered and not node.failed.done():
        if asyncio.get_running_loop().time() >= deadline:
            return
        await asyncio.sleep(0.01)


def _check(node: Node) -> None:
    """Raises StartError once the node has failed."""
    if node.failed.done():
        raise StartError(node.failed.result())


def settle() -> None:
    """What is here now stays: the collector need not look at it again. And streams are closed by
    whoever reads them, so the loop need not know each one to close it at the end: keeping that list
    takes ten calls a request."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
    sys.set_asyncgen_hooks(firstiter=None)


def more_descriptors() -> None:
    """Have DESCRIPTORS_WANTED, or as many as this process may, unless it has more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(DESCRIPTORS_WANTED, hard) if hard != resource.RLIM_INFINITY else DESCRIPTORS_WANTED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # as before, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def introduction(node: Node, name: str) -> str:
    """What a person reads first: where the endpoint is, and a line to try it with. The model may
    have been named by somebody else's server, and the line goes into a shell as it is."""
    base = node.base_url
    model = next((offered.model_id for offered in node.offered), "MODEL")
    question = json.dumps(
        {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    )
    return (
        f"{name} answers at {base}/v1\n"
        f"  curl -N {base}/v1/chat/completions -d {quote(question)}\n"
        f"  (models: curl {base}/v1/models; the mesh: meshctl status)"
    )


def _mesh_line(node: Node) -> str:
    peers = [
        member.name
        for member in node.view.members.values()
        if member.node_id != node.view.self_id and member.state == "alive"
    ]
    if not peers:
        return "mesh: this node alone (no peer heard yet)"
    return f"mesh: this node and {', '.join(sorted(peers))}"


def _complain(error: Exception, log_format: str) -> None:
    if log_format == JSON:
        log.error("%s", error)
    else:
        print(f"meshd: {error}", file=sys.stderr)  # noqa: T201


def _tell(text: str, log_format: str) -> None:
    """To whoever started it. That nobody reads it (any more) is no reason to stop serving."""
    if log_format == JSON:
        log.info("%s", text)
        return
    try:
        print(text, flush=True)  # noqa: T201
    except OSError:  # `meshd run | head -1`, a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def sole_owner(state_dir: Path) -> Iterator[None]:
    """Hold the state directory: two daemons on one identity would call each other impostors. The
    lock is for its owner's eyes only: who may open it may hold it, and keep the daemon out."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.fdopen(
            os.open(state_dir / LOCK_FILE, os.O_WRONLY | os.O_CREAT, PRIVATE_MODE), "w"
        )
        with contextlib.suppress(OSError):  # it is somebody else's, who let this account write
            os.fchmod(lock.fileno(), PRIVATE_MODE)  # one that an older version made
    except OSError as error:
        raise StartError(
            f"cannot write to the state directory {state_dir}: {error.strerror}; "
            "choose another with --state-dir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(
                f"another meshd runs on the state directory {state_dir}; "
                "stop it, or give this one its own with --state-dir"
            ) from None
        yield
