"""What single planted faults in worker, stages, plan, store and sync got past: what is kept, and what is owed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, PseudoLabel, StopReason
from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.reports.judge.rows import run_rows
from nsd.runner.plan.build import build_plan, spec_digest
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import opening
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Broken, Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import sync as syncing
from nsd.runner.work import worker as working
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import generation_facts, model_ref
from nsd.runner.work.events import Event, Told
from nsd.runner.work.jobs import Job
from nsd.runner.work.stages import Curves, LabelFacts
from nsd.runner.work.sync import Sync
from nsd.runner.work.worker import Worker
from support import REPOSITORY, wait_until
from toy_jobs import MODEL, make_job, to_score, to_train
from toy_workspace import finish, record

# --------------------------------------------------------------------------- one stage in a worker

JOB: dict[str, Any] = {
    "key": {"kind": "score", "n": 1},
    "settings": {"kind": "score", "n": 1, "k": 8},
    "inputs": {"model": "m1"},
}
WORK = {"train": to_train(seed=11), "score": to_score("dada", seed=11)}
Work = Callable[[Job, Context], dict[str, Any]]


@pytest.fixture
def do(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """Have a worker do a job whose work is `work`; its exit code and what it told."""

    def do(work: Work, kind: str = "score", digest: str = "e1") -> tuple[int, list[dict[str, Any]]]:
        told: list[dict[str, Any]] = []
        job = make_job(WORK[kind], kind, digest=digest, workspace=str(here.root), **JOB)
        path = here.partial(kind, digest) / "job.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(job.to_json()))
        monkeypatch.setattr(working, "run_stage", work)
        one = Worker(None)
        monkeypatch.setattr(one, "emit", told.append)
        return one.run(path), told

    return do


def never(job: Job, context: Context) -> dict[str, Any]:
    pytest.fail("it was done already")


def test_a_manifest_says_where_a_number_came_from(
    here: Workspace, do: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSD_USD_PER_HOUR", "5")
    partial = here.partial("score", "e1")
    partial.mkdir()
    begun = {"started_at": "2026-01-01T00:00:00+00:00", "spent_seconds": 100.0, "gpu_seconds": 200.0, "usd": 1.0}
    (partial / "begun.json").write_text(json.dumps(begun))

    def work(job: Job, context: Context) -> dict[str, Any]:
        os.write(1, b"said by the stage\n")  # as a C library does
        context.warn("it is hot", "trainer.learning_rate", step=3)
        (context.artifact / "values.parquet").write_text("values")
        return {"data_hash": "d1"}

    code, told = do(work)
    assert code == 0 and [event.event for event in told] == ["started", "warning", "finished"]
    found = here.manifest("score", "e1").to_json()
    assert {name: found[name] for name in ("key", "inputs")} == {name: JOB[name] for name in ("key", "inputs")}
    assert (found["seed"], found["used_by"], found["git_commit"]) == (11, ["base/seed7"], "c0ffee")
    assert (found["plugin"], found["processes"], found["data_hash"]) == ("accuracy", 1, "d1")
    assert found["started_at"] == begun["started_at"] < found["ended_at"]
    assert found["events"] == [{"step": 3, "text": "it is hot", "field": "trainer.learning_rate"}]
    assert 100 < found["seconds"] < 200 and found["gpu_seconds"] == 200
    dollars = found["cost"]["usd_per_hour"] * found["seconds"] / 3600
    assert dollars == pytest.approx(1.0 + (found["seconds"] - 100) * 5 / 3600)
    assert found["packages"]["python"] and found["machine"]["host"]
    assert "said by the stage" in (here.folder("score", "e1") / "log.txt").read_text()
    assert found["files"].keys() == {"values.parquet", "log.txt"} and not partial.exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted("stopped"), 75, {"event": "interrupted"}),
        (StageFailed("no votes"), 1, {"event": "failed", "reason": "no votes", "refused": False}),
        (InputError("bad model"), 1, {"event": "failed", "reason": "bad model", "refused": True}),
        (KeyError("x"), 1, {"event": "failed", "reason": "KeyError: 'x'", "refused": False}),
    ],
)
def test_a_stage_that_does_not_finish_is_not_there_and_says_why(
    here: Workspace, do: Callable[..., Any], error: Exception, code: int, said: dict[str, Any]
) -> None:
    def work(job: Job, context: Context) -> dict[str, Any]:
        (context.artifact / "values.parquet").write_text("half")
        raise error

    got, told = do(work)
    last = told[-1].to_json()
    assert got == code and {name: last[name] for name in said} == said and last["digest"] == "e1"
    assert not here.is_whole("score", "e1") and here.partial("score", "e1").exists()
    assert json.loads((here.partial("score", "e1") / "begun.json").read_text())["spent_seconds"] > 0
    if code == 1:
        assert Path(last["log"]).is_file()


def test_a_broken_input_is_owed_again(here: Workspace, do: Callable[..., Any]) -> None:
    finish(here, "e0", [1.0], "score")

    def work(job: Job, context: Context) -> dict[str, Any]:
        raise Broken(here.folder("score", "e0") / "samples.parquet", "torn")

    assert do(work)[0] == 1 and not here.folder("score", "e0").exists()


def trained(workspace: Workspace, digest: str, weights: bool = True) -> None:
    with workspace.lock("train", digest) as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "model.safetensors").write_text("weights")
        workspace.commit("train", digest, Manifest(kind="train", digest=digest, inputs={}))
    if not weights:
        (workspace.folder("train", digest) / "model" / "model.safetensors").unlink()


def test_what_another_run_finished_is_not_done_again(here: Workspace, do: Callable[..., Any]) -> None:
    finish(here, "e1", [1.0], "score")
    trained(here, "t1")
    for kind, digest in (("score", "e1"), ("train", "t1")):
        code, told = do(never, kind, digest)
        assert (code, told) == (0, [Event(Told.FINISHED, digest, by="another run")])
        assert not here.partial(kind, digest).exists()


def test_a_training_whose_weights_were_freed_is_done_again(here: Workspace, do: Callable[..., Any]) -> None:
    trained(here, "t1", weights=False)

    def work(job: Job, context: Context) -> dict[str, Any]:
        (context.artifact / "model").mkdir()
        (context.artifact / "model" / "model.safetensors").write_text("again")
        return {}

    code, told = do(work, "train", "t1")
    assert code == 0 and told[-1].by is None and here.has_weights("t1")


def test_only_the_first_of_several_processes_writes(
    here: Workspace, do: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    leads: list[bool] = []

    def work(job: Job, context: Context) -> dict[str, Any]:
        leads.append(context.leader)
        return {}

    assert do(work, "train", "t1")[0] == 0
    assert leads == [False] and not here.is_whole("train", "t1")
    names = {path.name for path in here.partial("train", "t1").iterdir()}
    assert "log-rank1.txt" in names and not names & {"begun.json", "log.txt", "lock"}


def test_a_job_that_is_gone_is_told_of(here: Workspace) -> None:
    told: list[dict[str, Any]] = []
    one = Worker(None)
    one.emit = told.append  # type: ignore[method-assign]
    assert one.run(here.root / "absent.json") == 0 and told == [Event(Told.GONE)]


@pytest.mark.slow
def test_a_worker_ends_with_the_process_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    code = (
        "import time; from nsd.runner.work.worker import watch_parent; watch_parent();"
        "print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"NSD_PARENT_PID": str(parent.pid), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and parent.stdin is not None
    assert child.stdout.readline() == "up\n" and child.poll() is None
    parent.stdin.close()
    parent.wait()
    assert wait_until(lambda: child.poll() is not None) and child.returncode == 1
    child.stdout.close()


# --------------------------------------------------------------------------- facts of stages


def test_what_a_manifest_says_of_labels_by_hand() -> None:
    def label(name: str, text: str | None, kept: bool, confidence: float) -> PseudoLabel:
        return PseudoLabel(name, text, text, confidence, votes=1, k=2, kept=kept)

    labels = [label("a", "1", True, 1.0), label("b", "2", True, 0.5), label("c", "3", False, 0.5)]
    labels += [label("d", "4", True, 1.0), label("e", None, False, 0.0)]

    def facts(labels: list[PseudoLabel], correct: list[bool | None]) -> dict[str, Any]:
        told = LabelFacts()
        for one, right in zip(labels, correct, strict=True):
            told.add(one, right)
        return told.to_json()

    assert facts(labels, [True, False, False, None, None]) == {
        "questions": 5,
        "voted": 4,
        "kept": 3,
        "accuracy_voted": 1 / 3,
        "accuracy_kept": 1 / 2,
        "confidence_histogram": {"0.000": 1, "0.500": 2, "1.000": 2},
    }
    assert facts(labels[4:], [None])["accuracy_kept"] is None


def test_what_a_manifest_says_of_completions_by_hand() -> None:
    ends = [StopReason.STOP, StopReason.LENGTH, StopReason.STOP]
    drawn = [Completion("q", number, "text", tokens=4 + number, stop_reason=end) for number, end in enumerate(ends)]
    assert generation_facts(drawn) == {"completions": 3, "tokens": 15, "stop_reasons": {"length": 1, "stop": 2}}


def test_curves_go_on_where_a_killed_run_left_them(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    for step, loss in ((1, 3.0), (2, 2.0)):
        Curves(path).add(step, {"loss": loss})
    with path.open("a") as file:
        file.write('{"step": 3, "metr')
    with path.open("a") as file:
        file.write("\n")
    again = Curves(path)
    again.add(2, {"loss": 2.5})  # from the checkpoint before it
    again.add(3, {"loss": 1.0, "kl": 0.5})
    assert [(row["step"], row["metric"], row["value"]) for row in again.rows()] == [
        *((1, "loss", 3.0), (2, "loss", 2.5), (3, "kl", 0.5), (3, "loss", 1.0)),
    ]
    assert Curves(path).rows() == again.rows()
    Curves(path, write=False).add(9, {"loss": 0.0})
    assert Curves(path).rows() == again.rows()


def test_an_adapter_stands_on_the_commit_it_was_trained_on(here: Workspace) -> None:
    found = model_ref(MODEL, here)
    assert (found.path, found.revision, found.dtype, found.adapter) == ("toy/model", "c0ffee", "float32", None)
    folder = here.folder("train", "t1") / "model"
    folder.mkdir(parents=True)
    found = model_ref(replace(MODEL, train="t1"), here)
    assert (found.path, found.revision, found.dtype, found.adapter) == (str(folder), None, "float32", None)
    (folder / "adapter_config.json").write_text("{}")
    found = model_ref(replace(MODEL, train="t1"), here)
    assert (found.path, found.revision, found.adapter) == ("toy/model", "c0ffee", str(folder))


# --------------------------------------------------------------------------- what is owed


def test_a_model_that_gc_took_is_owed_where_something_unfinished_comes_from_it(plan: Plan, here: Workspace) -> None:
    for stage in plan.stages.values():
        if stage.kind == "train":
            trained(here, stage.digest, weights=False)
        else:
            with here.lock(stage.kind, stage.digest) as partial:
                (partial / "artifact").mkdir()
                here.commit(stage.kind, stage.digest, Manifest(kind=stage.kind, digest=stage.digest))
    assert plan.pending(here) == []
    run = next(run for run in plan.runs if run.train_digest and run.label_digest)
    (here.folder("score", run.eval_digest) / "manifest.json").unlink()
    assert [stage.digest for stage in plan.pending(here)] == [run.eval_digest], "its completions are there"
    drawn = plan.stages[run.eval_digest].inputs["samples"]
    (here.folder("sample", drawn) / "manifest.json").unlink()
    evaluation = [run.train_digest, drawn, run.eval_digest]
    assert [stage.digest for stage in plan.pending(here)] == evaluation
    assert run.label_digest is not None
    sample = plan.stages[plan.stages[run.label_digest].inputs["samples"]]
    (here.folder("sample", sample.digest) / "manifest.json").unlink()
    owed = [stage.digest for stage in plan.pending(here)]
    assert owed[:2] == [sample.inputs["model"], sample.digest] and owed[2:] == evaluation


def test_a_smoke_run_has_a_name_and_few_questions_of_its_own() -> None:
    spec = load_spec(REPOSITORY / "specs" / "quickstart.yaml")
    plan = build_plan(spec, ["base"], [3, 5], smoke=True)
    assert [run.run for run in plan.runs] == [f"quickstart-smoke/base/seed{seed}" for seed in (3, 5)]
    assert {len(questions) for questions in plan.data.values()} == {16}
    assert {run.seed for run in build_plan(spec, ["base"]).runs} == set(spec.seeds)


def test_a_spec_is_another_one_where_its_claims_are_and_not_where_it_runs(tmp_path: Path) -> None:
    def digest(more: str, question: str = "Why?") -> str:
        text = "name: toy\nmodel: builtin:wordmath-1m\ndata: wordmath\n"
        text += "conditions: {a: {train_on: []}, b: {train_on: []}}\n"
        (tmp_path / "toy.yaml").write_text(f"{text}question: {question}\n{more}\n")
        return spec_digest(load_spec(tmp_path / "toy.yaml"))

    assert digest("") == digest("resources: {max_usd: 3}") == digest("track: wandb") == digest("", "Really?")
    others = [digest(more) for more in ("", "hypotheses: [a > b]", "hypotheses: [b > a]", "seeds: [1, 2]")]
    assert len(set(others)) == 4


# --------------------------------------------------------------------------- the index


WEEK = "2026-W01-1"  # a date to Python and to no DuckDB


def unreadable(workspace: Workspace, digest: str) -> None:
    """A whole evaluation whose values are no table."""
    workspace.create()
    with workspace.lock("score", digest) as partial:
        (partial / "artifact").mkdir()
        (partial / "artifact" / "values.parquet").write_text("no table")
        workspace.commit("score", digest, Manifest(kind="score", digest=digest))


@pytest.mark.slow
@pytest.mark.timeout(120)  # what is left out and tried again is tried for ever
@pytest.mark.parametrize("how", ["rebuild", "index", "open"])
def test_several_that_the_index_cannot_take_are_left_out_and_all_else_is_there(
    here: Workspace, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    digests = ["bad1", "bad2", "good1", "good2", "torn1", "torn2"]
    for digest in ("good1", "good2"):
        finish(here, digest, [1.0, 0.0], "score")
    for digest in ("bad1", "bad2"):
        finish(here, digest, [1.0], "score", started_at=WEEK)
    for digest in ("torn1", "torn2"):
        unreadable(here, digest)
    record(here, "toy", {"a": "good1", "b": "good2"})
    for name in ("odd1", "odd2"):
        record(here, name, {"a": "good1"}, recorded_at=WEEK)
    if how == "rebuild":
        assert Store(here).rebuild() == {"stages": 2, "experiments": 1}
    elif how == "index":
        with Store(here).write() as index:
            index.execute("DELETE FROM stages")
        capsys.readouterr()
        for digest in ("torn1", "torn2"):
            if not here.is_whole("score", digest):
                unreadable(here, digest)
        Store(here).index_stages([("score", digest) for digest in digests])
    with Store(here).read() as index:
        assert index.execute("SELECT digest FROM stages ORDER BY 1").fetchall() == [("good1",), ("good2",)]
        assert index.execute("SELECT count(*) FROM eval_values").fetchall() == [(4,)]
        assert index.execute("SELECT DISTINCT experiment FROM runs").fetchall() == [("toy",)]
    said = capsys.readouterr().err
    for digest in ("bad1", "bad2"):
        assert f"score-{digest} is left out of the index" in said and here.is_whole("score", digest)
    for digest in ("torn1", "torn2"):
        assert not here.folder("score", digest).exists() and list((here.root / "set-aside").glob(f"score-{digest}*"))
    if how != "index":
        assert "odd1" in said and "odd2" in said


def test_nothing_that_is_set_aside_takes_the_place_of_another(here: Workspace) -> None:
    for text in ("first", "second", "third"):
        folder = here.folder("score", "e1")
        folder.mkdir()
        (folder / "manifest.json").write_text(text)
        assert not here.is_whole("score", "e1")
    kept = sorted((here.root / "set-aside").glob("*/manifest.json"))
    assert [path.read_text() for path in kept] == ["first", "second", "third"]


def test_what_a_killed_attempt_was_writing_is_no_file_of_the_stage(here: Workspace) -> None:
    with here.lock("score", "e1") as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        for name in (".values.parquet.17.tmp", "model/.model.safetensors.17.tmp", "values.parquet"):
            (partial / "artifact" / name).write_text("half")
        here.commit("score", "e1", Manifest(kind="score", digest="e1"))
    assert list(here.manifest("score", "e1").to_json()["files"]) == ["values.parquet"]
    assert [path.name for path in here.folder("score", "e1").rglob("*") if path.suffix == ".tmp"] == []


def test_what_a_run_cost_is_its_training_and_its_evaluation(here: Workspace) -> None:
    finish(here, "e1", [1.0], seconds=1800.0, cost={"usd_per_hour": 2.0})
    finish(here, "e2", [1.0])
    with here.lock("train", "t1") as partial:
        (partial / "artifact").mkdir()
        common = {"kind": "train", "digest": "t1", "seconds": 3600.0, "gpu_seconds": 7200.0}
        here.commit("train", "t1", Manifest(**{**common, "cost": {"usd_per_hour": 3.0}}))
    record(here, "toy", {"trained": "e1", "free": "e2"})
    path = here.record_path("toy", "aaaaaaaaaaaa")
    found = json.loads(path.read_text())
    found["runs"][0]["train_digest"] = "t1"
    path.write_text(json.dumps(found))
    rows = {row["condition"]: row for row in run_rows(here)}
    assert rows["trained"]["usd"] == 4.0 and rows["free"]["usd"] is None
    assert (rows["trained"]["train_seconds"], rows["trained"]["train_gpu_seconds"]) == (3600.0, 7200.0)
    assert [row["run"] for row in run_rows(here, "toy/t*")] == ["toy/trained/seed1"]


# --------------------------------------------------------------------------- a store kept in step


def test_a_stage_under_way_is_sent_while_it_is_and_brought_where_it_goes_on(
    plan: Plan, here: Workspace, there: Workspace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "PUSH_SECONDS", 0.01)
    stage = next(iter(plan.stages.values()))
    partial = here.partial(stage.kind, stage.digest)
    (partial / "shards").mkdir(parents=True)
    (partial / "shards" / "000000.parquet").write_text("shard")
    (partial / "begun.json").write_text("{}")
    sync = Sync(bucket, here, plan)
    assert sync.begin(stage) is False
    state = Path(bucket.root) / "partial" / f"{stage.kind}-{stage.digest}" / "state.json"
    wait_until(state.exists)
    sync.end(stage)
    assert sync._thread is not None and not sync._thread.is_alive()
    other = Sync(bucket, there, plan)
    assert other.begin(stage) is True
    other.end(stage)
    assert (there.partial(stage.kind, stage.digest) / "shards" / "000000.parquet").read_text() == "shard"


def test_models_come_from_the_store_only_where_something_unfinished_needs_them(
    plan: Plan, here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    first, *others = [stage for stage in plan.stages.values() if stage.kind == "train"]
    for stage in plan.stages.values():
        if stage.kind == "train":
            trained(here, stage.digest)
        else:
            with here.lock(stage.kind, stage.digest) as partial:
                (partial / "artifact").mkdir()
                here.commit(stage.kind, stage.digest, Manifest(kind=stage.kind, digest=stage.digest))
    scores = [plan.stages[run.eval_digest] for run in plan.runs if run.train_digest == first.digest]
    ends = [one for score in scores for one in (plan.stages[score.inputs["samples"]], score)]
    for stage in plan.stages.values():
        if stage not in ends:
            bucket.push_stage(here, stage.kind, stage.digest)
    assert Sync(bucket, there, plan).fetch() == len(plan.stages) - len(ends)
    assert there.has_weights(first.digest) and not any(there.has_weights(one.digest) for one in others)
    assert [stage.digest for stage in plan.pending(there)] == [end.digest for end in ends]


def test_a_store_is_a_whole_path_or_one_of_a_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="needs its whole path"):
        Bucket.open("file://shared/folder")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    found = Bucket.open("s3://results/runs/")
    assert (found.filesystem.type_name, found.root) == ("s3", "results/runs")


# --------------------------------------------------------------------------- the index's file


def test_the_log_of_an_old_index_is_not_read_into_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "nsd.duckdb", tmp_path / "nsd.duckdb.wal"
    for content in ("first", "second"):
        path.write_text(content)
        log.write_text("of the old one")
        opening.set_aside(path, "it is no database")
        assert not log.exists() and not path.exists()
        assert (tmp_path / "nsd.duckdb.broken").read_text() == content
    assert capsys.readouterr().err.count("cannot be read (it is no database): made again") == 2
    path.write_text("old")
    log.write_text("of the old one")
    (tmp_path / "new").write_text("new")
    opening.replace(path, tmp_path / "new")
    assert path.read_text() == "new" and not log.exists() and not (tmp_path / "new").exists()
