"""Graphics cards with memory of their own, as the installed llama.cpp sees them.

Which cards there are and what is free on them only llama.cpp can say for all makers alike, and
asking it brings a driver into the process that asks. So a process of its own is asked, each time a
model is to be loaded: `python -m meshd.engine.cards` prints one JSON line for each card. A
llama.cpp that was built for no card is never asked: its folder shows what it can do.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from meshd.core.residency.offload import Card

LOG = logging.getLogger(__name__)

ASK_TIMEOUT_S = 30.0
"""For the answer: the first word of a driver after a start of the machine takes seconds."""

CARDS_MAX = 16
"""Read of an answer: what ggml divides a model among."""

DISCRETE = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU: memory of its own. What shares the machine's is another type."""

CARD_DEVICES = ("nvidia[0-9]", "kfd")
"""Of /dev: NVIDIA's cards, and what AMD's compute driver makes."""

CARDLESS_PARTS = frozenset({"base", "cpu", "blas", "metal"})
"""Of ggml: libraries that compute in the machine's own memory. Metal calls its chip a card, which
on Apple Silicon it is not."""


def read_cards() -> Sequence[Card]:
    """What a model may be divided among now. Blocks for up to ASK_TIMEOUT_S; never raises."""
    if backends(_library_folder()):
        return cards_of(_ask)
    _say_unused(Path("/dev"))
    return ()


def backends(folder: Path | None) -> tuple[str, ...]:
    """What this llama.cpp can put onto cards with: `cuda`, `vulkan`, `hip` ..."""
    if folder is None or not folder.is_dir():
        return ()
    parts = {file.name.partition(".")[0].partition("-")[2] for file in folder.glob("libggml-*")}
    return tuple(sorted(parts - CARDLESS_PARTS))


def installed_backends() -> tuple[str, ...] | None:
    """Those of the installed llama.cpp; None where it is not installed."""
    folder = _library_folder()
    return backends(folder) if folder is not None else None


def unused(devices: Path) -> str:
    """A card that Linux has a driver for, and that nobody uses; empty when there is none."""
    found = [file for name in CARD_DEVICES for file in sorted(devices.glob(name))]
    return str(found[0]) if found else ""


@cache
def _say_unused(devices: Path) -> None:
    """Once in a daemon's life."""
    if device := unused(devices):
        LOG.warning(
            "this machine has a graphics card (%s), and llama.cpp was compiled for processors "
            "alone: `make gpu` compiles it for cards",
            device,
        )


def _library_folder() -> Path | None:
    spec = find_spec("llama_cpp")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / "lib" if places else None


def cards_of(ask: Callable[[], str]) -> Sequence[Card]:
    """The cards that an answer names; none, and a line in the log, where there is no answer."""
    try:
        lines = ask().splitlines()[:CARDS_MAX]
        return tuple(_card(json.loads(line)) for line in lines)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        LOG.warning("graphics cards are left alone, llama.cpp did not name them: %s", error)
        return ()


def _card(fields: Any) -> Card:
    name, total, free = fields
    return Card(str(name)[:80], int(total), int(free))


def _ask() -> str:
    return subprocess.run(
        [sys.executable, "-P", "-m", "meshd.engine.cards"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ASK_TIMEOUT_S,
        check=True,
    ).stdout


def main() -> None:
    """Tell this process's cards."""
    import ctypes

    from llama_cpp._ggml import libggml

    for name in ("get", "description"):
        getattr(libggml, f"ggml_backend_dev_{name}").restype = ctypes.c_void_p
    for index in range(libggml.ggml_backend_dev_count()):
        device = ctypes.c_void_p(libggml.ggml_backend_dev_get(ctypes.c_size_t(index)))
        if libggml.ggml_backend_dev_type(device) != DISCRETE:
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        words = ctypes.string_at(libggml.ggml_backend_dev_description(device))
        card = [words.decode("utf-8", "replace"), total.value, free.value]
        sys.stdout.write(json.dumps(card) + "\n")


if __name__ == "__main__":
    main()
