"""Every bound of the wire, with its unit and its reason.

Two kinds of bound live here. Frame bounds protect the receiver's memory before anything is parsed
(they are also handed to ZeroMQ as MAXMSGSIZE, so an oversize frame never reaches Python). Field
bounds protect the tables that a decoded record ends up in: a member table of MEMBERS_MAX rows, each
with at most ENDPOINTS_MAX addresses, cannot be grown past a few megabytes by any sender.

Raising a bound is compatible (old nodes refuse the larger value and count it); lowering one is not.
"""

PROTOCOL_VERSION = 1
"""Envelope version. Within one version, ids and fields are only ever appended."""

MAGIC = b"MSHD"
"""First bytes of every frame: garbage is told from a message before a parser sees it."""

# Frames

CONTROL_FRAME_MAX_BYTES = 64 * 1024
"""One control frame. A heartbeat with 64 models is below 12 KiB; four times that is slack."""

RELAY_FRAME_MAX_BYTES = 1024 * 1024
"""One relay frame. Larger frames would hold up other people's tokens on the same connection."""

RELAY_CHUNK_BYTES = 256 * 1024
"""Request body per relay frame: 64 chunks carry the largest body, each 0.2 ms on gigabit plus."""

JOB_MAX_BYTES = 16 * 1024 * 1024
"""One encoded job, and one HTTP body: about four million tokens of text, or a few photographs."""

CONTROL_LIST_MAX = 1_024
"""Elements of one list in a control frame: MEMBERS_MAX, the longest that any message has.

A list's length is declared before its elements come, and msgpack allocates 8 bytes for each at
once. A tower of 1,000 nested lists (msgpack's own depth limit is 1,024) that all declare the most
costs the receiver 8 KiB x 1,000 = 8 MiB for a moment, about 7 ms, and never more."""

RELAY_LIST_MAX = 16_384
"""Elements of one list in a relay frame, a job, or a free-form value: two embedding inputs of 8,192
token ids. The same tower costs 128 MiB for a moment, about 65 ms; members alone can send one."""

NESTING_MAX_DEPTH = 64
"""Depth of a free-form value. Tool schemas reach about 12; a parser's stack ends near 1,000."""

# Identifiers and text

NODE_ID_BYTES = 16
"""A node id is the first 16 bytes of SHA-256 over its public key: 2**64 work to find a twin."""

PUBLIC_KEY_BYTES = 32
"""A Curve25519 public key."""

NAME_MAX_CHARS = 63
"""A node's display name: one DNS label."""

MESH_LABEL_MAX_CHARS = 32
"""The mesh label is 16 hexadecimal characters today; twice that leaves room for another hash.
ASCII, because mDNS carries it too."""

REQUEST_ID_MAX_CHARS = 96
"""A request id as clients and proxies send them (a UUID with a prefix is about 45)."""

TEXT_MAX_CHARS = 256
"""Chip names, model ids, reasons: one line on a screen."""

DETAIL_MAX_CHARS = 2_000
"""An error's message, long enough for the arithmetic of a refused load."""

HOST_MAX_CHARS = 255
"""A host as a person types it: a DNS name, or an address. Never crosses the wire."""

ADDRESS_MAX_CHARS = 64
"""An advertised address: 45 characters of IPv6, `%` and an interface name of up to 15; ASCII. Kept
short because every member hands on what one says of itself: see UPDATES_MAX."""

# Tables

MEMBERS_MAX = 1_024
"""Rows of a member table. The design point is 50; simulations go to 1,000."""

ENDPOINTS_MAX = 8
"""Addresses one node advertises: two interfaces, two families, and as much again."""

UPDATES_MAX = 32
"""Gossip records in one frame: 32 x about 130 bytes. Even 32 of the largest that a peer could say
(940 bytes each) fill half a frame, so no member can make another's frames too large to send."""

DIGEST_ENTRIES_MAX = MEMBERS_MAX
"""Rows of a repair digest: one per member, about 30 bytes each."""

MODELS_MAX = 64
"""Models one node may announce. A larger catalogue announces its warm and newest ones."""

ALIASES_MAX = 16
"""Other names of one model."""

CAPABILITIES_MAX = 16
"""Capability words of one model: chat, completion, embedding, tools, vision, audio ..."""

GPUS_MAX = 16
"""Accelerators in one machine."""

ENGINES_MAX = 16
"""Engines in one daemon."""

PREFIX_DIGEST_MAX_BYTES = 256
"""Bloom filter of cached prompt prefixes: 2,048 bits hold 200 prefixes at 1 % false positives."""

PEOPLE_MAX = 64
"""People of whom one load record speaks, those served most: three times the largest household this
is made for, and below 2 KiB."""

PERSON_BYTES = 8
"""A person is the first 8 bytes of a keyed hash: no two of 64 people meet, and no key is learnt."""

# Jobs

MESSAGES_MAX = 4_096
"""Turns of one conversation."""

STOP_SEQUENCES_MAX = 16
"""OpenAI allows 4, llama.cpp any number; each one is searched for in every piece of text."""

LOGIT_BIAS_MAX = 1_024
"""Entries of a logit bias map."""

EVENTS_MAX = 512
"""Events in one relay frame; a sender splits a longer batch."""

VECTOR_MAX_BYTES = 256 * 1024
"""One embedding: 65,536 dimensions of 32 bits, eight times the widest model in use."""

TOKEN_IDS_MAX = 1_048_576
"""Token ids in one prompt: one million, the longest context announced by anybody; 4 MiB."""

RELAY_CREDIT_FRAMES = 32
"""Event frames a peer may send before it is granted more: bounds the receiver's memory at
32 x RELAY_FRAME_MAX_BYTES and, at one frame per decode step, covers 0.3 s at 100 tokens/s."""
