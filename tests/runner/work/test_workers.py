"""The processes that do the work: how long one lives, what its death costs, what a failure takes down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.gc import collect, unneeded_weights
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import execute as executing
from nsd.runner.work.execute import Outcome, execute
from support import REPOSITORY

TOYS = Path(__file__).parents[1] / "toy_plugins.py"
SPEC = f"""\
name: toy
model: builtin:wordmath-1m
data: {{use: wordmath, split: {{labeled: 16, unlabeled: 8, test: 8}}}}
engine: {{use: "{TOYS}:ToyEngine"}}
trainer: {{use: "{TOYS}:ToyTrainer"}}
labeler: {{use: consensus, k: 2, max_tokens: 16}}
eval: {{use: accuracy, max_tokens: 16}}
seeds: [7]
conditions:
"""
CHAIN = """\
  base: {train_on: []}
  a: {train_on: [labeled], trainer: {mark: a}}
  b: {train_on: [pseudo], label_with: a, trainer: {mark: b}}
  c: {train_on: [pseudo], label_with: b, trainer: {mark: c}}
  other: {train_on: [labeled], trainer: {mark: other}}
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder through which a test and the toy plugins talk."""
    folder = tmp_path / "toy"
    folder.mkdir()
    monkeypatch.setenv("NSD_TOY", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return folder


def plan_of(folder: Path, conditions: str, more: str = "") -> Plan:
    (folder / "toy.yaml").write_text(SPEC + conditions + more)
    return build_plan(load_spec(folder / "toy.yaml", run_files=True))


def log_of(toy: Path) -> list[str]:
    return (toy / "log").read_text().splitlines() if (toy / "log").exists() else []


def wait_for(state: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def of(plan: Plan, condition: str, kind: str) -> str:
    (found,) = [s.digest for s in plan.stages.values() if s.kind == kind and f"{condition}/seed7" in s.used_by][-1:]
    return found


# --------------------------------------------------------------------------- one model at a time

AT_ITS_START = """
import os, sys
from pathlib import Path
toy, job, events = Path(os.environ["NSD_TOY"]), sys.argv[1], sys.argv[2]
def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
pids = {int(pid) for pid in (toy / "pids").read_text().split()}
(toy / "alive").write_text(" ".join(str(pid) for pid in pids if alive(pid)))
os.execv(sys.executable, [sys.executable, "-m", "nsd.runner.work.worker", "--job", job, events])
"""


@pytest.mark.slow
def test_no_serving_worker_is_alive_when_several_processes_train(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, "  base: {train_on: []}\n  a: {train_on: [labeled]}\n", "resources: {processes: 2}\n")

    def command(stage: object, job: Path, events: Path, nodes: object) -> list[str]:
        return [sys.executable, "-c", AT_ITS_START, str(job), str(events)]

    monkeypatch.setattr(executing, "training_command", command)
    outcome = execute(plan, Workspace(tmp_path / "ws"))
    assert outcome.done == 5 and log_of(toy)[0] == "generate answer"  # a worker had served before the training
    assert (toy / "alive").read_text() == ""
    assert len(set((toy / "pids").read_text().split())) == 3  # and a fresh one served after it


@pytest.mark.slow
def test_one_engine_is_closed_before_another_one_is_used(tmp_path: Path, toy: Path) -> None:
    conditions = "  base: {train_on: []}\n  else: {train_on: [], engine: {word: result}}\n  a: {train_on: [labeled]}\n"
    execute(plan_of(tmp_path, conditions), Workspace(tmp_path / "ws"))
    log = log_of(toy)
    assert log.index("generate answer") < log.index("close answer") < log.index("generate result")
    assert log.index("close result") < log.index("train plain")


# --------------------------------------------------------------------------- what was spent


def begun(workspace: Workspace, plan: Plan) -> dict[str, float]:
    path = workspace.partial("sample", of(plan, "base", "sample")) / "begun.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"spent_seconds": 0.0}


@pytest.mark.slow
def test_what_was_spent_before_kill_9_is_in_the_manifest(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, "  base: {train_on: []}\n")
    workspace = Workspace(tmp_path / "ws")
    monkeypatch.setenv("NSD_USD_PER_HOUR", "36")
    (toy / "gated").touch()
    command = [sys.executable, "-m", "nsd.runner.cli", "run", str(tmp_path / "toy.yaml"), "-w", str(workspace.root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    wait_for(lambda: begun(workspace, plan)["spent_seconds"] > 1.0 and (toy / "pids").exists())
    os.kill(int((toy / "pids").read_text().split()[0]), signal.SIGKILL)
    assert process.wait(60) == 1
    spent = begun(workspace, plan)["spent_seconds"]
    assert spent > 1.0
    (toy / "gate").touch()
    monkeypatch.delenv("NSD_USD_PER_HOUR")  # the next machine has no price
    assert execute(plan, workspace).done == 2
    manifest = workspace.manifest("sample", of(plan, "base", "sample")).to_json()
    assert spent < manifest["seconds"] < spent + 60
    dollars = manifest["cost"]["usd_per_hour"] * manifest["seconds"] / 3600
    assert dollars == pytest.approx(spent * 36 / 3600, rel=0.01)


@pytest.mark.slow
def test_a_stage_whose_input_turns_out_broken_owes_that_input_again(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(tmp_path, "  base: {train_on: []}\n  b: {train_on: [pseudo], label_with: base}\n")
    workspace = Workspace(tmp_path / "ws")
    label = of(plan, "b", "label")
    sample = plan.stages[label].inputs["samples"]
    execute(plan, workspace, only=[sample])
    path = workspace.folder("sample", sample) / "samples.parquet"
    path.write_bytes(b"x" * path.stat().st_size)  # a change that no size tells
    (failure, *_) = execute(plan, workspace, only=[label]).failures
    assert str(path) in failure.reason and not workspace.is_whole("sample", sample)
    assert execute(plan, workspace, only=[label]).failures == []


@pytest.mark.slow
def test_what_a_failed_attempt_took_is_counted(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.runner.work import spending

    plan = plan_of(tmp_path, "  a: {train_on: [labeled]}\n")
    workspace = Workspace(tmp_path / "ws")
    (toy / "fail").write_text("plain")
    assert len(execute(plan, workspace).failures) == 1
    path = workspace.partial("train", of(plan, "a", "train")) / spending.FILE
    facts = json.loads(path.read_text())
    assert facts["spent_seconds"] > 0 and facts["gpu_seconds"] == 0
    path.write_text(json.dumps({**facts, "spent_seconds": 1000.0, "gpu_seconds": 500.0}))
    (toy / "fail").unlink()
    (recorded,) = [one.to_json() for one in workspace.records()]
    assert execute(plan, workspace).failures == []
    assert [one.recorded_at for one in workspace.records()] == [recorded["recorded_at"]]  # the date that counts
    manifest = workspace.manifest("train", of(plan, "a", "train")).to_json()
    assert 1000 < manifest["seconds"] < 1100 and manifest["gpu_seconds"] == 500.0
    assert manifest["started_at"] == facts["started_at"]


def test_gpu_seconds_count_every_gpu_of_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.runner.store import provenance
    from nsd.runner.work.spending import Spending

    monkeypatch.setattr(provenance, "gpu_count", lambda: 4)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with Spending(tmp_path) as spending:
        pass
    assert spending.seconds > 0 and spending.gpu_seconds == pytest.approx(8 * spending.seconds)
    assert Spending(tmp_path).gpu_seconds == pytest.approx(spending.gpu_seconds)


TORN = (
    "",
    "{",
    "[]",
    "[" * 100_000,
    '{"spent_seconds": "long"}',
    '{"spent_seconds": -5}',
    '{"started_at": "yesterday"}',
)
TORN += ('{"started_at": 7}', '{"versions": 3}', '{"versions": {"torch": 2}}')


@pytest.mark.parametrize("content", TORN, ids=lambda content: content[:30])
def test_a_torn_account_is_begun_anew(tmp_path: Path, content: str) -> None:
    from nsd.runner.work.spending import Spending

    (tmp_path / "begun.json").write_text(content)
    with Spending(tmp_path) as spending:
        assert not spending.resumed
    assert json.loads((tmp_path / "begun.json").read_text())["spent_seconds"] == spending.seconds


@pytest.mark.slow
def test_what_another_machine_spent_comes_through_the_store(tmp_path: Path, toy: Path) -> None:
    from nsd.runner.store.bucket import Bucket
    from nsd.runner.work.sync import Sync

    plan = plan_of(tmp_path, "  a: {train_on: [labeled]}\n")
    bucket = Bucket.open(f"file://{tmp_path / 'store'}")
    first, second = Workspace(tmp_path / "first"), Workspace(tmp_path / "second")
    (toy / "fail").write_text("plain")
    execute(plan, first, Sync(bucket, first, plan))
    spent = json.loads((first.partial("train", of(plan, "a", "train")) / "begun.json").read_text())["spent_seconds"]
    (toy / "fail").unlink()
    execute(plan, second, Sync(bucket, second, plan))
    manifest = second.manifest("train", of(plan, "a", "train")).to_json()
    assert spent > 0 and manifest["seconds"] > spent
    assert manifest["started_at"] < manifest["ended_at"]


@pytest.mark.slow
def test_what_was_finished_without_a_store_is_sent_to_one_once(
    tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nsd.runner.store.bucket import Bucket
    from nsd.runner.work.sync import Sync

    plan = plan_of(tmp_path, "  a: {train_on: [labeled]}\n")
    bucket = Bucket.open(f"file://{tmp_path / 'store'}")
    first, second = Workspace(tmp_path / "first"), Workspace(tmp_path / "second")
    stages = execute(plan, first).done
    outcome = execute(plan, first, Sync(bucket, first, plan))
    assert (outcome.done, outcome.cached) == (0, stages) and len(bucket.stages()) == stages > 0
    assert f"sent to the store: {stages} stages that were finished here before" in capsys.readouterr().err
    execute(plan, first, Sync(bucket, first, plan))
    assert "sent" not in capsys.readouterr().err
    there = execute(plan, second, Sync(bucket, second, plan))
    assert (there.done, there.cached) == (0, stages)


# --------------------------------------------------------------------------- going on


def resume_with_other_versions(tmp_path: Path, toy: Path, drawn: bool) -> Outcome:
    plan = plan_of(tmp_path, "  base: {train_on: []}\n")
    workspace = Workspace(tmp_path / "ws")
    partial = workspace.partial("sample", of(plan, "base", "sample"))
    partial.mkdir(parents=True)
    (partial / "begun.json").write_text(json.dumps({"spent_seconds": 1.0, "versions": {"torch": "0.1", "peft": "0.2"}}))
    if drawn:
        (partial / "shards").mkdir()
        (partial / "shards" / "000000.parquet").write_text("of another version")
    return execute(plan, workspace)


@pytest.mark.slow
def test_going_on_with_other_package_versions_is_refused_with_their_names(tmp_path: Path, toy: Path) -> None:
    outcome = resume_with_other_versions(tmp_path, toy, drawn=True)
    (failure,) = outcome.failures
    assert "torch: 0.1 -> " in failure.reason and "peft: 0.2 -> " in failure.reason
    assert f"nsd gc --partial {failure.stage.digest}" in failure.reason and log_of(toy) == []


@pytest.mark.slow
def test_a_refused_stage_is_begun_anew_once_it_is_dropped_in_the_store_too(tmp_path: Path, toy: Path) -> None:
    """Dropped in the workspace alone, it would come back from the store and be refused again."""
    from nsd.runner.store.bucket import Bucket
    from nsd.runner.store.gc import collect
    from nsd.runner.work.sync import Sync

    workspace = Workspace(tmp_path / "ws")
    resume_with_other_versions(tmp_path, toy, drawn=True)
    plan, bucket = plan_of(tmp_path, "  base: {train_on: []}\n"), Bucket.open(f"file://{tmp_path / 'store'}")
    digest = of(plan, "base", "sample")
    (failure,) = execute(plan, workspace, Sync(bucket, workspace, plan)).failures
    assert "with the same --store" in failure.reason and bucket.partials().keys() == {f"sample-{digest}"}
    collect(workspace, yes=True, partial=digest, store=bucket.uri)
    assert execute(plan, workspace, Sync(bucket, workspace, plan)).done == 2


@pytest.mark.slow
def test_a_stage_that_has_drawn_nothing_goes_on_with_any_versions(tmp_path: Path, toy: Path) -> None:
    assert resume_with_other_versions(tmp_path, toy, drawn=False).done == 2


@pytest.mark.slow
def test_a_torn_shard_is_drawn_again_and_the_whole_ones_are_kept(tmp_path: Path, toy: Path) -> None:
    from nsd.runner.store import tables

    plan = plan_of(tmp_path, "  base: {train_on: []}\n")
    workspace, reference = Workspace(tmp_path / "ws"), Workspace(tmp_path / "reference")
    digest = of(plan, "base", "sample")
    execute(plan, reference)
    held = tables.read_completions(reference.folder("sample", digest) / "samples.parquet")
    shards = workspace.partial("sample", digest) / "shards"
    tables.write_completions(shards / "000000.parquet", held[:2])
    tables.write_completions(shards / "000002.parquet", held[4:6])
    (shards / "000001.parquet").write_bytes((shards / "000000.parquet").read_bytes()[:-50])
    assert execute(plan, workspace).done == 2
    files = [one.folder("sample", digest) / "samples.parquet" for one in (workspace, reference)]
    assert tables.read(files[0]) == tables.read(files[1])


def test_a_new_shard_takes_the_place_of_none(tmp_path: Path, toy: Path) -> None:
    from nsd.plugins.errors import Interrupted
    from nsd.runner.store import tables
    from nsd.runner.work.blocks import Kept
    from nsd.runner.work.context import Context
    from nsd.runner.work.drawing import draw
    from nsd.runner.work.jobs import write_data

    plan = plan_of(tmp_path, "  base: {train_on: []}\n")
    workspace = Workspace(tmp_path / "ws")
    workspace.create()
    write_data(plan, workspace)
    stage, _ = plan.stages.values()
    partial = workspace.partial("sample", stage.digest)
    context = Context(workspace, partial, emit=lambda event: None, should_stop=lambda: True)

    def kept() -> Kept:
        return Kept(context.questions(stage.job.questions), stage.job.sampling.n, partial / "shards")

    for _ in range(2):
        with pytest.raises(Interrupted):
            draw(stage.job, context, kept())
    first, second = sorted((partial / "shards").glob("*.parquet"))
    first.unlink()  # as where it was found broken
    with pytest.raises(Interrupted):
        draw(stage.job, context, kept())
    held = [tables.read_completions(path) for path in sorted((partial / "shards").glob("*.parquet"))]
    assert [path.name for path in sorted((partial / "shards").iterdir())] == [second.name, "000002.parquet"]
    assert len({(one.question_id, one.sample) for shard in held for one in shard}) == 4


@pytest.mark.slow
def test_a_job_that_vanished_is_written_again(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = executing.write_job, []

    def write_job(plan: Plan, stage: object, workspace: Workspace, *others: object) -> Path:
        path = real(plan, stage, workspace)  # type: ignore[arg-type]
        if not written:  # as when the run that held the stage removes its folder just now
            path.unlink()
        written.append(path)
        return path

    monkeypatch.setattr(executing, "write_job", write_job)
    outcome = execute(plan_of(tmp_path, "  base: {train_on: []}\n"), Workspace(tmp_path / "ws"))
    assert outcome.done == 2 and len(written) == 3


# --------------------------------------------------------------------------- failure, and what is needed


@pytest.mark.slow
def test_a_failure_takes_down_all_that_came_of_it_and_nothing_else(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(tmp_path, CHAIN)
    workspace = Workspace(tmp_path / "ws")
    (toy / "fail").write_text("a")
    outcome = execute(plan, workspace)
    assert outcome.exit_code == 1 and [failure.stage.digest for failure in outcome.failures] == [of(plan, "a", "train")]
    skipped = {stage.digest for stage in outcome.skipped}
    assert {of(plan, name, kind) for name in "bc" for kind in ("sample", "label", "train", "score")} <= skipped
    assert of(plan, "a", "score") in skipped and of(plan, "base", "score") not in skipped
    for name in ("base", "other"):
        assert workspace.is_whole("score", of(plan, name, "score"))
    statuses = {run.condition: run.status for run in workspace.records()[0].runs}
    assert {name for name, status in statuses.items() if status == "done"} == {"base", "other"}
    reasons = {run.condition: run.reason for run in workspace.records()[0].runs}
    assert statuses["a"] == "failed" and "it was told to fail" in reasons["a"] and reasons["base"] is None
    with Store(workspace).read() as connection:  # what was finished is indexed as it came
        found = connection.execute("SELECT DISTINCT eval_digest FROM eval_values ORDER BY 1").fetchall()
    assert found == sorted((of(plan, name, "score"),) for name in ("base", "other"))


@pytest.mark.slow
def test_gc_keeps_every_model_that_an_unfinished_run_comes_from(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(tmp_path, CHAIN)
    workspace = Workspace(tmp_path / "ws")
    (toy / "fail").write_text("c")  # the last student of the chain
    execute(plan, workspace)
    freed = {manifest.digest for _, manifest in unneeded_weights(workspace)}
    assert freed == {of(plan, "other", "train")}  # a is a teacher's teacher of c
    collect(workspace, yes=True, partial=None)
    assert workspace.has_weights(of(plan, "a", "train")) and workspace.has_weights(of(plan, "b", "train"))
    assert not workspace.has_weights(of(plan, "other", "train")) and workspace.is_whole(
        "train", of(plan, "other", "train")
    )
    (toy / "fail").unlink()
    assert execute(plan, workspace).failures == [] and log_of(toy).count("train a") == 1
    assert {manifest.digest for _, manifest in unneeded_weights(workspace)} == {
        of(plan, name, "train") for name in "abc"
    }
