"""What single planted faults in `nsd launch` got past: what is paid for twice, taken from home, or not told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.launch import bridge, estimate, home
from nsd.runner.launch.bridge import NoMachine, SkyError, SkyPilot
from nsd.runner.launch.jobs import start_ready
from nsd.runner.launch.launches import job_name
from nsd.runner.launch.workload import Training, work_of
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from sky_stand_in import World
from toy_launches import cluster, launch_of, managed, plan_of, row
from toy_workspace import finish


def make(workspace: Workspace, stage: Stage, **manifest: Any) -> None:
    """Finish a stage with almost nothing in it; a training has a model."""
    workspace.create()
    if stage.kind == "score":
        finish(workspace, stage.digest, [1.0, 0.0], "score", key=stage.key, inputs=stage.inputs)
        return
    with workspace.lock(stage.kind, stage.digest) as partial:
        (partial / "artifact").mkdir()
        if stage.kind == "train":
            (partial / "artifact" / "model").mkdir()
            (partial / "artifact" / "model" / "model.safetensors").write_text("weights")
        facts = {"kind": stage.kind, "digest": stage.digest, "key": stage.key, "inputs": stage.inputs}
        facts |= {"settings": stage.settings}
        workspace.commit(stage.kind, stage.digest, Manifest(**{**facts, **manifest}))


def in_store(world: World, plan: Plan) -> Bucket:
    """A store where all stages are, made on another machine."""
    there, bucket = Workspace(world.folder.parent / "elsewhere"), Bucket.open(world.store)
    for stage in plan.stages.values():
        make(there, stage)
        bucket.push_stage(there, stage.kind, stage.digest)
    return bucket


# --------------------------------------------------------------------------- paid for once


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "GONE", "SUCCEEDED"])
def test_a_job_that_is_over_is_not_asked_for_again(world: World, status: str) -> None:
    found = launch_of(world, cluster(status=status), managed("b", status=status))
    assert start_ready(SkyPilot.find(), world.launches, found) == []
    assert world.machines() == 0 and not world.asked("queue")


@pytest.mark.slow
def test_what_the_store_has_is_not_made_again(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(world)
    in_store(world, plan)
    assert world.launch() == 0
    assert f"all {len(plan.stages)} stages of tiny are finished; nothing to launch" in capfd.readouterr().out
    assert world.machines() == 0 and not world.asked("offers") and not list(world.workspace.root.glob("launches/*"))


@pytest.mark.slow
def test_what_is_finished_here_is_sent_before_a_machine_is_asked_for(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = next(stage for stage in plan_of(world).stages.values() if stage.kind == "sample" and not stage.inputs)
    make(world.workspace, stage)
    assert world.launch("--detach") == 0
    assert Bucket.open(world.store).stages() == [("sample", stage.digest)]
    assert "1 stages finished here were sent to the store" in capfd.readouterr().out


def test_results_here_do_not_go_to_the_machine_with_the_project(world: World) -> None:
    assert world.launch("--detach") == 0
    for name in (".gitignore", ".skyignore"):
        assert (world.workspace.root / name).read_text() == "*\n"


# --------------------------------------------------------------------------- what is told


def test_the_status_is_asked_for_and_not_remembered(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.says({"job_status": ["SUCCEEDED"]})
    over = launch_of(world, cluster(1, status="FAILED"))
    found = launch_of(world, cluster(2, status="RUNNING"))
    assert world.nsd("launch", "status") == 0
    lines = {line.split()[0]: line.split() for line in capfd.readouterr().out.splitlines() if "tiny-" in line}
    assert lines[found.identity][2] == "SUCCEEDED" and lines[over.identity][2] == "FAILED"
    assert [call["jobs"] for call in world.asked("job_status")] == [[2]]
    assert world.launches.find(found.identity).jobs[0].status == "SUCCEEDED"


def test_why_a_stage_failed_there_is_told_and_recorded_here(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(world)
    stage = next(stage for stage in plan.stages.values() if stage.kind == "train")
    found = launch_of(world, managed("all", 4, status="FAILED"), spec_digest=plan.spec_digest)
    failure = {"stage": stage.digest, "kind": "train", "used_by": stage.used_by, "reason": "out of memory", "log": "l"}
    word = {"exit_code": 1, "failures": [{**failure, "log_end": ["the last line there"]}]}
    path = Path(world.store.removeprefix("file://")) / "outcomes" / f"{job_name(found, found.jobs[0])}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(word))
    assert world.nsd("launch", "pull") == 1
    out = capfd.readouterr().out
    assert f"FAILED {stage.title}: out of memory" in out and "the last line there" in out
    (record,) = [one.to_json() for one in world.workspace.records()]
    failed = {f"{run['condition']}/seed{run['seed']}": run["reason"] for run in record["runs"] if run["reason"]}
    assert failed == dict.fromkeys(stage.used_by, "out of memory")


# --------------------------------------------------------------------------- what comes home


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "again"), [((), ()), (("--weights",), ()), ((), ("--weights",))])
def test_models_come_home_where_they_are_asked_for(
    world: World, flags: tuple[str, ...], again: tuple[str, ...]
) -> None:
    plan = plan_of(world)
    in_store(world, plan)
    launch_of(world, managed("all", 4, status="SUCCEEDED"), spec_digest=plan.spec_digest)
    assert world.nsd("launch", "pull", *flags) == 0
    models = [stage.digest for stage in plan.stages.values() if stage.kind == "train"]
    assert [world.workspace.has_weights(digest) for digest in models] == [bool(flags)] * len(models)
    assert world.last().options.weights is bool(flags) and world.last().ended_at
    assert world.nsd("launch", "pull", *again) == 0
    assert [world.workspace.has_weights(digest) for digest in models] == [bool(flags or again)] * len(models)


def test_no_link_index_or_side_file_is_copied_from_a_machine_and_models_on_demand(world: World) -> None:
    world.workspace.create()
    for weights in (False, True):
        home.from_machine(world.workspace, plan_of(world), "nsd-x", weights)
    without, with_models = [line.split() for line in (world.state / "rsync.log").read_text().splitlines()]
    for words in (without, with_models):
        assert {"--no-links", "/partial/", "/nsd.duckdb*", "/data/*.side"} <= set(words)
    assert "/artifacts/*/model/" in without and "/artifacts/*/model/" not in with_models


def test_questions_that_are_here_stay_and_words_of_the_end_are_the_newest(world: World) -> None:
    there = world.state / "machine" / "nsd-workspace"
    for folder, text in ((there, "theirs"), (world.workspace.root, "mine")):
        for name in ("data/both.parquet", "outcomes/both.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    (there / "data" / "new.parquet").write_text("theirs")
    world.workspace.create()
    home.from_machine(world.workspace, plan_of(world), "nsd-x")
    read = {name: (world.workspace.root / name).read_text() for name in ("data/both.parquet", "data/new.parquet")}
    assert read == {"data/both.parquet": "mine", "data/new.parquet": "theirs"}
    assert (world.workspace.root / "outcomes" / "both.json").read_text() == "theirs"


def test_nothing_is_asked_of_a_machine_that_is_gone(world: World) -> None:
    launch_of(world, cluster(1, status="RUNNING"), store=None, spec_digest=plan_of(world).spec_digest)
    world.says({"job_status": [None]})
    assert world.nsd("launch", "pull") == 1
    assert not (world.state / "rsync.log").exists() and world.last().jobs[0].status == "GONE"


def test_a_launch_that_was_copied_is_not_another_one(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    found = launch_of(world, managed("a", 4))
    copied = world.launches.folder / "copied"
    copied.mkdir()
    copied.joinpath("launch.json").write_bytes((world.launches.path(found) / "launch.json").read_bytes())
    assert [one.identity for one in world.launches.all()] == [found.identity]
    assert f"it is of {found.identity}" in capfd.readouterr().err


def test_a_job_brought_back_is_counted(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    found = launch_of(world, managed("a", 4))
    world.says({"jobs.queue_v2": [[row(4, "RECOVERING", recovery_count=3)]]})
    assert world.nsd("launch", "status") == 0
    assert [found.identity, "a", "RECOVERING", "3"] in [
        line.split()[:4] for line in capfd.readouterr().out.splitlines()
    ]


# --------------------------------------------------------------------------- time

RL = """\
name: rl
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 32, unlabeled: 8, test: 8}}
trainer: {use: sft, epochs: 3, batch_size: 8}
conditions:
  copied: {train_on: [labeled]}
  rl: {train_on: [labeled], trainer: {use: grpo, steps: 6, prompts_per_step: 2, num_generations: 4, max_tokens: 24}}
