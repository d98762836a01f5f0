"""What the worker makes of jobs, in this process: the real SmolLM2, with templates of others."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import llama_cpp.llama_cpp as llama
import pytest

from meshd.engine import frames
from meshd.engine.bundled import bundled_gguf
from meshd.engine.llamacpp import LlamaModel, render_chat
from meshd.engine.template import ChatTemplate
from protocol.jobs import Job, ReasoningDelta, Sampling, TextDelta, ToolCallDelta
from tests.engine.bench import Bench, cosine, parts_of, text_of, vectors

pytestmark = pytest.mark.timeout(60)

GREEDY = Sampling(temperature=0.0)
CHAT = Job(
    "r",
    "chat",
    "m",
    messages=({"role": "user", "content": "What is the weather in Paris?"},),
    max_tokens=60,
    sampling=GREEDY,
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": {"enum": ["Paris", "Rome"]}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
SPELT = {"type": "function", "function": {"name": "clock", "parameters": "{}"}}

HERMES = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}\n"
    "Answer with <tool_call>{...}</tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
MISTRAL = HERMES.replace("<tool_call>{...}</tool_call>", "[TOOL_CALLS][...]")
LLAMA3 = "{# <|start_header_id|> #}" + HERMES.replace(
    "<tool_call>{...}</tool_call>", '{"name": n, "parameters": p}'
)
UNKNOWN = HERMES.replace("<tool_call>{...}</tool_call>", "CALL n")
CODER = HERMES.replace("{...}", "<function=n>")


@pytest.fixture(scope="module")
def model():
    """Two slots of 768 tokens; one thread, because several spin at barriers in a busy machine."""
    return LlamaModel(bundled_gguf(), context=768, slots=2, threads=1)


@pytest.fixture
def bench(model):
    """A worker on the model, its cache empty."""
    model.clear()
    return Bench(model)


@pytest.fixture
def speaking(model, bench):
    """`speaking(template)`: the bench, its model with another template."""
    own = model.template

    def with_template(template):
        model.template = ChatTemplate(template, render_chat, {})
        return bench

    yield with_template
    model.template = own


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def json_schema(schema):
    """A response_format."""
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


def test_an_answer_keeps_to_its_schema(bench):
    """Also a small model, also when it may choose freely; and it ends by itself."""
    job = replace(
        CHAT, response_format=json_schema(SCHEMA), sampling=Sampling(temperature=1.5, seed=7)
    )
    events = bench.run(job)
    assert set(json.loads(text_of(events))) == {"name", "age"}
    assert events[-1].reason == "stop"


def test_an_answer_is_a_json_object_where_one_was_asked_for(bench):
    """On one line, so that it cannot be white space for ever."""
    events = bench.run(replace(CHAT, response_format={"type": "json_object"}, max_tokens=200))
    assert isinstance(json.loads(text_of(events)), dict)


def test_an_answer_with_a_form_goes_on_from_what_was_said(bench):
    """Another machine had begun it: the whole is one object."""
    begun = '{"name": "Tom", '
    job = replace(CHAT, response_format=json_schema(SCHEMA), prefix_text=begun)
    assert json.loads(begun + text_of(bench.run(job)))["name"] == "Tom"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "cat"}, "cat"),
        ({"type": "string", "pattern": "(("}, "regex"),
        ({"$ref": "#/$defs/none"}, "$defs/none"),
        ({"unevaluatedItems": False}, "unevaluatedItems"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
    ],
)
def test_a_schema_that_cannot_be_compiled_is_refused_with_the_reason(bench, schema, why):
    """Before the prompt is read, and nobody else needs to try."""
    (failure,) = bench.run(replace(CHAT, response_format=json_schema(schema)))
    assert (failure.code, failure.param) == ("bad_request", "response_format")
    assert why in failure.message
    assert not failure.elsewhere


@pytest.mark.parametrize("template", [HERMES, MISTRAL, LLAMA3])
def test_a_forced_tool_is_called_with_arguments_that_fit(speaking, template):
    """In each family's form; references inside the parameters keep their meaning."""
    job = replace(CHAT, tools=[CLOCK, WEATHER], tool_choice={"function": {"name": "weather"}})
    call, finish = speaking(template).run(job)
    assert isinstance(call, ToolCallDelta)
    assert call.name == "weather"
    assert json.loads(call.arguments)["city"] in {"Paris", "Rome"}
    assert finish.reason == "tool_calls"


def test_some_tool_is_called_where_one_is_required(speaking):
    """Which one, the model says."""
    job = replace(CHAT, tools=[CLOCK, WEATHER], tool_choice="required", max_tokens=120)
    call, _ = speaking(HERMES).run(job)
    assert call.name in {"clock", "weather"}


def test_a_call_that_is_not_finished_is_shown_as_text(speaking):
    """max_tokens cut it: half a call is no call, and nothing is lost."""
    job = replace(CHAT, tools=[WEATHER], tool_choice="required", max_tokens=3)
    events = speaking(HERMES).run(job)
    assert text_of(events).startswith('{"name"')
    assert events[-1].reason == "length"


