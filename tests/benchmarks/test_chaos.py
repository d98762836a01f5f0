"""The parts of the chaos benchmark that could flatter us: who is ill when, and what counts."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest

from benchmarks import chaos, chaos_clients
from benchmarks.chaos import SERVERS, START_S, WELL_S, Weather, summary
from benchmarks.chaos_clients import QUESTIONS, Heard
from benchmarks.chaos_faults import FAULTS, House
from benchmarks.measure import MeasureError


class Ward:
    """Plays the house: notes who is ill, and does nothing to anybody."""

    def __init__(self) -> None:
        self.chance = Random(3)
        self.ill: set[str] = set()
        self.last: dict[str, str] = {}
        """What each was ill with last."""
        self.well_at: dict[str, float] = {}
        self.now = 0.0

    def fault(self, kind: str) -> Any:
        """A fault that only writes itself down."""

        def strike(_: House, name: str) -> Any:
            assert name not in self.ill
            rest_s = WELL_S + (START_S if self.last.get(name) in {"killed", "ended"} else 0.0)
            assert self.now >= self.well_at.get(name, -rest_s) + rest_s
            self.ill.add(name)
            self.last[name] = kind

            def mend() -> None:
                self.ill.remove(name)
                self.well_at[name] = self.now

            return mend

        return strike


@pytest.mark.parametrize("at_once", [1, 2])
def test_one_machine_has_always_been_well_for_a_while(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Otherwise an error would be nobody's fault, and could be excused."""
    ward = Ward()
    monkeypatch.setattr(chaos, "FAULTS", {kind: ward.fault(kind) for kind in FAULTS})
    monkeypatch.setattr(chaos, "say", lambda _: None)
    weather = Weather(cast(House, ward), at_once, list(FAULTS))
    for step in range(20_000):
        ward.now = step * 0.25
        weather.turn(ward.now)
        since = {name: ward.now - ward.well_at.get(name, -9.0) for name in SERVERS}
        fit = [name for name in SERVERS if name not in ward.ill and since[name] >= WELL_S]
        assert len(fit) >= len(SERVERS) - at_once
    assert set(weather.fault_counts) == set(FAULTS)
    weather.clear()
    assert not ward.ill


READ = {
    "chat": (
        chaos_clients.of_openai,
        {
            "choices": [
                {"delta": {"reasoning_content": "hm", "content": "a"}, "finish_reason": None}
            ]
        },
        {"thought": "hm", "text": "a"},
    ),
    "call": (
        chaos_clients.of_openai,
        {
            "choices": [
                {
                    "message": {
                        "content": None,
                        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                    },
                    "finish_reason": "tool_calls",
                }
            ]
        },
        {"call": "f{}", "end": "tool_calls"},
    ),
    "messages, streamed": (
        chaos_clients.of_anthropic,
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"text": "a"},
    ),
    "messages, whole": (
        chaos_clients.of_anthropic,
        {
            "type": "message",
            "content": [{"thinking": "hm"}, {"text": "a"}],
            "stop_reason": "end_turn",
        },
        {"thought": "hm", "text": "a", "end": "end_turn"},
    ),
    "ollama": (
        chaos_clients.of_ollama,
        {"message": {"content": "a"}, "done_reason": "stop"},
        {"text": "a", "end": "stop"},
    ),
    "responses": (
        chaos_clients.of_responses,
        {
            "object": "response",
            "status": "completed",
            "output": [{"content": [{"text": "a"}]}, {"type": "reasoning"}],
        },
        {"text": "a", "end": "completed"},
    ),
}


@pytest.mark.parametrize("case", READ)
def test_every_dialect_is_read_to_its_words_and_its_end(case: str) -> None:
    """What is not read could be lost unseen."""
    read, event, said = READ[case]
    heard = Heard(0, case, 0.0)
    assert heard.take(read(event))
    assert heard.said == said


def test_every_form_is_asked_whole_and_streamed() -> None:
    """In equal parts."""
    forms = len(chaos_clients.FORMS)
    assert QUESTIONS % (4 * forms) == 0


def heard(**changes: Any) -> dict[str, Any]:
    """One answer's figures."""
    return {"error": "", "wrong": False, "attempts": 1, "took_s": 1.0, "pause_s": 0.1} | changes


def test_what_counts_as_an_error() -> None:
    """All but a call that nobody can go on with; another answer is told apart."""
    told = summary(
        [
            heard(),
            heard(error="503"),
            heard(error=f"it {chaos.CALL_BROKEN}"),
            heard(wrong=True, attempts=2, pause_s=3.0),
        ]
    )
    counts = [told[key] for key in ("requests", "errors", "broken_tool_calls", "other_words")]
    assert counts == [4, 1, 1, 1]
    assert (told["tried_again"], told["pause_s"]["max"]) == (1, 3.0)
    with pytest.raises(MeasureError):
        summary([])
