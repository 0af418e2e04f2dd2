"""A run with a store: a machine that goes away takes nothing with it. The store is a shared folder here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e.command_line import TINY_SPEC, asked_json, finished_run, nsd, nsd_json, results, start
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


class Stopped(NamedTuple):
    code: int
    spent: float  # seconds, as the machine had written them down with its training
    reached: int  # the newest checkpoint in the store


def stopped(folder: Path, store: Path, stop: signal.Signals) -> Stopped:
    """A machine runs until a checkpoint of its own is in the store, is stopped, and is gone with all it had."""
    before = max(checkpoints_sent(store), default=0)
    process = start(folder, "run", "long.yaml", "--store", f"file://{store}")
    wait_until(lambda: max(checkpoints_sent(store), default=0) > before or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    if stop == signal.SIGKILL:
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
        time.sleep(0.3)
        process.send_signal(stop)  # Slurm says it twice; only a person's second Ctrl-C means "at once"
    process.communicate(timeout=PATIENCE)
    (begun,) = (folder / "nsd-workspace" / "partial").glob("train-*/begun.json")
    spent = json.loads(begun.read_text()).get("spent_seconds", 0)
    shutil.rmtree(folder)
    return Stopped(process.returncode, spent, max(checkpoints_sent(store)))


class Lost(NamedTuple):
    told: Stopped
    killed: Stopped
    last: Path  # the folder of the machine that came to the end


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """LONG_SPEC on three machines, one after the other: the first is told to stop, the second is killed."""
    folder = tmp_path_factory.mktemp("lost")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSD_PUSH_SECONDS", "0.2")
        told = stopped(machine(folder, "first"), folder / "store", signal.SIGTERM)
        killed = stopped(machine(folder, "second"), folder / "store", signal.SIGKILL)
        last = machine(folder, "third")
        nsd(last, "run", "long.yaml", "--store", f"file://{folder / 'store'}")
    return Lost(told, killed, last)


def test_a_machine_that_is_told_to_stop_saves_its_state_and_its_time_with_it(lost: Lost) -> None:
    assert lost.told.code == 75
    assert lost.told.spent > 0


def test_a_new_machine_goes_on_where_the_lost_one_was(lost: Lost) -> None:
    assert lost.killed.code == -signal.SIGKILL
    assert lost.killed.reached > lost.told.reached > 0, "the second went on after the first"
    (manifest,) = (lost.last / "nsd-workspace" / "artifacts").glob("train-*/manifest.json")
    assert json.loads(manifest.read_text())["training"]["notes"]["resumed_from"] == lost.killed.reached


def test_the_results_of_many_machines_are_those_of_one(lost: Lost, tmp_path: Path) -> None:
    undisturbed = machine(tmp_path, "undisturbed")
    nsd(undisturbed, "run", "long.yaml")
    assert results(lost.last / "nsd-workspace") == results(undisturbed / "nsd-workspace")


# TINY_SPEC without its student: fewer stages, of the same digests.
APART = (
    TINY_SPEC.partition("  student:")[0]
    + """hypotheses:
  claims: [baseline > base]
"""
)


def short_machine(folder: Path, name: str) -> Path:
    """One of several machines for APART."""
    (folder / name).mkdir()
    (folder / name / "tiny.yaml").write_text(APART)
    return folder / name


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in which the machine `first` left one stage of APART and `second` the other four."""
    folder = tmp_path_factory.mktemp("apart")
    store = f"file://{folder / 'store'}"
    first, second = short_machine(folder, "first"), short_machine(folder, "second")
    stages = asked_json(first, "plan", "tiny.yaml", "--json")["stages"]
    (shared,) = [one["digest"] for one in stages if one["kind"] == "train" and one["condition"] == "baseline"]
    assert "1 stages run" in nsd(first, "run", "tiny.yaml", "--store", store, "--stage", shared[:10])
    outcome = nsd_json(second, "run", "tiny.yaml", "--store", store, "--json")
    assert outcome["stages_cached"] == 1 and outcome["stages_run"] == 4
    return folder


def test_stages_can_be_run_apart(apart: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    undisturbed = finished_run(tmp_path_factory)
    found, expected = (results(one / "nsd-workspace") for one in (apart / "second", undisturbed))
    assert found and found == {name: value for name, value in expected.items() if name in found}


def test_a_further_machine_finds_everything_done(apart: Path) -> None:
    third = short_machine(apart, "third")
    outcome = nsd_json(third, "run", "tiny.yaml", "--store", f"file://{apart / 'store'}", "--json")
    assert outcome["stages_run"] == 0 and outcome["stages_cached"] == 5
    assert not list((third / "nsd-workspace").rglob("*.safetensors"))  # no weights travel that nothing needs
    assert asked_json(third, "compare", "tiny.yaml", "-f", "json")["primary_family"] == 1


def test_an_unknown_stage_is_an_error(tmp_path: Path) -> None:
    process = start(machine(tmp_path, "first"), "run", "long.yaml", "--stage", "zzzz")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "--stage zzzz: no stage of tiny begins so; nsd plan lists them" in err