def test_a_model_with_tools_may_answer_with_text(speaking):
    """It was asked, not forced."""
    events = speaking(HERMES).run(replace(CHAT, tools=[CLOCK], tool_choice="auto", max_tokens=8))
    assert text_of(events)
    assert events[-1].reason == "length"


@pytest.mark.parametrize(
    ("template", "drawn_to", "said"),
    [(HERMES, "<tool_call>", {"city"}), (LLAMA3, '{"name": "Tom"', {"name", "age"})],
)
def test_with_tools_and_a_form_the_model_chooses(speaking, template, drawn_to, said):
    """Agents with typed answers send both, always; either is kept to, whatever it likes."""
    bench = speaking(template)
    bias = tuple((token, 20.0) for token in bench.worker._model.tokenize(drawn_to))
    sampling = replace(GREEDY, logit_bias=bias)
    job = replace(CHAT, tools=[WEATHER], response_format=json_schema(SCHEMA), sampling=sampling)
    said_here, _ = bench.run(job)
    assert set(json.loads(getattr(said_here, "arguments", "") or said_here.text)) == said


@pytest.mark.parametrize(
    ("template", "changes", "param", "why"),
    [
        (None, {"tools": [CLOCK]}, "tools", "no place for tools"),
        (HERMES, {"tools": ["clock"]}, "tools", "function with a name"),
        (HERMES, {"tools": [SPELT], "tool_choice": "required"}, "tools", "a schema"),
        (
            HERMES,
            {"tools": [CLOCK], "tool_choice": {"function": {"name": "x"}}},
            "tool_choice",
            "'x'",
        ),
        (
            HERMES,
            {
                "tools": [{"function": {"name": "f", "parameters": {"type": "cat"}}}],
                "tool_choice": "required",
            },
            "tools",
            "cat",
        ),
        (HERMES, {"response_format": {"type": "xml"}}, "response_format", "json_object"),
        (HERMES, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_words(speaking, template, changes, param, why):
    """The asker can mend it, and no other node could."""
    (failure,) = speaking(template).run(replace(CHAT, **changes))
    assert (failure.code, failure.param, failure.elsewhere) == ("bad_request", param, False)
    assert why in failure.message


@pytest.mark.parametrize("template", [UNKNOWN, CODER])
def test_a_form_of_calls_that_is_not_known_here_may_be_known_elsewhere(speaking, template):
    """A peer's own server may read it."""
    (failure,) = speaking(template).run(replace(CHAT, tools=[CLOCK]))
    assert (failure.code, failure.param, failure.elsewhere) == ("unsupported", "tools", True)
    assert "not known here" in failure.message


def test_each_token_comes_with_its_logprobs(bench):
    """Also where text waits for a stop string; greedy takes the likeliest."""
    job = replace(CHAT, logprobs=True, top_logprobs=3, max_tokens=6, stop=("\n\n\n",))
    deltas = [event for event in bench.run(job) if isinstance(event, TextDelta)]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert "".join(entry["token"] for entry in entries) == text_of(deltas)
    assert len(entries) == sum(len(delta.token_ids) for delta in deltas) == 6
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)
    assert all(entry["logprob"] <= 0 for entry in entries)


def test_texts_become_vectors_of_length_one(bench):
    """Equal texts are equal vectors, and what is alike is nearer than what is not."""
    cats = ("A cat sat on the mat.", "A kitten sat on the rug.", "Interest rates rose again.")
    events = bench.run(Job("r", "embedding", "m", inputs=(*cats, cats[0])))
    cat, kitten, rates, again = vectors(events)
    assert len(cat) == 576
    assert math.isclose(cosine(cat, cat), 1.0, rel_tol=1e-5)
    assert cosine(cat, kitten) > cosine(cat, rates)
    assert cosine(cat, again) > 0.9999
    assert events[-1].prompt_tokens > 20


def test_a_text_longer_than_a_piece_is_one_vector(bench):
    """As ids or as text."""
    text = "word " * 260
    ids = list(bench.worker._model.tokenize(text))
    by_text, by_ids = vectors(bench.run(Job("r", "embedding", "m", inputs=(text, ids))))
    assert cosine(by_text, by_ids) > 0.9999


def test_embeddings_and_streams_run_side_by_side(bench):
    """Neither waits for the other to be done."""
    stream = bench.submit(replace(CHAT, max_tokens=4, extras={"ignore_eos": True}))
    embedding = bench.submit(Job("r", "embedding", "m", inputs=("a", "b", "c", "d", "e")))
    answer, vectored = bench.finish(stream, embedding)
    assert answer[-1].completion_tokens == 4
    assert len(vectors(vectored)) == 5


def test_an_embedding_may_be_cancelled(bench):
    """The rest of its texts is not read."""
    key = bench.submit(Job("r", "embedding", "m", inputs=("a", "b", "c")))
    bench.worker.step()
    bench.line.received.put([frames.CANCEL, key])
    bench.run(replace(CHAT, max_tokens=2))
    assert len(bench.line.events[key]) == 1


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ((), "bad_request"),
        (([],), "bad_request"),
        (([1, 99_999_999],), "bad_request"),
        (([1, "x"],), "bad_request"),
        ((7,), "bad_request"),
        (("word " * 900,), "context_length_exceeded"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(bench, inputs, code):
    """With the field's name, before any is read."""
    (failure,) = bench.run(Job("r", "embedding", "m", inputs=inputs))
    assert (failure.code, failure.param) == (code, "input")


def after_a_long_beginning(bench):
    """The events of an answer, alone and then while another with the same prompt runs."""
    ids = tuple(range(1_000, 1_400))
    first = Job("r", "completion", "m", prompt_tokens=ids, max_tokens=8, sampling=GREEDY)
    first = replace(first, extras={"ignore_eos": True})
    alone = bench.run(replace(first, sampling=replace(GREEDY, seed=1)))
    running = bench.submit(replace(first, max_tokens=40))
    for _ in range(9):
        bench.worker.step()
    beside = bench.run(first)
    bench.finish(running)
    return alone, beside


def test_a_long_beginning_is_copied_from_a_running_slot(bench):
    """Two people with one system prompt: the second does not read it, and is answered the same."""
    alone, copied = after_a_long_beginning(bench)
    assert copied[-1].cached_tokens == 399
    assert text_of(copied) == text_of(alone)


def test_a_model_that_cannot_forget_a_part_reads_a_long_beginning_anew(bench, monkeypatch):
    """As hybrid and recurrent models are, which this one only plays: what was copied is more than
    was asked for, and cannot be cut."""
    real = llama.llama_memory_seq_rm
    monkeypatch.setattr(llama, "llama_memory_seq_rm", lambda *asked: asked[2] < 1 and real(*asked))
    _, (*said, finish) = after_a_long_beginning(bench)
    assert (finish.cached_tokens, finish.completion_tokens) == (0, 8)
    assert said


@pytest.mark.parametrize(
    "sampling",
    [
        replace(GREEDY, repeat_penalty=2.0),
        replace(GREEDY, presence_penalty=2.0),
        replace(GREEDY, frequency_penalty=2.0),
    ],
)
def test_penalties_change_what_repeats(bench, sampling):
    """A model that would say one word for ever says others."""
    job = Job("r", "completion", "m", prompt="one two one two one two one two", max_tokens=16)
    plain = text_of(bench.run(replace(job, sampling=GREEDY)))
    assert text_of(bench.run(replace(job, sampling=sampling))) != plain


THINKING = HERMES + "{% if not calm %}{{ '<think>\\n' }}{% endif %}"


def test_a_template_that_begins_a_thought_is_run_and_the_thought_is_told(speaking):
    """llama.cpp's own renderer would leave its mark out; SmolLM2 never closes it."""
    plain = speaking(HERMES).run(replace(CHAT, max_tokens=8))
    *thought, finish = speaking(THINKING).run(replace(CHAT, max_tokens=8))
    assert all(isinstance(event, ReasoningDelta) for event in thought)
    assert (finish.reason, finish.completion_tokens) == ("length", 8)
    assert finish.prompt_tokens > plain[-1].prompt_tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"extras": {"chat_template_kwargs": {"calm": True}}},
        {"response_format": json_schema(SCHEMA)},
        {"tools": [CLOCK, WEATHER], "tool_choice": "required", "max_tokens": 120},
        {"prefix_text": "It is"},
    ],
)
def test_where_no_thought_is_begun_the_answer_is_the_same_as_ever(speaking, changes):
    """Thinking is off, or the answer's form or its beginning is given."""
    job = replace(CHAT, sampling=replace(GREEDY, seed=1), **changes)
    assert parts_of(speaking(THINKING).run(job)) == parts_of(speaking(HERMES).run(job))


def test_a_thought_is_gone_on_with_where_another_machine_stopped(speaking):
    """To the letter, with the white space at the seam; only that before a thought is not told."""
    first = "Paris is"
    *thoughts, _ = speaking(THINKING).run(replace(CHAT, prefix_thought=first, max_tokens=24))
    told = [thought.text for thought in thoughts]
    for cut in (1, 5, 12):
        before, rest = first + "".join(told[:cut]), "".join(told[cut:])
        job = replace(CHAT, prefix_thought=before, max_tokens=24 - cut)
        *more, _ = speaking(THINKING).run(job)
        assert all(isinstance(event, ReasoningDelta) for event in more)
        assert "".join(event.text for event in more) == rest


def test_behind_a_thought_of_another_machine_the_answer_goes_on(speaking):
    """The model reads both, and nobody looks for marks."""
    job = replace(CHAT, prefix_text="It is", max_tokens=8)
    alone = speaking(THINKING).run(job)
    *said, finish = speaking(THINKING).run(replace(job, prefix_thought="Rain, they said."))
    assert finish.prompt_tokens > alone[-1].prompt_tokens + 6
    assert all(isinstance(event, TextDelta) for event in said)
