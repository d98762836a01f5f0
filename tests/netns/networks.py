"""Small real networks: namespaces on one bridge, each with its own address and multicast.

Trouble is made at the switch, where a real one would be: a cable is a bridge port, and loss and
one-way drops are nftables rules on what the bridge forwards (ARP and multicast included). A rule
is a line of nft's own language, made by `loss`, `no_way`, `apart` or written out.

Everything is made under a prefix of this process and removed at the end, whatever happened.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

UNAVAILABLE = ""
"""Why namespaces cannot be made here; empty when they can."""


def _reason() -> str:
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"network namespaces need `{program}` of {package}"
    probe = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "this kernel or sandbox allows no network namespaces"


UNAVAILABLE = _reason()


def ip(*words: str) -> None:
    """Run `ip` and fail with its own words."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


@dataclass(frozen=True)
class Host:
    """One namespace on the bridge."""

    netns: str
    address: str
    interface: str
    port: str = ""
    """Its port at the switch."""

    def run(self, *command: str, timeout_s: float = 30) -> str:
        """Standard output of a command inside the namespace; fails when it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.netns, *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


class Lan:
    """A bridge in a namespace of its own, and hosts on it. Use as a context manager.

    Every LAN is 10.87.`subnet`.0/24; host number n has the address that ends in n.
    """

    def __init__(self, name: str, hosts: int, subnet: int = 0) -> None:
        self.prefix = f"m{os.getpid() % 100_000}{name}"
        self.switch = f"{self.prefix}sw"
        self.size = hosts
        self.subnet = subnet
        self.hosts: list[Host] = []

    def __enter__(self) -> Lan:
        try:
            ip("netns", "add", self.switch)
            ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
            ip("-n", self.switch, "link", "set", "br0", "up")
            for number in range(1, self.size + 1):
                self._add(number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for netns in [host.netns for host in self.hosts] + [self.switch]:
            subprocess.run(["ip", "netns", "del", netns], capture_output=True, check=False)

    def cut(self, host: Host) -> None:
        """Pull the cable at the switch."""
        ip("-n", self.switch, "link", "set", host.port, "down")

    def mend(self, host: Host) -> None:
        """Put it back."""
        ip("-n", self.switch, "link", "set", host.port, "up")

    def forbid(self, *rules: str) -> None:
        """From now on the switch drops what these rules say, and nothing else. No rule: mended."""
        lines = "\n".join(rules)
        script = f"""
            add table bridge trouble
            delete table bridge trouble
            table bridge trouble {{
                chain crossing {{
                    type filter hook forward priority 0; policy accept;
                    {lines}
                }}
            }}
        """
        done = subprocess.run(
            ["ip", "netns", "exec", self.switch, "nft", "-f", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"nft: {done.stderr.strip()}"

    def readdress(self, host: Host, address: str) -> None:
        """Take the host's address away and give it another, as a DHCP server may."""
        ip("-n", host.netns, "addr", "flush", "dev", host.interface, "scope", "global")
        self._address(host.netns, address, host.interface)

    def attach(self, host: Host, number: int, interface: str) -> Host:
        """Give a host of another LAN a second interface on this one; the host as seen here."""
        return self._plug(host.netns, number, interface)

    def _add(self, number: int) -> None:
        netns = f"{self.prefix}h{number}"
        ip("netns", "add", netns)
        self.hosts.append(Host(netns, "", ""))
        ip("-n", netns, "link", "set", "lo", "up")
        self.hosts[-1] = self._plug(netns, number, "lan0")

    def _plug(self, netns: str, number: int, interface: str) -> Host:
        host = Host(netns, f"10.87.{self.subnet}.{number}", interface, f"p{number}")
        far = ("type", "veth", "peer", interface, "netns", netns)
        ip("-n", self.switch, "link", "add", host.port, *far)
        ip("-n", self.switch, "link", "set", host.port, "master", "br0", "up")
        ip("-n", netns, "link", "set", interface, "up", "multicast", "on")
        self._address(netns, host.address, interface)
        return host

    def _address(self, netns: str, address: str, interface: str) -> None:
        ip("-n", netns, "addr", "add", f"{address}/24", "brd", "+", "dev", interface)
        ip("-n", netns, "route", "replace", "224.0.0.0/4", "dev", interface)


def loss(percent: int) -> str:
    """Each frame that crosses the switch, whichever way, is lost with this probability."""
    return f"numgen random mod 100 < {percent} drop"


def no_way(source: Host | None, target: Host | None) -> str:
    """Nothing gets from one host to another; None means anybody."""
    source_part = f'iifname "{source.port}" ' if source else ""
    target_part = f'oifname "{target.port}" ' if target else ""
    return f"{source_part}{target_part}drop"


def apart(some: Iterable[Host], others: Iterable[Host]) -> tuple[str, str]:
    """Nothing crosses between the two groups, either way."""
    left, right = (", ".join(f'"{host.port}"' for host in group) for group in (some, others))
    return (
        f"iifname {{ {left} }} oifname {{ {right} }} drop",
        f"iifname {{ {right} }} oifname {{ {left} }} drop",
    )
