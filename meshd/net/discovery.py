"""Finding peers on the local network: mDNS proposes candidates, and does nothing else.

It works in a thread with an event loop of its own, because zeroconf waits for seconds at times and
the gateway must not. Nothing here is ever in the way of serving: what fails becomes a notice, and
the whole is tried again after a while. Which adverts count is decided in `adverts`.

Three traps of the library, and what is done about them. Its sockets are bound once, so the
machine's addresses are read every few seconds, and the sockets, the advert and the browser follow
them. Its check for name conflicts takes a second, and is skipped, because an instance is named by
a hash of a key. Its browser asks more and more seldom, so what was heard is offered again now and
then, as long as it has not expired.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from meshd.core.effects import Notice
from meshd.net.adverts import AdvertBook, Offer
from meshd.net.interfaces import InterfaceAddress, read_interfaces, usable_addresses
from protocol import limits
from protocol.frozen import frozen
from protocol.service import SERVICE_TYPE, NodeAdvert, advert_to_txt, instance_name

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

RESOLVE_WAIT_MS = 3_000
"""How long an advert may take to give its ports and addresses."""

RESOLVING_MAX = 32
"""Adverts being resolved at once."""

STOP_WAIT_S = 3.0
"""zeroconf takes 0.4 s for its goodbyes."""

SAID_MAX = 16
"""Different notices; an error whose text varies must not fill the log."""


@frozen
class Pace:
    """How often discovery does what it does by the clock. Seconds."""

    snapshot_s: float = 5.0
    """Between readings of the machine's addresses: a change of Wi-Fi takes about that long."""
    reoffer_s: float = 30.0
    """Between offers of what is known, in case the member table has since forgotten it."""
    quiet_s: float = 30.0
    """After so long without another node's advert, say that multicast may not work here."""
    restart_s: float = 30.0
    """After a failure: longer than most changes of network take."""


USUAL_PACE = Pace()


