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
    found = []
    for port in _candidates():
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports from {FROM} on")


def for_api_server() -> int:
    """A free port for SkyPilot's API server, whose queue has another one: it must be free too. Raises as `free`."""
    for port in _candidates():
        if _is_free(port) and _is_free(queue_of(port)):
            return port
    raise RuntimeError(f"no free port from {FROM} on whose queue's port is free")


def queue_of(port: int) -> int:
    """Where the API server at a port has its queue of requests (SkyPilot 0.14.1, get_queue_manager_port).

    It lies where the system takes ports for any connection, and a server that finds it taken ends at once.
    """
    return 50_000 + (11 + port - 46_580) % 10_000


def _candidates() -> list[int]:
    below = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    return random.sample(range(FROM, below), below - FROM)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
