"""Servers that already run on this machine, found on their usual ports and used as they are.

People have Ollama, LM Studio, llama-server or vLLM running before they have this; their models are
offered without a word of configuration. Only loopback is looked at, and only by what each kind says
of itself for free (`habits`): a listing is asked for, a model never. What does not answer with its
kind's own marks is left alone.

A place without a server costs one refused connection every ADOPT_EVERY_S and no line in the log; a
server that comes, and one that goes, is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from meshd.engine import habits
from meshd.engine.listing import Listed
from meshd.engine.upstream import Get, Lister, UpstreamEngine
from protocol.frozen import frozen

ADOPT_EVERY_S = 10.0
"""Between two looks: some of these servers write a line into their log for each request."""

SHOWN_MAX = 512
"""Of Ollama's models, by digest, whose details are kept: they never change."""

PARALLEL = {"ollama": 1, "lm-studio": 1, "llama-server": 1, "vllm": 64}
"""Jobs that each kind runs at once unless it says; beyond it the server queues, and we say so."""


@frozen
class Spot:
    """Where a kind of server usually is."""

    kind: str
    url: str


USUAL_SPOTS = (
    Spot("ollama", "http://127.0.0.1:11434"),
    Spot("lm-studio", "http://127.0.0.1:1234"),
    Spot("llama-server", "http://127.0.0.1:8080"),
    Spot("vllm", "http://127.0.0.1:8000"),
)


def adopters(
    taken: Collection[str] = (), spots: Collection[Spot] = USUAL_SPOTS
) -> list[UpstreamEngine]:
    """An engine for each spot; none for addresses in `taken`, which the owner gave a SPEC for."""
    given = {_port(url) for url in taken}
    return [_adopter(spot) for spot in spots if _port(spot.url) not in given]


def _adopter(spot: Spot) -> UpstreamEngine:
    return UpstreamEngine(
        spot.url,
        slots=PARALLEL[spot.kind],
        name=f"{spot.kind} {spot.url}",
        lister=LISTERS[spot.kind](),
        refresh_s=ADOPT_EVERY_S,
        is_expected=False,
    )


def _port(url: str) -> str:
    """Loopback has many names, so the port decides."""
    host = url.partition("://")[2].partition("/")[0]
    is_here = host.startswith(("127.", "localhost", "[::1]"))
    return host.rpartition(":")[2] if is_here else host


class Ollama:
    """Lists an Ollama server; asks for each model's details once."""

    def __init__(self) -> None:
        self._shown: dict[str, habits.Shown] = {}

    async def __call__(self, get: Get) -> tuple[list[Listed], int]:
        """Raises ValueError where it is none."""
        tags = habits.ollama_tags(await get("/api/tags", None))
        if tags is None:
            raise ValueError("not an Ollama server")
        running = habits.ollama_running(await get("/api/ps", None))
        for name, (digest, _record) in tags.items():
            if digest not in self._shown and len(self._shown) < SHOWN_MAX:
                try:
                    told = await get("/api/show", {"model": name})
                except ValueError:
                    continue  # removed since it was listed
                self._shown[digest] = habits.ollama_show(told)
        return habits.ollama_listed(tags, self._shown, running), 0


class LlamaServer:
    """Lists a llama-server."""

    async def __call__(self, get: Get) -> tuple[list[Listed], int]:
        """Raises ValueError where it is none."""
        listed = habits.llama_server(await get("/v1/models", None))
        if listed is None:
            raise ValueError("not a llama-server")
        try:
            told = await get("/props", None)
        except ValueError:
            told = None  # its owner may have closed this page
        return habits.llama_props(listed, told)


def _plain(path: str, read: Callable[[Any], list[Listed] | None], kind: str) -> Lister:
    async def listed(get: Get) -> tuple[list[Listed], int]:
        found = read(await get(path, None))
        if found is None:
            raise ValueError(f"not {kind}")
        return found, 0

    return listed


LISTERS: Mapping[str, Callable[[], Lister]] = {
    "ollama": Ollama,
    "lm-studio": lambda: _plain("/api/v0/models", habits.lm_studio, "LM Studio"),
    "llama-server": LlamaServer,
    "vllm": lambda: _plain("/v1/models", habits.vllm, "vLLM"),
}
