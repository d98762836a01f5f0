"""Somebody sends very much, somebody else a little: real daemons, one queue."""

from __future__ import annotations

import threading

import openai
import pytest

from tests.e2e.daemons import wait_until

SERVING = "emulated:model=echo,prompt_tps=20000,generation_tps=100,slots=2"
QUESTION = [{"role": "user", "content": "hello"}]
FLOOD = 24


def ask(daemon, done, tokens):
    """One question; its request joins `done` when it is answered."""
    with openai.OpenAI(
        base_url=daemon.base_url, api_key="unused", max_retries=0, timeout=60
    ) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="echo", messages=QUESTION, max_tokens=tokens, extra_body={"ignore_eos": True}
        )
    done.append(raw.headers["x-request-id"])


def load_of(daemon):
    """What the node says of its one model."""
    rows = daemon.get("/mesh/v1/members")["members"]
    return rows[0]["load"]["models"][0]


@pytest.mark.timeout(90)
def test_a_question_passes_the_queue_of_somebody_who_sends_a_flood(launch):
    """Asked when two dozen of another's wait, answered after a few of them. Each node's own user
    is a person, whichever node serves."""
    serving = launch("serving", "--engine", SERVING).wait_ready()
    flooding = launch("flooding", "--peer", serving.peer).wait_ready()
    light = launch("light", "--peer", serving.peer).wait_ready()
    for entry in (flooding, light):
        wait_until(lambda entry=entry: entry.get("/v1/models")["data"], 10, "the model is known")
    flood: list[str] = []
    askers = [threading.Thread(target=ask, args=(flooding, flood, 60)) for _ in range(FLOOD)]
    for asker in askers:
        asker.start()
    wait_until(lambda: load_of(serving)["queued"] >= FLOOD // 2, 10, "the flood waits")
    before = len(flood)
    answered: list[str] = []
    ask(light, answered, 4)
    after = len(flood)
    ask(serving, answered, 4)
    assert len(answered) == 2
    assert after - before < FLOOD // 3
    rows = serving.get("/mesh/v1/requests")
    assert {row["state"] for row in rows["served"]} == {"running", "queued"}
    assert load_of(serving)["backlog_s"] > 0
    for asker in askers:
        asker.join()
    assert len(flood) == FLOOD
    people = {row["person"] for row in flooding.get("/mesh/v1/requests")["requests"]}
    assert len(people) == 1
    used = serving.get("/mesh/v1/members")["members"][0]["load"]["people"]
    assert people <= {row["person"] for row in used}
