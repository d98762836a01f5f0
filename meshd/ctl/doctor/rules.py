"""Facts to findings: one small rule for each thing that goes wrong in real homes.

A rule looks at the facts and says nothing where it has nothing to say. What it says names the
cause, not the symptom: a machine that cannot be reached is on a guest Wi-Fi, behind a firewall or
without macOS's permission, and each has another cure. `bad` means that the mesh does not work here,
`warn` that it works worse than it could. The order is that of repair: the first may cause the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

from meshd.ctl.doctor.facts import Facts
from meshd.ctl.doctor.finding import Finding, bad
from meshd.ctl.doctor.reaching import firewall, isolation, large_packets, local_network

CLOCK_AHEAD_S = 60.0
"""A node that started this far in our future has another idea of the time: NTP keeps within one."""

DISK_BAD_BYTES = 100 * 2**20
"""Below this a state file may not be written whole."""

DISK_WARN_BYTES = 2 * 2**30
"""Below this no further model fits."""

PYTHON_GAIN_MIN = 1.25
"""A Python so much quicker is another build, not another version."""

CONTAINER_NETWORKS = tuple(ip_network(text) for text in ("172.17.0.0/16", "10.88.0.0/16"))
"""docker0's and podman's usual bridges: no other machine reaches an address in there."""


Rule = Callable[[Facts], Finding | None]


def diagnose(facts: Facts) -> list[Finding]:
    """Every finding, in the order of repair."""
    found = [rule(facts) for rule in RULES]
    return [finding for finding in found if finding is not None]


def daemon(facts: Facts) -> Finding | None:
    """Nobody answers."""
    asked = facts.daemon
    if asked.answers:
        return None
    if asked.spoke and not asked.holder:
        fix = "set MESHCTL_API_KEY where it wants a key; where it is no node, name one by --node"
        return bad("daemon", asked.trouble, fix)
    if asked.settings_error:
        return bad(
            "daemon",
            f"its settings are wrong: {asked.settings_error}",
            "mend that line; `meshctl config check` says when it is right",
        )
    if asked.holder:
        return bad(
            "daemon",
            f"{asked.url} is held by another program: {asked.holder}",
            "stop that program, or give meshd another port with --http",
        )
    fix = (
        "`meshctl service start`" if asked.service else "`meshd run`, or `meshctl service install`"
    )
    said = f" (service: {asked.service})" if asked.service else ""
    return bad(
        "daemon",
        f"no node answers at {asked.url}{said}",
        f"start it: {fix}; `meshctl service logs` shows why it ended",
    )


def disk(facts: Facts) -> Finding | None:
    """The disk of the state folder."""
    free = facts.disk_free_bytes
    if free is None or free >= DISK_WARN_BYTES:
        return None
    level = "bad" if free < DISK_BAD_BYTES else "warn"
    return Finding(
        "disk",
        level,
        f"{free / 2**30:.1f} GiB free on the disk of {facts.state_dir}",
        "delete what is not needed; models are in `meshctl models`",
    )


def mdns_port(facts: Facts) -> Finding | None:
    """Somebody holds UDP 5353 for himself alone."""
    if facts.multicast is None or not facts.multicast.bind_error:
        return None
    holder = facts.multicast.holder or "another program"
    return Finding(
        "mdns-port",
        "bad" if facts.mdns_wanted else "warn",
        f"UDP port 5353 is held by {holder}: {facts.multicast.bind_error}",
        "stop it, or let it share the port; until then name peers with --peer",
    )


def mdns_blocked(facts: Facts) -> Finding | None:
    """Our own query does not even come back to us."""
    if not facts.mdns_wanted or facts.multicast is None or facts.multicast.heard_self is not False:
        return None
    return bad(
        "mdns-blocked",
        "multicast to 224.0.0.251 does not leave or does not come in: a "
        "firewall on this machine drops UDP 5353",
        "allow UDP 5353 in and out (ufw allow 5353/udp; firewall-cmd --add-service=mdns), "
        "or name peers with --peer",
    )


def no_multicast(facts: Facts) -> Finding | None:
    """We speak, and nobody is heard; and nobody was found."""
    heard = facts.multicast
    if heard is None or heard.heard_self is not True or heard.heard_others != 0:
        return None
    if facts.company or not facts.mdns_wanted:
        return None
    return Finding(
        "no-multicast",
        "warn",
        "no other machine on this network is heard over "
        "multicast: it is alone here, or the Wi-Fi keeps its clients apart",
        "not on a guest Wi-Fi? Else turn off client (AP) isolation in the router, or "
        "name a peer: --peer HOST:8788",
    )


def interface(facts: Facts) -> Finding | None:
    """It tells others addresses that none of them can reach."""
    hosts = facts.hosts
    if not facts.myself or (not facts.mdns_wanted and not hosts):
        return None
    useful = [host for host in hosts if _reachable(host)]
    if useful:
        return None
    told = ", ".join(hosts) or "no address"
    return Finding(
        "interface",
        "warn",
        f"this node tells others {told}, which they cannot reach",
        "choose the network with --interface (`ip link` lists them), and --mesh 0.0.0.0:8788, or "
        "--mesh '[::]:8788' where there is only IPv6",
    )


def ipv6_only(facts: Facts) -> Finding | None:
    """Fine among machines that all have IPv6."""
    hosts = facts.hosts
    if not hosts or any(":" not in host for host in hosts):
        return None
    return Finding(
        "ipv6-only",
        "warn",
        "this node has IPv6 addresses only; machines without IPv6 cannot reach it",
        "give this network IPv4, or have IPv6 everywhere",
    )


def wrong_key(facts: Facts) -> Finding | None:
    """Somebody knocks who does not know the mesh key."""
    if not facts.strangers:
        return None
    return Finding(
        "wrong-key",
        "warn",
        f"{facts.strangers} connections came with a key that is not of this "
        "mesh: a machine that is not paired yet, was revoked, or has another key file",
        "pair it: `meshctl pair` here, `meshctl join CODE` there",
    )


def cloned(facts: Facts) -> Finding | None:
    """Two machines with one identity, as the daemon itself has noticed."""
    texts = [notice["text"] for notice in facts.status.get("notices", ())]
    told = next((text for text in texts if "cop" in text and "state" in text), None)
    if told is None:
        return None
    return bad(
        "cloned-identity",
        told,
        "on the copy: stop meshd, remove its state directory, start it and pair it",
    )


def clock(facts: Facts) -> Finding | None:
    """Incarnations begin at the wall clock: one in the future is a clock that is ahead."""
    ahead = {
        peer["name"]: peer["incarnation"] / 1000 - facts.now_unix_s
        for peer in facts.peers
        if peer["incarnation"] / 1000 > facts.now_unix_s + CLOCK_AHEAD_S
    }
    if not ahead:
        return None
    told = ", ".join(f"{name} by {seconds:.0f} s" for name, seconds in ahead.items())
    return Finding(
        "clock",
        "warn",
        f"clocks are ahead of this one: {told}",
        "set the time by the network on all machines; the mesh itself does not need it, "
        "logs and certificates do",
    )


def versions(facts: Facts) -> Finding | None:
    """Mixed versions work, but only what all of them know."""
    seen: dict[str, list[str]] = {}
    for row in facts.members:
        if row["state"] == "alive" and row["capacity"]:
            seen.setdefault(row["capacity"]["software"], []).append(row["name"])
    if len(seen) < 2:
        return None
    told = "; ".join(f"{version}: {', '.join(names)}" for version, names in sorted(seen.items()))
    return Finding(
        "versions",
        "warn",
        f"nodes run different versions: {told}",
        "upgrade the older ones when it suits",
    )


def members(facts: Facts) -> Finding | None:
    """Somebody is lost or in doubt."""
    lost = [
        f"{row['name']} ({row['state']})"
        for row in facts.peers
        if row["state"] in {"suspect", "dead"}
    ]
    if not lost:
        return None
    return Finding(
        "members",
        "warn",
        f"not all members answer: {', '.join(lost)}",
        "`meshctl peers --wide` says since when and why; a machine that is gone for "
        "good is forgotten by itself",
    )


def engines(facts: Facts) -> Finding | None:
    """A node without models is fine in company, and useless alone."""
    if not facts.myself or facts.myself.get("models"):
        return None
    if any(peer["state"] == "alive" and peer["models"] for peer in facts.peers):
        return None
    return Finding(
        "engines",
        "warn",
        "no node of this mesh offers a model",
        "start Ollama, LM Studio or llama-server here, name a model with --engine, or "
        "put a GGUF file into a folder of --model-dir",
    )


def gpu(facts: Facts) -> Finding | None:
    """The system lists an accelerator that the daemon does not see."""
    capacity = facts.myself.get("capacity") or {}
    if not facts.gpus_present or not facts.myself or capacity.get("gpus"):
        return None
    return Finding(
        "gpu",
        "warn",
        f"this machine has {', '.join(facts.gpus_present)}, which meshd does not see",
        "install its driver, and let the account of the service use it (groups video and render)",
    )


def memory(facts: Facts) -> Finding | None:
    """Pressure before the first model."""
    pressure = (facts.myself.get("load") or {}).get("pressure", "normal")
    if pressure == "normal":
        return None
    level = "bad" if pressure == "critical" else "warn"
    return Finding(
        "memory",
        level,
        f"this machine is short of memory ({pressure}): less is sent here"
        if level == "warn"
        else "this machine is about to swap: it takes no work",
        "close programs, unload models (`meshctl models unload`), or raise --memory-reserve",
    )


def draining(facts: Facts) -> Finding | None:
    """Somebody forgot to resume."""
    if not (facts.myself.get("load") or {}).get("draining"):
        return None
    return Finding(
        "draining", "warn", "this node takes no work: it was told to drain", "`meshctl resume`"
    )


def python(facts: Facts) -> Finding | None:
    """A Python that was compiled without the usual optimisations."""
    gain = facts.python_gain
    if gain is None or gain < PYTHON_GAIN_MIN:
        return None
    what = f"/usr/bin/python3 runs code like meshd's {gain:.1f} times as fast as this Python"
    return Finding("python", "warn", what, "install meshd with that Python")


RULES: Sequence[Rule] = (
    daemon,
    disk,
    local_network,
    mdns_port,
    mdns_blocked,
    no_multicast,
    isolation,
    firewall,
    large_packets,
    interface,
    ipv6_only,
    wrong_key,
    cloned,
    clock,
    versions,
    members,
    engines,
    gpu,
    memory,
    draining,
    python,
)
"""In the order of repair."""


def _reachable(host: str) -> bool:
    """Whether another machine could reach this address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return not address.is_loopback and not any(
        address in network for network in CONTAINER_NETWORKS if network.version == address.version
    )
