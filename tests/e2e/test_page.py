"""The dashboard's page in a real browser, its node played by the test: odd names, odd answers."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from meshd.api.pages import Pages

NODE = "http://node.invalid/"
PHONE = {"width": 360, "height": 800}

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture
def page(browser):
    """A phone's page of two nodes with one model, whose names are the longest there are; what it
    says of errors in its own code is an error of the test. No stream of events can be had."""
    files = Pages()

    def play(route):
        path = urlsplit(route.request.url).path
        found = files.reply(path, None)
        if found is None:
            route.fulfill(status=404, json={})
        else:
            route.fulfill(body=found.body, content_type=found.content_type)

    opened = browser.new_page(viewport=PHONE)
    complaints = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.route(f"{NODE}**", play)
    opened.route("**/mesh/v1/status", lambda route: route.fulfill(json=status()))
    opened.route("**/mesh/v1/trends", lambda route: route.fulfill(json=TRENDS))
    opened.route("**/mesh/v1/requests", lambda route: route.fulfill(json={"requests": []}))
    yield opened
    opened.close()
    assert complaints == []


TRENDS = {"age_s": [10, 0], "in_flight": [1, 2], "queued": [0, 1]}
TRENDS |= {name: [0.5, None] for name in ("ttft_p50_s", "ttft_p95_s", "memory_ratio", "pressure")}
TRENDS |= {"tokens_per_s": [3, 4]}

REQUEST = {"id": "r-1", "state": "running", "model": "m", "node": "pi", "node_id": "c"}
STORY = REQUEST | {"message": None, "attempts": [], "decisions": []}


def status():
    """The body of `/mesh/v1/status`, as far as the page reads it. The model's name begins in
    Arabic."""
    model = {"id": "\u0642\u0635\u0629" + "m" * 125, "warm": True, "generation_tps": 20.0}
    model |= {"engine": "llamacpp", "context_length": 8192, "size_bytes": 10**9}
    members = [
        {"id": name, "name": name + "n" * 62, "state": "alive", "models": [model], "endpoints": []}
        for name in ("a", "b")
    ]
    totals = dict.fromkeys(("nodes", "models", "warm_models", "in_flight", "queued"), 1)
    totals["memory_available_bytes"] = 10**9
    return {"self": "a", "node": {"name": "a" * 63}, "members": members, "totals": totals}


def test_no_name_is_wider_than_a_phone(page):
    """Of a node 63 letters, of a model 128, in every room that shows them."""
    for room in ("mesh", "try", "node"):
        page.goto(f"{NODE}#{room}")
        expect(page.locator("nav [aria-current]")).to_have_attribute("href", f"#{room}")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], room


def test_names_spoil_no_picture_and_no_figure(page):
    """In the picture a long name is told by its ends, where two machines' names differ; a name
    that is read from right to left turns no figure round that stands beside it."""
    page.goto(NODE)
    expect(page.locator("svg").get_by_text(re.compile("^an+…n+$"))).to_be_visible()
    expect(page.locator(".card bdi")).to_have_text([status()["members"][0]["models"][0]["id"]] * 2)


def test_of_two_machines_with_one_name_the_one_that_works_is_shown_to(page):
    """Two Raspberry Pis that nobody named: the line moves to whom the request is at, and the
    choice stands out in its table."""
    body = status()
    body["members"][1]["name"] = "pi"
    body["members"].append(body["members"][1] | {"id": "c"})
    candidates = [{"id": name, "node": "pi", "score_s": 1.0} for name in ("b", "c")]
    choice = {"candidates": candidates, "chosen": "pi", "chosen_id": "c"}
    page.route("**/mesh/v1/status", lambda route: route.fulfill(json=body))
    page.route("**/mesh/v1/requests", lambda route: route.fulfill(json={"requests": [REQUEST]}))
    story = STORY | {"decisions": [choice]}
    page.route("**/mesh/v1/requests/r-1", lambda route: route.fulfill(json=story))
    page.goto(NODE)
    links = page.locator("svg .link")
    expect(page.locator("svg .flow")).to_have_attribute("x2", links.last.get_attribute("x2"))
    page.goto(f"{NODE}#requests/r-1")
    rows = page.get_by_role("region", name="Scores").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.locator("strong")).to_have_count(1)


def test_a_story_that_could_not_be_had_once_is_told_the_next_time(page):
    """The node was away for a moment; the request went on, and its state changed."""
    rows = [REQUEST]
    page.clock.install()
    page.route("**/mesh/v1/requests", lambda route: route.fulfill(json={"requests": rows}))
    page.route("**/mesh/v1/requests/r-1", lambda route: route.fulfill(status=503, json={}))
    page.goto(f"{NODE}#requests/r-1")
    expect(page.get_by_role("alert")).to_contain_text("503")
    page.route("**/mesh/v1/requests/r-1", lambda route: route.fulfill(json=STORY))
    rows[0] = REQUEST | {"state": "done"}
    page.clock.run_for(2_500)
    expect(page.get_by_label("One request")).to_be_visible()


def test_charts_are_painted_anew_when_evening_turns_the_page_dark(page):
    """Else their words are dark on dark in a tab that stays open."""
    page.emulate_media(color_scheme="light")
    page.goto(NODE)
    line = page.locator(".u-series .u-marker").nth(1)
    light = line.get_attribute("style")
    page.emulate_media(color_scheme="dark")
    expect(page.locator(".chart")).to_have_count(4)
    expect(line).not_to_have_attribute("style", light)


def test_an_owner_whose_node_is_away_is_told_so(page):
    """In words, and not in those of the browser, which say neither what failed nor what to do."""
    page.route("**/mesh/v1/drain", lambda route: route.abort())
    page.goto(f"{NODE}#node")
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_role("status")).to_contain_text("no connection to the node")


def stream(*words):
    """An answer in a stream: each word a comment, or the first choice of a chunk."""
    chunks = [word if word.startswith(":") else f'data: {{"choices": [{word}]}}' for word in words]
    text = "".join(f"{chunk}\n\n" for chunk in [*chunks, "data: [DONE]"])
    return {"content_type": "text/event-stream", "body": text}


CREDIT = ": x-mesh-node: attic x-mesh-model: m x-mesh-route-reason: peer; best of 2, expected 1 s "
CREDIT += "x-mesh-load-age-ms: 1"

THOUGHT = '{"delta": {"reasoning_content": "hm"}}', '{"delta": {}, "finish_reason": "length"}'


def ask(page, question):
    """Ask it, and wait for the end of the answer."""
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".talk li.user").last).to_have_text(question)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    return page.locator(".talk li.assistant").last


def test_the_playground_says_who_answered_however_late_that_is_known(page):
    """Not in the head of a stream that had to wait, and not only who began: comments say it."""
    said = stream(CREDIT, '{"delta": {"content": "Here."}}', ": continued on desk")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**said))
    page.goto(f"{NODE}#try")
    answer = ask(page, "Where?")
    expect(answer).to_contain_text("Here.")
    expect(answer).to_contain_text(
        re.compile("attic · peer; best of 2, expected 1 s · .* · continued on desk$")
    )


def test_a_question_without_an_answer_is_said_to_have_none_and_not_told_again(page):
    """All its words were thought, or it failed: no dots as if more came, and no model is told of
    turns that do not alternate."""
    answers = [stream(*THOUGHT), {"status": 503, "json": {"error": {"message": "too busy"}}}]
    answers.append(stream('{"delta": {"content": "Now."}}'))
    told = []

    def play(route):
        told.append([turn["content"] for turn in route.request.post_data_json["messages"]])
        route.fulfill(**answers.pop(0))

    page.route("**/v1/chat/completions", play)
    page.goto(f"{NODE}#try")
    thought = re.compile(r"^\(no answer\).*cut at its longest$", re.DOTALL)
    expect(ask(page, "Why?")).to_contain_text(thought)
    expect(ask(page, "When?")).to_contain_text(re.compile(r"^\(no answer\)\s*too busy$"))
    expect(ask(page, "And now?")).to_contain_text("Now.")
    assert told == [["Why?"], ["When?"], ["And now?"]]
    # and what was answered is told
    answers.append(stream('{"delta": {"content": "Yes."}}'))
    ask(page, "Sure?")
    assert told[-1] == ["And now?", "Now.", "Sure?"]


def test_a_question_is_shown_while_nobody_has_begun_to_answer(page):
    """A cold model takes half a minute to its first word; the question has left its box."""
    page.route("**/v1/chat/completions", lambda route: None)
    page.goto(f"{NODE}#try")
    page.get_by_label("Your question").fill("Is anybody there?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".talk li.user")).to_have_text("Is anybody there?")
    expect(page.locator(".talk li.assistant")).to_have_text("…")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".talk li.assistant")).to_contain_text("stopped")
