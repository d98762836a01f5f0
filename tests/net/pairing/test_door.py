"""Two machines at a real door, on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from random import Random

import pytest
import zmq

from meshd.core.effects import Notice
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.pairing import enter as entering
from meshd.net.pairing.door import Door, Invited
from meshd.net.pairing.enter import door_places, enter, read_invitation
from meshd.net.pairing.exchange import Admitted
from meshd.net.pairing.invitation import CODE_LASTS_S, TOKEN_LASTS_S, TRIES_MAX
from meshd.net.pairing.refusal import WORDS, PairingError
from protocol.pairing import Welcome
from tests.net.pairing.people import ANNA, BERT, WELCOME
from tests.net.patience import wait_for

Context = zmq.Context[zmq.Socket[bytes]]


class House:
    """Anna's door, a clock that tests turn, and what she was told."""

    def __init__(self, context: Context, gatekeeper: Gatekeeper, port: int = 0) -> None:
        self.context = context
        self.now = 100.0
        self.admitted: list[Admitted] = []
        self.notices: list[Notice] = []
        self.fault: OSError | None = None
        self.door = Door(
            ANNA.public_key,
            context=context,
            gatekeeper=gatekeeper,
            bind_host="127.0.0.1",
            bind_port=port,
            hosts=lambda: ["127.0.0.1"],
            welcome=self.welcome,
            on_admitted=self.admitted.append,
            on_notice=self.notices.append,
            entropy=Random(1).randbytes,
            clock=lambda: self.now,
        )

    def come(self, text: str, places: Sequence[str] | None = None) -> Welcome:
        """Bert types `text`. Raises PairingError."""
        invitation, found = read_invitation(text, None)
        at = places or found or [f"127.0.0.1:{self.door.port}"]
        return enter(invitation, at, BERT.public_key, context=self.context)

    def welcome(self, _: str) -> Welcome:
        """What newcomers are told, unless there is a fault."""
        if self.fault is not None:
            raise self.fault
        return WELCOME

    def refusal(self, text: str) -> str:
        """Why Bert does not come in."""
        with pytest.raises(PairingError) as refused:
            self.come(text)
        return str(refused.value)


@pytest.fixture
def house(context: Context, gatekeeper: Gatekeeper) -> Iterator[House]:
    """Anna at home, the door closed."""
    made = House(context, gatekeeper)
    yield made
    made.door.close()


def mistyped(invited: Invited) -> str:
    """The code with its last digit turned."""
    return invited.text[:-1] + str((int(invited.text[-1]) + 1) % 10)


def test_there_is_no_door_until_somebody_is_invited(house: House) -> None:
    """And none any more once the only invitation was used."""
    assert house.door.port == 0
    invited = house.door.invite()
    assert (house.door.port, invited.expires_s) == (invited.port, CODE_LASTS_S)
    assert house.come(invited.text) == WELCOME
    wait_for(lambda: house.door.port == 0, "the door closed")


def test_the_member_learns_whose_key_came_in(house: House) -> None:
    """Before the newcomer has its answer, so that its first knock elsewhere is expected."""
    house.come(house.door.invite().text)
    assert [one.public_key for one in house.admitted] == [BERT.public_key]


def test_a_token_leads_to_the_door_by_itself(house: House) -> None:
    """One line, nothing else to type; a second use finds nobody."""
    token = house.door.invite_token()
    assert token.expires_s == TOKEN_LASTS_S
    house.door.invite()
    assert house.come(token.text) == WELCOME
    assert house.refusal(token.text) == WORDS["closed"]


def test_five_wrong_codes_close_a_real_door(house: House) -> None:
    """Each is told it is wrong, the sixth that it is too late; then the port is gone."""
    right = house.door.invite()
    wrong = mistyped(right)
    assert [house.refusal(wrong) for _ in range(TRIES_MAX)] == [WORDS["wrong"]] * TRIES_MAX
    assert house.refusal(right.text) == WORDS["closed"]
    wait_for(lambda: house.door.port == 0, "the door closed")


def test_the_door_closes_by_itself(house: House) -> None:
    """When the time is over, with nobody knocking."""
    house.door.invite()
    house.now += CODE_LASTS_S
    wait_for(lambda: house.door.port == 0, "the door closed")


def test_a_closed_door_opens_again(house: House) -> None:
    """Withdrawn, and invited anew: the old code is worth nothing."""
    old = house.door.invite()
    house.door.withdraw()
    wait_for(lambda: house.door.port == 0, "the door closed")
    new = house.door.invite()
    assert house.refusal(old.text) == WORDS["wrong"]
    assert house.come(new.text) == WELCOME


def test_what_is_open_can_be_seen_without_its_secret(house: House) -> None:
    """Kinds, seconds and tries; no digits."""
    assert house.door.state() == {"door": None, "invitations": []}
    invited = house.door.invite()
    house.refusal(mistyped(invited))
    house.door.invite_token()
    assert house.door.state() == {
        "door": invited.port,
        "invitations": [
            {"kind": "code", "expires_s": CODE_LASTS_S, "tries_left": TRIES_MAX - 1},
            {"kind": "token", "expires_s": TOKEN_LASTS_S, "tries_left": TRIES_MAX},
        ],
    }


