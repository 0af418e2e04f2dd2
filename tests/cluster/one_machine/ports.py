"""Free ports of the loopback, from where the system takes none by itself.

A port from the system's own range may be another connection's before the daemon that it was chosen for has started.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

FROM = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(count: int) -> list[int]:
    """Different ports that nothing listens on. Raises RuntimeError where there are none."""
    below = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    found: list[int] = []
    for port in random.sample(range(FROM, below), below - FROM):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports between {FROM} and {below}")
