"""Pins thread counts and keeps every test offline and away from the user's own workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("NSD_WORKSPACE", "NSD_STORE", "NSD_SKY", "NSD_JOB", "NSD_USD_PER_HOUR"):
    os.environ.pop(_name, None)

# An example that takes long is no fault: the machine may be busy. Tests with settings of their own name both again.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

SERVICES = ("slurm", "three_clouds", "sky_home", "bucket")  # fixtures of tests/cluster, each alive for the whole run


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what has to stay on one worker of pytest-xdist, and put first what takes longest.

    The tests on the Slurm, which mostly wait, are one group, and so are those on each other service of tests/cluster.
    Tests that share a fixture are one group a file, so that no worker makes it again; so are quick tests. Each slow
    test that shares nothing goes where there is room.
    """
    group_of = {item: _group(item) for item in items}
    rank: dict[str, int] = {}
    for item, group in group_of.items():
        if group != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(group))
        rank[group] = min(rank.get(group, 9), _rank(item))
    items.sort(key=lambda item: rank[group_of[item]])


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(Path(__file__).parent)
    if path.parts[0] == "cluster":
        return next((name for name in SERVICES if name in item.fixturenames), path.as_posix())  # type: ignore[attr-defined]
    alone = item.get_closest_marker("slow") and not _shared_fixtures(item)
    return item.nodeid if alone else path.as_posix()


def _shared_fixtures(item: pytest.Item) -> bool:
    """Whether the test uses a fixture of ours that others use as well."""
    known = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return any(found[-1].scope != "function" and found[-1].baseid for found in known.values())


def _rank(item: pytest.Item) -> int:
    marks = {mark.name for mark in item.iter_markers()}
    if "cluster" in item.path.parts:
        return 0 if SERVICES[0] in item.fixturenames else 2  # type: ignore[attr-defined]
    if "slow" in marks:
        return 1 if "timeout" in marks or _shared_fixtures(item) else 2
    return 3 if "browser" in marks else 4
