"""What a node says of itself."""

from dataclasses import replace

import pytest

from meshd.core.ports import HostFacts, HostReading
from meshd.core.routing.supply import capacity_record, load_record, size_bytes
from protocol import limits
from protocol.codec import encode, pack
from protocol.envelope import Envelope
from protocol.fields import encode_record
from protocol.load import LoadRecord, ModelLoad, ModelRecord, PersonUse
from protocol.messages import Endpoint, Heartbeat, Hello, Update
from tests.core.routing.fleet import model, model_load

FACTS = HostFacts("Linux", "x" * 500, 4, 16 << 30, gpus=(("GPU", 24 << 30),))
CALM = HostReading(16 << 30, 8 << 30, "normal")


def test_capacity_fits_the_wire_whatever_the_machine_says():
    """Long names are cut, long catalogues end at MODELS_MAX."""
    models = [model(model_id=f"m{number}") for number in range(limits.MODELS_MAX + 5)]
    record = capacity_record(FACTS, ["emulated"], models, software="1", version=2)
    assert len(record.chip) == limits.TEXT_MAX_CHARS
    assert len(record.models) == limits.MODELS_MAX
    assert record.gpus[0].memory_bytes == 24 << 30


def test_load_sums_its_models():
    """In flight and queued, over all of them."""
    models = [model_load(in_flight=2, queued=1), model_load(model_id="b", in_flight=1)]
    record = load_record(CALM, models, sequence=9)
    assert (record.in_flight, record.queued, record.sequence) == (3, 1, 9)
    assert record.accepting


@pytest.mark.parametrize(
    ("reading", "draining", "accepting"),
    [
        (CALM, False, True),
        (CALM, True, False),
        (HostReading(16 << 30, 0, "critical"), False, False),
        (HostReading(16 << 30, 1 << 30, "warn"), False, True),
    ],
)
def test_a_node_stops_accepting_when_it_drains_or_is_about_to_swap(reading, draining, accepting):
    """Mere warning is a matter of price, not of refusal."""
    assert load_record(reading, [], sequence=1, draining=draining).accepting is accepting


LONGEST = "\U0001f600" * limits.TEXT_MAX_CHARS
"""The text of one line that takes the most bytes."""

MOST = 2**63 - 1
ENVELOPE = Envelope("m" * limits.MESH_LABEL_MAX_CHARS, "ab" * limits.NODE_ID_BYTES, MOST, MOST)
UPDATE = Update(
    "ab" * limits.NODE_ID_BYTES,
    "suspect",
    MOST,
    MOST,
    "\U0001f600" * limits.NAME_MAX_CHARS,
    "ab" * limits.PUBLIC_KEY_BYTES,
    (Endpoint("a" * limits.ADDRESS_MAX_CHARS, 65_535, 65_535),) * limits.ENDPOINTS_MAX,
    "ab" * limits.NODE_ID_BYTES,
)


def huge_model(number: int) -> ModelRecord:
    """One that says as much as a model can."""
    name = f"{number:02}" + LONGEST[2:]
    return ModelRecord(
        name,
        LONGEST,
        aliases=(LONGEST,) * limits.ALIASES_MAX,
        context_length=2**31 - 1,
        quantisation=LONGEST,
        capabilities=(LONGEST,) * limits.CAPABILITIES_MAX,
        size_bytes=MOST,
        fingerprint=LONGEST,
    )


def huge_load(number: int) -> ModelLoad:
    """Of the same model."""
    name, most = huge_model(number).model_id, 2**31 - 1
    prefixes = bytes(limits.PREFIX_DIGEST_MAX_BYTES)
    return ModelLoad(name, True, most, most // 64, most // 64, 1e9, 1e9, 1e9, 1e9, prefixes)


def with_people(load: LoadRecord) -> LoadRecord:
    """As many as it may speak of."""
    return replace(load, people=(PersonUse("ab" * limits.PERSON_BYTES, 1e12),) * limits.PEOPLE_MAX)


def test_the_fullest_records_fit_one_control_frame():
    """64 models with the longest names: what would not fit is left out, and never a heartbeat."""
    models = [huge_model(number) for number in range(limits.MODELS_MAX)]
    loads = [huge_load(number) for number in range(limits.MODELS_MAX)]
    facts = HostFacts(LONGEST, LONGEST, 2**31 - 1, MOST, ((LONGEST, MOST),) * limits.GPUS_MAX)
    capacity = capacity_record(
        facts, [LONGEST] * limits.ENGINES_MAX, models, software=LONGEST, version=MOST
    )
    load = with_people(load_record(CALM, loads, sequence=MOST, reserved_bytes=MOST))
    hello = encode(ENVELOPE, Hello(UPDATE, capacity, load, True))
    assert len(hello) <= limits.CONTROL_FRAME_MAX_BYTES
    beat = encode(ENVELOPE, Heartbeat(MOST, MOST, load, (UPDATE,) * limits.UPDATES_MAX))
    assert len(beat) <= limits.CONTROL_FRAME_MAX_BYTES


def test_what_is_left_out_is_what_matters_least():
    """Other names of the last models first, then what the last ones have cached, then models."""
    small = {"quantisation": "", "capabilities": ("chat",)}
    models = [replace(huge_model(at), model_id=name, **small) for at, name in enumerate("ab")]
    told = capacity_record(FACTS, [], models, software="1", version=1).models
    assert [(model.model_id, len(model.aliases)) for model in told] == [("a", 16), ("b", 0)]
    loads = [replace(huge_load(0), model_id=f"{number:0{limits.TEXT_MAX_CHARS}}")
             for number in range(limits.MODELS_MAX)]  # fmt: skip
    told = load_record(CALM, loads, sequence=1).models
    assert len(told) == limits.MODELS_MAX
    assert [bool(load.prefixes) for load in told] == sorted(
        (bool(load.prefixes) for load in told), reverse=True
    )
    assert told[0].prefixes
    assert not told[-1].prefixes


def test_what_fits_is_told_whole():
    """A usual machine leaves nothing out."""
    models = [model(model_id=f"m{number}", aliases=("x", "y")) for number in range(20)]
    loads = [model_load(model_id=f"m{number}", prefixes=bytes(256)) for number in range(20)]
    assert capacity_record(FACTS, [], models, software="1", version=1).models == tuple(models)
    assert load_record(CALM, loads, sequence=1).models == tuple(loads)


@pytest.mark.parametrize("record", [huge_model(1), huge_load(2), UPDATE])
def test_the_size_of_a_record_is_never_less_than_it_takes(record):
    """The bound is counted without packing anything."""
    assert len(pack(encode_record(record))) <= size_bytes(record)


def test_a_load_record_says_what_is_promised():
    """Memory that models will take is not free for others."""
    assert load_record(CALM, [], sequence=1, reserved_bytes=7 << 30).reserved_bytes == 7 << 30
