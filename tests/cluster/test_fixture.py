"""The fixtures themselves. That a task of SkyPilot alone runs with its GPU is shown in test_launch.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cluster.conftest import PYTHON, Cluster
from cluster.one_machine import bucket as bucket_module
from cluster.one_machine import ports
from cluster.one_machine import slurm as slurm_module
from support import wait_until


def mentioning(text: str) -> list[str]:
    """Command lines of the live processes that name `text`: a look at /proc that knows nothing of the fixture."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line:
                found.append(line)
    return found


def answers(port: int) -> bool:
    """Whether something listens on this loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_queue_of_an_api_server_is_where_skypilot_has_it() -> None:
    port = ports.for_api_server()
    script = "from sky.server.requests.queues import mp_queue; print(mp_queue.get_queue_manager_port())"
    environment = {**os.environ, "SKYPILOT_API_SERVER_LOCAL_PORT": str(port)}
    done = subprocess.run([PYTHON, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1:] == [str(ports.queue_of(port))]


def test_a_bucket_keeps_what_another_process_wrote(bucket: bucket_module.Service) -> None:
    bucket.create("results")
    script = """
        from pyarrow.fs import FileSystem
        filesystem, path = FileSystem.from_uri("s3://results/stage/manifest.json")
        with filesystem.open_output_stream(path) as file:
            file.write(b'{"rows": 3}')
    """
    environment = {**os.environ, **bucket.environment}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=True)
    with bucket.filesystem().open_input_stream("results/stage/manifest.json") as file:
        assert json.loads(file.read()) == {"rows": 3}


def test_a_killed_session_leaves_no_process_and_no_account(
    tmp_path_factory: pytest.TempPathFactory, slurm: Cluster
) -> None:
    # The owner is killed outright, so that no cleanup of its own can run.
    root = slurm.node.root.parent / f"second-{os.getpid()}"
    owner = subprocess.Popen(["sleep", "600"])
    try:
        node = slurm_module.up(root, PYTHON.parent / "uv", owner.pid)
        assert slurm_module.is_up(node)
        assert any("sshd" in line for line in mentioning(str(root)))
        assert [answers(port) for port in (node.ports.controller, node.ports.node, node.ports.ssh)] == [True] * 3
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_until(lambda: not (root / "ports.json").exists() and slurm_module.user_id(root) is None)
        wait_until(lambda: not mentioning(str(root)))  # the watch itself ends last
        assert [port for port in vars(node.ports).values() if answers(port)] == []
        assert slurm_module.is_up(slurm.node), "the other cluster went down too"
    finally:
        owner.kill()
        owner.wait()
        slurm_module.down(root)


def test_up_again_finds_the_same_cluster(slurm: Cluster) -> None:
    def daemons() -> list[str]:
        return [(slurm.node.root / f"run/{name}.pid").read_text() for name in ("slurmctld", "slurmd", "sshd")]

    before = daemons()
    assert slurm_module.up(slurm.node.root, PYTHON.parent / "uv") == slurm.node
    assert daemons() == before
