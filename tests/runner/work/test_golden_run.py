"""A tiny experiment on the embedded model whose texts, labels and scores are written down in golden/tiny_run.json.

Everything in the file comes from the model as it ships, in float32 on a CPU. There a text changes only where a random
number falls within about 1e-8 of a boundary (measured in plugins/engines/hf.py: no text of 8,000), so it is the same on
every x86 machine; the losses of the first training step, before any weight has moved, agree to 1e-4. Texts and weights
after training are not written down: AdamW's first steps follow the sign of gradients near zero.

After a wanted change:  NSD_UPDATE_GOLDEN=1 pytest tests/runner/work/test_golden_run.py , then read the diff.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import spies
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.jobs import write_data, write_job
from nsd.runner.work.worker import Worker

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_run.json"
SPEC = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 4, unlabeled: 6, test: 4, seed: 1}}
verifier: numeric
engine: hf
labeler: {use: consensus, k: 3, temperature: 0.7, top_p: 0.95, top_k: 50, max_tokens: 40, threshold: 0.6}
trainer: {use: sft, epochs: 1, batch_size: 4, learning_rate: 5e-4}
eval: {use: avg_at_k, k: 2, temperature: 0.5, max_tokens: 40}
seeds: [3]
conditions:
  base: {train_on: []}
  student: {train_on: [labeled, pseudo], label_with: base}
  rewarded:
    train_on: [pseudo]
    label_with: base
    trainer: {use: grpo, steps: 2, num_generations: 2, prompts_per_step: 2, max_tokens: 8, temperature: 0.9,
      rewards: [{use: "FOLDER/spies.py:SpyReward", weight: 0.5, scale: 2}]}
"""


class Tiny:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(Path(spies.__file__), folder / "spies.py")
        (folder / "tiny.yaml").write_text(SPEC.replace("FOLDER", str(folder)))
        self.plan: Plan = build_plan(load_spec(folder / "tiny.yaml", run_files=True))
        self.workspace = Workspace(folder / "workspace")

    def stages(self, *kinds: str, user: str) -> list[Stage]:
        return [s for s in self.plan.stages.values() if s.kind in kinds and any(user in by for by in s.used_by)]

    def here(self, *kinds: str, user: str) -> list[Path]:
        """Have a worker in this process (which has loaded torch already) do these stages of an arm; their folders.

        Those that come of a training are left out.
        """
        self.workspace.create()
        write_data(self.plan, self.workspace)
        worker = Worker(None)
        wanted = [stage for stage in self.stages(*kinds, user=user) if not self.plan.needs(stage.digest)]
        for stage in wanted:
            assert worker.run(write_job(self.plan, stage, self.workspace)) == 0
        for engine in worker.engines.values():
            engine.close()
        return [self.workspace.folder(stage.kind, stage.digest) for stage in wanted]

    def trained(self, user: str) -> Path:
        """The folder of an arm's training."""
        (stage,) = self.stages("train", user=user)
        return self.workspace.folder("train", stage.digest)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def trained(tiny: Tiny) -> Tiny:
    """With both trainings, and what they need, run by one worker."""
    trainings = [stage.digest for stage in tiny.plan.stages.values() if stage.kind == "train"]
    outcome = execute(tiny.plan, tiny.workspace, only=trainings)
    assert outcome.exit_code == 0, [failure.reason for failure in outcome.failures]
    return tiny


def golden(section: str, found: Any) -> Any:
    """What is written down for a section; written anew where NSD_UPDATE_GOLDEN is set."""
    kept = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        kept[section] = found
        lines = [f' "{name}": {_rows(rows)}' for name, rows in sorted(kept.items())]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return kept[section]


def _rows(rows: Any) -> str:
    """JSON with a line for each row."""
    if isinstance(rows, dict):
        return json.dumps(rows, sort_keys=True)
    return "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n ]"


def test_texts_labels_and_scores_of_the_shipped_model(tiny: Tiny) -> None:
    sampled, label = tiny.here("sample", "label", user="student")
    *_, evaluation = tiny.here("sample", "score", user="base")
    fields = ("question_id", "sample", "text", "tokens", "stop_reason")
    scored = (*fields[:-1], "score", "correct", "answer")
    voted = ("question_id", "label", "target", "confidence", "votes", "k", "kept", "correct", "tally")
    found = {
        "samples": [[row[name] for name in fields] for row in tables.read(sampled / "samples.parquet")],
        "labels": [[row[name] for name in voted] for row in tables.read(label / "labels.parquet")],
        "scored": [[row[name] for name in scored] for row in tables.read(evaluation / "samples.parquet")],
        "values": [[row["question_id"], row["value"]] for row in tables.read(evaluation / "values.parquet")],
    }
    for section, rows in found.items():
        assert rows == golden(section, rows), section


@pytest.mark.slow
def test_losses_of_the_first_step(trained: Tiny) -> None:
    folder = trained.trained("student")
    points = {row["metric"]: row["value"] for row in tables.read(folder / "curves.parquet") if row["step"] == 1}
    found = {name: round(points[name], 6) for name in ("loss", "grad_norm", "learning_rate")}
    assert found == pytest.approx(golden("sft_first_step", found), rel=1e-4)


@pytest.mark.slow
def test_a_reward_is_given_pseudo_labels_and_its_values_are_what_is_maximised(trained: Tiny) -> None:
    folder = trained.trained("rewarded")
    seen = [json.loads(line) for line in (trained.folder / "seen.jsonl").read_text().splitlines()]
    assert {one["seam"] for one in seen} == {"reward"} and len(seen) == 2
    (label,) = trained.workspace.manifests("label")
    labels = {row["question_id"]: row for row in tables.read(label.folder / "labels.parquet")}
    curves = {(row["step"], row["metric"]): row["value"] for row in tables.read(folder / "curves.parquet")}
    for step, one in enumerate(seen, 1):
        assert one["config"] == {"weight": 0.5, "scale": 2.0}
        questions = [rollout["question"] for rollout in one["rollouts"]]
        ids = [question["id"] for question in questions]
        assert [ids[0], ids[2]] == [ids[1], ids[3]] and len(set(ids)) == 2, "two rollouts of each of two questions"
        assert [rollout["sample"] for rollout in one["rollouts"]] == [0, 1, 0, 1]
        for question in questions:
            row = labels[question["id"]]
            assert row["kept"]
            assert (question["answer"], question["solution"]) == (row["label"], row["target"])
            assert (question["context"], question["meta"]) == (None, {})
        mean = sum(0.5 * 2 * len(rollout["text"]) for rollout in one["rollouts"]) / 4
        assert curves[step, "reward"] == pytest.approx(mean)
