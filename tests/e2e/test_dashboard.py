"""The dashboard in a real browser, over real daemons. Pictures of it go to artifacts/dashboard."""

from __future__ import annotations

import re
import signal
import threading
from contextlib import suppress

import openai
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, expect

from meshd.api.keys import add_key, remove_key
from tests.e2e.daemons import Daemon, wait_until, write_key
from tests.project.sources import ROOT

PICTURES = ROOT / "artifacts" / "dashboard"
SLOW = "emulated:model=story,prompt_tps=4000,generation_tps=6,slots=2"
NAMES = ("attic", "desk")
ROOMS = ("mesh", "requests", "try", "node", "connect")

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A node without a model, and one with, for tests that kill neither."""
    home = tmp_path_factory.mktemp("mesh")
    key = write_key(home / "mesh.key")
    attic, desk = (Daemon(home, name, "--no-mdns", "--mesh-key-file", str(key)) for name in NAMES)
    attic.flags += ("--engine", SLOW)
    desk.flags += ("--peer", attic.peer)
    yield begun(desk, attic)
    for daemon in (desk, attic):
        daemon.stop()


@pytest.fixture
def mortal(launch):
    """Such a mesh for one test, to kill."""
    attic = launch("attic", "--engine", SLOW)
    return begun(launch("desk", "--peer", attic.peer), attic)


def begun(desk, attic):
    """Both of them, started and acquainted."""
    for daemon in (attic, desk):
        if daemon.process is None:
            daemon.start()
        daemon.wait_ready()
    wait_until(lambda: desk.get("/v1/models")["data"], 10, "desk lists the model")
    return desk, attic


@pytest.fixture
def page(browser, mesh):
    """The page of the node without a model; what its console says is an error of the test."""
    desk, _ = mesh
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    opened.goto(address(desk))
    expect(opened.get_by_role("heading", name="desk and the machines it knows")).to_be_visible()
    yield opened
    context.close()
    assert complaints == []


def address(daemon):
    """Where the dashboard is."""
    return f"http://127.0.0.1:{daemon.http_port}/"


def picture(page, name):
    """Keep what the page looks like."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def room(page, name):
    """Go to one of the page's rooms."""
    page.get_by_role("navigation").get_by_role("link", name=name).click()


def ask(daemon, tokens):
    """A streamed request, read to its end."""
    with openai.OpenAI(base_url=daemon.base_url, api_key="unused", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="story",
            messages=[{"role": "user", "content": "Tell me one."}],
            max_tokens=tokens,
            stream=True,
        )
        for _ in stream:
            pass


def ask_in_vain(daemon):
    """A long one, whose node will be lost."""
    with suppress(openai.APIError):
        ask(daemon, 500)


def test_it_shows_the_mesh_and_what_happens_in_it_live(page, mesh):
    """Both nodes; a request while it runs, as a moving line and a row; afterwards, why there."""
    desk, _ = mesh
    expect(page.get_by_role("img", name=re.compile("2 nodes: .*attic alive"))).to_be_visible()
    asking = threading.Thread(target=ask, args=(desk, 120))
    asking.start()
    expect(page.locator("svg .flow")).to_have_count(1, timeout=10_000)
    picture(page, "mesh")
    room(page, "Requests")
    expect(page.get_by_role("cell", name="running")).to_be_visible()
    asking.join()
    expect(page.get_by_role("cell", name="done")).to_be_visible(timeout=10_000)
    page.get_by_role("cell").get_by_role("link").first.click()
    expect(page.get_by_text("Why here")).to_be_visible()
    expect(page.get_by_role("heading", name="Queue and people")).to_be_visible()
    picture(page, "requests")


def test_the_playground_streams_and_says_who_answered(page):
    """The node's name and the reason stand under the words."""
    room(page, "Try it")
    page.get_by_label("Your question").fill("Who is there?")
    page.get_by_role("button", name="Ask").click()
    answer = page.locator(".talk li.assistant")
    expect(answer).to_contain_text("attic · peer", timeout=10_000)
    page.get_by_role("button", name="Stop").click()
    expect(answer).to_contain_text("stopped")
    picture(page, "try")


