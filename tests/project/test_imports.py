"""Who may import whom: floors by import-linter, homes and purity by reading the code."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.sources import ROOT, SHIPPED, imports, name_of, python_files, tree_of

HOMES: dict[str, tuple[str, ...]] = {
    "zmq": ("meshd/net/",),
    "nacl": ("meshd/net/",),
    "spake2": ("meshd/net/pairing/",),
    "zeroconf": ("meshd/net/discovery",),
    "ifaddr": ("meshd/net/",),
    "llama_cpp": ("meshd/engine/",),
    "mlx": ("meshd/engine/",),
    "mlx_lm": ("meshd/engine/",),
    "numpy": ("meshd/engine/",),
    "jinja2": ("meshd/engine/",),
    "llguidance": ("meshd/engine/",),
    "aiohttp": ("meshd/api/server.py", "meshd/api/routes.py"),
    "msgspec": ("meshd/api/", "meshd/engine/"),
    "msgpack": ("protocol/",),
    "zstandard": ("meshd/api/encodings.py",),
    "uvloop": ("meshd/daemon.py", "meshd/net/", "meshd/node.py"),
    "platformdirs": ("meshd/config.py",),
    "tomlkit": ("meshd/rewrite.py",),
    "typer": ("meshd/cli.py", "meshd/ctl/"),
    "rich": ("meshd/cli.py", "meshd/ctl/"),
    "psutil": ("meshd/host/",),
    "shtab": ("meshd/ctl/completion.py",),
    "prometheus_client": ("meshd/metrics.py",),
}
"""Third-party package -> the only places of the product that may import it."""

ALWAYS_LIGHT = {"msgpack", "platformdirs"}
"""Small, and what the wire and the settings are made of."""

DRAWERS = {"utils", "util", "common", "helpers", "helper", "shared", "managers", "manager", "misc"}
"""Names that say nothing of what is inside, so everything ends up inside."""

PURE = ("protocol", "meshd/core")
RANDOM_ALLOWED = {"Random"}


def third_party() -> set[tuple[str, str]]:
    """(file, package) of every import in the product of neither ours nor the standard library."""
    known = sys.stdlib_module_names | set(SHIPPED)
    return {
        (name_of(file), name.split(".")[0])
        for file in python_files(*SHIPPED)
        for name in imports(file)
        if name.split(".")[0] not in known
    }


def test_the_floors_hold() -> None:
    """import-linter's contracts: no floor imports one above it, no shell its neighbour."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_room_stands_on_a_floor() -> None:
    """A module that no contract names would be outside the law."""
    law = configparser.ConfigParser()
    law.read(ROOT / ".importlinter")
    floors = set(re.findall(r"meshd\.\w+", law["importlinter:contract:floors"]["layers"]))
    rooms = {
        f"meshd.{path.stem}"
        for path in (ROOT / "meshd").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file())
        and path.stem not in {"__init__", "__main__"}
    }
    assert rooms - floors == set()


def test_every_third_party_package_lives_in_its_home() -> None:
    """One place to look when a package changes, and one to replace it in."""
    strays = {
        (file, package)
        for file, package in third_party()
        if not file.startswith(HOMES.get(package, ()))
    }
    assert strays == set()


def test_the_core_has_no_global_random_and_no_clock() -> None:
    """`now` and `rng` come in as arguments; only the type of an rng may be imported."""
    banned = {"time", "datetime", "asyncio", "socket", "threading", "logging", "os", "secrets"}
    found = []
    for file in python_files(*PURE):
        found += [
            f"{name_of(file)}:{node.lineno}"
            for node in ast.walk(tree_of(file))
            if _breaks_purity(node, banned)
        ]
    assert found == []


def _breaks_purity(node: ast.AST, banned: set[str]) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in banned | {"random"} for alias in node.names)
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return False
    names = {alias.name for alias in node.names}
    return node.module.split(".")[0] in banned or (
        node.module == "random" and not names <= RANDOM_ALLOWED
    )


def test_there_are_no_drawers() -> None:
    """A module is named after what it knows."""
    found = [
        name_of(file)
        for file in python_files("protocol", "meshd", "benchmarks", "tests")
        if {file.stem, file.parent.name} & DRAWERS
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("meshd.ctl.app", set()),
        ("meshd.cli", set()),
        ("protocol.codec", set()),
        ("meshd.core.ports", set()),
        ("meshd.api.keys", {"asyncio"}),
    ],
)
def test_light_modules_stay_light(module: str, allowed: set[str]) -> None:
    """What starts a command, and what is imported everywhere, pulls in nothing heavy. `meshctl
    keys` pays for asyncio, and for nothing of the server."""
    heavy = {*HOMES, "asyncio"} - ALWAYS_LIGHT - allowed
    show = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & heavy == set()
