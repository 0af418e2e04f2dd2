"""How many cores a process may really use, and what that says to the OpenMP of its workers.

OpenMP's threads meet thousands of times a second. The one that comes first waits in a loop for the others. On a quiet
machine that is quick. Beside other work the loop burns the time in which the others could run, so it is bounded here.
Waiting changes no result.

Torch itself takes one thread for each physical core of its affinity mask. It does not know the quota of a cgroup, as
containers and Slurm set it: that is added here.

Limits: the bound is that of GNU's OpenMP, which PyPI's torch for Linux brings; another OpenMP keeps its own. Where
affinity cannot be read, as on macOS, nothing is said about threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nsd.plugins.cores import cpu_quota, usable_cores

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINS = 1000  # rounds of the loop before a thread sleeps, some microseconds; GNU's own number is 300 000
PROCESSORS = Path("/sys/devices/system/cpu")


def openmp_settings(environment: Mapping[str, str], alone: bool) -> dict[str, str]:
    """Variables to add to a worker's environment. What the user has set stays as it is.

    `alone` says that no other process shares the work. Otherwise whoever starts the processes sets their threads.
    """
    settings = {} if any(name in environment for name in WAITS) else {"GOMP_SPINCOUNT": str(SPINS)}
    if alone and not any(name in environment for name in THREADS):
        cores, quota = physical_cores(), cpu_quota()
        if cores and quota is not None and max(1, round(quota)) < cores:
            settings["OMP_NUM_THREADS"] = str(max(1, round(quota)))
    return settings


def threads_of_share(environment: Mapping[str, str], processes: int) -> dict[str, str]:
    """Variables for each of several processes that share the cores. What the user has set stays as it is."""
    if any(name in environment for name in THREADS):
        return {}
    cores = min(usable_cores(), physical_cores() or usable_cores())
    return {"OMP_NUM_THREADS": str(max(1, cores // processes))}


def physical_cores() -> int | None:
    """Physical cores of this process's affinity mask; None where the system has no such mask."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return len({_siblings(processor) for processor in os.sched_getaffinity(0)})


def _siblings(processor: int) -> str:
    """The processors of one physical core, as the kernel lists them; without a list, this one alone."""
    try:
        return (PROCESSORS / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(processor)
