"""Requests that are passed on unread."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.raw import (
    FORM_PARTS_MAX,
    PART_HEAD_MAX_BYTES,
    RawBrokenOff,
    RawStream,
    form_field,
    model_of,
    read_raw,
)
from meshd.core.routing.demand import capabilities_of, demand_of
from protocol.codec import decode_job, encode_job
from protocol.jobs import Failure, Finish, Queued, RawHead, RawPart, TextDelta
from tests.api.scripted import line

ASKER = Asker("r", session="s", person="anna")
DONE = Finish("stop", 0, 0)
GONE = Failure("engine_failed", "gone", elsewhere=False)
BOUNDARY = "----x1"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def model(model_id, *capabilities):
    return {"id": model_id, "capabilities": list(capabilities)}


MODELS = [model("whisper", "transcription"), model("tiny", "chat"), model("a", "speech")]


def form(*fields):
    """A form as clients write it; a field is its name, what follows the name, and its value."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, more, value in fields
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FILE = ("file", '; filename="name=model.wav"\r\nContent-Type: audio/wav', b"\r\n--\0" * 1000)
NAMED = ("model", "", b"whisper")


def ask(path="/audio/transcriptions", content_type=FORM, body=None, models=MODELS):
    body = form(FILE, NAMED) if body is None else body
    return read_raw(f"/v1{path}", content_type, body, ASKER, models)


def refusal(*args, **kwargs):
    with pytest.raises(ApiError) as caught:
        ask(*args, **kwargs)
    return caught.value


def test_a_form_goes_on_byte_for_byte():
    """With everything the router and the engine need beside it, and through the wire."""
    body = form(FILE, NAMED)
    job = ask(body=body).job
    assert (job.kind, job.model, job.stream, job.person) == ("raw", "whisper", True, "anna")
    assert (job.raw.path, job.raw.content_type) == ("/v1/audio/transcriptions", FORM)
    assert job.raw.body is body
    assert decode_job(encode_job(job)) == job


@pytest.mark.parametrize(
    ("path", "capabilities"),
    [
        ("/audio/transcriptions", {"transcription"}),
        ("/audio/translations", {"transcription"}),
        ("/audio/speech", {"speech"}),
        ("/images/generations", {"image"}),
        ("/images/edits", {"image"}),
        ("/rerank", set()),
    ],
)
def test_the_path_says_what_a_model_must_be_able_to_do(path, capabilities):
    """Nothing in particular where nobody here knows the path."""
    job = ask(path).job
    assert capabilities_of(job) == capabilities
    assert demand_of(job, "whisper").output_tokens == 0


@pytest.mark.parametrize("fields", [(FILE, NAMED), (NAMED, FILE), (NAMED,)])
def test_the_model_is_found_wherever_it_stands(fields):
    """Before the file or behind it; a file called so is no field."""
    assert model_of(FORM, form(*fields)) == "whisper"


@pytest.mark.parametrize(
    ("content_type", "body", "found"),
    [
        ("application/json", b'{"model":"m","input":["x"]}', "m"),
        ("application/json; charset=utf-8", b'{"input":1}', None),
        ("", b'{"model":"m"}', "m"),
        ("audio/wav", b"\0\1\2", None),
        ('multipart/form-data; boundary="----x1"', form(NAMED), "whisper"),
        ("Multipart/Form-Data; Boundary=----x1", b"preamble\r\n" + form(NAMED), "whisper"),
        (FORM, form(FILE), None),
        (FORM, form(("model", "", b" ")), None),
        (FORM, form(NAMED).replace(b'"model"', b"model"), "whisper"),
    ],
)
def test_how_bodies_name_their_model(content_type, body, found):
    """In JSON, in a form in any of its spellings, or not at all."""
    assert model_of(content_type, body) == found


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b'{"model":5}'),
        ("application/json", b"\xff"),
        ("multipart/form-data", form(NAMED)),
        (f"multipart/form-data; boundary={'x' * 71}", form(NAMED)),
        (FORM, b""),
        (FORM, b"{}"),
        (FORM, form(NAMED)[:40]),
        (FORM, form(NAMED)[:-14]),
        (FORM, form(("model", "", b"\xff"))),
        (FORM, form(*[("x", "", b"1")] * FORM_PARTS_MAX, NAMED)),
        (FORM, form(("x", "; y=" + "z" * PART_HEAD_MAX_BYTES, b"1"), NAMED)),
    ],
)
def test_broken_bodies_are_refused(content_type, body):
    """Before they travel."""
    assert refusal(content_type=content_type, body=body).status == 400


@given(body=st.binary() | st.binary().map(lambda cut: form(FILE, NAMED)[: len(cut)] + cut))
def test_any_bytes_are_searched_or_refused(body):
    """Nothing else is ever raised."""
    try:
        found = form_field(body, BOUNDARY.encode(), b"model")
    except ApiError as error:
        found = error.code
    assert found in ("invalid_form", "whisper", None)


def test_the_only_model_that_can_is_meant():
    """Whoever has one server for speech need not name its model."""
    body = b'{"input":"Hi","voice":"alloy"}'
    assert ask("/audio/speech", "application/json", body).job.model == "a"


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'{"model":"m"}', "application/json"), (b"RIFF", "application/octet-stream")],
)
def test_a_body_without_a_type_gets_one(body, kind):
    """A server needs one, and curl can be told to send none."""
    assert ask("/audio/speech", "", body).job.raw.content_type == kind


def test_without_a_model_the_answer_says_what_there_is():
    """Which ones it can be, or that there is none and how to get one."""
    two = [*MODELS, model("b", "speech")]
    error = refusal("/audio/speech", "application/json", b"{}", two)
    assert (error.status, error.param, "a, b" in error.message) == (400, "model", True)
    error = refusal("/images/generations", "application/json", b"{}")
    assert (error.status, error.code) == (404, "model_not_found")
    assert "make pictures" in error.message
    assert refusal("/rerank", "application/json", b"{}").code == "unknown_url"


