"""The SkyPilot side: a HOME of its own, and an API server of its own on the loopback.

    client = Client(home=Path("/tmp/cluster/client"), port=46581, python=Path(".venv-sky/bin/python"))
    client.prepare()
    client.start()
    client.sky("status")
    client.stop()

The real package, server, optimizer and provisioner, unchanged. Two things are set so that it works without a
network: the prices (see `prices`), and a server plugin that replaces the two public addresses which the job
controller asks, before each look at a job, whether the network is up. Two more keep the server small, for each of its
processes takes some three seconds of a processor to start: the plugin drops the daemons that look after volumes, pools
and tokens, which nobody here has, and the memory that the server counts on is MEMORY_GB, for SkyPilot fills what there
is with job controllers. Those lists are private names of SkyPilot, which is one reason why its version is pinned.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import prices, processes

STARTS, PAUSE = 3, 5.0  # seconds between them
MEMORY_GB = 8  # room for two job controllers; in 23 GB the server would start twelve

PLUGIN = '''"""Keeps the server small, and the job controller's question "is there a network?" to this machine alone."""

import os

from sky.server import plugins


class Offline(plugins.BasePlugin):
    def install(self, extension_context):
        from sky.backends import backend_utils
        from sky.server import daemons

        port = os.environ["SKYPILOT_API_SERVER_LOCAL_PORT"]
        backend_utils._TEST_IP_LIST = [f"http://127.0.0.1:{port}/api/health"]
        needed = [one for one in daemons.INTERNAL_REQUEST_DAEMONS if one.id == "skypilot-status-refresh-daemon"]
        assert needed
        daemons.INTERNAL_REQUEST_DAEMONS[:] = needed
'''

# Looking for the credentials of every cloud takes most of a minute offline, so only these are looked at.
SLURM_CONFIG = """\
allowed_clouds: [slurm]
jobs:
  controller:
    consolidation_mode: true
slurm:
  pricing:
    accelerators:
      H100: 2.5
  cluster_configs:
    local:
      tmpdir: {root}/tmp
"""

# At its start the server looks for credentials by itself and writes down that there are none: wait for that first.
# Without the list of allowed clouds beside it, the server takes the list of enabled ones for outdated, looks for
# credentials everywhere and finds none.
ENABLE = """\
import sys
import sky
from sky import check, clouds, global_user_state
from sky.clouds import cloud
try:
    sky.get("skypilot-server-on-boot-check")
except Exception:
    pass  # it failed: no cloud is enabled yet
named = [str(getattr(clouds, name)()) for name in sys.argv[1:]]
for capability in (cloud.CloudCapability.COMPUTE, cloud.CloudCapability.STORAGE):
    global_user_state.set_enabled_clouds(named, capability, "default")
global_user_state.set_allowed_clouds(check._get_workspace_allowed_clouds("default"), "default")
"""

# No job is started with these, so no controller of jobs is there.
NO_CLOUD_CONFIG = "allowed_clouds: [slurm, lambda]\n"
THREE_CLOUDS_CONFIG = "allowed_clouds: [aws, gcp, lambda]\n"


@dataclass(frozen=True)
class Client:
    """A HOME for SkyPilot. `port` is its API server's; `python` the interpreter that has SkyPilot; `root` the mark."""

    home: Path
    port: int
    python: Path
    root: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Complete environment for `sky`, its SDK, and anything that calls either."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKYPILOT_", "SKY_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.home / "plugins"),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(self.port),
            "SKYPILOT_POD_MEMORY_GB_LIMIT": str(MEMORY_GB),
            processes.MARK: str(self.root),
            **self.extra,
        }

    def prepare(self, config: str) -> None:
        """Write configuration, plugin and prices into HOME."""
        (self.home / ".sky").mkdir(parents=True, exist_ok=True)
        (self.home / "plugins").mkdir(exist_ok=True)
        (self.home / ".sky/config.yaml").write_text(config)
        (self.home / "plugins/nsd_offline.py").write_text(PLUGIN)
        (self.home / ".sky/plugins.yaml").write_text("plugins:\n  - class: nsd_offline.Offline\n")
        prices.write_catalogs(self.home)

    def run(self, *words: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a command in this client's environment; output and errors come together in `stdout`."""
        done = subprocess.run(
            words,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}")
        return done

    def sky(self, *words: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run `sky ...`."""
        return self.run(str(self.python.parent / "sky"), *words, check=check, timeout=timeout)

    def start(self) -> None:
        """Start the API server, or find it started. Raises RuntimeError with the end of its log.

        It ends at once where a connection has just taken the port of its queue: then it is started again.
        """
        for _ in range(STARTS):
            done = self.sky("api", "start", check=False)
            if not done.returncode:
                return
            time.sleep(PAUSE)
        log = self.home / ".sky/api_server/server.log"
        said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        raise RuntimeError(f"sky api start: exit {done.returncode}\n{done.stdout}\n{said}")

    def stop(self) -> None:
        """Stop the API server and whatever it left running."""
        self.sky("api", "stop", check=False)

    def clusters(self) -> list[str]:
        """Names of the clusters that SkyPilot knows, from its own table: asking `sky status` takes it seconds."""
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/.sky/state.db?mode=ro", uri=True)) as state:
            return [name for (name,) in state.execute("select name from clusters")]

    def enable(self, *clouds: str) -> None:
        """Mark clouds ("AWS", "GCP", "Lambda") as enabled, as a `sky check` with credentials would have."""
        self.run(str(self.python), "-c", ENABLE, *clouds)
