"""What a node says of itself."""

import pytest

from meshd.core.ports import HostFacts, HostReading
from meshd.core.routing.supply import capacity_record, load_record
from protocol import limits
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
