"""Claims of meshd.engine.offers."""

from __future__ import annotations

from meshd.engine.emulated import EmulatedEngine
from meshd.engine.offers import Offers
from meshd.engine.spec import EmulatedSpec
from protocol import limits


def engine(name: str, model: str, load_s: float = 0.0) -> EmulatedEngine:
    """Cold until it is loaded where it takes time to load."""
    return EmulatedEngine(EmulatedSpec(name=name, model=model, load_s=load_s))


async def test_a_model_of_two_engines_is_offered_once() -> None:
    """By the first of them, when both are as warm; each model has its state beside it."""
    one, two, other = engine("1", "m"), engine("2", "m"), engine("3", "n")
    for each in (one, two, other):
        await each.start()
    offers = Offers([one, two, other])
    assert [record.model_id for record in offers.models()] == ["m", "n"]
    assert [load.model_id for load in offers.stats()] == ["m", "n"]
    assert offers.engine_of("m") is one
    assert offers.engine_of("z") is None


async def test_the_warm_one_speaks_for_a_model() -> None:
    """A job goes where the offer said it would: to memory, not to a disk."""
    cold, warm = engine("1", "m", load_s=3600), engine("2", "m")
    await warm.start()
    offers = Offers([cold, warm])
    assert offers.engine_of("m") is warm
    assert [load.warm for load in offers.stats()] == [True]


async def test_a_large_catalog_speaks_of_its_warm_models() -> None:
    """The wire carries so many; what is in memory is never left out."""
    cold = [engine("c", f"m{number}", load_s=3600) for number in range(limits.MODELS_MAX)]
    warm = engine("w", "warm")
    await warm.start()
    told = Offers([*cold, warm]).models()
    assert len(told) == limits.MODELS_MAX
    assert told[0].model_id == "warm"


async def test_a_model_that_comes_back_between_two_questions_spoils_no_offer() -> None:
    """It was set aside for a minute, which is over just then: it is offered at the next look."""
    one, two = engine("1", "m"), engine("2", "n")
    for each in (one, two):
        await each.start()
    one.stats = lambda: ()  # type: ignore[method-assign]
    offers = Offers([one, two])
    assert [load.model_id for load in offers.stats()] == ["n"]
