"""SPEC.md and the code say the same, in both directions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from protocol import limits, spec
from protocol.errors import ProtocolError
from protocol.fields import record_fields, required_fields
from protocol.inventory import records
from protocol.jobs import EVENTS
from protocol.messages import CONTROL_KINDS, RELAY_KINDS

PAGE = (Path(spec.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| *(.*?) *\|$", re.MULTILINE)


def section(start: str, end: str) -> str:
    """The part of the page between two texts."""
    return PAGE.split(start, 1)[1].split(end, 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its two heading rows."""
    return [re.split(r" *(?<!\\)\| *", row) for row in ROW.findall(text)][2:]


def table(name: str) -> list[list[str]]:
    """The cells of one generated table."""
    return rows(section(f"<!-- table: {name} -->", "<!-- end -->"))


def test_the_page_is_up_to_date() -> None:
    """`python -m protocol spec` would change nothing."""
    assert spec.render(PAGE) == PAGE


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("control", CONTROL_KINDS), ("relay", RELAY_KINDS), ("events", EVENTS.by_tag)],
)
def test_the_page_lists_every_id_and_no_other(name: str, kinds: dict[int, type[Any]]) -> None:
    """Ids and names, in order, read back from the page."""
    listed = [(int(number), f"[{link[1:].split(']')[0]}]") for number, link, _ in table(name)]
    assert listed == [(kind, f"[{cls.__name__}]") for kind, cls in kinds.items()]


def test_the_page_describes_every_record_and_no_other() -> None:
    """Headings of the record section against the declarations."""
    headings = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert headings == [cls.__name__ for cls in records()]


@pytest.mark.parametrize("cls", records())
def test_the_page_lists_the_fields_of_a_record(cls: type[Any]) -> None:
    """Index, name, wire form and whether it may be absent, read back from the page."""
    text = section(f"### {cls.__name__}\n", "\n##")
    listed = [
        (int(index), name.strip("`"), wire, absent == "refused")
        for index, name, wire, absent in rows(text)
    ]
    assert listed == [
        (index, name, str(field), index < required_fields(cls))
        for index, (name, field) in enumerate(record_fields(cls))
    ]


def test_the_page_lists_every_limit_with_its_value() -> None:
    """Names and values, read back from the page."""
    listed = {
        name.strip("`"): value.replace(",", "").strip("`") for name, value, _ in table("limits")
    }
    declared = {name: getattr(limits, name) for name in vars(limits) if name.isupper()}
    assert listed == {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in declared.items()
    }


def test_the_page_lists_every_error() -> None:
    """Codes and meanings, read back from the page."""
    assert {code.strip("`"): meaning for code, meaning in table("errors")} == ProtocolError.CODES


def test_a_constant_without_a_reason_shows() -> None:
    """The docstring must follow its constant directly."""
    source = 'A = 1\n"""Why."""\nB = 2\nC: int = 3\n"""Annotated."""\n'
    assert spec.limit_reasons(source) == {"A": "Why.", "B": ""}


def test_a_table_that_nobody_makes_is_an_error() -> None:
    """A misspelt mark is not silently left as it is."""
    with pytest.raises(KeyError):
        spec.render("<!-- table: nonsense -->\n<!-- end -->")


def test_links_within_the_page_lead_somewhere() -> None:
    """Every anchor is the slug of a heading."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    slugs = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= slugs
