"""Speech and pictures through a node that has no server for them, with the official client."""

import openai
import pytest

from tests.e2e.daemons import wait_until

STUDIO = "emulated:model=studio,can=speech+transcription+image,prompt_tps=20000,generation_tps=4000"


@pytest.fixture
def client(launch):
    """The client of an entry node without engines, beside one that can do all three."""
    studio = launch("studio", "--engine", STUDIO, "--engine", "emulated:model=echo").wait_ready()
    entry = launch("entry", "--peer", studio.peer).wait_ready()
    wait_until(lambda: entry.get("/v1/models")["data"], 15, "entry lists the peer's model")
    with openai.OpenAI(base_url=entry.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.timeout(60)
def test_sounds_and_pictures_cross_the_mesh(client):
    """Bytes in both directions, a form with a file in it, and a field that names the model."""
    speech = client.audio.speech.with_raw_response.create(model="studio", voice="a", input="Hi")
    assert speech.headers["x-mesh-node"] == "studio"
    assert speech.headers["content-type"] == "audio/wav"
    sound = speech.content
    assert (sound[:4], len(sound)) == (b"RIFF", 1_644)
    heard = client.audio.transcriptions.create(model="studio", file=("a.wav", sound * 100))
    assert "emulated" in heard.text
    picture = client.images.generate(model="studio", prompt="a dot")
    assert picture.data[0].b64_json.startswith("iVBORw0KGgo")


@pytest.mark.timeout(60)
def test_what_nobody_can_do_is_refused(client):
    """A model that is not there, one that cannot do it, and no model at all."""
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model="nobody", voice="a", input="Hi")
    with pytest.raises(openai.BadRequestError, match="cannot do: speech"):
        client.audio.speech.create(model="echo", voice="a", input="Hi")
    with pytest.raises(openai.NotFoundError, match="Nothing is served at /v1/rerank"):
        client.post("/rerank", body={"query": "a"}, cast_to=object)
