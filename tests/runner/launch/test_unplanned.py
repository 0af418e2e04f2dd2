"""Bringing home the results of a spec whose data cannot be read here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError, MissingExtra
from nsd.runner.launch import home, launches, launching
from nsd.runner.launch.unplanned import learn, unplanned
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.record import Record

QUICKSTART = Path(__file__).resolve().parents[3] / "specs" / "quickstart.yaml"


def on_the_machine(plan: Plan, workspace: Workspace, finished: set[str]) -> dict[str, Any]:
    """What a machine has after finishing some stages: manifests and the record of all runs."""
    workspace.create()
    for stage in plan.stages.values():
        if stage.digest in finished:
            with workspace.lock(stage.kind, stage.digest) as partial:
                (partial / "artifact").mkdir()
                manifest = {"kind": stage.kind, "digest": stage.digest, "key": stage.key, "inputs": stage.inputs}
                workspace.commit(stage.kind, stage.digest, Manifest(**manifest))
    record = Record(plan, workspace, Store(workspace))
    record.save()
    return record.record


def test_a_plan_is_learned_from_record_and_manifests(plan: Plan, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    record = on_the_machine(plan, workspace, set(plan.stages))
    found = unplanned(load_spec(QUICKSTART), False, "why")
    learn(found, record, workspace.manifest)
    assert {digest: stage.kind for digest, stage in found.stages.items()} == {
        digest: stage.kind for digest, stage in plan.stages.items()
    }
    assert all(stage.used_by for stage in found.stages.values())  # which titles, and the causes of failures, need
    assert [run.run for run in found.runs] == [run.run for run in plan.runs]
    assert (found.name, found.spec_digest) == (plan.name, plan.spec_digest)


def test_what_comes_later_is_learned_later(plan: Plan, tmp_path: Path) -> None:
    half = set(list(plan.stages)[:5])
    workspace = Workspace(tmp_path)
    record = on_the_machine(plan, workspace, half)
    found = unplanned(load_spec(QUICKSTART), False, "why")

    def manifest_of(kind: str, digest: str) -> dict[str, Any] | None:
        return workspace.manifest(kind, digest) if workspace.is_whole(kind, digest) else None

    learn(found, record, manifest_of)
    assert half <= set(found.stages)
    on_the_machine(plan, workspace, set(plan.stages) - half)
    learn(found, record, manifest_of)
    assert set(found.stages) == set(plan.stages)


def test_it_comes_home_from_a_store(plan: Plan, here: Workspace, there: Workspace, bucket: Bucket) -> None:
    on_the_machine(plan, there, set(plan.stages))
    for stage in plan.stages.values():
        bucket.push_stage(there, stage.kind, stage.digest)
    path = there.record_path(plan.name, plan.spec_digest)
    bucket.push_file(path, f"experiments/{plan.name}/{path.name}")
    found = unplanned(load_spec(QUICKSTART), False, "why")
    assert len(home.from_store(bucket, here, found)) == len(plan.stages)
    assert all(here.is_whole(stage.kind, stage.digest) for stage in plan.stages.values())


def test_questions_come_home_too(plan: Plan, here: Workspace) -> None:
    home.index(here, plan, [])  # a plan made here has them
    assert {path.stem for path in here.data.glob("*.parquet")} == set(plan.data)


def test_questions_of_a_plan_made_there_come_from_the_store(
    plan: Plan, here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    stage = next(stage for stage in plan.stages.values() if stage.kind == "score")
    with there.lock("score", stage.digest) as partial:
        (partial / "artifact").mkdir()
        manifest = {"kind": "score", "digest": stage.digest, "key": stage.key, "inputs": {}, "data_hash": "questions"}
        there.commit("score", stage.digest, Manifest(**manifest))
    bucket.push_stage(there, "score", stage.digest)
    (there.data / "questions.parquet").write_text("the questions")
    bucket.push_file(there.data / "questions.parquet", "data/questions.parquet")
    Record(plan, there, Store(there)).save()
    path = there.record_path(plan.name, plan.spec_digest)
    bucket.push_file(path, f"experiments/{plan.name}/{path.name}")
    assert home.from_store(bucket, here, unplanned(load_spec(QUICKSTART), False, "why"))
    assert (here.data / "questions.parquet").read_text() == "the questions"


def test_data_that_cannot_be_read_here_leave_a_plan_to_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> Plan:
        raise MissingExtra("datasets", "train")

    monkeypatch.setattr(launches, "build_plan", cannot)  # an environment without `datasets`
    found = launches.plan_of(QUICKSTART, launches.Options(smoke=True))
    assert not found.known and found.name == "quickstart-smoke" and "so the machine plans" in found.notes[0]


def test_a_cap_in_dollars_needs_a_price_but_no_estimate() -> None:
    from nsd.runner.launch.task import Wanted
    from nsd.runner.spec.model import Resources

    wanted = Wanted.of(Resources(max_usd=2.0))
    assert launching._budget(wanted, 0.5, None, None, 1) == pytest.approx(4 * 3600)
    with pytest.raises(InputError, match="knows no price"):
        launching._budget(wanted, None, None, None, 1)
