"""What a launch leaves behind and later commands make of it: whatever changed meanwhile, nothing paid for is lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.launch import launching
from nsd.runner.launch.bridge import SkyPilot
from nsd.runner.launch.home import push_finished, take_over
from nsd.runner.launch.jobs import start_ready
from nsd.runner.launch.launches import Job, Launch, Launches, Options, plan_as_launched, unneeded_copies
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket, BucketError, patiently
from nsd.runner.store.gc import collect
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.record import Record
from nsd.runner.work.sync import Sync

QUICKSTART = Path(__file__).resolve().parents[3] / "specs" / "quickstart.yaml"


def finish(workspace: Workspace, kind: str, digest: str, model: bool = False) -> None:
    with workspace.lock(kind, digest) as partial:
        (partial / "artifact").mkdir()
        if model:
            (partial / "artifact" / "model").mkdir()
            (partial / "artifact" / "model" / "model.safetensors").write_text("weights")
        workspace.commit(kind, digest, Manifest(kind=kind, digest=digest))


def launched(workspace: Workspace, plan: Plan, spec: Path, **changes: Any) -> Launch:
    facts: dict[str, Any] = {
        "spec": str(spec),
        "spec_digest": plan.spec_digest,
        "options": Options(),
        "store": None,
        "place": "here",
        "usd_per_hour": None,
        "max_usd": None,
        "deadline": None,
        "jobs": [Job("all", "cluster", "sky.yaml")],
    }
    return Launches(workspace).create(plan.name, **(facts | changes))


def test_what_the_plan_does_not_name_is_taken_over_too(plan: Plan, here: Workspace, there: Workspace) -> None:
    finish(there, "eval", "of-another-version")
    assert take_over(there, here, plan, weights=False) == ["eval of-another-version"]
    assert here.is_whole("eval", "of-another-version")


def test_models_asked_for_later_come_later(plan: Plan, here: Workspace, there: Workspace) -> None:
    digest = next(stage.digest for stage in plan.stages.values() if stage.kind == "train")
    finish(there, "train", digest, model=True)
    with_model = there.folder("train", digest)
    shutil.copytree(with_model, here.folder("train", digest))
    shutil.rmtree(here.folder("train", digest) / "model")
    assert take_over(there, here, plan, weights=False) == []
    assert len(take_over(there, here, plan, weights=True)) == 1 and here.has_weights(digest)


@pytest.mark.slow
def test_a_spec_edited_since_is_pulled_as_it_was(plan: Plan, here: Workspace, tmp_path: Path) -> None:
    spec = tmp_path / "quickstart.yaml"
    spec.write_text(QUICKSTART.read_text())
    asked = build_plan(load_spec(spec))
    Record(asked, here, Store(here)).save()
    found = launched(here, asked, spec)
    assert plan_as_launched(here, found).known
    spec.write_text(QUICKSTART.read_text().replace("epochs: ", "epochs: 1"))
    pulled = plan_as_launched(here, found)
    assert not pulled.known and "has changed since the launch" in pulled.notes[0]
    assert [run.eval_digest for run in pulled.runs] == [run.eval_digest for run in asked.runs]
    path = here.record_path(asked.name, asked.spec_digest)
    before = path.read_text()
    Record(pulled, here, Store(here)).save()
    assert path.read_text() == before  # the record still says what was asked then


def test_a_machine_without_a_store_makes_everything(plan: Plan, here: Workspace, bucket: Bucket) -> None:
    first = next(iter(plan.stages.values()))
    finish(here, first.kind, first.digest)
    assert len(launching._to_run(plan, here, None)) == len(plan.stages)
    assert len(launching._to_run(plan, here, bucket)) == len(plan.stages) - 1


def test_a_model_in_the_store_need_not_be_trained_again(
    plan: Plan, here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    train = next(stage for stage in plan.stages.values() if stage.kind == "train")
    finish(there, "train", train.digest, model=True)
    bucket.push_stage(there, "train", train.digest)
    bucket.fetch_stage(here, "train", train.digest, weights=False)
    assert train in plan.pending(here) and train not in launching._to_run(plan, here, bucket)


def test_what_was_sent_goes_with_gc_once_the_launch_is_over(
    plan: Plan, here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches = Launches(here)
    over, going = (launched(here, plan, tmp_path / "spec.yaml") for _ in range(2))
    over.ended_at = over.started_at
    for one in (over, going):
        launches.sent(one).mkdir()
        (launches.sent(one) / "rows.jsonl").write_text("x" * 1000)
        launches.save(one)
    collect(here, yes=True, partial=None, more=unneeded_copies)
    assert f"1.0 kB  what was sent with launch {over.identity}\ndeleted 1 folders" in capsys.readouterr().out
    assert not launches.sent(over).exists() and (launches.sent(going) / "rows.jsonl").is_file()
    assert {one.identity for one in launches.all()} == {over.identity, going.identity}
    collect(here, yes=True, partial=None, more=unneeded_copies)
    assert "nothing to delete" in capsys.readouterr().out


def test_what_is_finished_here_goes_to_the_store_with_the_models_still_needed(
    plan: Plan, here: Workspace, bucket: Bucket
) -> None:
    trains = [stage for stage in plan.stages.values() if stage.kind == "train"]
    needed, done = trains[0], trains[-1]
    for train in (needed, done):
        finish(here, "train", train.digest, model=True)
    for stage in plan.stages.values():
        if done.digest in stage.inputs.values():
            finish(here, stage.kind, stage.digest)
    push_finished(bucket, here, plan)
    assert bucket.has_weights(needed.digest) and not bucket.has_weights(done.digest)
    assert ("train", done.digest) in bucket.stages()


def test_no_job_starts_after_the_deadline(plan: Plan, here: Workspace) -> None:
    found = launched(here, plan, QUICKSTART, deadline=1.0)
    assert start_ready(SkyPilot("nowhere"), Launches(here), found) == []
    assert (found.jobs[0].status, found.jobs[0].reason) == ("CANCELLED", "the time of this launch is over")


def test_a_job_that_could_not_be_started_is_over(plan: Plan, here: Workspace, tmp_path: Path) -> None:
    refusing = tmp_path / "python"  # stands in for a SkyPilot whose cloud has nothing left
    refusing.write_text(
        """#!/bin/sh