def test_draining_and_resuming_show_everywhere(page, browser, mesh):
    """A click on one node's page is seen on the other's."""
    _, attic = mesh
    there = browser.new_page()
    there.goto(address(attic) + "#node")
    there.get_by_role("button", name="Drain").click()
    expect(there.get_by_role("button", name="Take work again")).to_be_visible(timeout=10_000)
    expect(page.get_by_text("draining")).to_be_visible(timeout=10_000)
    there.get_by_role("button", name="Take work again").click()
    expect(page.get_by_text("draining")).to_have_count(0, timeout=10_000)
    there.close()


def test_a_code_for_pairing_is_shown_with_its_picture(page):
    """Eight digits, the line to type, and the same line as a QR code."""
    room(page, "This node")
    page.get_by_role("button", name="Show a code").click()
    expect(page.locator(".code")).to_have_text(re.compile(r"^\d{4}[ -]?\d{4}$"))
    expect(page.get_by_role("img", name="The same line as a QR code")).to_be_visible()
    expect(page.locator("pre")).to_contain_text("meshctl join")
    picture(page, "pairing")


def test_a_code_that_cannot_be_had_is_said_to_be(browser, mesh):
    """Also the second time, when the first code has run out."""
    desk, _ = mesh
    page = browser.new_page()
    page.goto(address(desk))
    said = [
        {"status": 200, "json": {"code": "1234 5678", "door": 8790, "expires_s": 1}},
        {"status": 409, "json": {"error": {"message": "the door's port is taken"}}},
    ]
    page.route("**/mesh/v1/pair", lambda route: route.fulfill(**said.pop(0)))
    room(page, "This node")
    page.get_by_role("button", name="Show a code").click()
    expect(page.locator(".code")).to_have_text("1234 5678")
    page.get_by_role("button", name="Show a code").click()
    expect(page.get_by_role("alert")).to_contain_text("the door's port is taken")
    page.close()


def test_a_look_at_another_room_costs_no_conversation(page):
    """The answer goes on, and can still be stopped; its story says so when it has ended."""
    room(page, "Try it")
    page.get_by_label("Your question").fill("What happens elsewhere?")
    page.get_by_role("button", name="Ask").click()
    room(page, "Requests")
    running = page.get_by_role("row").filter(has_text="running")
    running.get_by_role("link").click()
    story = page.get_by_label("One request")
    expect(story).to_contain_text("attic: running")
    room(page, "Try it")
    expect(page.locator(".talk li.user")).to_contain_text("elsewhere")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".talk li.assistant")).to_contain_text("stopped")
    page.go_back()
    expect(story).to_contain_text("attic: cancelled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_anybodys_way(browser, mesh, scheme):
    """axe finds no serious fault in any room, in either scheme; nothing is wider than a phone."""
    desk, _ = mesh
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    ask(desk, 5)
    found = []
    for name in ROOMS:
        page.goto(address(desk) + f"#{name}")
        expect(page.get_by_role("main")).to_be_visible()
        grave = [
            f"{name}: {fault['id']}: {fault['nodes'][0]['html'][:120]}"
            for fault in Axe().run(page).response["violations"]
            if fault["impact"] in {"serious", "critical"}
        ]
        found += grave
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        picture(page, f"{name}-phone-{scheme}")
    context.close()
    assert found == []


@pytest.fixture
def guarded(tmp_path):
    """A node that other machines may ask, so it asks for keys; and kim's."""
    daemon = Daemon(tmp_path, "guarded", "--no-mdns", "--engine", SLOW)
    daemon.state_dir.mkdir(mode=0o700)
    key = add_key(daemon.state_dir, "kim", "2026-01-01")
    yield daemon.start(http="0.0.0.0:0").wait_ready(), key
    daemon.stop()


def test_a_node_that_asks_for_a_key_is_given_one(browser, guarded):
    """The page comes without; what it shows needs the key, kept for this tab alone. Taken back, it
    also closes the page that is open."""
    daemon, key = guarded
    page = browser.new_page()
    page.goto(address(daemon))
    page.get_by_label("Key").fill("wrong")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    page.get_by_label("Key").fill(f"\u200b{key}…")  # copied with a bit of its surroundings
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name="guarded and the machines it knows")).to_be_visible()
    room(page, "Connect")
    for each in page.locator("pre").all():
        expect(each).to_contain_text("YOUR-KEY")
    remove_key(daemon.state_dir, "kim")
    expect(page.get_by_role("alert")).to_contain_text("not known here", timeout=15_000)
    page.close()


