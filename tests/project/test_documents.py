"""What is written is true: targets, commands, flags, limits; and nothing names this machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from dataclasses import fields

from meshd.cli import build_parser
from meshd.config import Settings
from meshd.ctl.app import build_parser as build_meshctl
from meshd.ctl.commands import COMMANDS
from meshd.options import OPTIONS
from tests.project.sources import ROOT, name_of, project_files, python_files, tree_of

README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.MULTILINE))

PRIVATE = ("/ro" + "ot/", "/wo" + "rk/", "/opt/wh" + "eels", "/opt/py" + "pi", "/ho" + "me/")
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js", "debian" + ".org")


def shown_commands(text: str) -> list[list[str]]:
    """The lines of the shell examples, as words."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.split() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_target_is_phony_and_has_a_line_of_help() -> None:
    """`make` lists them all, and a file called `test` cannot hide one."""
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert phony == TARGETS
    wanted = "run test check fmt sim bench vectors docs demo netns clean help"
    assert set(wanted.split()) <= TARGETS


def test_make_lists_its_targets() -> None:
    """Without a word it does nothing but tell."""
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in done.stdout.splitlines() if "make" in line} == TARGETS


def test_commands_in_the_readme_exist() -> None:
    """Each `make`, `meshd` and `meshctl` line names a target, command and flags that there are."""
    known = {"meshd": build_parser()[1], "meshctl": build_meshctl()[1]}
    wrong = []
    for program, *words in shown_commands(README):
        name = program.rsplit("/", 1)[-1]
        if name == "make" and words[0] not in TARGETS:
            wrong.append(words)
        command = known.get(name, {}).get(words[0])
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        if name in known and (command is None or not flags <= set(command.flags())):
            wrong.append(words)
    assert wrong == []
    assert len(shown_commands(README)) >= 4


def test_links_in_the_documents_lead_somewhere() -> None:
    """Every relative link names a file of the project."""
    documents = [file for file in project_files() if file.suffix == ".md"]
    broken = [
        (name_of(file), link)
        for file in documents
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", file.read_text("utf-8"))
        if not (file.parent / link).exists()
    ]
    assert broken == []


def test_flags_settings_and_environment_are_one_table() -> None:
    """Every field of Settings is filled by exactly one option, and every option fills fields."""
    filled = [name for option in OPTIONS for name in option.fields]
    assert sorted(filled) == sorted({f.name for f in fields(Settings)} - {"origins"})
    assert all(option.variable == f"MESHD_{option.key.upper()}" for option in OPTIONS)


def test_nothing_reads_a_setting_that_is_not_in_the_table() -> None:
    """A MESHD_* variable that no option declares would be refused at the start, so none is read."""
    declared = {option.variable for option in OPTIONS} | {"MESHD_CONFIG", "MESHD_"}
    found = {
        (name_of(file), node.value)
        for file in python_files("meshd")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"MESHD_[A-Z_]*", node.value)
        and node.value not in declared
    }
    assert found == set()


def test_meshctls_commands_all_do_something() -> None:
    """The parser and the table of commands agree."""
    assert set(build_meshctl()[1]) == set(COMMANDS)


def test_every_limit_states_its_unit_and_reason() -> None:
    """A constant of protocol/limits.py is followed by the text that explains it."""
    body = tree_of(ROOT / "protocol" / "limits.py").body
    bare = [
        name.id
        for node, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name) and not _is_text(after)
    ]
    assert bare == []


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_every_module_opens_with_its_theory() -> None:
    """What is this for, before how."""
    silent = [
        name_of(file)
        for file in python_files("protocol", "meshd", "benchmarks", "tests")
        if not ast.get_docstring(tree_of(file)) and file.read_text("utf-8").strip()
    ]
    assert silent == []


def test_every_tests_docstring_states_its_claim() -> None:
    """A test's name and one sentence say what is promised."""
    silent = [
        f"{name_of(file)}:{node.lineno} {node.name}"
        for file in python_files("tests")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    """Private paths and hosts mean nothing to others; the lock file is the registry's own."""
    found = [
        (name_of(file), word)
        for file in project_files()
        if file.name != "uv.lock"
        for word in (*PRIVATE, *REGISTRIES)
        if word.encode() in file.read_bytes()
    ]
    assert found == []


def test_the_entry_points_exist() -> None:
    """What the package installs as commands can be called."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"meshd": "meshd.cli:main", "meshctl": "meshd.ctl.app:main"}
