"""What a pseudo example keeps of its question: nothing that tells the true answer, and what the dataset says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import PseudoLabel, Question, Shown, without_truth
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.jsonl import Jsonl
from nsd.plugins.datasets.math import MathProblems
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import SourceJob
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.stages import examples_of
from toy_jobs import to_train

ROWS = Path(__file__).parents[1] / "golden" / "rows"
QUESTION = Question("q", "How many?", "TRUTH", "TRUTH", "a hint", {"level": 3, "proof": "TRUTH"}, "rows.jsonl:1")


@pytest.mark.parametrize(
    ("shown", "context", "meta"),
    [
        (Shown(), None, {}),
        (Shown(context=True), "a hint", {}),
        (Shown(meta=frozenset(("level", "absent"))), None, {"level": 3}),
    ],
)
def test_an_example_has_the_guess_and_what_is_shown(
    tmp_path: Path, shown: Shown, context: str | None, meta: dict[str, Any]
) -> None:
    workspace = Workspace(tmp_path)
    workspace.create()
    tables.write_questions(workspace.data_file("dada"), [QUESTION])
    label = PseudoLabel("q", "5", "so 5", 1.0, 2, 2, True)
    tables.write_labels(workspace.folder("label", "abcd") / "labels.parquet", [(label, False)])
    work = to_train(SourceJob("pseudo", "dada", labels="abcd", shown=shown))
    (example,) = examples_of(work, Context(workspace, tmp_path, lambda event: None, lambda: False))
    assert example.question == Question("q", "How many?", "5", "so 5", context, meta)
    assert (example.answer, example.target) == ("5", "so 5")


def test_nothing_is_shown_unless_it_is_named() -> None:
    assert without_truth(QUESTION) == Question("q", "How many?")


def test_datasets_whose_context_is_the_solution_do_not_show_it() -> None:
    assert Gsm8k(Gsm8k.Config()).shown() == Wordmath(Wordmath.Config()).shown() == Shown()
    assert MathProblems(MathProblems.Config()).shown() == Shown(meta=frozenset(("level", "type")))
    own = Jsonl.Config.model_validate({"train": "x.jsonl", "shown": ["context", "id"]})
    assert Jsonl(own).shown() == Shown(context=True, meta=frozenset(("id",)))


def test_questions_of_another_dataset_show_what_that_one_says() -> None:
    own = {"use": "jsonl", "train": "x.jsonl", "shown": ["context"]}
    assert MathProblems(MathProblems.Config.model_validate({"unlabeled_from": own})).shown() == Shown(context=True)


def test_a_training_is_told_what_is_shown_and_known_by_it(tmp_path: Path) -> None:
    spec = f"""\
name: toy
model: builtin:wordmath-1m
data: {{use: math, path: {ROWS / "math"}, split: {{labeled: 1, unlabeled: 2, test: 1}}}}
labeler: {{use: consensus, k: 2}}
trainer: sft
conditions: {{base: {{train_on: []}}, student: {{train_on: [pseudo, labeled], label_with: base}}}}
"""
    (tmp_path / "toy.yaml").write_text(spec)
    plan = build_plan(load_spec(tmp_path / "toy.yaml"))
    (train,) = [stage for stage in plan.stages.values() if stage.kind == "train"]
    pseudo, labeled = train.job.train_on
    assert (pseudo.shown, labeled.shown) == (Shown(meta=frozenset(("level", "type"))), Shown())
    pseudo, labeled = train.key["train_on"]
    assert pseudo["shown"] == {"context": False, "meta": ["level", "type"]} and "shown" not in labeled
