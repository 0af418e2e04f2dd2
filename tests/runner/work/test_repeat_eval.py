"""Repeated evaluations: other sampling seeds and nothing else, beside the results and never among them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import asked, asked_json, nsd, nsd_json
from nsd.plugins.errors import InputError
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.gc import unneeded_weights
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace

SPEC = """\
name: again
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 16, unlabeled: 8, test: 24}}
labeler: {use: consensus, k: 2, temperature: 0.7, max_tokens: 48}
trainer: {use: sft, epochs: 1, batch_size: 8, learning_rate: 5e-4}
eval: {use: accuracy, temperature: 0.7, max_tokens: 48}
seeds: [7]
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
"""


def plan_of(folder: Path, text: str = SPEC, **options: Any) -> Plan:
    (folder / "again.yaml").write_text(text)
    return build_plan(load_spec(folder / "again.yaml"), **options)


def test_repeats_leave_every_other_digest_alone(tmp_path: Path) -> None:
    plain, repeated = plan_of(tmp_path), plan_of(tmp_path, repeats=2)
    assert list(repeated.stages)[: len(plain.stages)] == list(plain.stages)
    assert [run.eval_digest for run in repeated.runs] == [run.eval_digest for run in plain.runs]
    assert all(run.repeats == [] for run in plain.runs)


def test_a_repeat_differs_in_its_seed_alone(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, repeats=3)
    for run in plan.runs:
        scores = [plan.stages[digest] for digest in (run.eval_digest, *run.repeats)]
        original, *again = [plan.stages[stage.inputs["samples"]] for stage in scores]
        seeds = {stage.key["seed"] for stage in (original, *again)}
        assert len(seeds) == 4 == len({run.eval_digest, *run.repeats})
        for stage in again:
            assert {**stage.key, "seed": None} == {**original.key, "seed": None}
            assert replace(stage.job, seed=0) == replace(original.job, seed=0)
            assert stage.job.seed == stage.key["seed"] and stage.inputs == original.inputs


def test_asking_for_more_keeps_the_first_ones(tmp_path: Path) -> None:
    few, many = plan_of(tmp_path, repeats=1), plan_of(tmp_path, repeats=3)
    assert [run.repeats for run in few.runs] == [run.repeats[:1] for run in many.runs]


def test_every_round_of_a_condition_is_repeated(tmp_path: Path) -> None:
    text = SPEC + "  student: {train_on: [pseudo], label_with: baseline, rounds: 2}\n"
    plan = plan_of(tmp_path, text, repeats=1)
    assert [len(run.repeats) for run in plan.runs] == [1, 1, 1, 1]
    assert len({digest for run in plan.runs for digest in run.repeats}) == 4


@pytest.mark.parametrize("greedy", ["temperature: 0", "temperature: 0.7, top_k: 1"])
def test_greedy_evaluations_are_repeated_with_a_warning(tmp_path: Path, greedy: str) -> None:
    text = SPEC.replace("eval: {use: accuracy, temperature: 0.7", f"eval: {{use: accuracy, {greedy}")
    plan = plan_of(tmp_path, text, repeats=1)
    assert any("base, baseline: evaluated greedily" in note for note in plan.notes)
    assert len(plan.runs[0].repeats) == 1
    assert not any("greedily" in note for note in plan_of(tmp_path, repeats=1).notes)
    assert not any("greedily" in note for note in plan_of(tmp_path, text).notes)


def test_a_negative_number_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-1"):
        plan_of(tmp_path, repeats=-1)


@pytest.mark.parametrize("number", ["0", "-2", "many"])
def test_the_command_refuses_no_repeats(tmp_path: Path, number: str) -> None:
    (tmp_path / "again.yaml").write_text(SPEC)
    for command in ("plan", "run"):
        nsd(tmp_path, command, "again.yaml", "--repeat-eval", number, code=2)
    assert not (tmp_path / "nsd-workspace").exists()


# --------------------------------------------------------------------------- really run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the spec ran, and then ran again with two repeats."""
    folder = tmp_path_factory.mktemp("again")
    (folder / "again.yaml").write_text(SPEC)
    assert nsd_json(folder, "run", "again.yaml", "--json")["stages_run"] == 5
    before = asked_json(folder, "runs", "--json")["runs"]
    planned = asked_json(folder, "plan", "again.yaml", "--repeat-eval", "2", "--json")["stages"]
    assert [(stage["repeat"], stage["condition"]) for stage in planned if not stage["cached"]] == [
        *[(1, "base")] * 2,  # drawn and scored
        *[(1, "baseline")] * 2,
        *[(2, "base")] * 2,
        *[(2, "baseline")] * 2,
    ]
    summary = nsd_json(folder, "run", "again.yaml", "--repeat-eval", "2", "--json")
    assert summary["stages_run"] == 8 and summary["failures"] == []
    assert [(one["run"], one["repeats"], one["n"]) for one in summary["noise"]] == [
        *(("again/base/seed7", 2, 24), ("again/baseline/seed7", 2, 24))
    ]
    assert asked_json(folder, "runs", "--json")["runs"] == before
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to change."""
    return shutil.copytree(finished, tmp_path / "copy")


def repeats_of(folder: Path) -> list[tuple[Any, ...]]:
    """Of the version that each run's name stands for today."""
    query = "SELECT run, repeat, p.eval_digest FROM repeats p JOIN current_runs USING (run, spec_digest) ORDER BY ALL"
    with Store(Workspace(folder / "nsd-workspace")).read() as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
