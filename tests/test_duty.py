"""The owner's desk: what it says of the node, whom it listens to, and who could carry on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshd.core.membership.member import Member, MeshView
from meshd.core.routing.fairness import Ticket
from meshd.duty import Duty, offered_elsewhere
from meshd.history import History
from meshd.intake import Intake
from meshd.visit import Visit
from protocol.jobs import Finish, ReasoningDelta, TextDelta
from protocol.load import PersonUse
from tests.core.routing.fleet import MODEL, chat, load, member, model, view

ANNA = "a" * 16


class Desk:
    """A duty over a household that the test changes."""

    def __init__(self) -> None:
        self.house = view(member(1), member(2))
        self.changes = 0
        self.history = History()
        self.intake = Intake(lambda _visit: False, clock=lambda: 0.0)
        self.duty = Duty(
            self.intake, self.history, lambda: self.house, self._changed, clock=lambda: 10.0
        )

    def _changed(self) -> None:
        self.changes += 1

    def sees(self, *others: Member) -> None:
        """The view is this node and these."""
        self.house = view(member(1), *others)
        self.duty.listen()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A node that does nothing."""
    made = Desk()
    yield made
    await made.intake.close(0.0)


async def test_draining_is_said_at_once_and_undone(desk: Desk) -> None:
    """Each time the others are told."""
    assert desk.duty.drain() == {"node": "node1", "draining": True, "running": 0, "waiting": 0}
    assert desk.duty.duty()["draining"]
    assert not desk.duty.resume()["draining"]
    assert desk.changes == 2


async def test_requests_are_what_entered_and_what_is_served(desk: Desk) -> None:
    """One body for both, one request with everything."""
    desk.history.opened(chat(request_id="r"), 4.0).finished(Finish("stop", 1, 1), 5.0)
    body = desk.duty.requests()
    assert [row["id"] for row in body["requests"]] == ["r"]
    assert (body["node"], body["open"], body["served"], body["draining"]) == ("node1", 0, [], False)
    one = desk.duty.request("r")
    assert one is not None
    assert one["age_s"] == 6.0
    assert desk.duty.request("other") is None


async def test_what_others_served_is_listened_to(desk: Desk) -> None:
    """A new record replaces the last; a node that is gone or dead says nothing any more."""
    counter = desk.intake.shares.counter
    desk.sees(member(2, load=load(people=(PersonUse(ANNA, 100.0),))))
    first = counter(ANNA)
    desk.duty.listen()
    assert counter(ANNA) == first > 0
    desk.sees(member(2, load=load(people=(PersonUse(ANNA, 300.0),))))
    assert counter(ANNA) == pytest.approx(3 * first)
    desk.sees(member(2, state="dead", load=load(people=(PersonUse(ANNA, 300.0),))))
    assert counter(ANNA) == 0
    desk.sees(member(2, load=load(people=(PersonUse(ANNA, 100.0),))), member(3))
    desk.sees(member(3, load=None))
    assert counter(ANNA) == 0


async def test_a_nodes_own_word_is_not_counted_twice(desk: Desk) -> None:
    """What it served it knows already."""
    spoken = load(people=(PersonUse(ANNA, 100.0),))
    desk.house = MeshView(*_alone(member(1, load=spoken)), version=1)
    desk.duty.listen()
    assert desk.intake.shares.counter(ANNA) == 0


def visit_of(tokens: int) -> Visit:
    """A job that runs here, with a prompt so long."""
    return Visit(chat(model=MODEL), Ticket(ANNA, tokens, 100, 0.0))


def _alone(myself: Member) -> tuple[str, dict[str, Member]]:
    return myself.node_id, {myself.node_id: myself}


@pytest.mark.parametrize(
    ("other", "can"),
    [
        (member(2), True),
        (member(2, model(fingerprint="f")), True),
        (member(2, model(fingerprint="other")), False),
        (member(2, model(model_id="another")), False),
        (member(2, state="suspect"), False),
        (member(2, load=None), False),
        (member(2, load=load(accepting=False)), False),
        (member(2, load=load(draining=True)), False),
        (member(2, load=load(pressure="critical")), False),
        (member(2, model(context_length=0)), True),
        (member(2, model(context_length=600)), True),
        (member(2, model(context_length=500)), False),
        (member(2, model(capabilities=("completion",))), False),
    ],
)
def test_another_node_can_carry_on_with_the_same_model(other: Member, can: bool) -> None:
    """The same file, or where one of the two does not know its file, the same name; and where the
    job can be done and fits, or it would be cut for nothing."""
    house = view(member(1, model(fingerprint="f")), other)
    assert offered_elsewhere(house, visit_of(500)) is can


@pytest.mark.parametrize(("mark", "can"), [("f", True), ("", False), ("other", False)])
def test_a_thought_is_carried_on_by_the_same_file_alone(mark: str, can: bool) -> None:
    """Another may not mark thoughts as this one does."""
    house = view(member(1, model(fingerprint="f")), member(2, model(fingerprint=mark)))
    visit = visit_of(500)
    assert not visit.is_over([ReasoningDelta("hm")])
    assert offered_elsewhere(house, visit) is can


@pytest.mark.parametrize(
    ("changes", "said", "can"),
    [
        ({"stream": True}, False, True),
        ({"stream": True}, True, False),
        ({"stream": True, "prefix_text": "So "}, False, False),
        ({"stream": True, "kind": "completion", "prompt": "q"}, True, True),
        ({"stream": False}, True, True),
    ],
)
def test_an_adopted_server_goes_on_with_no_chat(
    changes: dict[str, Any], said: bool, can: bool
) -> None:
    """It takes what may be begun anew, and what goes on as a prompt goes on; a chat that its client
    has begun to read is let finish here."""
    job = chat(model=MODEL, **changes)
    visit = Visit(job, Ticket(ANNA, 500, 100, 0.0, begun=bool(job.prefix_text)))
    assert not (said and visit.is_over([TextDelta("word ")]))
    assert offered_elsewhere(view(member(1), member(2, model(engine="upstream a"))), visit) is can


def test_the_rest_of_a_thought_is_a_thought_before_its_first_word() -> None:
    """A node that drains at that moment sends it nowhere but to the same file."""
    house = view(member(1, model(fingerprint="f")), member(2))
    visit = Visit(chat(prefix_thought="hm"), Ticket(ANNA, 500, 100, 0.0, begun=True))
    assert not offered_elsewhere(house, visit)


def test_a_node_alone_has_nobody_to_carry_on() -> None:
    """Itself does not count."""
    assert not offered_elsewhere(view(member(1)), visit_of(500))
