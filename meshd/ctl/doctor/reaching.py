"""The rules about connections to the other members."""

from __future__ import annotations

from meshd.ctl.doctor.facts import Facts
from meshd.ctl.doctor.finding import Finding, bad


def local_network(facts: Facts) -> Finding | None:
    """macOS lets a program talk to loopback and keeps it from the rest of the network."""
    outcomes = {reach.outcome for reach in facts.reaches}
    if facts.system != "Darwin" or outcomes != {"unreachable"}:
        return None
    return bad(
        "local-network",
        "every other machine is 'unreachable' from here while loopback works: macOS has "
        "not given this program the Local Network permission",
        "install meshd as the machine's service (sudo meshctl service install), or allow "
        "it under System Settings > Privacy & Security > Local Network",
    )


def isolation(facts: Facts) -> Finding | None:
    """Machines are heard over multicast, or known, but not one can be connected to."""
    silent = [reach for reach in facts.reaches if reach.outcome in {"silent", "unreachable"}]
    if (
        not silent
        or len(silent) < len(facts.reaches)
        or (facts.system == "Darwin" and all(reach.outcome == "unreachable" for reach in silent))
    ):
        return None
    places = ", ".join(f"{reach.name} at {reach.address}" for reach in silent[:3])
    return bad(
        "isolation",
        f"no connection to any other machine ({places}): the Wi-Fi keeps its "
        "clients apart, or firewalls there drop the mesh ports",
        "turn off client (AP) isolation, leave the guest network, and allow TCP 8788-8789 "
        "on those machines",
    )


def firewall(facts: Facts) -> Finding | None:
    """One of several machines cannot be connected to."""
    silent = [reach for reach in facts.reaches if reach.outcome in {"silent", "unreachable"}]
    if not silent or len(silent) == len(facts.reaches):
        return None
    places = ", ".join(f"{reach.name} at {reach.address}" for reach in silent)
    return Finding(
        "firewall",
        "warn",
        f"no connection to {places}, while others answer: a "
        "firewall there, or that machine is off or asleep",
        "wake it, or allow TCP 8788-8789 there",
    )


def large_packets(facts: Facts) -> Finding | None:
    """Small packets arrive and large ones vanish: a member looks well, and long prompts hang."""
    choked = [reach for reach in facts.reaches if reach.outcome == "choked"]
    if not choked:
        return None
    places = ", ".join(f"{reach.name} at {reach.address}" for reach in choked)
    return bad(
        "large-packets",
        f"small packets get to {places}, large ones are lost on the way: short prompts are "
        "answered there, long ones hang; usually a VPN, a tunnel or a switch with a smaller MTU",
        "give all machines and switches the same MTU, or lower it here (`ip link set dev NAME "
        "mtu 1280`; macOS: `networksetup -setMTU`), and let ICMP pass where a firewall drops it",
    )
