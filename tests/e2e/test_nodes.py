"""Two machines for one run: both call the same command, as SkyPilot does on every node. Here both are this machine."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from e2e.command_line import nsd_json, start
from support import PATIENCE

pytestmark = pytest.mark.slow

SPEC = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 24, split: {labeled: 8, test: 16}}
trainer: {use: sft, epochs: 1, batch_size: 4}
eval: {use: accuracy, max_tokens: 16}
conditions:
  baseline: {train_on: [labeled]}
resources: {device: cpu}
"""


def node(folder: Path, rank: int, count: int = 2) -> dict[str, str]:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(SPEC)
    addresses = "\n".join(["127.0.0.1"] * count)
    return {"SKYPILOT_NUM_NODES": str(count), "SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NODE_IPS": addresses}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def test_two_machines_share_a_training(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    store = f"file://{tmp_path / 'store'}"
    processes = []
    for rank in (1, 0):
        folder = tmp_path / f"node{rank}"
        for name, value in node(folder, rank).items():
            environment.setenv(name, value)
        processes.append(start(folder, "run", "tiny.yaml", "--store", store))
    for process in processes:
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, out + err
    for name in ("SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS"):
        environment.delenv(name)
    leader = tmp_path / "node0"
    (path,) = (leader / "nsd-workspace").rglob("train-*/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["processes"] == manifest["training"]["notes"]["processes"] == 2
    outcome = nsd_json(leader, "run", "tiny.yaml", "--json")
    assert (outcome["stages_run"], outcome["stages_cached"]) == (0, 3)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -c constraints.txt 'ray[data]'")
def test_over_ray_two_machines_share_a_sampling_from_what_they_trained(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    addresses = "127.0.0.2 127.0.0.3"  # Ray takes 127.0.0.1 for a name of the machine's outer address
    store = f"file://{tmp_path / 'store'}"
    processes = []
    for rank in (1, 0):
        folder = tmp_path / f"node{rank}"
        for name, value in {**node(folder, rank), "SKYPILOT_NODE_IPS": addresses, "OMP_NUM_THREADS": "1"}.items():
            environment.setenv(name, value)
        (folder / "tiny.yaml").write_text(SPEC.replace("device: cpu", "device: cpu, over: ray"))
        processes.append(start(folder, "run", "tiny.yaml", "--store", store))
    for process in processes:
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, out + err
    (manifest,) = (tmp_path / "node0" / "nsd-workspace").rglob("sample-*/manifest.json")
    assert json.loads(manifest.read_text())["processes"] == 2
    fetched = tmp_path / "node1" / "nsd-workspace"
    assert len(list(fetched.rglob("train-*/model/model.safetensors"))) == 1, "the other machine has what was trained"


@pytest.mark.parametrize(
    ("changes", "store", "sentence"),
    [
        ({}, False, "2 machines need a store that all can reach: --store or NSD_STORE"),
        ({"SKYPILOT_NODE_IPS": "127.0.0.1"}, True, "SKYPILOT_NODE_IPS has 1 addresses: they must agree"),
    ],
)
def test_what_cannot_work_together_is_an_error(
    tmp_path: Path, environment: pytest.MonkeyPatch, changes: dict[str, str], store: bool, sentence: str
) -> None:
    for name, value in {**node(tmp_path / "node0", 0), **changes}.items():
        environment.setenv(name, value)
    more = ["--store", f"file://{tmp_path / 'store'}"] if store else []
    process = start(tmp_path / "node0", "run", "tiny.yaml", *more)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and sentence in err
    assert [path.name for path in tmp_path.iterdir()] == ["node0"]
