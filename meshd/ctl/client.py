"""Asking a node over HTTP, with the standard library alone: aiohttp takes longer to import than
`meshctl` may take to answer. Whatever goes wrong becomes one `Trouble` with its exit code.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

from meshd.ctl.exits import FAILURE, UNREACHABLE, USAGE, WRONG_KEY, Trouble

DEFAULT_URL = "http://127.0.0.1:8787"
URL_VARIABLE = "MESHCTL_URL"
KEY_VARIABLE = "MESHCTL_API_KEY"

TIMEOUT_S = 10.0
"""Longest wait for a node's answer. A status takes milliseconds; a machine that swaps takes
seconds, and is worth waiting for."""

ANSWER_MAX_BYTES = 16 * 1024 * 1024
"""Longest answer read: a status of 1,000 nodes with 10 models each is about 6 MB."""


class Node:
    """One node's HTTP endpoint. A connection per question: commands ask once or twice."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S):
        self.url = url.rstrip("/")
        self._parts = _split(self.url)
        self._api_key = _key(api_key or "")
        self._timeout_s = timeout_s

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`. Raises Trouble."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers `body`. Raises Trouble."""
        return self._ask("POST", path, json.dumps(body).encode())

    def delete(self, path: str) -> dict[str, Any]:
        """The JSON object that says what is left at `path`. Raises Trouble."""
        return self._ask("DELETE", path, None)

    def stream(self, path: str, body: Mapping[str, Any]) -> Stream:
        """The answer to `body` line by line, while it comes. Raises Trouble, now and later."""
        connection = self._connect()
        try:
            with self._troubles():
                asked = json.dumps(body).encode()
                connection.request("POST", self._parts.path + path, asked, self._headers())
                answer = connection.getresponse()
                if answer.status != 200:
                    _object(answer.status, answer.read(ANSWER_MAX_BYTES), self.url)
        except BaseException:
            connection.close()
            raise
        return Stream(connection, answer, self._troubles)

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = self._connect()
        try:
            with self._troubles():
                connection.request(method, self._parts.path + path, body, self._headers())
                answer = connection.getresponse()
                raw = answer.read(ANSWER_MAX_BYTES + 1)
        finally:
            connection.close()
        return _object(answer.status, raw, self.url)

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Whatever a socket can raise, as Trouble."""
        try:
            yield
        except TimeoutError:
            raise Trouble(
                UNREACHABLE, f"{self.url} took the question but gave no answer in time"
            ) from None
        except OSError as error:
            raise Trouble(UNREACHABLE, self._nobody(error)) from None
        except http.client.HTTPException as error:
            raise Trouble(
                UNREACHABLE, f"{self.url} does not speak HTTP ({type(error).__name__})"
            ) from None

    def _connect(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _nobody(self, error: OSError) -> str:
        why = error.strerror or str(error)
        return (
            f"no node answers at {self.url} ({why}); start one with `meshd run`, "
            f"or name another with --node URL or {URL_VARIABLE}"
        )


class Stream:
    """An answer that is still coming. Whoever holds it closes it; that also stops the work."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
        troubles: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._troubles = troubles

    def header(self, name: str) -> str | None:
        """One header of the answer."""
        return self._answer.getheader(name)

    def lines(self) -> Iterator[bytes]:
        """Each line without its end. Raises Trouble when the node goes away."""
        while True:
            with self._troubles():
                line = self._answer.readline(ANSWER_MAX_BYTES)
            if not line:
                return
            yield line.rstrip(b"\r\n")

    def close(self) -> None:
        """Leave: the node stops what it does for us. Idempotent."""
        self._connection.close()


def _key(text: str) -> str:
    """The key without the line that it stood on. Raises Trouble for what no header can hold."""
    key = text.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Trouble(USAGE, f"what {KEY_VARIABLE} holds is no API key: letters, digits and '-'")
    return key


def _split(url: str) -> SplitResult:
    good = url.isprintable() and " " not in url
    try:
        parts = urlsplit(url)
        good = good and parts.path.isascii() and (parts.port is None or parts.port > 0)
        (parts.hostname or "").encode("idna")  # as a socket does, too late for a good word
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Trouble(USAGE, f"{url!r} is not the URL of a node; write it like {DEFAULT_URL}")
    return parts


def _object(status: int, raw: bytes, url: str) -> dict[str, Any]:
    if status == 401:
        raise Trouble(
            WRONG_KEY, f"{url} wants an API key that it knows ({_said(raw)}); set {KEY_VARIABLE}"
        )
    if status == 403:
        raise Trouble(WRONG_KEY, f"{url} does not let you: {_said(raw)}")
    if status == 409:
        raise Trouble(FAILURE, _said(raw))
    if status != 200:
        raise Trouble(FAILURE, f"{url} refused ({status}): {_said(raw)}")
    if len(raw) > ANSWER_MAX_BYTES:
        raise Trouble(FAILURE, f"{url} sent more than {ANSWER_MAX_BYTES} bytes")
    body = _json(raw)
    if not isinstance(body, dict):
        raise Trouble(FAILURE, f"{url} sent no JSON object; is that really a node of the mesh?")
    return body


def _said(raw: bytes) -> str:
    """The message of an error in OpenAI's shape, or nothing better."""
    body = _json(raw)
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message) if message else "no reason given"


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