read -r request
answer=$(printf %s "$request" | sed 's/.*"answer": "\\([^"]*\\)".*/\\1/')
echo '{"error": "X", "kinds": ["ResourcesUnavailableError"], "message": "none left"}' > "$answer"
"""
    )
    refusing.chmod(0o755)
    launches, found = Launches(here), launched(here, plan, QUICKSTART)
    (launches.path(found) / "sky.yaml").write_text("run: true")
    with pytest.raises(InputError, match="no machine fits: none left"):
        start_ready(SkyPilot(str(refusing)), launches, found)
    (job,) = launches.find(None).jobs
    assert (job.status, job.reason) == ("FAILED", "no machine fits: none left") and launches.find(None).stopped_at


def test_hours_end_with_the_last_job_not_with_the_pull(plan: Plan, here: Workspace) -> None:
    found = launched(here, plan, QUICKSTART, usd_per_hour=2.0, jobs=[Job("all", "cluster", "sky.yaml", sky_job=1)])
    found = replace(found, started_at="2026-01-01T10:00:00+00:00", stopped_at="2026-01-01T11:00:00+00:00")
    assert (found.hours, found.usd) == (1.0, 2.0)


@pytest.mark.slow
def test_the_record_in_a_store_grows_with_the_runs(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    one = build_plan(load_spec(QUICKSTART), ["baseline"])
    both = build_plan(load_spec(QUICKSTART))
    for plan, workspace in ((one, there), (both, here)):
        sync = Sync(bucket, workspace, plan)
        sync.fetch()
        Record(plan, workspace, Store(workspace)).save()
        sync.push_data()
    held = bucket.record(both.name, both.spec_digest)
    assert held is not None and len(held.runs) == len(both.runs) > len(one.runs)


def test_a_store_that_is_away_for_a_while_is_asked_again() -> None:
    answers: list[Any] = [BucketError("away"), BucketError("away"), "here"]
    said: list[str] = []

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert patiently(ask, said.append, (0.0, 0.0)) == "here" and len(said) == 2
    answers = [BucketError("away")] * 2
    with pytest.raises(BucketError):
        patiently(ask, said.append, (0.0,))
