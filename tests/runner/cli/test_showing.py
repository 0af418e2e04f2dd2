"""What single planted faults in the commands that look got past: what is shown, of which run, and what is filtered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.reports.judge.rows import run_rows
from nsd.runner.cli.app import app
from nsd.runner.cli.samples import collect_samples
from nsd.runner.cli.show_plan import plan_json
from nsd.runner.cli.show_run import find_stages
from nsd.runner.cli.validate import validate_files
from nsd.runner.plan.model import Plan
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.looks import read_looks
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.storing import import_file
from toy_workspace import finish, record

RIGHT = {"answer": "1", "correct": True, "score": 1.0}


def scored(question: str, sample: int, **more: Any) -> dict[str, Any]:
    wrong = {"answer": "2", "correct": False, "score": 0.0, "text": "It is 2.", "tokens": 1, "stop_reason": "stop"}
    return {"question_id": question, "sample": sample, "error": None, "feedback": None, **wrong, **more}


def evaluated(workspace: Workspace, digest: str, rows: list[dict[str, Any]]) -> None:
    """A finished evaluation with these samples."""
    finish(workspace, digest, [0.0])
    manifest = workspace.manifest("eval", digest).to_json()
    with workspace.lock("eval", digest) as partial:
        (partial / "artifact").mkdir()
        tables.write(partial / "artifact" / "samples.parquet", tables.SCORED, rows)
        workspace.commit("eval", digest, Manifest(**manifest))


@pytest.fixture
def two(here: Workspace) -> Workspace:
    """Two runs with two samples of q0 to q2; the second has no q2."""
    evaluated(here, "ea", [
        *(scored("q0", 0, **RIGHT), scored("q0", 1)),  # its samples differ
        *(scored("q1", 0, **RIGHT), scored("q1", 1, **RIGHT, text="By HAND, 1.")),
        *(scored("q2", 0), scored("q2", 1)),
    ])  # fmt: skip
    evaluated(here, "eb", [
        *(scored("q0", 0, **RIGHT), scored("q0", 1)),  # as the other
        *(scored("q1", 0), scored("q1", 1)),
    ])  # fmt: skip
    record(here, "toy", {"a": "ea", "b": "eb"})
    return here


def shown(workspace: Workspace, *runs: str, **filters: Any) -> list[str]:
    given = {"wrong": False, "right": False, "disagree": False, "search": None} | filters
    return [one.question.id for one in collect_samples(workspace, [f"toy/{run}/seed1" for run in runs], **given)]


def test_where_runs_or_samples_differ(two: Workspace) -> None:
    assert shown(two, "a") == shown(two, "a", "b") == ["q0", "q1", "q2"]
    assert shown(two, "a", disagree=True) == ["q0"]
    assert shown(two, "b", disagree=True) == ["q0"]
    assert shown(two, "a", "b", disagree=True) == ["q1"]  # q2 was asked of one alone


def test_what_is_searched_for_is_in_a_question_or_a_completion(two: Workspace) -> None:
    assert shown(two, "a", search="by hand") == ["q1"] and shown(two, "a", search="Q2") == ["q2"]
    assert shown(two, "a", search="nowhere") == []


def test_a_page_shows_only_the_verdicts_asked_for(two: Workspace) -> None:
    for flag, verdict, other in (("--wrong", "WRONG", "RIGHT"), ("--right", "RIGHT", "WRONG")):
        arguments = ["samples", "toy/a/seed1", flag, "-w", str(two.root)]
        out = CliRunner().invoke(app, arguments).stdout
        assert verdict in out and other not in out and "page 1 of 1, 2 questions" in out


# --------------------------------------------------------------------------- runs and stages


def test_a_stage_is_named_by_four_digits_or_more(here: Workspace) -> None:
    for digest in ("abcd1", "abce2"):
        finish(here, digest, [1.0])
    record(here, "toy", {"base": "abcd1"})
    assert [m["digest"] for m in find_stages(here, "abcd")[1]] == ["abcd1"]
    with pytest.raises(InputError, match="no run 'abc'"):
        find_stages(here, "abc")
    row, stages = find_stages(here, "toy/base/seed1")
    assert row is not None and row["run"] == "toy/base/seed1" and [m["digest"] for m in stages] == ["abcd1"]


def test_a_plan_owes_a_model_that_is_gone_and_needed(plan: Plan, here: Workspace) -> None:
    from nsd.runner.cli.show_power import plan_power

    stage = next(stage for stage in plan.stages.values() if stage.kind == "train")
    with here.lock("train", stage.digest) as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "model.safetensors").write_text("weights")
        here.commit("train", stage.digest, Manifest(kind="train", digest=stage.digest, key=stage.key))

    def cached() -> bool:
        facts = plan_json(plan, here, plan_power(plan, here))
        (found,) = [one["cached"] for one in facts["stages"] if one["digest"] == stage.digest]
        return bool(found)

    assert cached()
    (here.folder("train", stage.digest) / "model" / "model.safetensors").unlink()
    assert not cached()


# --------------------------------------------------------------------------- imports


def test_counts_that_were_imported_have_a_share_and_no_questions(here: Workspace, tmp_path: Path) -> None:
    Store(here).rebuild()  # an index made before has it too
    (tmp_path / "counts.csv").write_text("condition,correct,n\nmine,30,40\n")
    for _ in range(2):
        import_file(here, tmp_path / "counts.csv", {"counts": True, "name": None})
    (row,) = run_rows(here)
    assert (row["run"], row["mean"], row["n"], row["eval_digest"]) == ("mine", 0.75, 40, None)
    assert (row["status"], len(list(here.manifests("import")))) == ("imported", 1)


def test_samples_that_were_imported_are_one_evaluation(here: Workspace, tmp_path: Path) -> None:
    rows = [{"id": f"q{number}", "gold": "1", "said": said} for number, said in enumerate("112")]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"name": "mine", "id_field": "id", "answer": "said", "gold": "gold", "verifier": "numeric"}
    import_file(here, tmp_path / "mine.jsonl", options)
    (row,) = run_rows(here)
    assert (row["mean"], row["n"], row["metric"]) == (pytest.approx(2 / 3), 3, "accuracy")
    with Store(here).read() as index:
        ((data, verifier),) = index.execute("SELECT data_hash, verifier_hash FROM eval_info").fetchall()
    assert data and verifier


# --------------------------------------------------------------------------- looks


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["compare", "toy/a/seed1", "toy/b/seed1"], "compare"),
        (["compare", "toy.yaml"], "compare"),
        (["report", "toy"], "report"),
        (["log"], "log"),
    ],
)
def test_whoever_looks_is_written_down(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nmodel: builtin:wordmath-1m\ndata: wordmath\n"
        "conditions: {a: {train_on: []}, b: {train_on: []}}\nhypotheses: [a > b]\n"
    )
    finish(here, "ea", [1.0, 1.0, 1.0, 0.0])
    finish(here, "eb", [0.0, 1.0, 0.0, 0.0])
    record(here, "toy", {"a": "ea", "b": "eb"}, claims=[("a", "b")])
    assert CliRunner().invoke(app, [*arguments, "-w", str(here.root)]).exit_code == 0
    (look,) = read_looks(here)
    assert look.command == command and "/a" in look.a + look.b and "/b" in look.a + look.b
    assert sorted([*look.evidence.a, *look.evidence.b]) == ["ea", "eb"]


# --------------------------------------------------------------------------- checking specs


def test_a_wrong_spec_among_right_ones_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "name: toy\nmodel: builtin:wordmath-1m\ndata: wordmath\nconditions: {a: {train_on: []}}\n"
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text(text)
    wrong.write_text(text.replace("model:", "modle:"))
    assert validate_files([right], gold=False, run_files=False, as_json=False) == 0
    assert validate_files([wrong, right], gold=False, run_files=False, as_json=False) == 2
    said = capsys.readouterr()
    assert said.out.count(f"{right}: ok, 1 condition x 1 seed") == 2 and "unknown key 'modle'" in said.err
    assert validate_files([wrong, right], gold=False, run_files=False, as_json=True) == 2
    assert json.loads(capsys.readouterr().out)["valid"] is False


@pytest.mark.parametrize(("pool", "row"), [("test", 2), ("unlabeled", 1)])
def test_a_gold_answer_that_does_not_verify_is_named_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pool: str, row: int
) -> None:
    for name in ("train", "unlabeled", "test"):
        lines = [{"q": f"{name} {number}?", "a": "7"} for number in range(3)]
        if name == pool:
            lines[row]["a"] = "no number"
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nmodel: builtin:wordmath-1m\nverifier: numeric\n"
        "data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a},\n"
        "  unlabeled_from: {use: jsonl, train: unlabeled.jsonl, fields: {question: q, answer: a}}}\n"
        "conditions: {a: {train_on: []}}\n"
    )
    assert validate_files([tmp_path / "toy.yaml"], gold=True, run_files=False, as_json=False) == 2
    said = capsys.readouterr().err
    assert f"{pool} {row}?" in said and "8 of 9 gold answers of jsonl verify under numeric" in said
    assert validate_files([tmp_path / "toy.yaml"], gold=False, run_files=False, as_json=False) == 0


@pytest.mark.parametrize(("more", "alpha"), [((), 0.1), (("--alpha", "0.01"), 0.01)])
def test_the_level_of_power_is_the_one_asked_for_else_the_specs(
    tmp_path: Path, more: tuple[str, ...], alpha: float
) -> None:
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nmodel: builtin:wordmath-1m\ndata: {use: wordmath, split: {labeled: 8, unlabeled: 8, test: 50}}\n"
        "conditions: {a: {train_on: []}, b: {train_on: [], eval: {use: accuracy, temperature: 0.7}}}\n"
        "hypotheses: {alpha: 0.1, correction: bonferroni, claims: [a > b, b > a]}\n"
    )
    arguments = ["power", str(tmp_path / "toy.yaml"), "--power", "0.9", "--json", "-w", str(tmp_path / "w"), *more]
    found = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (found["alpha"], found["power"], found["correction"]) == (alpha, 0.9, "bonferroni")


def test_gold_answers_are_verified_by_the_trainings_verifier_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"q": f"{name}?", "a": "\\frac{1}{2}"}) + "\n")
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nmodel: builtin:wordmath-1m\nverifier: math\ntrainer: grpo\n"
        "data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a},\n"
        "  split: {labeled: 1, unlabeled: 0, test: 1}}\n"
        "conditions: {a: {train_on: []}, b: {train_on: [labeled], train_verifier: numeric}}\n"
    )
    assert validate_files([tmp_path / "toy.yaml"], gold=True, run_files=False, as_json=False) == 2
    said = capsys.readouterr().err
    assert "2 of 2 gold answers of jsonl verify under math" in said
    assert "0 of 2 gold answers of jsonl verify under numeric" in said