class Discovery:
    """Publishes one node's advert and reports others'. `start()`, later `stop()`.

    `on_candidate(link, node_id)` and `on_notice` are called in discovery's thread. `interfaces`
    names the only interfaces to use, `bind_host` is where the mesh sockets listen.
    """

    def __init__(
        self,
        advert: NodeAdvert,
        *,
        interfaces: Sequence[str] = (),
        bind_host: str = "0.0.0.0",  # noqa: S104 - as in the settings
        on_candidate: Callable[[str, str], object],
        on_notice: Callable[[Notice], object],
        pace: Pace = USUAL_PACE,
        read: Callable[[], Iterable[InterfaceAddress]] = read_interfaces,
    ) -> None:
        self._advert = advert
        self._interfaces = tuple(interfaces)
        self._bind_host = bind_host
        self._on_candidate = on_candidate
        self._on_notice = on_notice
        self._read = read
        self._pace = pace
        self._book = AdvertBook(advert)
        self._failures = 0
        self._said: set[str] = set()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stirred = asyncio.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self.addresses: tuple[InterfaceAddress, ...] = ()
        """Where the node is announced now; empty while it is not."""

    def start(self) -> None:
        """Begin, in a thread of its own; never raises. zeroconf is imported there, not here."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._main, name="meshd-discovery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the advert back and end the thread. Idempotent."""
        if self._thread is None:
            return
        self._stopping = True
        self.look_again()
        self._thread.join(STOP_WAIT_S)

    def look_again(self) -> None:
        """The network may have changed: read the addresses now. Thread-safe."""
        self._ready.wait(STOP_WAIT_S)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed by itself
                self._loop.call_soon_threadsafe(self._stirred.set)

    def announce(self, advert: NodeAdvert) -> None:
        """Publish another advert from now on; in another mesh, look for that mesh's nodes."""
        if advert.mesh != self._advert.mesh:
            self._book = AdvertBook(advert)
        self._advert = advert
        self.look_again()

    def doors(self) -> tuple[tuple[str, ...], ...]:
        """The links of each pairing door that is advertised now. Thread-safe."""
        return self._book.doors()

    @property
    def alive(self) -> bool:
        """Whether discovery runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def heard_at(self) -> float | None:
        """When another node's advert was last heard (monotonic s), None until one is."""
        return self._book.heard_at

    def known(self) -> tuple[Offer, ...]:
        """What is on offer now. Thread-safe."""
        return tuple(self._book)

    def counters(self) -> Mapping[str, int]:
        """Totals since the start: adverts of our mesh, foreign and malformed ones, failures."""
        totals = {**self._book.counters, "failures": self._failures}
        return {f"discovery_{name}": total for name, total in totals.items()}

    # From here on: discovery's thread.

    def _main(self) -> None:
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # said by notices, once each
        try:
            asyncio.run(self._keep_running())
        except Exception as error:  # noqa: BLE001
            # Whatever happens in here, the daemon serves on without it.
            self._failed(error)
        finally:
            self._ready.set()

    async def _keep_running(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        while not self._stopping:
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001
                # zeroconf raises OSError, RuntimeError and its own family alike.
                self._failed(error)
                await self._pause(self._pace.restart_s)
            finally:
                self.addresses = ()
                self._book.forget()

    async def _session(self) -> None:
        """Announce and browse until told to stop. Raises whatever zeroconf raises."""
        addresses = await self._first_addresses()
        if not addresses:
            return
        advert = self._advert
        session = Session(advert, addresses, self._changed)
        async with session:
            self.addresses = addresses
            began = offered = time.monotonic()
            while not await self._pause(self._pace.snapshot_s):
                if self._advert is not advert:
                    return
                now = time.monotonic()
                addresses = self._usable()
                if addresses and addresses != self.addresses:
                    await session.move(addresses)
                    self.addresses = addresses
                if now - offered >= self._pace.reoffer_s:
                    offered = now
                    for offer in self._book:
                        self._offer(offer)
                if self.heard_at is None and now - began >= self._pace.quiet_s:
                    self._say("info", QUIET)

    async def _first_addresses(self) -> tuple[InterfaceAddress, ...]:
        """The addresses to announce, as soon as there are any; none when told to stop."""
        while not (addresses := self._usable()):
            where = f"interface {', '.join(self._interfaces)}" if self._interfaces else "interfaces"
            self._say("warning", f"no usable address on {where}: mDNS waits for one")
            if await self._pause(self._pace.snapshot_s):
                break
        return addresses

    def _usable(self) -> tuple[InterfaceAddress, ...]:
        found = usable_addresses(self._read(), self._bind_host, self._interfaces)
        return found[: limits.ENDPOINTS_MAX]

    async def _pause(self, seconds: float) -> bool:
        """Wait, or until something stirs; True when told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        self._stirred.clear()
        return self._stopping

    def _changed(self, name: str, info: AsyncServiceInfo | None) -> None:
        """An advert was heard, or (None) has gone."""
        if info is None:
            self._book.gone(name)
            return
        try:
            hosts = info.parsed_scoped_addresses()
            offer = self._book.heard(name, info.properties, info.port, hosts, time.monotonic())
            if offer is not None:
                self._offer(offer)
        except Exception as error:  # noqa: BLE001
            # Called from inside zeroconf, where an exception would end a task of its own.
            self._failed(error)

    def _offer(self, offer: Offer) -> None:
        for link in offer.links:
            self._on_candidate(link, offer.node_id)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._say(
            "warning",
            f"mDNS discovery does not work now ({type(error).__name__}: {error}); "
            "peers named with --peer and remembered ones still do",
        )

    def _say(self, level: str, text: str) -> None:
        """Each thing once: a network that is down for a week is one line in the log."""
        if text not in self._said and len(self._said) < SAID_MAX:
            self._said.add(text)
            self._on_notice(Notice(level, text))


QUIET = (
    "no other node has been heard over mDNS; if there is one, multicast does not reach it on this "
    "network: name it with --peer HOST:PORT"
)


class Session:
    """One life of the zeroconf sockets: an advert that is announced, and a browser."""

    def __init__(
        self,
        advert: NodeAdvert,
        addresses: tuple[InterfaceAddress, ...],
        on_change: Callable[[str, AsyncServiceInfo | None], None],
    ) -> None:
        self._advert = advert
        self._addresses = addresses
        self._on_change = on_change
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> None:
        from zeroconf.asyncio import AsyncZeroconf

        self._zeroconf = AsyncZeroconf(interfaces=multicast_hosts(self._addresses))
        try:
            await self._zeroconf.async_register_service(
                self._info(), cooperating_responders=True, strict=False
            )
            self._browse()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        assert self._zeroconf is not None
        await self._end_browsing()
        await self._zeroconf.async_close()

    async def move(self, addresses: tuple[InterfaceAddress, ...]) -> None:
        """The machine's addresses have changed: rebind, announce and ask again."""
        assert self._zeroconf is not None
        self._addresses = addresses
        await self._end_browsing()
        await self._zeroconf.async_update_interfaces(multicast_hosts(addresses))
        await self._zeroconf.async_update_service(self._info())
        self._browse()

    def _info(self) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        return AsyncServiceInfo(
            SERVICE_TYPE,
            instance_name(self._advert.node_id),
            port=self._advert.control_port,
            properties=advert_to_txt(self._advert),
            server=f"{self._advert.node_id}.local.",
            parsed_addresses=[one.address for one in self._addresses],
        )

    def _browse(self) -> None:
        from zeroconf.asyncio import AsyncServiceBrowser

        assert self._zeroconf is not None
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard]
        )

    async def _end_browsing(self) -> None:
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        tasks = list(self._resolving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        from zeroconf import ServiceStateChange
        from zeroconf.asyncio import AsyncServiceInfo

        if state_change is ServiceStateChange.Removed:
            self._on_change(name, None)
            return
        info = AsyncServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf):
            self._on_change(name, info)
        elif name not in self._resolving and len(self._resolving) < RESOLVING_MAX:
            self._resolving[name] = asyncio.create_task(self._resolve(zeroconf, name, info))

    async def _resolve(self, zeroconf: Zeroconf, name: str, info: AsyncServiceInfo) -> None:
        try:
            if await info.async_request(zeroconf, RESOLVE_WAIT_MS):
                self._on_change(name, info)
        finally:
            del self._resolving[name]


def multicast_hosts(addresses: Iterable[InterfaceAddress]) -> list[str]:
    """The addresses to bind for multicast: every IPv4 one, and one IPv6 one per interface."""
    hosts: list[str] = []
    indexes: set[int] = set()
    for one in addresses:
        if ":" not in one.address:
            hosts.append(one.address)
        elif one.index not in indexes:
            indexes.add(one.index)
            hosts.append(one.address)
    return hosts
