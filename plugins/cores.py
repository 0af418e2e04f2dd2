"""How many processors a process may really use: those of its affinity mask, at most the quota of its cgroups.

Containers and Slurm set the quota; `os.cpu_count` and torch do not know it.
"""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """How many processes may compute side by side: processors of the affinity mask, at most the cgroup's quota."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return mask if quota is None else max(1, min(mask, round(quota)))


def cpu_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float | None:
    """Processor seconds a second that cgroups allow this process (1.5: one and a half cores); None without a limit.

    `membership` has lines `ID:CONTROLLERS:PATH`. The smallest quota from a group up to the root counts. Version 2 has
    it in `cpu.max` ("QUOTA PERIOD" or "max PERIOD"), version 1 in `cpu.cfs_quota_us` (-1: none) and
    `cpu.cfs_period_us`. In a container the path may be the host's, and the group lies at the root.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "cpu", root / controllers]
        else:
            continue
        inside = Path(path.lstrip("/"))
        groups = [mount / group for mount in mounts for group in (inside, *inside.parents)]
        found += [quota for group in groups if (quota := _quota_of(group)) is not None]
    return min(found, default=None)


def _quota_of(group: Path) -> float | None:
    """The quota of one cgroup, of either version."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
