"""Every stage digest and key of the quickstart and of a spec that uses everything, as they are on record.

A digest that changes makes results that people have unusable, so it changes only on purpose: with a plugin's version,
or with a new field that shapes output. Then write the records anew, and read their diff:

    python tests/runner/plan/test_golden_digests.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nsd.runner.plan.jobs import ModelJob
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.jobs import job_of

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from nsd.plugins.registry import BUILT_IN
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.changes import flatten
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import digest_of
from support import REPOSITORY

GOLDEN = Path(__file__).parents[1] / "golden"
PLANS: dict[str, tuple[Path, dict[str, Any]]] = {
    "quickstart": (REPOSITORY / "specs" / "quickstart.yaml", {}),
    "everything": (GOLDEN / "everything.yaml", {}),
    "repeats": (GOLDEN / "everything.yaml", {"only": ["base", "student-threshold0.5"], "repeats": 2, "seeds": [11]}),
    "smoke": (GOLDEN / "everything.yaml", {"smoke": True, "only": ["student-threshold1.0", "rl"], "seeds": [12]}),
    "tokens": (GOLDEN / "tokens.yaml", {}),
    "watched": (GOLDEN / "watched.yaml", {}),
}


def plan_of(name: str) -> Plan:
    path, options = PLANS[name]
    return build_plan(load_spec(path), **options)


def facts_of(plan: Plan) -> dict[str, Any]:
    """A plan as it goes on record: every stage under a readable name, its key field by field."""
    stages: dict[str, Any] = {}
    for stage in plan.stages.values():
        users = f"{stage.kind} {stage.used_by[0]}" + (f", repeat {stage.repeat}" if stage.repeat else "")
        rounds = sum(name.partition(" (")[0] == users for name in stages)
        stages[users + (f" ({rounds + 1})" if rounds else "")] = {
            "digest": stage.digest,
            "used_by": stage.used_by,
            "key": flatten(stage.key),
        }
    return {"spec": plan.spec_digest, "runs": [run.run for run in plan.runs], "stages": stages}


def differences(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """One line for everything that differs, the fields of a stage's key before its digest."""
    lines = [f"{name}: {recorded[name]} -> {found[name]}" for name in ("spec", "runs") if recorded[name] != found[name]]
    for stage in dict.fromkeys([*recorded["stages"], *found["stages"]]):
        old, new = recorded["stages"].get(stage), found["stages"].get(stage)
        if old is None or new is None:
            lines.append(f"{stage}: {'new' if old is None else 'gone'}")
            continue
        for field in dict.fromkeys([*old["key"], *new["key"]]):
            was, now = (key["key"].get(field, "(absent)") for key in (old, new))
            if was != now:
                lines.append(f"{stage}: {field}: {was!r} -> {now!r}")
        for what in ("used_by", "digest"):
            if old[what] != new[what]:
                lines.append(f"{stage}: {what}: {old[what]} -> {new[what]}")
    return lines


@pytest.mark.parametrize("name", PLANS)
def test_every_digest_is_the_one_on_record(name: str) -> None:
    recorded = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(facts_of(plan_of(name))))
    lines = differences(recorded, found)
    assert not lines, "digests differ from those on record:\n" + "\n".join(lines[:60])


def test_a_difference_names_the_stage_and_the_field() -> None:
    found = json.loads((GOLDEN / "quickstart.json").read_text(encoding="utf-8"))
    recorded = json.loads(json.dumps(found))
    recorded["stages"]["train baseline/seed42"]["key"]["trainer.config.batch_size"] = 9
    assert differences(recorded, found) == ["train baseline/seed42: trainer.config.batch_size: 9 -> 16"]


def test_a_stages_digest_is_that_of_its_key_and_inputs_come_by_digest() -> None:
    for stage in plan_of("everything").stages.values():
        assert stage.digest == digest_of(stage.key)
        assert set(stage.inputs.values()) <= set(flatten(stage.key).values())


