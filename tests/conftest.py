"""Pins thread counts and keeps every test offline and away from the user's own workspace."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("NSD_WORKSPACE", "NSD_STORE", "NSD_SKY", "NSD_JOB", "NSD_USD_PER_HOUR"):
    os.environ.pop(_name, None)

# The suite starts hundreds of Pythons, and where byte code is not kept each compiles all of nsd and its packages anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# GNU readline, which pytest loads, writes the width of a terminal that is not there into the environment of processes.
for _name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
    os.unsetenv(_name)
    os.environ.pop(_name, None)

# An example that takes long is no fault: the machine may be busy. Tests with settings of their own name both again.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


# A job in the background of a shell ignores SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def word_problems_drawn_once() -> Iterator[None]:
    """The problems of a seed and a number are the same each time, and hundreds of tests plan a spec that has them."""
    from nsd.plugins.datasets import wordmath_problems

    draw, drawn = wordmath_problems.generate, dict[object, list[Any]]()

    @functools.wraps(draw)
    def generate(seed: int, count: int, mixes: Mapping[Any, float], exclude: Collection[str] = ()) -> list[Any]:
        asked = seed, count, tuple(mixes.items()), frozenset(exclude)
        if asked not in drawn:
            drawn[asked] = draw(seed, count, mixes, exclude)
        return list(drawn[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wordmath_problems, "generate", generate)
        yield


_modules = len(sys.modules)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Have the garbage collector leave out what many new modules have made.

    Every training asks for full collections (accelerate, to give memory back), and each goes over the million objects
    that live since torch, transformers and TRL were imported: half of a small training's time.
    """
    global _modules
    yield
    if len(sys.modules) > _modules + 200:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """For `-n N --dist loadfile`: a file's tests stay on one worker, and those that share a Slurm on one of two.

    So no worker makes a fixture again that another has made, but for the Slurm, of which there are two: all that is
    done with it mostly waits, and in one row it took longer than all other tests.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            shares = "tests/cluster/" in file and not file.endswith(("test_launch.py", "test_launch_bucket.py"))
            return "cluster" if shares else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest: the tests on the Slurm, which mostly wait, then files with slow tests.

    pytest-xdist hands files out in this order (with --no-loadscope-reorder).
    """
    rank: dict[Path, int] = {}
    for item in items:
        slow = item.get_closest_marker("slow") or item.get_closest_marker("browser")
        mine = 0 if "cluster" in item.path.parts else 1 if item.get_closest_marker("timeout") else 2 if slow else 3
        rank[item.path] = min(rank.get(item.path, mine), mine)
    items.sort(key=lambda item: rank[item.path])
