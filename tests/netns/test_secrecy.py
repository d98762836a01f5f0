"""What a stranger with a cable reads off the switch: that there are nodes, and nothing more.

Two daemons of one mesh and one of another are on the switch from the first frame on, so what they
say before they know each other is captured too. The control test keeps the others honest: the
capture does hear what is said aloud.
"""

from dataclasses import dataclass

import pytest

from protocol.codec import pack
from tests.netns.capture import Capture
from tests.netns.fleet import Fleet
from tests.netns.networks import Lan

pytestmark = pytest.mark.timeout(120)

MODEL = "zanzibar-7b-secret"
FOREIGN_MODEL = "timbuktu-7b-secret"
PROMPT_TPS = 31_337.25
"""A speed whose eight bytes nobody meets by chance in encrypted ones."""

QUESTION = "the owner asked about the walrus"


@dataclass(frozen=True)
class Overheard:
    """What was captured, and what the nodes themselves knew at the end."""

    capture: Capture
    ids: list[bytes]
    shown: dict
    answered_by: str
    answer: str


@pytest.fixture(scope="module")
def overheard(make_fleet, tmp_path_factory):
    """A mesh of two forms, tells its load and forwards a question; a stranger asks to join."""
    home = tmp_path_factory.mktemp("spy")
    foreign = home / "foreign.key"
    foreign.write_text("1f" * 32)
    foreign.chmod(0o600)
    peer = ("--peer", "10.87.0.1:18788")
    own = {
        "n1": ("--engine", engine(MODEL)),
        "n3": ("--mesh-key-file", str(foreign), "--engine", engine(FOREIGN_MODEL), *peer),
    }
    with Lan("spy", 3) as lan, Capture(lan) as capture:
        with Fleet(home, lan, own=own, start_all=False) as fleet:
            fleet.start("n1", "n3", "n2")
            rows = fleet.watch.rows
            fleet.watch.wait(
                lambda: "n3" in rows and rows.get("n2", {}).get("n1", {}).get("models"),
                10,
                "n2 knows n1's model",
            )
            answered_by, answer = fleet.chat("n2", MODEL, QUESTION)
            fleet.watch.stay(2)
            ids = [rows[name][name]["id"].encode() for name in fleet.names]
            shown = rows["n2"]["n1"]
        yield Overheard(capture, ids, shown, answered_by, answer)


def engine(model):
    """An emulated engine with the tell-tale speed."""
    return f"emulated:model={model},prompt_tps={PROMPT_TPS},generation_tps=900"


def test_the_capture_hears_what_is_said_aloud(overheard):
    """The control: node ids, which mDNS announces, and how each encrypted connection begins."""
    assert [node_id in overheard.capture for node_id in overheard.ids] == [True] * 3
    assert b"CURVE" in overheard.capture


def test_a_forwarded_question_and_its_answer_are_not_readable(overheard):
    """The question went to the other node and the answer came back, neither in the clear."""
    assert overheard.answered_by == "n1"
    assert len(overheard.answer) > 8
    assert QUESTION.encode() not in overheard.capture
    assert overheard.answer.encode() not in overheard.capture


def test_no_model_name_crosses_in_the_clear(overheard):
    """The other node knows it, so it was told; and a stranger that asks to join tells nothing."""
    assert [model["id"] for model in overheard.shown["models"]] == [MODEL]
    assert MODEL.encode() not in overheard.capture
    assert FOREIGN_MODEL.encode() not in overheard.capture


def test_no_load_figure_crosses_in_the_clear(overheard):
    """The other node knows the speed exactly; its bytes, as the wire writes it, are not there."""
    assert [model["prompt_tps"] for model in overheard.shown["models"]] == [PROMPT_TPS]
    assert pack(PROMPT_TPS) not in overheard.capture
