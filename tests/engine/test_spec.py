"""Claims of meshd.engine.spec."""

from __future__ import annotations

import pytest

from meshd.engine.spec import (
    EmulatedSpec,
    LlamaSpec,
    MlxSpec,
    SpecError,
    UpstreamSpec,
    parse,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llamacpp:bundled", LlamaSpec("bundled")),
        (
            "llamacpp:/m/a.gguf,ctx=8192,slots=2,threads=6,model=mine",
            LlamaSpec("/m/a.gguf", ctx=8192, slots=2, threads=6, model="mine"),
        ),
        ("llamacpp:/m/one, two.gguf", LlamaSpec("/m/one, two.gguf")),
        ("mlx:/m/folder", MlxSpec("/m/folder")),
        ("mlx:/m/a,ctx=99,slots=2,model=m", MlxSpec("/m/a", ctx=99, slots=2, model="m")),
        ("openai:http://127.0.0.1:11434/", UpstreamSpec("http://127.0.0.1:11434")),
        (
            "openai:https://box/v1,model=org/m:7b,slots=3",
            UpstreamSpec("https://box/v1", model="org/m:7b", slots=3),
        ),
        (
            "openai:http://box,model=whisper,can=transcription+speech",
            UpstreamSpec("http://box", model="whisper", can=("transcription", "speech")),
        ),
        ("emulated:can=image", EmulatedSpec(can=("image",))),
        ("emulated:", EmulatedSpec()),
        (
            "emulated:name=big,model=m,prompt_tps=900,generation_tps=3.5,slots=2,load_s=0.5",
            EmulatedSpec(
                name="big",
                model="m",
                prompt_tps=900.0,
                generation_tps=3.5,
                slots=2,
                load_s=0.5,
            ),
        ),
        (
            "emulated:memory_gb=12,ctx=64,tokens=9,fault=stall,fault_after=4,fault_every=2",
            EmulatedSpec(
                memory_gb=12.0, ctx=64, tokens=9, fault="stall", fault_after=4, fault_every=2
            ),
        ),
    ],
)
def test_a_spec_says_what_to_run(text, expected):
    """Every kind, with and without options; commas may be part of a path."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begin with one of llamacpp:, mlx:, openai:, emulated:"),
        ("llamacpp", "begin with one of"),
        ("lamacpp:x", "begin with one of"),
        ("llamacpp:", "PATH is missing"),
        ("llamacpp:ctx=1", "PATH is missing"),
        ("llamacpp:x,context=1", "unknown key 'context' (known keys: ctx, slots, threads, model)"),
        ("llamacpp:x,slots=0", "slots=0: must be a whole number from 1 to 256"),
        ("llamacpp:x,slots=2,slots=3", "slots is given twice"),
        ("mlx:x,threads=1", "unknown key 'threads' (known keys: ctx, slots, model)"),
        ("openai:127.0.0.1:80", "must begin with http:// or https://"),
        ("openai:http://", "must begin with http:// or https://"),
        ("openai:http://box:99999", "openai:http://box:99999: Port out of range"),
        ("openai:http://box:80x", "Port could not be cast"),
        ("openai:http://[::1", "Invalid IPv6 URL"),
        ("emulated:fast", "'fast' is not key=value"),
        ("emulated:prompt_tps=quick", "prompt_tps=quick: must be a number"),
        ("emulated:prompt_tps=nan", "prompt_tps=nan: must be a number"),
        ("emulated:generation_tps=0", "must be a number from 0.001"),
        ("emulated:fault=explode", "one of stall, slow, crash, refuse, truncate"),
        ("openai:http://box,can=talk", "words of chat, completion, tools, vision, audio,"),
        ("emulated:model=", "model=: must be 1 to 128 printable characters"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(text, said):
    """People see one line and know what to change."""
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert said in str(caught.value)
