"""What a machine is taken for before it was measured."""

from dataclasses import replace
from random import Random

import pytest

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.explain import decision_body
from meshd.core.routing.hardware import (
    ANY_MACHINE,
    HOPE_RATIO,
    SCALE_MAX,
    Rates,
    assumed_rates,
    busy_beside,
    is_measured,
    usual_rates,
)
from meshd.core.routing.router import Router
from protocol.load import GpuRecord
from tests.core.routing.fleet import MODEL, chat, load, member, model, model_load, view

GB = 10**9
NVIDIA = (GpuRecord("NVIDIA GeForce RTX 3060", 12 * GB),)
UNTRIED = model_load(prompt_tps=0.0, generation_tps=0.0)
WEIGHTS = model(engine="ollama", size_bytes=5 * GB)


def machine(number, state=UNTRIED, *, chip, cores=8, gpus=(), offered=WEIGHTS):
    """A member made of this, with that state of the model."""
    node = member(number, offered, load=load(state))
    capacity = replace(node.capacity, chip=chip, cores=cores, gpus=gpus)
    return replace(node, capacity=capacity)


def offer(node):
    """What a member offers."""
    return Offer(node, node.capacity.models[0], node.load.models[0])


def rates(offered=WEIGHTS, **made_of):
    """The usual rates of a machine made of this."""
    return usual_rates(machine(1, **made_of).capacity, offered)


def test_kinds_of_machines_are_told_apart():
    """From a graphics card to a Pi, each slower than the one before, in both phases."""
    kinds = [
        rates(chip="AMD Ryzen 7 7700X", gpus=NVIDIA),
        rates(chip="AMD RYZEN AI MAX+ 395", gpus=(GpuRecord("AMD gfx1151", 96 * GB),)),
        rates(chip="Apple M4", cores=10, gpus=(GpuRecord("Apple M4", 12 * GB),)),
        rates(chip="Intel(R) Core(TM) i7-7820HQ", cores=4),
    ]
    assert kinds == sorted(kinds, reverse=True)
    speeds = [each.generation_tps for each in kinds]
    assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize(
    ("chip", "faster_than"),
    [
        ("Apple M2 Ultra", "Apple M4 Max"),
        ("Apple M4 Max", "Apple M4 Pro"),
        ("Apple M1 Pro", "Apple M4"),
    ],
)
def test_apples_words_are_ranks(chip, faster_than):
    """Memory's width sets the pace, and is what the words stand for."""
    assert rates(chip=chip).generation_tps > rates(chip=faster_than).generation_tps


def test_graphics_inside_a_processor_are_no_card():
    """A desktop processor's own graphics share its memory."""
    inside = rates(chip="AMD Ryzen 7 7700X", gpus=(GpuRecord("AMD gfx1036", 16 * GB),))
    assert inside.generation_tps < rates(chip="x", gpus=NVIDIA).generation_tps


def test_a_model_that_the_card_cannot_hold_runs_on_the_processor():
    """For the most part, and that part sets the pace."""
    large = model(engine="ollama", size_bytes=40 * GB)
    assert rates(large, chip="x", gpus=NVIDIA) == rates(chip="x")


@pytest.mark.parametrize(
    ("engine", "is_here"),
    [
        ("upstream http://192.168.1.9:11434", False),
        ("upstream http://nas.local:8000/v1", False),
        ("upstream http://127.0.0.1:8000", True),
        ("upstream http://[::1]:8000", True),
        ("ollama http://192.168.1.9:11434", False),
        ("node http://127.0.0.1:8787", False),
        ("ollama", True),
        ("llamacpp 0.3", True),
    ],
)
def test_a_server_at_another_address_may_be_any_machine(engine, is_here):
    """This one's graphics card says nothing of a NAS."""
    told = rates(model(engine=engine), chip="x", gpus=NVIDIA)
    assert (told != ANY_MACHINE) == is_here


def test_nothing_known_is_any_machine():
    """No capacity record yet, or one without a chip."""
    assert usual_rates(None, WEIGHTS) == ANY_MACHINE
    assert rates(chip="") == ANY_MACHINE


def test_how_a_model_does_elsewhere_tells_how_it_will_do_here():
    """Twice as fast as usual on a Mac (a small model, or experts), so twice as fast on the PC."""
    mac = machine(1, model_load(prompt_tps=400.0, generation_tps=36.0), chip="Apple M4")
    pc = machine(2, chip="x", gpus=NVIDIA)
    usual = rates(chip="x", gpus=NVIDIA)
    told = assumed_rates(offer(pc), [offer(mac), offer(pc)])
    hoped = HOPE_RATIO * 2.0
    assert told == pytest.approx((usual.prompt_tps * hoped, usual.generation_tps * hoped))


