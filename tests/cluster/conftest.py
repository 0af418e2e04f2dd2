"""Fixtures for tests on real infrastructure without a cloud; every test in this folder is marked `cluster`.

    sky_home      a SkyPilot client with a HOME and an API server of its own, and no cloud enabled
    three_clouds  the same with AWS, GCP and Lambda enabled and invented prices: for dry runs
    slurm         a one-node Slurm, with the client that has it enabled
    bucket        an S3 service on the loopback; `bucket.create(name)` makes a bucket
    ready         an environment on the node that has nsd[train]
    tiny          what `nsd run` makes of TINY_SPEC on this machine

All live as long as there are tests of this folder to run, under a temporary folder, and end with them, also when the
session is killed. The servers of `sky_home` and `three_clouds` end with the tests of one file. With NSD_CLUSTER_ROOT
set to a folder, the Slurm stays there and up between sessions, which saves its start and keeps its package cache
warm; `python tests/cluster/one_machine down FOLDER` ends it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import environments
from cluster.one_machine import bucket as bucket_module
from cluster.one_machine import client as client_module
from cluster.one_machine import ports, processes
from cluster.one_machine import slurm as slurm_module
from e2e import command_line
from support import wait_until

FOLDER = Path(__file__).parent
PYTHON = FOLDER.parents[1] / ".venv-sky/bin/python"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and skip them where the machine cannot carry them."""
    reason = "" if PYTHON.exists() else "no .venv-sky (tests/cluster/make_environment.sh makes it)"
    reason = reason or slurm_module.missing()
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(3600))  # for what hangs: a busy machine takes many times as long
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Cluster:
    """The one-node Slurm and the SkyPilot client that has it as slurm/local."""

    node: slurm_module.Node
    client: client_module.Client

    def allocation_of(self, name: str) -> str | None:
        """Slurm's id of the running allocation whose SkyPilot cluster name starts with `name`, or None."""
        found = [identity for identity, job in slurm_module.allocations(self.node).items() if job.startswith(name)]
        return found[0] if found else None

    def preempt(self, name: str) -> None:
        """Take that allocation away, as a spot market does, and return when its last process has ended.

        Raises LookupError when there is none.
        """
        allocation = self.allocation_of(name)
        if allocation is None:
            raise LookupError(f"no allocation is named {name}*: {slurm_module.allocations(self.node)}")
        slurm_module.scancel(self.node, allocation)
        # A run in a session of its own may outlive the allocation by a moment, in which it saves and sends.
        wait_until(lambda: allocation not in slurm_module.allocations(self.node) and not self._runs())

    def _runs(self) -> bool:
        """Whether a run of nsd is on the node."""
        user = slurm_module.user_id(self.node.root)
        for pid in [one.pid for one in processes.all_processes().values() if one.user == user]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"/nsd\0run\0" in words or b"nsd.runner.work.worker" in words:
                    return True
        return False


@pytest.fixture(scope="package")
def session_root() -> Iterator[Path]:
    """A folder that other accounts may enter (pytest's own temporary folders are closed to them)."""
    root = Path(tempfile.mkdtemp(prefix="nsd-cluster-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def _client(root: Path, *clouds: str) -> Iterator[client_module.Client]:
    root.mkdir()
    (root / "home").mkdir()
    client = client_module.Client(root / "home", ports.for_api_server(), PYTHON, root)
    (root / "ports.json").write_text("{}")  # what the watch looks at to know that there is something to end
    processes.start_watch(root, os.getpid())
    client.prepare(client_module.THREE_CLOUDS_CONFIG if clouds else client_module.NO_CLOUD_CONFIG)
    try:
        client.start()
        if clouds:
            client.enable(*clouds)
        yield client
        client.stop()
    finally:
        slurm_module.down(root)


@pytest.fixture(scope="module")
def sky_home(session_root: Path) -> Iterator[client_module.Client]:
    """A client whose server has no cloud enabled."""
    yield from _client(session_root / "no-cloud")


@pytest.fixture(scope="module")
def three_clouds(session_root: Path) -> Iterator[client_module.Client]:
    """A client with three clouds enabled. Launching for real would fail: there are no credentials."""
    yield from _client(session_root / "three-clouds", "AWS", "GCP", "Lambda")


@pytest.fixture(scope="package")
def slurm(session_root: Path) -> Iterator[Cluster]:
    """The Slurm, and its client with the API server started."""
    kept = os.environ.get("NSD_CLUSTER_ROOT")
    root = Path(kept) if kept else session_root / "slurm"
    try:
        node = slurm_module.up(root, PYTHON.parent / "uv", None if kept else os.getpid())
        client = client_module.Client(node.client_home, node.ports.api_server, PYTHON, node.root)
        client.prepare(client_module.SLURM_CONFIG.format(root=node.root))
        client.start()
        client.sky("check", "slurm")
        yield Cluster(node, client)
    finally:
        if not kept:
            slurm_module.down(root)


@pytest.fixture(scope="package")
def bucket(session_root: Path) -> Iterator[bucket_module.Service]:
    """The S3 service."""
    service = bucket_module.start(PYTHON, session_root)
    yield service
    service.stop()


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of TINY_SPEC run on this machine, beside its spec.yaml."""
    folder = shutil.copytree(command_line.finished_run(tmp_path_factory), tmp_path_factory.mktemp("here") / "tiny")
    (folder / "tiny.yaml").rename(folder / "spec.yaml")
    return folder / "nsd-workspace"


@pytest.fixture(scope="package")
def ready(slurm: Cluster) -> Path:
    """A folder on the node for `--environment`."""
    return environments.make(slurm.node.shared / "environment", slurm.node.user, PYTHON.parent / "uv")