@pytest.mark.parametrize(
    "path",
    [
        "/../api/delete",
        "/a/../b",
        "/a//b",
        "/a%2e",
        "/a b",
        "/a/",
        "/.a",
        "/",
        "",
        "/a?b",
        "/a#c",
        "/a\r\n",
    ],
)
def test_paths_that_could_lead_elsewhere_are_nowhere(path):
    """What a node posts to its own servers is not for others to bend."""
    assert refusal(path).code == "unknown_url"


def test_what_would_not_fit_the_wire_is_refused():
    """One line each for path, content type and model."""
    long = "x" * 300
    assert refusal(f"/{long}").status == 400
    assert refusal(content_type=f"{FORM}; y={long}").status == 400
    body = json.dumps({"model": long}).encode()
    assert refusal(content_type="application/json", body=body).param == "model"


def test_an_answer_comes_back_as_it_was():
    """Status, content type and bytes; the server's own error too."""
    stream = RawStream([RawHead(422, "application/json")])
    assert (stream.status, stream.lines) == (422, "content-type: application/json\r\n")
    assert RawStream([Queued(1, 1.0), RawHead(201, "")]).status == 201
    batch = [RawHead(422, ""), RawPart(b'{"er'), Queued(1, 1.0), RawPart(b'ror"}'), DONE]
    assert stream.encode(batch) == b'{"error"}'
    assert stream.ended
    assert stream.encode([RawPart(b"late")]) == b""
    assert stream.heartbeat() == b""


@pytest.mark.parametrize("first", [GONE, TextDelta("a")])
def test_an_answer_without_a_head_is_an_error(first):
    """With a status, because nothing was written yet."""
    with pytest.raises(ApiError) as caught:
        RawStream([first])
    assert caught.value.status == 502


@pytest.mark.parametrize(("said", "written"), [(204, 200), (304, 200), (520, 502), (101, 502)])
def test_a_status_that_cannot_stand_over_a_body_is_replaced(said, written):
    """Or that no client knows."""
    assert RawStream([RawHead(said, "text/plain")]).status == written


def test_a_head_cannot_write_headers():
    """Whatever an adopted server calls its content."""
    assert RawStream([RawHead(200, "a\r\nx: y")]).lines == "content-type: a%0D%0Ax: y\r\n"
    assert "octet-stream" in RawStream([RawHead(200, "")]).lines


def test_half_a_picture_is_not_ended():
    """The connection must break, or the client would take it for a whole one."""
    stream = RawStream([RawHead(200, "image/png")])
    with pytest.raises(RawBrokenOff, match="gone"):
        stream.encode([RawPart(b"x"), GONE])
    assert stream.ended


def test_a_stream_of_events_gets_an_error_event():
    """As in every other dialect, and a sign of life while nothing comes."""
    stream = RawStream([RawHead(200, "text/event-stream; charset=utf-8")])
    data = stream.encode([GONE])
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "gone"
    assert stream.ended
    assert stream.heartbeat().startswith(b":")


PARTS = [[RawHead(201, "audio/mpeg")], [RawPart(b"ID3"), RawPart(b"\0\xff")], [DONE]]


def posted(path="/v1/audio/speech"):
    return f"POST {path}\ncontent-type: {FORM}"


async def test_bytes_cross_the_server_both_ways(gateway, server):
    """Status and content type too, and the connection lives on."""
    gateway.batches = PARTS
    body = form(FILE, NAMED)
    async with line(server) as wire:
        for _ in range(2):
            wire.send(posted(), body)
            status, headers = await wire.head()
            assert (status, headers["content-type"]) == (201, "audio/mpeg")
            assert headers["x-mesh-node"] == "attic"
            assert await wire.chunks() == b"ID3\0\xff"
    assert gateway.jobs[0].raw.body == body
    assert gateway.jobs[0].raw.content_type == FORM


@pytest.mark.parametrize(
    "path", ["/audio/speech", "/v1/audio/speech/", "/v1/v1/audio/speech", "/v1/audio/speech?x=1"]
)
async def test_every_spelling_of_a_path_goes_to_the_same_place(gateway, server, path):
    """As with the paths that are read here."""
    gateway.batches = PARTS
    async with line(server) as wire:
        wire.send(posted(path), form(NAMED))
        await wire.head()
    assert gateway.jobs[0].raw.path == "/v1/audio/speech"


async def test_one_batch_is_enough(gateway, server):
    """A short answer comes whole."""
    gateway.batches = [[RawHead(200, "application/json"), RawPart(b"{}"), DONE]]
    async with line(server) as wire:
        wire.send(posted("/v1/rerank"), form(NAMED))
        await wire.head()
        assert await wire.chunks() == b"{}"


async def test_an_answer_that_breaks_off_breaks_the_connection(gateway, server):
    """Without the end that would make it look whole."""
    gateway.batches = [*PARTS[:2], [GONE]]
    async with line(server) as wire:
        wire.send(posted(), form(NAMED))
        await wire.head()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await wire.chunks()


async def test_a_refusal_before_the_head_is_an_error_with_a_status(gateway, server):
    """As everywhere."""
    gateway.batches = [[GONE]]
    async with line(server) as wire:
        wire.send(posted(), form(NAMED))
        assert (await wire.error())[0] == 502


async def test_nothing_is_passed_on_without_a_model(gateway, server):
    """No node is bothered."""
    async with line(server) as wire:
        wire.send("POST /v1/rerank\ncontent-type: application/json", b"{}")
        assert (await wire.error())[0] == 404
    assert gateway.jobs == []