def test_other_seeds_give_other_texts(finished: Path) -> None:
    import pyarrow.parquet

    workspace = Workspace(finished / "nsd-workspace")
    originals = {row["run"]: row["eval_digest"] for row in asked_json(finished, "runs", "--json")["runs"]}
    for run, _, digest in repeats_of(finished):
        texts = [
            pyarrow.parquet.read_table(workspace.folder("score", one) / "samples.parquet")["text"].to_pylist()
            for one in (originals[run], digest)
        ]
        assert len(texts[0]) == len(texts[1]) == 24 and texts[0] != texts[1]


@pytest.mark.slow
def test_a_second_run_draws_nothing(finished: Path) -> None:
    assert asked_json(finished, "run", "again.yaml", "--repeat-eval", "2", "--json")["stages_run"] == 0


@pytest.mark.slow
def test_the_end_of_a_run_tells_the_noise(finished: Path) -> None:
    text = asked(finished, "run", "again.yaml")
    assert "within the noise of sampling alone on this test set (24 questions" in text


@pytest.mark.slow
def test_repeats_are_no_runs(finished: Path) -> None:
    assert len(asked_json(finished, "runs", "--json")["runs"]) == 2
    assert len(asked_json(finished, "compare", "again/*", "--format", "json")["comparisons"]) == 1


@pytest.mark.slow
def test_the_index_has_them_again_after_a_rebuild(copy: Path) -> None:
    held = repeats_of(copy)
    assert len(held) == 4
    (copy / "nsd-workspace" / "nsd.duckdb").unlink()
    asked(copy, "db", "rebuild")
    assert repeats_of(copy) == held


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "hypotheses: [baseline > base]\n"])
def test_running_without_the_flag_keeps_them(copy: Path, more: str) -> None:
    held = repeats_of(copy)
    (copy / "again.yaml").write_text(SPEC + more)
    asked(copy, "run", "again.yaml")
    asked(copy, "db", "rebuild")
    assert repeats_of(copy) == held


@pytest.mark.slow
def test_weights_that_a_pending_repeat_needs_are_kept(copy: Path) -> None:
    workspace = Workspace(copy / "nsd-workspace")
    assert len(unneeded_weights(workspace)) == 1
    digest = next(digest for run, _, digest in repeats_of(copy) if run == "again/baseline/seed7")
    shutil.rmtree(workspace.folder("score", digest))
    assert unneeded_weights(workspace) == []


@pytest.mark.slow
def test_a_changed_evaluation_drops_the_repeats_of_the_old_one(copy: Path) -> None:
    (copy / "again.yaml").write_text(SPEC + "verifier: steps\n")
    assert nsd_json(copy, "run", "again.yaml", "--json")["stages_run"] == 2  # the two scores: all is drawn
    assert repeats_of(copy) == []