"""


def rl_plan(folder: Path, smoke: bool = False) -> Plan:
    (folder / "rl.yaml").write_text(RL)
    return build_plan(load_spec(folder / "rl.yaml"), smoke=smoke)


def training(plan: Plan, condition: str) -> Stage:
    (found,) = [one for one in plan.stages.values() if one.kind == "train" and one.used_by[0].startswith(condition)]
    return found


def test_the_work_of_a_training_by_hand(tmp_path: Path) -> None:
    plan, smoke = rl_plan(tmp_path), rl_plan(tmp_path, smoke=True)
    copied, rl = work_of(training(plan, "copied"), plan), work_of(training(plan, "rl"), plan)
    assert isinstance(copied, Training) and isinstance(rl, Training) and rl.drawing is not None
    assert (copied.steps, copied.rows, copied.drawing) == (12, 8, None)  # three times 32 examples, eight a step
    assert (rl.steps, rl.rows, rl.generations, rl.drawing.rows, rl.drawing.limit) == (6, 8, 6, 8, 24)
    cut = work_of(training(smoke, "rl"), smoke), work_of(training(smoke, "copied"), smoke)
    assert [one.steps for one in cut if isinstance(one, Training)] == [2, 2]


def test_a_training_is_shared_by_the_gpus(tmp_path: Path) -> None:
    plan = rl_plan(tmp_path)
    stage = training(plan, "copied")
    one, two = (
        {one.digest: one for one in estimate.Estimator(plan, Workspace(tmp_path)).on(gpus).stages}[stage.digest]
        for gpus in ("L4:1", "L4:2")
    )
    # 12 steps of three passes' launches over 4 layers, which two GPUs do not shorten, and some reading.
    assert one.seconds == pytest.approx(20 + 12 * 3 * 4 * 0.0012, rel=0.01) and two.seconds == one.seconds
    assert two.needed is not None and one.needed is not None and two.needed < one.needed


@pytest.mark.parametrize(
    ("asked", "earlier"), [("A100-80GB:1", True), ("A100:1", False), ("L4:1", False), ("H100:1", False), (None, False)]
)
def test_only_work_on_the_same_kind_of_gpu_tells_how_long_it_takes(
    tmp_path: Path, asked: str | None, earlier: bool
) -> None:
    plan, workspace = rl_plan(tmp_path), Workspace(tmp_path / "w")
    stage = training(plan, "copied")
    ran = {"examples": {"labeled": 32}, "steps": 12}
    make(workspace, stage, seconds=50.0, training=ran, machine={"gpus": ["NVIDIA A100-SXM4-80GB"]})
    found = estimate.Estimator(plan, workspace, [stage]).on(asked).stages
    assert (found[0].source == "1 earlier stages of the kind") is earlier
    assert (found[0].seconds == pytest.approx(50.0)) is earlier


# --------------------------------------------------------------------------- the way to SkyPilot


def test_nobody_is_told_that_skypilot_is_used() -> None:
    assert bridge._environment()["SKYPILOT_DISABLE_USAGE_COLLECTION"] == "1"


@pytest.mark.parametrize(
    ("kinds", "kind", "words"),
    [
        (["ModuleNotFoundError"], InputError, "has no SkyPilot"),
        (["ResourcesUnavailableError"], NoMachine, "no machine fits"),
        (["ResourcesMismatchError"], NoMachine, "no machine fits"),
        (["NoCloudAccessError"], InputError, "SkyPilot can use no cloud here"),
        (["ApiServerConnectionError"], InputError, "SkyPilot's API server does not answer"),
        (["KeyboardInterrupt"], SkyError, "interrupted"),
        (["RuntimeError"], SkyError, "SkyPilot: why"),
    ],
)
def test_what_skypilot_says_is_said_as_what_it_is(kinds: list[str], kind: type[Exception], words: str) -> None:
    found = bridge._as_error({"error": kinds[0], "kinds": kinds, "message": "why"}, "python")
    assert type(found) is kind and words in str(found)


def test_skypilot_is_found_by_its_environment_its_python_or_its_command(tmp_path: Path) -> None:
    for name in ("python", "sky"):
        path = tmp_path / "env" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    python = str(tmp_path / "env" / "bin" / "python")
    for place in ("env", "env/bin/python", "env/bin/sky"):
        assert bridge._python_of(tmp_path / place) == python
    linked = tmp_path / "bin" / "sky"
    linked.parent.mkdir()
    linked.write_text(f"#!{python}\n")
    assert bridge._python_of(linked) == python
    with pytest.raises(InputError, match="there is no Python there"):
        bridge._python_of(tmp_path / "bin")
