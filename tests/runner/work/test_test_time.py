"""Test time on the embedded model: training on the test questions without answers, and the best within a budget."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from nsd.plugins.words import ON_TEST_QUESTIONS
from nsd.reports.page.data import collect_experiment
from nsd.reports.page.page import render_page
from nsd.reports.text.summary import print_summary
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute

ON_TEST = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 50, test: 60, split: {test: 6}}
resources: {device: cpu}
eval: {use: accuracy, temperature: 0.5, max_tokens: 48}
trainer: {use: ttrl, prompts_per_step: 2, n_votes: 4, num_generations: 2, max_tokens: 48, learning_rate: 1e-5}
match: {by: generated_tokens, amount: 500}
controls: [maj_at_k]
conditions:
  ttrl: {train_on: [test_questions]}
hypotheses: [ttrl > base_maj_at_k]
"""
BEST = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 50, test: 60, split: {labeled: 10, test: 6}}
resources: {device: cpu}
eval: {use: best_within, k: 4, max_tokens: 48}
trainer: {use: rloo, prompts_per_step: 2, num_generations: 2, max_tokens: 48, learning_rate: 1e-3}
validation: {questions: 4, every: 1}
match: {by: generated_tokens, amount: 500}
conditions:
  base: {train_on: []}
  learns: {train_on: [labeled]}
hypotheses: [learns > base]
"""


def run(folder: Path, text: str) -> tuple[Plan, Workspace, str, str]:
    """Run a spec; the plan, the workspace, the answer on a screen of 200 columns, and the page."""
    (folder / "toy.yaml").write_text(text)
    plan, workspace = build_plan(load_spec(folder / "toy.yaml")), Workspace(folder / "w")
    assert execute(plan, workspace).exit_code == 0
    screen = Console(file=io.StringIO(), width=200)
    with Store(workspace).read() as connection:
        print_summary(connection, screen, "toy", plan.spec_digest, None)
        page = render_page(collect_experiment(connection, workspace, "toy"))
    assert isinstance(screen.file, io.StringIO)
    return plan, workspace, screen.file.getvalue(), page


@pytest.fixture(scope="module")
def on_test(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Workspace, str, str]:
    return run(tmp_path_factory.mktemp("on_test"), ON_TEST)


@pytest.mark.slow
def test_answer_and_page_say_what_a_test_time_training_was_trained_on(
    on_test: tuple[Plan, Workspace, str, str],
) -> None:
    _, _, said, page = on_test
    assert ON_TEST_QUESTIONS == "trained on the test questions without answers"
    assert f"note: ttrl: {ON_TEST_QUESTIONS}" in said
    assert f"ttrl: {ON_TEST_QUESTIONS}" in page


@pytest.mark.slow
def test_a_test_time_training_is_held_against_the_vote_with_as_many_tokens(
    on_test: tuple[Plan, Workspace, str, str],
) -> None:
    plan, workspace, said, _ = on_test
    assert "ttrl > base_maj_at_k" in said and "maj@tokens:500" in said
    sample = next(one for one in plan.stages.values() if one.kind == "sample" and "base_maj_at_k" in one.used_by[0])
    kept = tables.read_completions(workspace.folder("sample", sample.digest) / "samples.parquet")
    assert sum(one.tokens for one in kept) <= 500 or {one.sample for one in kept} == {0}


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Workspace, str, str]:
    return run(tmp_path_factory.mktemp("best"), BEST)


@pytest.mark.slow
def test_the_kept_weights_are_sampled_again_on_the_questions_of_the_validation(
    best: tuple[Plan, Workspace, str, str],
) -> None:
    plan, workspace, _, _ = best
    stage = next(one for one in plan.stages.values() if one.kind == "train")
    watched = {one.id for one in plan.data[stage.key["validation"]["questions"]]}
    for planned in plan.runs:
        values = tables.read(workspace.folder("score", planned.eval_digest) / "values.parquet")
        assert {row["question_id"] for row in values} == watched
    drawn = next(one for one in plan.stages.values() if one.kind == "sample" and "model" in one.inputs)
    assert drawn.key["seed"] != stage.key["validation"]["seed"]


@pytest.mark.slow
def test_the_report_gives_the_picked_number_and_the_fresh_one(best: tuple[Plan, Workspace, str, str]) -> None:
    plan, workspace, said, page = best
    run = next(one for one in plan.runs if one.train_digest)
    training = workspace.manifest("train", str(run.train_digest)).to_json()["training"]
    picked, steps = training["notes"]["validation"]["best"], training["steps"]
    values = tables.read(workspace.folder("score", run.eval_digest) / "values.parquet")
    fresh = sum(row["value"] for row in values) / len(values)
    told = f"learns: validation avg@4 {picked:.3f} at step {training['notes']['validation']['best_step']}, the best of "
    told += f"{steps + 1} measurements on these questions; the same weights sampled again give {fresh:.3f}"
    assert told in " ".join(said.split())
    assert told in page
