"""A run with a store: a machine that goes away takes nothing with it. The store is a shared folder here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from e2e.command_line import TINY_SPEC, finished_run, nsd, nsd_json, results, start
from support import PATIENCE, wait_until

pytestmark = pytest.mark.slow

# One arm: which stages there are is nothing to a machine that goes away.
LONG_SPEC = (
    TINY_SPEC.partition("conditions:")[0].replace("epochs: 2,", "epochs: 8,")
    + """\
conditions:
  baseline: {train_on: [labeled]}
"""
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where LONG_SPEC ran to its end without a store."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "long.yaml").write_text(LONG_SPEC)
    nsd(folder, "run", "long.yaml")
    return folder


def machine(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "long.yaml").write_text(LONG_SPEC)
    return folder


def checkpoints_sent(store: Path) -> list[int]:
    found = []
    for state in store.glob("partial/train-*/state.json"):
        names = json.loads(state.read_text())["files"]
        found += [int(name.split("/")[1].split("-")[1]) for name in names if name.startswith("checkpoints/")]
    return found


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_machine_goes_on_where_the_lost_one_was(undisturbed: Path, tmp_path: Path, stop: signal.Signals) -> None:
    store = tmp_path / "store"
    arguments = ("run", "long.yaml", "--store", f"file://{store}")
    first = machine(tmp_path, "first")
    os.environ["NSD_PUSH_SECONDS"] = "0.2"
    try:
        process = start(first, *arguments)
        wait_until(lambda: checkpoints_sent(store) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        if stop == signal.SIGKILL:
            os.killpg(process.pid, stop)
        else:
            process.send_signal(stop)
            time.sleep(0.3)
            process.send_signal(stop)  # Slurm says it twice; only a person's second Ctrl-C means "at once"
        process.communicate(timeout=PATIENCE)
        assert process.returncode == (75 if stop == signal.SIGTERM else -signal.SIGKILL)
        if stop == signal.SIGTERM:  # the worker came to save its state, and its time with it
            (begun,) = (first / "nsd-workspace" / "partial").glob("train-*/begun.json")
            assert json.loads(begun.read_text())["spent_seconds"] > 0
        shutil.rmtree(first)  # the machine is gone
        reached = max(checkpoints_sent(store))

        second = machine(tmp_path, "second")
        nsd(second, *arguments)
    finally:
        del os.environ["NSD_PUSH_SECONDS"]
    (manifest,) = (second / "nsd-workspace" / "artifacts").glob("train-*/manifest.json")
    assert json.loads(manifest.read_text())["training"]["notes"]["resumed_from"] == reached > 0
    assert results(second / "nsd-workspace") == results(undisturbed / "nsd-workspace")


def short_machine(folder: Path, name: str) -> Path:
    """One of several machines for TINY_SPEC."""
    (folder / name).mkdir()
    (folder / name / "tiny.yaml").write_text(TINY_SPEC)
    return folder / name


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in which the machine `first` left one stage of TINY_SPEC and `second` the other nine."""
    folder = tmp_path_factory.mktemp("apart")
    store = f"file://{folder / 'store'}"
    first, second = short_machine(folder, "first"), short_machine(folder, "second")
    stages = nsd_json(first, "plan", "tiny.yaml", "--json")["stages"]
    (shared,) = [one["digest"] for one in stages if one["kind"] == "train" and one["condition"] == "baseline"]
    assert "1 stages run" in nsd(first, "run", "tiny.yaml", "--store", store, "--stage", shared[:10])
    outcome = nsd_json(second, "run", "tiny.yaml", "--store", store, "--json")
    assert outcome["stages_cached"] == 1 and outcome["stages_run"] == 9
    return folder


def test_stages_can_be_run_apart(apart: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    undisturbed = finished_run(tmp_path_factory)
    assert results(apart / "second" / "nsd-workspace") == results(undisturbed / "nsd-workspace")


def test_a_further_machine_finds_everything_done(apart: Path) -> None:
    third = short_machine(apart, "third")
    outcome = nsd_json(third, "run", "tiny.yaml", "--store", f"file://{apart / 'store'}", "--json")
    assert outcome["stages_run"] == 0 and outcome["stages_cached"] == 10
    assert not list((third / "nsd-workspace").rglob("*.safetensors"))  # no weights travel that nothing needs
    assert nsd_json(third, "compare", "tiny.yaml", "-f", "json")["primary_family"] == 1


def test_an_unknown_stage_is_an_error(tmp_path: Path) -> None:
    process = start(machine(tmp_path, "first"), "run", "long.yaml", "--stage", "zzzz")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "--stage zzzz: no stage of tiny begins so; nsd plan lists them" in err
