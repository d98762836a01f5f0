"""The dashboard's files, read once and answered from memory.

They come with the package and never change while the daemon runs, so each has a tag by content and
a browser that has it already is told 304. The page may load nothing from elsewhere and be framed by
nobody (`_GUARDS`): it can drain this node and let machines into the mesh.

The files say nothing about the mesh, so they need no API key; what the page then asks for does.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

from meshd.api.replies import Reply

PAGE = "/"
FOLDER = "/ui/"
"""Where the page's own files are, below the root."""

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}
"""What is served; anything else in the folder (licences, notes) is not."""

NOT_MODIFIED = 304

_GUARDS = (
    "content-security-policy: default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'\r\n"
    "x-content-type-options: nosniff\r\n"
    "referrer-policy: no-referrer\r\n"
    "cache-control: no-cache\r\n"
)


class Pages:
    """Every file of the dashboard by its path. Reads the disk when made, then never again."""

    def __init__(self) -> None:
        self._found: dict[str, Reply] = {}
        self._take(files("meshd.api") / "static", "")

    def reply(self, path: str, seen: str | None) -> Reply | None:
        """The file at `path` (`/`, or below `/ui/`); None when there is none. `seen` is the tag the
        browser holds (If-None-Match)."""
        found = self._found.get("index.html" if path == PAGE else path.removeprefix(FOLDER))
        if found is None or seen is None or seen not in found.lines:
            return found
        return Reply(b"", NOT_MODIFIED, found.content_type, found.lines)

    def paths(self) -> Mapping[str, Reply]:
        """What there is, by name inside the folder."""
        return self._found

    def _take(self, folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            name = prefix + entry.name
            if entry.is_dir():
                self._take(entry, f"{name}/")
            elif (kind := TYPES.get(name.rpartition(".")[2])) is not None:
                body = entry.read_bytes()
                tag = blake2b(body, digest_size=12).hexdigest()
                self._found[name] = Reply(body, 200, kind, f'etag: "{tag}"\r\n{_GUARDS}')
