"""The golden vectors: all of them hold, all of them are there, and the checker would notice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from protocol import vectors
from protocol.errors import ProtocolError
from protocol.fields import record_fields
from protocol.inventory import records

FOLDER = Path(vectors.__file__).parent / "vectors"
ACCEPTED: list[dict[str, Any]] = json.loads((FOLDER / "accept.json").read_text(encoding="utf-8"))
REFUSED: list[dict[str, Any]] = json.loads((FOLDER / "reject.json").read_text(encoding="utf-8"))
BY_NAME = {vector["name"]: vector for vector in ACCEPTED + REFUSED}
PING = BY_NAME["Ping with gossip"]
OLDER_PING = BY_NAME["Ping from an older version, without updates"]


def name_of(vector: dict[str, Any]) -> str:
    """For pytest's output."""
    return str(vector["name"])


@pytest.mark.parametrize("vector", ACCEPTED, ids=name_of)
def test_an_accepted_vector_decodes_as_it_says(vector: dict[str, Any]) -> None:
    """Bytes of every release so far mean what they meant."""
    assert vectors.check_accepted(vector) is None


@pytest.mark.parametrize("vector", REFUSED, ids=name_of)
def test_a_refused_vector_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    """What was never valid has not become so."""
    assert vectors.check_refused(vector) is None


def test_nothing_is_without_vectors() -> None:
    """Every message and record, and the advert, has its two examples."""
    assert vectors.missing(ACCEPTED) == []


def test_each_error_is_shown() -> None:
    """Every code of the family has at least two vectors."""
    shown = Counter(vector["code"] for vector in REFUSED)
    assert min(shown[code] for code in ProtocolError.CODES) >= 2


def test_names_are_unique() -> None:
    """A complaint about a vector leads to one row."""
    names = Counter(map(name_of, ACCEPTED + REFUSED))
    assert set(names.values()) == {1}


def test_what_is_missing_is_found_by_name() -> None:
    """Without its row, an example would be appended again, byte for byte."""
    rest = [vector for vector in ACCEPTED if vector["name"] != "Job typical"]
    (again,) = vectors.missing(rest)
    assert again in ACCEPTED


def test_long_bytes_may_be_written_as_repetitions() -> None:
    """A frame of a megabyte is one short row."""
    assert vectors.packed({"bytes": [["ff", 2], ["00aa", 1]]}) == b"\xff\xff\x00\xaa"


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        (PING | {"bytes": PING["bytes"][:-2]}, "refused (malformed"),
        (PING | {"value": {}}, "decoded to"),
        (OLDER_PING | {"canonical": True}, "encoded again to"),
    ],
)
def test_the_checker_notices_an_accepted_vector_gone_wrong(
    vector: dict[str, Any], complaint: str
) -> None:
    """A frame that is refused, means something else, or is not what we would send."""
    assert complaint in str(vectors.check_accepted(vector))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"code": "magic"}, "refused with version, not magic"),
        ({"bytes": PING["bytes"]}, "accepted"),
    ],
)
def test_the_checker_notices_a_refused_vector_gone_wrong(
    change: dict[str, Any], complaint: str
) -> None:
    """A frame that is refused for another reason, or not at all."""
    assert complaint in str(vectors.check_refused(BY_NAME["version 2"] | change))


def test_true_is_not_taken_for_one() -> None:
    """Values are compared as JSON, where Python would call 1, 1.0 and true equal."""
    vector = BY_NAME["ModelLoad least"]
    value = {"ModelLoad": {**vector["value"]["ModelLoad"], "warm": 0}}
    assert "decoded to" in str(vectors.check_accepted(vector | {"value": value}))


def test_older_records_end_early_and_newer_ones_late() -> None:
    """The mixed-version vectors really are what their names say."""
    lengths = {cls.__name__: len(record_fields(cls)) for cls in records()}
    surplus = {
        name: len(vectors.codec.unpack(vectors.packed(vector), 4_096)) - lengths[vector["of"]]
        for name, vector in BY_NAME.items()
        if vector["form"] == "record" and "er version" in name and "from a" in name
    }
    older = [more for name, more in surplus.items() if "an older version" in name]
    assert len(older) >= 4
    assert max(older) < 0
    assert surplus["TextDelta from a newer version"] > 0
