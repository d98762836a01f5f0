"""Real daemons: paired by eight digits, put out by one command, requests flowing all the while."""

import contextlib
import threading
import time

import openai
import pytest

from tests.e2e.daemons import Daemon, wait_until

EMULATED = "emulated:model=echo,prompt_tps=20000,generation_tps=400,slots=4"
QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
def alone(tmp_path):
    """Starts daemons that share no key: each is a mesh of one."""
    started: list[Daemon] = []

    def start(name: str, *flags: str) -> Daemon:
        daemon = Daemon(tmp_path, name, "--no-mdns", *flags)
        started.append(daemon)
        return daemon.start().wait_ready()

    yield start
    for daemon in started:
        daemon.stop()


def door_of(member, invited):
    """Where the newcomer has to knock."""
    return f"127.0.0.1:{invited['door']}"


def pair(member, newcomer):
    """Invite on one, join on the other, and wait until both see each other alive."""
    status, invited = member.ask("POST", "/mesh/v1/pair", {})
    assert status == 200, invited
    asked = {"code": invited["code"], "at": door_of(member, invited)}
    status, joined = newcomer.ask("POST", "/mesh/v1/join", asked)
    assert status == 200, joined
    assert joined["sponsors"][0] == member.name
    both = {member.name: "alive", newcomer.name: "alive"}
    wait_until(lambda: both.items() <= member.states().items(), 5, "the member sees the newcomer")
    wait_until(lambda: both.items() <= newcomer.states().items(), 5, "and is seen")


def answer_of(entry):
    """Who answered one question asked at `entry`."""
    with openai.OpenAI(
        base_url=entry.base_url, api_key="unused", max_retries=0, timeout=15
    ) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="echo", messages=QUESTION, max_tokens=4
        )
    return raw.headers["x-mesh-node"]


@contextlib.contextmanager
def asking_on(entry):
    """Questions at `entry`, one after the other, for as long as the block runs: (nodes, errors)."""
    stop = threading.Event()
    answered: list[str] = []
    errors: list[Exception] = []

    def ask_on():
        while not stop.is_set() and not errors:
            try:
                answered.append(answer_of(entry))
            except openai.OpenAIError as error:
                errors.append(error)

    asking = threading.Thread(target=ask_on, daemon=True)
    asking.start()
    try:
        yield answered, errors
    finally:
        stop.set()
        asking.join(20)


def test_eight_digits_make_one_mesh_of_two(alone):
    """Strangers before, members after, without a restart; and still members after one."""
    member = alone("member", "--engine", EMULATED)
    newcomer = alone("newcomer")
    assert newcomer.states() == {"newcomer": "alive"}
    pair(member, newcomer)
    wait_until(lambda: newcomer.get("/v1/models")["data"], 5, "the model is known")
    assert answer_of(newcomer) == "member"
    assert newcomer.stop() == 0
    newcomer.start().wait_ready()
    wait_until(lambda: newcomer.states().get("member") == "alive", 5, "remembered after a restart")


def test_a_wrong_code_lets_nobody_in_and_five_close_the_door(alone):
    """The refusal is words and a 409; after five the right code is too late."""
    member, newcomer = alone("member"), alone("newcomer")
    _, invited = member.ask("POST", "/mesh/v1/pair", {})
    right = invited["code"].replace(" ", "")
    wrong = str((int(right) + 1) % 10**8).zfill(8)
    at = door_of(member, invited)
    statuses = [
        newcomer.ask("POST", "/mesh/v1/join", {"code": code, "at": at})[0]
        for code in [wrong] * 5 + [right]
    ]
    assert statuses == [409] * 6
    assert member.states() == {"member": "alive"}


def test_a_token_works_once(alone):
    """One line for a machine without a keyboard, for one machine only."""
    member, first, second = alone("member"), alone("first"), alone("second")
    _, invited = member.ask("POST", "/mesh/v1/pair", {"token": True})
    asked = {"code": invited["token"], "at": door_of(member, invited)}
    assert first.ask("POST", "/mesh/v1/join", asked)[0] == 200
    assert second.ask("POST", "/mesh/v1/join", asked)[0] == 409
    wait_until(lambda: member.states().get("first") == "alive", 5, "the first is in")
    assert "second" not in member.states()


def test_a_mesh_port_that_is_bound_by_name_is_told_by_address(tmp_path):
    """`localhost` is another machine for whoever hears it; and mDNS has an address to announce."""
    daemon = Daemon(tmp_path, "named")
    try:
        daemon.start(mesh=f"localhost:{daemon.mesh_port}").wait_ready()
        hosts = daemon.ask("POST", "/mesh/v1/pair", {})[1]["hosts"]
        assert hosts in (["127.0.0.1"], ["::1"])
        assert "no usable address" not in daemon.log.read_text()
    finally:
        daemon.stop()


@pytest.mark.timeout(60)
def test_who_moves_to_another_mesh_takes_nobody_along(alone):
    """Members of the mesh it leaves are no members, and no ghosts, of the one it joins."""
    mover, left, host = alone("mover"), alone("left"), alone("host")
    pair(mover, left)
    pair(host, mover)
    both = {"mover": "alive", "host": "alive"}
    assert mover.states() == both
    time.sleep(2)  # gossip and repair would have brought it by now
    assert host.states() == both
    wait_until(lambda: left.states().get("mover") == "dead", 10, "the old mesh has lost it")


@pytest.mark.timeout(60)
def test_a_revoked_node_is_out_at_once_and_nobody_else_notices(alone):
    """The key changes under load: every request of the others is answered, the revoked one is
    alone, and stays so after a restart."""
    owner = alone("owner", "--engine", EMULATED)
    friend = alone("friend")
    stolen = alone("stolen")
    pair(owner, friend)
    pair(owner, stolen)
    wait_until(lambda: friend.states().get("stolen") == "alive", 15, "all three know each other")
    wait_until(lambda: stolen.get("/v1/models")["data"], 15, "the model is known to all")
    assert answer_of(stolen) == "owner"
    with asking_on(friend) as (answered, errors):
        time.sleep(0.3)
        status, done = owner.ask("POST", "/mesh/v1/revoke", {"node": "stolen"})
        assert status == 200, done
        assert [*done["told"], *done["silent"]] == ["friend"]
        wait_until(lambda: "stolen" not in owner.states(), 2, "the revoked node is off the list")
        wait_until(lambda: "stolen" not in friend.states(), 5, "and off that of its friend")
        wait_until(lambda: stolen.states().get("owner") != "alive", 8, "the revoked node is alone")
        time.sleep(0.5)
    assert not errors
    assert set(answered) == {"owner"}
    assert owner.states() == friend.states() == {"owner": "alive", "friend": "alive"}
    status, refused = stolen.ask(
        "POST", "/v1/chat/completions", {"model": "echo", "messages": QUESTION}
    )
    assert status in {404, 503}, refused
    stolen.stop()
    stolen.start().wait_ready()
    time.sleep(1)
    assert "stolen" not in owner.states()
