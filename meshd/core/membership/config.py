"""Every interval and limit of membership, with its unit and its reason.

The values are for a LAN with round trips of a millisecond and daemons written in Python, which now
and then lose a few tens of milliseconds to their own machine. Detection of a silent host takes
about `time to the first probe + one failed probe + suspicion floor`: with 10 nodes 0.2 + 0.2 +
0.6 s. Each term has its own knob below; none is hidden in the code.
"""

from __future__ import annotations

from protocol import limits
from protocol.frozen import frozen


@frozen
class MembershipConfig:
    """Intervals in seconds, limits in pieces. Tests and simulations may pass others."""

    # Probing

    probe_interval_s: float = 0.25
    """SWIM's period: between two probes of somebody who is in doubt, and what timeouts are made
    of."""

    turn_interval_s: float = 0.4
    """Between two probes of somebody who is not. Each peer is then probed every 0.4 s by somebody,
    whatever the size of the mesh: that is SWIM's point. Longer than the period, because these turns
    are most of what a quiet mesh sends; a silent host is noticed 0.08 s later for it on average,
    and a process that dies no later."""

    ack_timeout_s: float = 0.12
    """How long a direct probe waits while nothing is known of the round trips here."""

    ack_timeout_min_s: float = 0.05
    """The same on a fast network: 50 round trips of a LAN, and ten slices of a busy Python."""

    ack_timeout_max_s: float = 0.5
    """The same on a slow one: a Wi-Fi card that saves power answers within 0.3 s."""

    ack_timeout_mult: float = 2.0
    """Times the 95th percentile of measured round trips: helpers are asked then, which costs little
    and accuses nobody."""

    indirect_probes: int = 3
    """Helpers asked when a direct probe stays unanswered (SWIM's k)."""

    indirect_timeout_s: float = 0.1
    """How long the helpers have. With the direct wait it stays below one probe interval."""

    nack_after_s: float = 0.05
    """A helper that heard nothing says so this early, to be back within `indirect_timeout_s`."""

    late_ack_s: float = 2.0
    """A probe is remembered this long after it failed: a late answer still proves life."""

    errands_max: int = 256
    """Probes run for others at once; above that, a request goes unanswered."""

    verifiers: int = 10
    """How many nodes, on average, check an accusation by probing at once: enough independent
    accusers for the confirmations, however large the mesh, and no storm."""

    # Suspicion

    suspicion_mult: float = 2.4
    """Floor of the suspicion timeout: mult x max(1, log10 N) x probe_interval_s. The accused has
    this long to hear of it and to answer: 0.6 s is 600 round trips."""

    suspicion_max_mult: float = 6.0
    """A suspicion that nobody confirms waits this many times the floor (Lifeguard)."""

    suspicion_confirmations: int = 2
    """Independent confirmations that bring the timeout down to its floor."""

    small_mesh_max: int = 3
    """Up to this size nobody, or one node, can confirm: the floor is doubled, and the accuser's
    own repeated probes count for the confirmations that nobody else can give."""

    health_max: int = 8
    """Worst local health; own intervals and timeouts are stretched up to 9 times (Lifeguard)."""

    # Gossip and repair

    gossip_interval_s: float = 0.2
    """Between rounds while all there is to tell has been told a few times."""

    gossip_soon_s: float = 0.02
    """Between rounds while there is news: a burst of changes shares one frame."""

    gossip_fanout: int = 3
    """Peers per round."""

    retransmit_mult: int = 4
    """Each rumour is passed on mult x ceil(log10(N + 1)) times; at 4 all but one node in e**8 have
    heard it by gossip alone, and pull repair finds the last."""

    rumour_s: float = 2.0
    """How long a rumour goes round: eight rounds of gossip in a mesh of ten, with room. An
    accusation that was refuted here is not listened to again for as long."""

    piggyback_max: int = 4
    """Rumours on one probe frame, which should stay in one TCP segment."""

    straight_peers: int = 50
    """Up to this many peers get a node's own news and heartbeats straight. The design point."""

    pull_interval_s: float = 10.0
    """Between two repairs with a random peer, at up to 32 nodes; grows with log2 N above."""

    pull_answer_s: float = 1.0
    """A digest from one peer is answered with a digest at most this often, so that two nodes that
    differ cannot keep each other busy."""

    # Heartbeats

    beat_look_s: float = 1.0
    """How often there is a look at who is due for a heartbeat; in a mesh larger than
    `straight_peers` the next ones are told with each look."""

    beat_interval_s: float = 5.0
    """At least this often each peer is told which load record holds. News goes out at once, and
    probes prove life: this only repairs what was lost on the way. Probes and their answers say it
    in passing, in a mesh of up to ten often enough for all."""

    fresh_s: float = 3.0
    """A record this young is not made younger: every age that changes wakes whoever watches."""

    load_interval_s: float = 0.25
    """Load that changed is sent at most this often."""

    load_change_ratio: float = 0.1
    """A smaller change waits for `load_refresh_s`: routing does not turn on a tenth."""

    load_refresh_s: float = 60.0
    """Load that changed by less is sent after this time all the same."""

    ask_interval_s: float = 0.5
    """A peer is asked for what it has not told (its load, its capacity, who it is), and told what
    is said of it, at most this often."""

    # Connections

    connect_timeout_s: float = 2.0
    """An attempt without any outcome is given up: one repeated SYN and a handshake fit."""

    hello_interval_s: float = 0.5
    """A link that is up but has not said who it is gets another Hello."""

    hello_tries: int = 4
    """Then it is hung up and dialled again later."""

    redial_first_s: float = 0.25
    redial_max_s: float = 2.0
    """Waits between attempts double from the first to the last: a split heals in two waits."""

    redial_patience_s: float = 600.0
    redial_idle_s: float = 15.0
    """After so long without an answer, attempts come only this often: four knocks a minute."""

    redial_jitter_ratio: float = 0.2
    """A mesh that lost its switch must not knock in step."""

    steady_link_s: float = 1.0
    """A link that lasted this long and ends is dialled again at once."""

    proof_window_s: float = 2.0
    """A refusal this soon after an end proves that the process is gone."""

    proof_margin_s: float = 0.05
    """Frames that were under way when the connection ended may be read this much after it; a
    process that is heard later than that is not gone, whatever its port says."""

    candidates_max: int = 256
    """mDNS finds waiting for a dial. Multicast is unauthenticated: anybody can invent nodes."""

    candidate_interval_s: float = 0.2
    """Between two dials of mDNS finds: five a second."""

    candidate_tries: int = 3
    """Then a find is forgotten; a real node's next advert brings it back."""

    typed_max: int = 64
    """Typed and remembered peers, each retried for ever."""

    member_dial_interval_s: float = 0.01
    """Between two dials of members: a hundred a second, so that a mesh of 50 meshes in half one."""

    remembered_max: int = 64
    """Links worth keeping on disk."""

    strangers_max: int = 256
    """Senders unknown to the table that are remembered for having been asked who they are."""

    # The table

    members_max: int = limits.MEMBERS_MAX
    """Rows, this node included."""

    tombstone_s: float = 3_600.0
    """How long the dead and the left stay listed. Long enough to be seen by whoever comes home in
    the evening; a forgotten node that returns is simply new."""

    # Doubting oneself

    late_s: float = 0.1
    """Being this late for an own deadline means that this process was kept from running: timers
    that judge others are put back by as much, and local health gets worse."""

    pause_s: float = 1.5
    """Being this late means it was stopped: all ages are worthless, as after a sleep."""

    wake_grace_s: float = 1.0
    """Nobody is suspected this soon after waking: one probe of everybody, and its answers."""

    uplink_suspects_min: int = 3
    """Fewer suspects than this never mean that our own network is down."""

    uplink_seen_s: float = 3.0
    """How long a doubt in our own uplink holds back verdicts while some peer is heard."""

    uplink_deaf_s: float = 1.5
    """So long without a word from anybody, nobody is heard: our own probes are answered every
    0.4 s, and a lost frame is sent again within half a second."""

    uplink_blind_s: float = 30.0
    """The same while nobody at all is heard."""

    clone_quarantine_s: float = 60.0
    """After a cloned identity was seen, its other process is not listened to for this long."""