def test_a_taken_port_moves_the_door(context: Context, gatekeeper: Gatekeeper) -> None:
    """Pairing does not fail for a port: another free one is taken, and shown."""
    first = House(context, gatekeeper)
    taken = first.door.invite().port
    second = House(context, gatekeeper, port=taken)
    moved = second.door.invite()
    assert moved.port not in {0, taken}
    assert second.come(moved.text) == WELCOME
    first.door.close()
    second.door.close()


def test_the_first_place_that_is_a_door_is_taken(
    house: House, context: Context, gatekeeper: Gatekeeper
) -> None:
    """A port where something else listens, and one where nothing does, do not matter."""
    other = context.socket(zmq.ROUTER)
    elsewhere = other.bind_to_random_port("tcp://127.0.0.1")
    invited = house.door.invite()
    ports = (1, elsewhere, invited.port)
    assert house.come(invited.text, [f"127.0.0.1:{port}" for port in ports]) == WELCOME
    other.close(0)


def test_no_door_at_all_is_said_with_what_to_do(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The addresses that were tried, and where a window is opened."""
    monkeypatch.setattr(entering, "CONNECT_WAIT_S", 0.05)
    with pytest.raises(PairingError, match=r"127\.0\.0\.1:1; run `meshctl pair` on a member"):
        house.come("1234 5678", ["127.0.0.1:1"])


def test_odd_frames_do_not_end_the_door(house: House, context: Context) -> None:
    """Garbage is answered with a refusal, three parts with nothing, and the next caller is in."""
    invited = house.door.invite()
    caller = entering._dealer(context, (socket.AF_INET, ("127.0.0.1", invited.port)))
    caller.send_multipart([b"one", b"two"])
    caller.send(b"garbage")
    assert caller.recv()
    caller.close(0)
    assert house.come(invited.text) == WELCOME


def test_a_listener_that_fails_costs_the_newcomer_nothing(house: House) -> None:
    """The fault is said; the welcome goes out."""

    def fails(_: Admitted) -> None:
        raise LookupError("of the listener")

    house.door._on_admitted = fails
    assert house.come(house.door.invite().text) == WELCOME
    assert "please report it" in house.notices[0].text


def test_a_fault_of_the_member_costs_one_try_and_not_the_door(house: House) -> None:
    """The newcomer is told to come again, and comes in with the same code. Else the door stood
    open with nobody behind it until the daemon was restarted, and every code was in vain."""
    house.fault = OSError("too many open files")
    invited = house.door.invite()
    assert house.refusal(invited.text) == WORDS["busy"]
    assert "too many open files" in house.notices[0].text
    house.fault = None
    assert house.come(invited.text) == WELCOME


def test_a_closed_node_invites_nobody(house: House) -> None:
    """And says where to go instead."""
    house.door.close()
    with pytest.raises(PairingError, match="pair at another one"):
        house.door.invite()


@pytest.mark.parametrize(
    ("at", "places"),
    [
        ("192.168.1.20:8790", ("192.168.1.20:8790", "192.168.1.20:8792")),
        ("anna.local", ("anna.local:8788", "anna.local:8790")),
        ("[fe80::1%eth0]:8788", ("[fe80::1%eth0]:8788", "[fe80::1%eth0]:8790")),
        ("fe80::1%eth0", ("[fe80::1%eth0]:8788", "[fe80::1%eth0]:8790")),
        ("h:65535", ("h:65535",)),
    ],
)
def test_what_people_type_after_at(at: str, places: tuple[str, ...]) -> None:
    """The mesh port, the door's port, or just a host."""
    assert door_places(at) == places
    assert read_invitation("1234 5678", at)[1] == places


def test_a_bad_address_is_named_as_such() -> None:
    """With the flag it came from."""
    with pytest.raises(PairingError, match="--at: "):
        door_places("no host:at all")


def test_a_typed_address_is_preferred_to_the_tokens(house: House) -> None:
    """The person knows that this machine sees the member elsewhere."""
    token = house.door.invite_token().text
    assert read_invitation(token, "10.9.8.7:1000")[1] == ("10.9.8.7:1000", "10.9.8.7:1002")


def test_every_address_of_a_name_is_tried(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families, and none of them by libzmq: it takes one, and asks where frames move."""
    invited = house.door.invite()
    hosts = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1")]
    found = [(family, 0, 0, "", (host, invited.port)) for family, host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert house.come(invited.text, [f"pi.test:{invited.port}"]) == WELCOME


def test_a_name_that_nobody_knows_is_said_to_be_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that no window is open there; and the try costs nothing."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    invitation, places = read_invitation("1234 5678", "pi.test:8788")
    with pytest.raises(PairingError, match=r"no address is known here for pi\.test:8788 or"):
        enter(invitation, places, BERT.public_key, context=house.context)
