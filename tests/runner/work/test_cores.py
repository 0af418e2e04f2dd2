"""Threads and waits of workers: what is said to OpenMP, and the quotas of both versions of cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nsd.plugins.cores import cpu_quota
from nsd.runner.work import cores
from nsd.runner.work.cores import openmp_settings, physical_cores
from nsd.runner.work.jobs import worker_environment


def groups(root: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A process's membership and a tree of cgroups."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "membership").write_text(membership)
    return root / "membership", root / "cgroup"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        # The smallest of a group and those above it.
        ("0::/job/step", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2.0),
        ("0::/job/step", {"job/cpu.max": "400000 100000", "job/step/cpu.max": "50000 100000"}, 0.5),
        # A container sees its own group at the root while the path is still the host's.
        ("0::/docker/0123", {"cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/docker/0123", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "1", "cpu,cpuacct/a/cpu.cfs_period_us": "4"}, 0.25),
        # Version 1's cpuset is no quota, and a mixed system has both versions.
        ("3:cpuset:/\n0::/", {"cpuset/cpu.cfs_quota_us": "1", "unified/cpu.max": "100000 100000"}, 1.0),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/", {}, None),
    ],
)
def test_the_quota_is_the_smallest_on_the_way_up(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(*groups(tmp_path, membership, files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("cores_there", "quota", "threads"),
    [(8, None, None), (8, 2.0, "2"), (8, 1.5, "2"), (8, 0.2, "1"), (2, 8.0, None), (4, 4.0, None), (None, 2.0, None)],
)
def test_threads_follow_a_quota_that_is_less_than_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores_there: int | None, quota: float | None, threads: str | None
) -> None:
    monkeypatch.setattr(cores, "physical_cores", lambda: cores_there)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert openmp_settings({}, alone=True).get("OMP_NUM_THREADS") == threads
    assert "OMP_NUM_THREADS" not in openmp_settings({}, alone=False)


@pytest.mark.parametrize(("processes", "threads"), [(2, "4"), (3, "2"), (100, "1")])
def test_processes_that_draw_together_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, processes: int, threads: str
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 16)
    monkeypatch.setattr(cores, "physical_cores", lambda: 8)
    assert cores.threads_of_share({}, processes) == {"OMP_NUM_THREADS": threads}
    assert cores.threads_of_share({"MKL_NUM_THREADS": "7"}, processes) == {}


@pytest.mark.parametrize("name", cores.THREADS)
def test_threads_that_the_user_set_stay(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(cores, "physical_cores", lambda: 8)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 2.0)
    assert "OMP_NUM_THREADS" not in openmp_settings({name: "5"}, alone=True)


@pytest.mark.parametrize("name", cores.WAITS)
def test_waits_that_the_user_set_stay(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    assert {key: worker_environment()[key] for key in cores.WAITS if key in worker_environment()} == {name: "7"}


def test_two_threads_of_one_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processor, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        groups(tmp_path, "", {f"cpu{processor}/topology/thread_siblings_list": siblings})
    monkeypatch.setattr(cores, "PROCESSORS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})  # of 4 nothing is known: a core of its own
    assert physical_cores() == 3


@pytest.mark.slow
def test_torch_in_a_worker_keeps_to_one_core_and_waits_briefly() -> None:
    environment = {name: text for name, text in worker_environment(alone=True).items() if name not in cores.THREADS}
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import torch; print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert f"GOMP_SPINCOUNT = '{cores.SPINS}'" in done.stderr
