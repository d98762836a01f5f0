"""Accelerators and the memory a model may use on each.

AMD is read from the kernel's files (amdgpu's and KFD's under /sys), so no driver package is
needed and the graphics inside a Strix Halo count with the share of memory they may take. NVIDIA
tells its memory only through its driver: `nvidia-smi` comes with it everywhere, is asked once, and
is not asked at all where no driver is that could be NVIDIA's. Under Windows (WSL 2) the driver is
the host's, shows itself as one device for all makes, and brings its tool in a folder of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from meshd.host import parse

CARDS_MAX = 16
"""Cards looked at; the wire carries as many (protocol.limits.GPUS_MAX)."""

NVIDIA_TIMEOUT_S = 5.0
"""A driver without its persistence daemon takes one to three seconds to wake."""

NVIDIA_DRIVERS = ("proc/driver/nvidia/version", "dev/dxg")
"""Linux's own driver, and that of WSL 2."""

NVIDIA_TOOL = "nvidia-smi"
WSL_TOOL = "usr/lib/wsl/lib/nvidia-smi"
"""Which is in a shell's PATH there, and not in a service's."""

NVIDIA_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")

Gpus = tuple[tuple[str, int], ...]


def amd_gpus(root: Path = Path("/")) -> Gpus:
    """Name and usable bytes of each amdgpu card. Never raises."""
    gfx_of = _kfd(root)
    found = []
    for device in _cards(root):
        vram = _number(device / "mem_info_vram_total")
        if vram is None:
            continue
        gfx = gfx_of.get(_render_minor(device))
        usable = parse.amd_usable_bytes(gfx, vram, _number(device / "mem_info_gtt_total") or 0)
        name = _text(device / "product_name").strip() or "AMD"
        found.append((f"{name} {gfx}" if gfx else name, usable))
    return tuple(found)


def nvidia_gpus(root: Path = Path("/")) -> Gpus:
    """Name and bytes of each NVIDIA GPU. Waits up to NVIDIA_TIMEOUT_S; never raises."""
    if not any((root / driver).exists() for driver in NVIDIA_DRIVERS):
        return ()
    command = (shutil.which(NVIDIA_TOOL) or root / WSL_TOOL, *NVIDIA_QUERY)
    try:
        done = subprocess.run(  # noqa: S603 - a constant command
            command, capture_output=True, text=True, timeout=NVIDIA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse.nvidia_smi(done.stdout)[:CARDS_MAX]


def _cards(root: Path) -> list[Path]:
    cards = sorted((root / "sys/class/drm").glob("card*"))
    return [card / "device" for card in cards if re.fullmatch(r"card\d+", card.name)][:CARDS_MAX]


def _render_minor(device: Path) -> int | None:
    names = [node.name for node in sorted((device / "drm").glob("renderD*"))]
    return int(names[0].removeprefix("renderD")) if names else None


def _kfd(root: Path) -> dict[int | None, str]:
    """gfx id by DRM render minor."""
    nodes = sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    texts = [_text(node) for node in nodes]
    pairs = ((parse.kfd_render_minor(text), parse.kfd_gfx(text)) for text in texts)
    return {minor: gfx for minor, gfx in pairs if gfx is not None}


def _number(path: Path) -> int | None:
    word = _text(path).strip()
    return int(word) if word.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
