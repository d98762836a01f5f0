"""The dashboard's files: all there, guarded, from memory, and nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from meshd.api.pages import NOT_MODIFIED, Pages

PAGES = Pages()
OWN = {name: reply for name, reply in PAGES.paths().items() if not name.startswith("vendor/")}


def test_the_root_is_the_page() -> None:
    """A browser that opens the endpoint's address sees the mesh."""
    page = PAGES.reply("/", None)
    assert page is not None
    assert page.content_type.startswith("text/html")


def test_every_file_the_page_names_is_there() -> None:
    """A link to a file that was renamed would be a blank page."""
    for reply in OWN.values():
        text = reply.body.decode()
        for name in re.findall(r'(?:src|href)="(ui/[^"]+)"', text):
            assert PAGES.reply(f"/{name}", None) is not None, name
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert PAGES.reply(f"/ui/{name}", None) is not None, name


@pytest.mark.parametrize("name", sorted(OWN))
def test_nothing_is_loaded_from_elsewhere(name: str) -> None:
    """The mesh works without the internet, and tells nobody that it is there."""
    addresses = re.findall(r"https?://[\w.]+", OWN[name].body.decode())
    assert set(addresses) <= {"http://www.w3.org"}


@pytest.mark.parametrize("path", ["/ui/", "/ui/none.js", "/ui/../pages.py", "/ui/vendor/README.md"])
def test_only_the_pages_own_files_are_served(path: str) -> None:
    """Licences travel with the package, not over HTTP; nothing outside the folder exists."""
    assert PAGES.reply(path, None) is None


def test_a_browser_that_has_it_is_told_so() -> None:
    """By the tag of its content."""
    page = PAGES.reply("/ui/app.js", None)
    assert page is not None
    tag = re.search(r'etag: ("\w+")', page.lines)
    assert tag is not None
    again = PAGES.reply("/ui/app.js", tag[1])
    assert again is not None
    assert (again.status, again.body) == (NOT_MODIFIED, b"")
    assert PAGES.reply("/ui/app.js", '"other"') is page


def test_no_other_page_may_frame_it_or_add_to_it() -> None:
    """It can drain a node: a click must be its owner's."""
    page = PAGES.reply("/", None)
    assert page is not None
    assert "frame-ancestors 'none'" in page.lines
    assert "default-src 'self'" in page.lines
