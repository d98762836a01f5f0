"""What OpenMP must know before llama.cpp brings it into a worker: how its threads wait, and where.

The threads of a pass meet at a barrier after each step of the model, hundreds of times for a token.
One that is there first looks for the others a number of times, then sleeps; waking costs more than
most steps. On a quiet machine looking is right. Beside another program that wants a core it is
ruinous when Linux puts two threads of a pass onto one core: the one that looks keeps the other from
coming. So each thread gets a core of its own where the model uses all of them, and only the one
whose core is shared is slower.

Tokens/s of a 135M model on two cores, by looks and binding (medians of two to six; the machine's
own speed changes by a tenth from minute to minute):

| | quiet, 1 stream | quiet, 2 | beside a busy program | beside two | two models, each |
| --- | --- | --- | --- | --- | --- |
| 1,000, free | 96-106 | 98 | 27 | 27 | 28 |
| 1,000, bound | 99-108 | 107-116 | 37-43 | 49 | 50 |
| 3,000, bound | 90-103 | 114-122 | 38-42 | 47 | 48-55 |
| 30,000, bound | 92-97 | 115-118 | 37-40 | 43 | 48 |
| 100,000, bound | 100 | 118 | 39 | 34 | 34 |
| llama.cpp's own, which never sleep | 100-108 | 105 | below 1 | below 1 | not tried |

Threads are left free when the owner wants another number than there are cores, for two such models
could meet on the same ones; and when layers go to graphics cards, whose drivers start threads that
would inherit the one core of the thread that loads them. All of this was measured on x86; an ARM
core looks faster and does not rest between two looks.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from meshd.engine.cards import installed_backends

PLACING = frozenset({"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"})
"""Variables that say where threads go: an owner who sets one decides that alone."""

SPINS_BOUND = 30_000
"""Looks of a thread with a core of its own: a few hundred microseconds, so that it is awake for the
next pass too, which comes when the tokens of this one are chosen."""

SPINS_FREE = 1_000
"""Of one that may share a core with those it waits for: ten microseconds, what the others usually
take to come."""

V2_PATH = r"^0::/(.*)$"
V1_PATH = r"^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:/(.*)$"
"""Of the CPU controller, in /proc/self/cgroup."""

V1_FILES = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
NO_QUOTA = frozenset({"max", "-1"})


def settings(*, bound: bool) -> dict[str, str]:
    """OpenMP's variables; the first is GNU's, with which llama.cpp is compiled on Linux."""
    if not bound:
        return {"GOMP_SPINCOUNT": str(SPINS_FREE)}
    return {
        "GOMP_SPINCOUNT": str(SPINS_BOUND),
        "OMP_PROC_BIND": "true",
        "OMP_PLACES": "cores",
    }


def prepare(threads: int, layers: int) -> int:
    """Set this process up for a model, before llama.cpp is loaded; the owner's own settings win.

    `threads` 0 means all cores, or as many as a container has time for; `layers` go to cards, where
    there are any. Returns the threads to use. Afterwards the calling thread may be bound to
    the first core.
    """
    cores = physical_cores()
    threads = threads or math.ceil(min(cores, quota_cores()))
    on_cards = layers != 0 and bool(installed_backends())
    bound = threads == cores and not on_cards and not os.environ.keys() & PLACING
    for name, value in settings(bound=bound).items():
        os.environ.setdefault(name, value)
    return threads


def quota_cores(root: Path = Path("/")) -> float:
    """Cores' worth of time that this process may use in all (`docker run --cpus`, CPUQuota=): with
    more threads than that all of them are halted for most of each tenth of a second. Of cgroup v2,
    or of v1, which a NAS may still have."""
    text, top = _text(root / "proc/self/cgroup"), root / "sys/fs/cgroup"
    found = [_text(each / "cpu.max") for each in _groups(text, V2_PATH, top)]
    found += [
        " ".join([_text(each / name) for name in V1_FILES])
        for each in _groups(text, V1_PATH, top / "cpu")
    ]
    told = [words for each in found if len(words := each.split()) == 2]
    quotas = [int(quota) / int(period) for quota, period in told if quota not in NO_QUOTA]
    return min(quotas, default=math.inf)


def _groups(text: str, path: str, top: Path) -> tuple[Path, ...]:
    """The folder of this process's group below `top`, and those above it."""
    own = re.search(path, text, re.MULTILINE)
    group = top / (own[1] if own else "")
    return group, *group.parents


def _text(file: Path) -> str:
    """Empty where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""


def physical_cores() -> int:
    """Cores this thread may use, hyperthreads counted once where the system says which are."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores) or os.cpu_count() or 1
