"""How long answers are expected to be, per class."""

import pytest

from meshd.core.routing import lengths as rules
from meshd.core.routing.lengths import EXPECTED_OUTPUT_TOKENS, OutputLengths, class_of
from tests.core.routing.fleet import chat


def test_an_unknown_class_gets_the_usual_length():
    """Between the medians of public traces."""
    assert OutputLengths().expected("chat") == EXPECTED_OUTPUT_TOKENS


def test_a_class_is_expected_at_its_seventieth_percentile():
    """Of 1 to 104 the last 64 count, 41 to 104; it is looked at with every eighth."""
    lengths = OutputLengths()
    for tokens in range(1, 105):
        lengths.observe("chat", tokens)
    assert lengths.expected("chat") == 85


def test_each_class_is_looked_at_by_its_own_count():
    """Two that take turns would otherwise leave one of them as it was for ever."""
    lengths = OutputLengths()
    for tokens in [100] * 200 + [900] * 200:
        lengths.observe("chat", tokens)
        lengths.observe("embedding", 0)
    assert lengths.expected("chat") == 900


def test_few_samples_lean_on_the_usual_length():
    """Half of the samples it takes to be believed, half of the way."""
    lengths = OutputLengths()
    for _ in range(rules.SAMPLES_TRUSTED // 2):
        lengths.observe("code", 10)
    assert lengths.expected("code") == (10 + EXPECTED_OUTPUT_TOKENS) / 2
    assert lengths.expected("chat") == EXPECTED_OUTPUT_TOKENS


def test_classes_are_bounded():
    """The one used least recently gives way."""
    lengths = OutputLengths()
    for number in range(rules.CLASSES_MAX + 1):
        lengths.observe(str(number), 1)
    assert len(lengths) == len(lengths._observed) == rules.CLASSES_MAX
    assert lengths.expected("0") == EXPECTED_OUTPUT_TOKENS


@pytest.mark.parametrize(
    ("job", "name"),
    [
        (chat(), "chat"),
        (chat(stream=True, tools=[{}]), "chat tools streamed"),
        (chat(response_format={"type": "json_object"}, priority="batch"), "chat formatted batch"),
    ],
)
def test_a_class_is_what_can_be_seen_from_outside(job, name):
    """No word of the request is in it."""
    assert class_of(job) == name