@pytest.mark.parametrize("name", PLANS)
def test_a_worker_is_told_what_the_digest_says(name: str) -> None:
    """A job is what is done and a key what it is known by: where both have a field they must not differ."""
    plan = plan_of(name)
    for stage in plan.stages.values():
        condition = plan.experiment.conditions[stage.used_by[0].partition("/")[0].partition("@")[0]]
        key, job = {name: stage.settings[name] for name in stage.key if name != "scheme"}, stage.job
        for field in ("engine", "labeler", "trainer", "verifier", "protocol"):
            if field in key:
                block = getattr(job, field)
                assert block.use == key[field]["use"]
                shared = {name: value for name, value in block.config.items() if name in key[field]["config"]}
                assert shared == key[field]["config"]
        told = job_of(plan, stage, Workspace(Path("nowhere"))).to_json()["work"]
        for field in ("sampling", "questions", "seed", "seeds", "lora"):
            # The sample stage's key holds ids and texts alone: hidden answers change no sample.
            if field in key and not (stage.kind == "sample" and field == "questions"):
                assert told[field] == key[field], (stage.title, field)
        if "prompt" in key:
            assert key["prompt"].items() <= told["prompt"].items() and set(told["prompt"]) - set(key["prompt"]) <= {
                "separator"
            }
        if getattr(job, "model", None) is not None:
            known = key["start" if stage.kind == "train" else "model"]
            assert job.model.train == known.get("train")
            assert job.model.dtype == known.get("base", {}).get("dtype", job.model.dtype)
            if stage.kind != "sample":  # which is asked of the teacher's model
                assert (job.model.dtype, job.model.revision) == (condition.model.dtype, condition.model.revision)
            assert set(stage.inputs.values()) >= ({known["train"]} if "train" in known else set())
        if stage.kind == "train":
            assert job.budget.steps == key.get("match", {}).get("steps")
            assert (job.budget.tokens_of is not None) == ("tokens" in key.get("match", {}))
            assert job.max_steps_cap == key.get("smoke_steps")
            unlabeled = {source.source: source.data for source in job.train_on}
            for one, source in zip(key["train_on"], job.train_on, strict=True):
                assert (one["source"], one.get("labels")) == (source.source, source.labels)
                assert one.get("data", unlabeled[source.source]) == source.data and source.data in plan.data
            assert job.processes == (plan.experiment.resources.processes or 1)
            assert job.track == plan.experiment.track
            assert job.seed == int(stage.used_by[0].partition("/seed")[2])


def test_a_model_of_the_hub_reaches_the_worker_with_its_revision(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text(
        "name: hub\nmodel: {path: org/model, revision: a-tag, dtype: float16}\n"
        "data: {use: wordmath, train: 9, test: 9, split: {labeled: 2, test: 2}}\ntrainer: sft\n"
        "conditions: {base: {train_on: []}, arm: {train_on: [labeled]}}\n"
    )
    drawing = [one for one in build_plan(load_spec(tmp_path / "hub.yaml")).stages.values() if one.kind != "score"]
    for stage in drawing:
        train = stage.inputs.get("model") if stage.kind == "sample" else None
        assert stage.job.model == ModelJob("org/model", "a-tag", "float16", train)


def test_no_place_and_no_machine_is_in_a_key() -> None:
    for name in PLANS:
        keys = json.dumps([stage.key for stage in plan_of(name).stages.values()])
        assert str(REPOSITORY) not in keys and str(Path.home()) + "/" not in keys and "/tmp" not in keys


def test_everything_uses_every_built_in_plugin() -> None:
    specs = ("everything", "watched")
    text = "".join((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8") for name in specs)
    text += "engine: hf rewards: correct"
    missing = [f"{kind} {name}" for kind, names in BUILT_IN.items() for name in names if name not in text]
    assert not missing, "add it to golden/everything.yaml, then write the records anew"


def write() -> None:
    """Put every plan on record as it is now."""
    for name in PLANS:
        text = json.dumps(facts_of(plan_of(name)), indent=1, ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