def test_a_page_that_nobody_looks_at_holds_no_connection(page):
    """Browsers have six to a host for all tabs: a seventh page would get no answer at all."""
    hide = "is => Object.defineProperty(document, 'hidden', {value: is, configurable: true})"
    turn = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide, True)
    with page.expect_event("requestfailed", lambda each: each.url.endswith("/events")):
        page.evaluate(turn)
    page.evaluate(hide, False)
    with page.expect_request("**/mesh/v1/events"):
        page.evaluate(turn)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_address_that_was_cut_off_shows_the_room_all_the_same(browser, mesh):
    """Links are copied by hand, too."""
    desk, _ = mesh
    page = browser.new_page()
    page.goto(address(desk) + "#requests/req%2")
    expect(page.get_by_role("heading", name="Requests through this node")).to_be_visible()
    page.close()


def test_where_nothing_can_be_copied_no_button_says_so(browser, mesh):
    """A browser gives no clipboard to a page that another machine sent over plain HTTP."""
    desk, _ = mesh
    page = browser.new_page()
    page.goto(address(desk) + "#connect")
    expect(page.get_by_role("button", name="Copy")).to_have_count(4)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.reload()
    expect(page.locator("pre")).to_have_count(4)
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    page.close()


def test_a_browser_without_streams_still_sees_the_mesh(browser, mesh):
    """Where a proxy or an old browser lets no stream through, the page asks again and again."""
    desk, _ = mesh
    page = browser.new_page()
    page.route("**/mesh/v1/events", lambda route: route.abort())
    page.goto(address(desk))
    expect(page.get_by_role("listitem").filter(has_text="attic")).to_be_visible(timeout=10_000)
    page.close()


def test_what_a_lost_node_last_did_is_not_shown_as_done_now(browser, mortal):
    """It was busy when it was killed, and one waited."""
    desk, attic = mortal
    page = browser.new_page()
    page.goto(address(desk))
    asking = [threading.Thread(target=ask_in_vain, args=(desk,)) for _ in range(3)]
    for each in asking:
        each.start()
    expect(page.locator("svg").get_by_text("2 busy")).to_be_visible(timeout=10_000)
    expect(page.locator("svg").get_by_text("1 wait")).to_be_visible(timeout=10_000)
    attic.kill()
    expect(page.locator("svg").get_by_text("dead")).to_be_visible(timeout=10_000)
    expect(page.get_by_text("busy")).to_have_count(0)
    room(page, "Requests")
    expect(page.get_by_text("0 waiting in the mesh")).to_be_visible()
    page.close()
    for each in asking:
        each.join()


def test_a_node_that_says_nothing_is_not_shown_as_if_it_did(browser, mortal):
    """A machine that hangs or is switched off closes no connection; the page notices all the same,
    and goes on when the node does."""
    desk, _ = mortal
    page = browser.new_page()
    page.goto(address(desk))
    expect(page.locator("svg.picture")).to_be_visible()
    desk.process.send_signal(signal.SIGSTOP)
    expect(page.get_by_role("alert")).to_contain_text("silent for", timeout=15_000)
    desk.process.send_signal(signal.SIGCONT)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=15_000)
    page.close()


def test_nodes_that_are_gone_are_said_to_be(browser, mortal):
    """Of a peer the page says that it is dead; of its own node it keeps what it knew, and says that
    it is old."""
    desk, attic = mortal
    page = browser.new_page()
    page.goto(address(desk))
    expect(page.get_by_role("listitem").filter(has_text="attic")).to_be_visible()
    attic.kill()
    expect(page.locator(".card").get_by_text("dead", exact=True)).to_be_visible(timeout=10_000)
    desk.kill()
    expect(page.get_by_role("alert")).to_contain_text("does not answer", timeout=15_000)
    with pytest.raises(Error):
        page.goto(address(desk))
    page.close()
