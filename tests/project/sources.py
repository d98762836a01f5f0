"""The sources of this project, as the laws of the house see them."""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("protocol", "meshd")
OURS = (*SHIPPED, "benchmarks", "tests")


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders of the project."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def name_of(file: Path) -> str:
    """The path from the project's root, with slashes."""
    return file.relative_to(ROOT).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(file.read_text("utf-8"))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of the file, methods and nested ones included."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(file: Path) -> set[int]:
    """Numbers of the lines that hold code: no blank line, comment or docstring."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    quiet |= {tokenize.ENDMARKER, tokenize.ENCODING}
    words = tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline)
    lines = {
        line
        for word in words
        if word.type not in quiet
        for line in range(word.start[0], word.end[0] + 1)
    }
    return lines - _docstring_lines(file)


def _docstring_lines(file: Path) -> set[int]:
    return {
        line
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def imports(file: Path) -> set[str]:
    """Full names of the modules that the file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def project_files() -> list[Path]:
    """Every file that git keeps or would keep; everything that is no cache, outside of git."""
    asked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        names = [name for name in asked.stdout.decode().split("\0") if name]
        return sorted(file for name in names if (file := ROOT / name).is_file())
    hidden = (".venv", ".tools", ".peers", "__pycache__", "_cache")
    files = (file for file in ROOT.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part in str(file) for part in hidden))
