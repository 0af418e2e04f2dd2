"""Several machines for one run, without the machines: what each starts, and what those that only take part wait for."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import nodes
from nsd.runner.work.nodes import Nodes, take_part, training_command
from nsd.runner.work.sync import Sync

TWO = ("10.0.0.1", "10.0.0.2")
SPEC = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 8, unlabeled: 8, test: 8}}
labeler: {use: consensus, k: 2, max_tokens: 8}
trainer: {use: sft, epochs: 1, batch_size: 8}
conditions:
  baseline: {train_on: [labeled]}
  student: {train_on: [pseudo], label_with: baseline, init: teacher}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two trainings; the second starts from the first one's model."""
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return build_plan(load_spec(tmp_path / "tiny.yaml"))


def trainings(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == "train"]


def flags_of(command: list[str]) -> dict[str, str]:
    return {name: value for name, value in itertools.pairwise(command) if name.startswith("--")}


def test_every_machine_starts_its_share_of_one_training(plan: Plan) -> None:
    stage, other = trainings(plan)[:2]
    first, second = (flags_of(training_command(stage, Path("j"), "e", Nodes(rank, TWO))) for rank in (0, 1))
    assert (first.pop("--machine_rank"), second.pop("--machine_rank")) == ("0", "1")
    assert first == second  # one port, one leader
    assert (first["--num_processes"], first["--num_machines"]) == ("2", "2")
    assert first["--main_process_ip"] == TWO[0] and 20_000 <= int(first["--main_process_port"]) < 32_000
    assert (
        flags_of(training_command(other, Path("j"), "e", Nodes(0, TWO)))["--main_process_port"]
        != (first["--main_process_port"])
    )
    stage.job = replace(stage.job, processes=3)
    try:
        assert flags_of(training_command(stage, Path("j"), "e", Nodes(0, TWO)))["--num_processes"] == "6"
        alone = flags_of(training_command(stage, Path("j"), "e"))
    finally:
        stage.job = replace(stage.job, processes=1)
    assert (alone["--num_processes"], alone["--num_machines"]) == ("3", "1")


def test_no_process_takes_plugins_of_the_current_folder(plan: Plan) -> None:
    command = training_command(trainings(plan)[0], Path("job.json"), "events", Nodes(1, TWO))
    assert command[:2] == [sys.executable, "-P"]
    assert command[-5:] == ["-m", "nsd.runner.work.worker", "--job", "job.json", "events"]


@pytest.mark.parametrize(
    ("count", "rank", "addresses", "found"),
    [
        ("", "", "", None),
        ("1", "0", "10.0.0.1", None),
        ("2", "1", "10.0.0.1\n10.0.0.2", Nodes(1, TWO)),
        ("2", "", "10.0.0.1\n10.0.0.2", Nodes(0, TWO)),
        ("2", "2", "10.0.0.1\n10.0.0.2", InputError),
        ("2", "-1", "10.0.0.1\n10.0.0.2", InputError),
        ("2", "0", "10.0.0.1", InputError),
    ],
)
def test_who_is_who_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, count: str, rank: str, addresses: str, found: object
) -> None:
    for name, value in (("NUM_NODES", count), ("NODE_RANK", rank), ("NODE_IPS", addresses)):
        monkeypatch.setenv(f"SKYPILOT_{name}", value)
    if found is InputError:
        with pytest.raises(InputError, match="they must agree"):
            Nodes.here()
    else:
        assert Nodes.here() == found


@pytest.mark.parametrize(("code", "kind"), [(0, None), (1, StageFailed), (75, Interrupted), (-9, StageFailed)])
def test_a_share_that_ends_badly_is_no_success(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception] | None
) -> None:
    end = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
    monkeypatch.setattr(nodes, "training_command", lambda *_: [sys.executable, "-c", end])
    share: Callable[[], None] = lambda: nodes._compute(trainings(plan)[0], Path("j"), Nodes(1, TWO), None)  # noqa: E731
    if kind is None:
        share()
    else:
        with pytest.raises(kind):
            share()


# --------------------------------------------------------------------------- a machine that takes part


class Leader:
    """Finishes in the store what is waited for: one stage each time that somebody looks again."""

    def __init__(self, plan: Plan, folder: Path, bucket: Bucket) -> None:
        self.workspace, self.bucket = Workspace(folder / "leader"), bucket
        self.workspace.create()
        self.left = list(plan.stages.values())

    def goes_on(self, _: float = 0.0) -> None:
        stage = self.left.pop(0)
        with self.workspace.lock(stage.kind, stage.digest) as partial:
            (partial / "artifact" / "model").mkdir(parents=True)
            (partial / "artifact" / "model" / "model.safetensors").write_text("weights")
            manifest = {"kind": stage.kind, "digest": stage.digest, "inputs": stage.inputs}
            self.workspace.commit(stage.kind, stage.digest, Manifest(**manifest))
        self.bucket.push_stage(self.workspace, stage.kind, stage.digest)


@pytest.fixture
def leader(plan: Plan, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Leader:
    found = Leader(plan, tmp_path, bucket)
    monkeypatch.setattr("nsd.runner.work.nodes.time.sleep", found.goes_on)
    return found


def test_it_computes_its_share_of_every_training_with_what_that_comes_from(
    plan: Plan, here: Workspace, bucket: Bucket, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[str] = []

    def compute(stage: Stage, job: Path, its: Nodes, decision: object) -> None:
        shared.append(stage.digest)
        assert job.is_file() and its == Nodes(1, TWO)
        for digest in stage.inputs.values():
            assert here.is_whole(plan.stages[digest].kind, digest)
            assert plan.stages[digest].kind != "train" or here.has_weights(digest)
        assert (here.partial("train", stage.digest) / "begun.json").read_text() == "{}"  # what there was of it

    for stage in trainings(plan):
        begun = leader.workspace.partial("train", stage.digest)
        begun.mkdir()
        (begun / "begun.json").write_text("{}")
        bucket.push_partial(leader.workspace, "train", stage.digest)
    monkeypatch.setattr(nodes, "_compute", compute)
    assert take_part(plan, here, Sync(bucket, here, plan), Nodes(1, TWO)) == 0
    assert shared == [stage.digest for stage in trainings(plan)] and leader.left == []


def test_it_takes_part_in_the_stages_asked_for_alone(
    plan: Plan, here: Workspace, bucket: Bucket, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[str] = []
    monkeypatch.setattr(nodes, "_compute", lambda stage, *_: shared.append(stage.digest))
    first = trainings(plan)[0]
    take_part(plan, here, Sync(bucket, here, plan), Nodes(1, TWO), [first.digest])
    assert shared == [first.digest]


def test_a_training_that_is_in_the_store_is_not_trained_again(
    plan: Plan, here: Workspace, bucket: Bucket, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_compute", lambda *_: pytest.fail("it was there"))
    while leader.left:
        leader.goes_on()
    assert take_part(plan, here, Sync(bucket, here, plan), Nodes(1, TWO)) == 0
