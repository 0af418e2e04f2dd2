"""Several evaluations in a plan: what shares digests with what, and what is noted of their questions."""

from __future__ import annotations

import json
from pathlib import Path

from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import ToTrain
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec

TOP = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 8, unlabeled: 6, test: 5}}
labeler: {use: consensus, k: 4}
trainer: {use: sft, batch_size: 4}
seeds: [1, 2]
conditions:
  base: {train_on: []}
  teacher: {train_on: [labeled]}
  student: {train_on: [labeled, pseudo], label_with: teacher, rounds: 2}
"""
MAIN = "{use: accuracy, temperature: 0.1, max_tokens: 32}"
OLD = "{use: avg_at_k, k: 2, max_tokens: 32, data: {seed: 9, split: {labeled: 0, unlabeled: 0, test: 6}}}"


def plan_of(folder: Path, text: str) -> Plan:
    path = folder / "toy.yaml"
    path.write_text(text)
    return build_plan(load_spec(path))


def several(**evals: str) -> str:
    return TOP + "evals:\n" + "".join(f"  {name}: {said}\n" for name, said in evals.items())


def test_a_named_evaluation_has_the_stages_of_a_single_eval(tmp_path: Path) -> None:
    single, named = plan_of(tmp_path, f"{TOP}eval: {MAIN}\n"), plan_of(tmp_path, several(main=MAIN))
    assert list(single.stages) == list(named.stages)
    assert [(run.run, run.eval_digest) for run in single.runs] == [(run.run, run.eval_digest) for run in named.runs]


def test_an_added_evaluation_computes_only_itself(tmp_path: Path) -> None:
    before, after = plan_of(tmp_path, several(main=MAIN)), plan_of(tmp_path, several(main=MAIN, retention=OLD))
    held = {run.run: run.eval_digest for run in after.runs}
    assert all(held[run.run] == run.eval_digest for run in before.runs)
    added = [after.stages[digest] for digest in after.stages if digest not in before.stages]
    assert set(before.stages) <= set(after.stages) and {stage.kind for stage in added} == {"sample", "score"}
    assert all("@retention/" in user for stage in added for user in stage.used_by)


def test_a_name_is_a_label(tmp_path: Path) -> None:
    before = plan_of(tmp_path, several(main=MAIN, retention=OLD))
    after = plan_of(tmp_path, several(headline=MAIN, old=OLD))
    assert list(before.stages) == list(after.stages)


def test_another_order_computes_nothing_else(tmp_path: Path) -> None:
    before = plan_of(tmp_path, several(main=MAIN, retention=OLD))
    after = plan_of(tmp_path, several(retention=OLD, main=MAIN))
    assert set(before.stages) == set(after.stages) and before.spec_digest != after.spec_digest


def test_every_condition_round_and_seed_is_measured_by_each(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, several(main=MAIN, retention=OLD))
    first = [run for run in plan.runs if not run.beside]
    assert len(plan.runs) == 2 * len(first) == 2 * 2 * 4  # evaluations x seeds x (three arms and a round)
    beside = {run.run: run for run in plan.runs if run.beside}
    for run in first:
        other = beside[run.run.replace("/seed", "@retention/seed")]
        assert (run.measurement, other.measurement) == ("main", "retention")
        assert (run.train_digest, run.seed) == (other.train_digest, other.seed)
        assert run.eval_digest != other.eval_digest


def test_evaluations_that_differ_in_the_verifier_share_their_samples(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, several(main=MAIN, strict=MAIN.replace("{", "{verifier: math, ")))
    scores = [plan.stages[run.eval_digest] for run in plan.runs if run.condition.startswith("base")]
    assert len({stage.digest for stage in scores}) == 4
    assert len({stage.inputs["samples"] for stage in scores}) == 2  # one a seed


def test_questions_that_an_arm_trains_on_are_noted(tmp_path: Path) -> None:
    again = "{use: accuracy, data: {train: 0, test: 60, seed: 9, split: {labeled: 0, unlabeled: 0, test: 60}}}"
    clean = plan_of(tmp_path, several(main=MAIN, retention=again))
    assert not [note for note in clean.notes if "training questions" in note]
    rows = tmp_path / "seen.jsonl"
    labeled = clean.stages[next(run.train_digest for run in clean.runs if run.condition == "teacher") or ""]
    taught = clean.data[labeled.job.data[0]]  # type: ignore[union-attr]
    lines = [json.dumps({"question": one.text, "answer": one.answer}) for one in taught[:3]]
    lines += [json.dumps({"question": f"What is {number}?", "answer": str(number)}) for number in range(4)]
    rows.write_text("\n".join(lines) + "\n")
    seen = f"{{use: accuracy, data: {{use: jsonl, train: {rows}, test: {rows}, split: {{labeled: 0, unlabeled: 0}}}}}}"
    (note,) = [note for note in plan_of(tmp_path, several(main=MAIN, seen=seen)).notes if "training questions" in note]
    assert note.startswith("evals.seen: 3 of its 7 questions are among the training questions of teacher, student")


def test_questions_that_an_arm_is_watched_by_are_noted_too(tmp_path: Path) -> None:
    watched = "validation: {questions: 3, every: 2}\n"
    plan = plan_of(tmp_path, several(main=MAIN) + watched)
    (asked,) = {stage.job.validation.questions for stage in plan.stages.values() if isinstance(stage.job, ToTrain)}  # type: ignore[union-attr]
    rows = tmp_path / "seen.jsonl"
    lines = [json.dumps({"question": one.text, "answer": one.answer}) for one in plan.data[asked]]
    rows.write_text("\n".join([*lines, json.dumps({"question": "What is 9?", "answer": "9"})]) + "\n")
    seen = f"{{use: accuracy, data: {{use: jsonl, train: {rows}, test: {rows}, split: {{labeled: 0, unlabeled: 0}}}}}}"
    notes = plan_of(tmp_path, several(main=MAIN, seen=seen) + watched).notes
    assert [note for note in notes if "training questions" in note] == [
        "evals.seen: 3 of its 4 questions are among the training questions of teacher, student: what it measures there "
        "is memory too; take other questions for it"
    ]


def test_a_gold_answer_that_cannot_be_read_is_noted_of_its_evaluation(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"question": "Who?", "answer": "nobody"}\n')
    odd = f"{{verifier: numeric, data: {{use: jsonl, train: {tmp_path}/odd.jsonl, test: {tmp_path}/odd.jsonl, "
    odd += "split: {labeled: 0, unlabeled: 0}}}"
    notes = plan_of(tmp_path, several(main=MAIN, odd=odd)).notes
    assert any(note.startswith("evals.odd: 1 of 1 test questions have a gold answer that") for note in notes)