def test_how_a_model_reads_elsewhere_tells_it_of_one_that_never_writes():
    """An embedding model is measured by what it reads, and has no other rate."""
    embeds = model(engine="ollama", capabilities=("embedding",))
    fast = model_load(prompt_tps=2_000.0, generation_tps=0.0)
    mac = offer(machine(1, fast, chip="Apple M4", offered=embeds))
    pc = offer(machine(2, chip="x", gpus=NVIDIA, offered=embeds))
    usual = rates(embeds, chip="x", gpus=NVIDIA)
    assert (is_measured(mac), is_measured(pc)) == (True, False)
    assert assumed_rates(pc, [mac]).prompt_tps == pytest.approx(HOPE_RATIO * 10 * usual.prompt_tps)


def test_one_odd_measurement_does_not_decide():
    """The median of the neighbours is taken, within bounds; what they have not measured, not."""
    pc = offer(machine(1, chip="x", gpus=NVIDIA))
    usual = rates(chip="x", gpus=NVIDIA)
    odd = offer(machine(2, model_load(prompt_tps=0.0, generation_tps=1e9), chip="Apple M4"))
    most = Rates(HOPE_RATIO * usual.prompt_tps, HOPE_RATIO * usual.generation_tps * SCALE_MAX)
    assert assumed_rates(pc, [odd]) == most
    plain = [
        offer(machine(number, model_load(prompt_tps=200.0, generation_tps=18.0), chip="Apple M4"))
        for number in (3, 4)
    ]
    assert assumed_rates(pc, [odd, *plain]) == tuple(HOPE_RATIO * rate for rate in usual)


def chosen(*nodes):
    """Who gets a question that enters at the first of these, and the whole explanation."""
    router = Router(Random(1))
    demand = router.demand(chat(), MODEL)
    decision = router.choose(view(*nodes), demand, 0.0)
    return decision.chosen.offer.member.node_id, decision_body(demand, decision)


def test_a_card_that_was_never_asked_is_asked_before_a_slower_machine_that_was():
    """The measured Mac is not the best there is, only the best known."""
    mac = machine(1, model_load(prompt_tps=500.0, generation_tps=46.0), chip="Apple M1 Max")
    pc = machine(2, chip="AMD Ryzen 7 7700X", gpus=NVIDIA)
    pi = machine(3, chip="Raspberry Pi 5 Model B Rev 1.0", cores=4)
    who, body = chosen(mac, pc, pi)
    assert who == pc.node_id
    measured = {each["id"]: each["measured"] for each in body["candidates"]}
    assert measured == {mac.node_id: True, pc.node_id: False, pi.node_id: False}


def test_a_measurement_ends_all_assuming():
    """The card was not used after all."""
    mac = machine(1, model_load(prompt_tps=225.0, generation_tps=21.0), chip="Apple M4")
    pc = machine(2, model_load(prompt_tps=40.0, generation_tps=9.0), chip="x", gpus=NVIDIA)
    assert chosen(mac, pc)[0] == mac.node_id
    assert is_measured(offer(pc))


def test_a_machine_that_is_faster_than_its_kind_is_found():
    """A server at another address may be anything, a slow machine too; but never asked, it would
    stay what it was taken for while the Mac is free."""
    mac = machine(1, model_load(prompt_tps=500.0, generation_tps=46.0), chip="Apple M1 Max")
    far = model(engine="upstream http://192.168.1.9:8000", size_bytes=5 * GB)
    assert chosen(mac, machine(2, chip="x", offered=far))[0] != mac.node_id


ENGINES = [
    ("ollama", "llamacpp 0.3", 1),
    ("ollama", "upstream http://127.0.0.1:8000", 1),
    ("ollama", "upstream http://192.168.1.9:8000", 0),
    ("upstream http://192.168.1.9:8000", "upstream http://192.168.1.9:8000", 1),
    ("upstream http://192.168.1.9:8000", "upstream http://192.168.1.8:8000", 0),
]


@pytest.mark.parametrize(("engine", "other_engine", "beside"), ENGINES)
def test_other_models_at_work_are_counted_where_they_run(engine, other_engine, beside):
    """Models of one machine share it, whichever programs run them; what an address stands for is a
    machine of its own."""
    pair = model(engine=engine), model(model_id="other", engine=other_engine)
    idle, busy = model_load(), model_load(model_id="other", in_flight=8)
    node = member(1, *pair, load=load(idle, busy))
    assert busy_beside(offer(node)) == beside
    assert busy_beside(Offer(node, pair[1], busy)) == 0


def test_a_machine_that_runs_another_model_is_spared():
    """Of two equal machines the one that does nothing else is asked."""
    pair = model(), model(model_id="other")
    idle, busy = model_load(), model_load(model_id="other", in_flight=8)
    nodes = [member(number + 1, *pair, load=load(idle, each)) for number, each in
             enumerate((busy, replace(busy, in_flight=0)))]  # fmt: skip
    assert chosen(*nodes)[0] == nodes[1].node_id
