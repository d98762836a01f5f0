"""Accelerators: none without a driver, and no error whatever is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.host.gpu import amd_gpus, nvidia_gpus


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_card_of_its_own_offers_its_vram(tmp_path: Path) -> None:
    """A discrete card may borrow host memory, but a model should not."""
    device = "sys/class/drm/card0/device"
    put(
        tmp_path,
        {
            f"{device}/mem_info_vram_total": "25753026560\n",
            f"{device}/mem_info_gtt_total": "33000000000\n",
            f"{device}/product_name": "Radeon RX 7900 XTX\n",
            f"{device}/drm/renderD129/dev": "226:129\n",
            "sys/class/kfd/kfd/topology/nodes/0/properties": "gfx_target_version 0\n",
            "sys/class/kfd/kfd/topology/nodes/1/properties": (
                "drm_render_minor 129\ngfx_target_version 110000\n"
            ),
        },
    )
    assert amd_gpus(tmp_path) == (("Radeon RX 7900 XTX gfx1100", 25753026560),)


def test_other_makers_cards_are_not_amds(tmp_path: Path) -> None:
    """Only amdgpu has the memory files."""
    put(tmp_path, {"sys/class/drm/card0/device/vendor": "0x8086\n"})
    assert amd_gpus(tmp_path) == ()


def test_nvidia_is_not_asked_without_its_driver(tmp_path: Path) -> None:
    """No process is started on machines that have none."""
    assert nvidia_gpus(tmp_path) == ()


def test_a_driver_without_its_tool_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the driver may be there and nvidia-smi not."""
    put(tmp_path, {"proc/driver/nvidia/version": "NVRM version\n"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus(tmp_path) == ()


@pytest.mark.parametrize(
    ("driver", "tool"),
    [("proc/driver/nvidia/version", "nvidia-smi"), ("dev/dxg", "usr/lib/wsl/lib/nvidia-smi")],
)
def test_nvidias_tool_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, tool: str
) -> None:
    """One line a GPU, in mebibytes; on Linux, and where Linux runs under Windows (emulated)."""
    put(tmp_path, {driver: "", tool: "#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564'\n"})
    (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus(tmp_path) == (("NVIDIA GeForce RTX 4090", 24564 * 1024**2),)
