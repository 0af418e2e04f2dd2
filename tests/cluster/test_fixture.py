"""The fixtures themselves, with SkyPilot alone: what `nsd launch` is built on does work on this machine."""

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
from cluster.one_machine import slurm as slurm_module
from support import wait_until

RESOURCES = "{infra: slurm/local, accelerators: 'H100:1', cpus: 2+, memory: 2+}"


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


def write_task(folder: Path, run: str) -> str:
    """A task file on the Slurm with this `run`; returns its path."""
    path = folder / "task.yaml"
    path.write_text(f"resources: {RESOURCES}\nrun: |\n{textwrap.indent(textwrap.dedent(run), '  ')}")
    return str(path)


def test_a_task_runs_on_the_node_with_its_gpu_and_is_torn_down(slurm: Cluster, tmp_path: Path) -> None:
    task = write_task(tmp_path, 'echo "cuda=$CUDA_VISIBLE_DEVICES rank=$SKYPILOT_NODE_RANK user=$(id -un)"')
    printed = slurm.client.sky("launch", "-y", "-c", "hello", task).stdout
    assert f"cuda=0 rank=0 user={slurm.node.user}" in printed
    assert slurm.allocation_of("hello") is not None
    slurm.client.sky("down", "-y", "hello")
    wait_until(lambda: slurm.allocation_of("hello") is None)  # Slurm lists it until its last process has ended


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
