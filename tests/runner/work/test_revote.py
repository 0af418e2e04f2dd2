"""`nsd revote` and `nsd labels` over real label stages: the replay engine draws, the real workers vote and store."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.api import Confidence
from nsd.plugins.errors import InputError
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.verifiers.numeric import Numeric
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.revote import revote
from nsd.runner.work.revote_table import Revotes, VoteRow
from support import shared_data

# Five questions with the true answer 1 to 5, four samples each; "none" is a text without a number.
SAMPLES = {
    1: ["1", "1", "1", "1"],  # sure and right
    2: ["9", "2", "2", "2"],  # right from the third sample on; the first alone is wrong
    3: ["3", "9", "9", "3"],  # tied two to two, right by order
    4: ["9", "9", "9", "4"],  # wrong by three to one
    5: ["none", "none", "none", "none"],  # no label
}
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: LABELED, unlabeled: UNLABELED, test: TEST, fields: {question: q, answer: a},
  split: {labeled: 1, unlabeled: COUNT, test: 1}}
verifier: VERIFIER
engine: {use: ./trainer.py:One}
labeler: {use: consensus, k: K}
trainer: {use: ./trainer.py:Nothing}
eval: {use: accuracy}
conditions:
  base: {train_on: [], engine: {use: replay, path: SAMPLES, fields: {question: q, completion: texts}}}
  student: {train_on: [pseudo], label_with: base}
  filtered: {train_on: [pseudo], label_with: base, labeler: {threshold: 0.75}}
  oracle: {train_on: [pseudo], labeler: {use: noisy_oracle, accuracy: 0.8}}
"""


TRAINER = """\
from nsd.plugins.api import Completion, Engine, StopReason, Trainer, TrainResult


class One(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, "1", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Nothing(Trainer):
    def planned_steps(self, examples):
        return 0

    def train(self, job):
        job.output_dir.mkdir(parents=True, exist_ok=True)
        return TrainResult(steps=0, examples_seen=len(job.examples), tokens_seen=0)
"""


def make(folder: Path, rows: list[dict[str, Any]], k: int, verifier: str) -> Workspace:
    """A workspace in which SPEC has been run: real stages throughout, but for a trainer that leaves
    no weights and an engine that wants none."""
    test = {"q": "a test", "a": "1", "texts": ["1"]}
    files = {"LABELED": [{"q": "never asked", "a": "1"}], "UNLABELED": rows, "TEST": [test], "SAMPLES": [*rows, test]}
    text = SPEC
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        text = text.replace(f" {name}", f" {folder / name}.jsonl")
    for name, value in (("COUNT", str(len(rows))), ("VERIFIER", verifier), ("K", str(k))):
        text = text.replace(f" {name}", f" {value}")
    (folder / "toy.yaml").write_text(text)
    (folder / "trainer.py").write_text(TRAINER)
    workspace = Workspace(folder / "workspace")
    outcome = execute(build_plan(load_spec(folder / "toy.yaml", run_files=True)), workspace)
    assert outcome.exit_code == 0, [failure.reason for failure in outcome.failures]
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    rows = [{"q": f"what is {answer}?", "a": str(answer), "texts": texts} for answer, texts in SAMPLES.items()]
    return make(tmp_path_factory.mktemp("revote"), rows, 4, "numeric")


def at(votes: Revotes, k: int, threshold: float, ties: str = "first") -> VoteRow:
    (row,) = [row for row in votes.rows if (row.k, row.threshold, row.ties) == (k, threshold, ties)]
    return row


@pytest.mark.slow
def test_each_setting_gives_the_labels_counted_by_hand(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy"], ks=[1, 2, 3, 4], thresholds=[0.0, 0.75])
    counted = {(row.k, row.threshold): (row.voted, row.tied, row.kept, row.right_kept) for row in votes.rows}
    assert counted == {
        (1, 0.0): (4, 0, 4, 2),  # right: 1 and 3
        (1, 0.75): (4, 0, 4, 2),
        (2, 0.0): (4, 2, 4, 2),  # 2 and 3 are tied, won by the answer seen first
        (2, 0.75): (4, 2, 2, 1),
        (3, 0.0): (4, 0, 4, 2),  # right: 1 and 2
        (3, 0.75): (4, 0, 2, 1),  # two of three is less than three quarters
        (4, 0.0): (4, 1, 4, 3),
        (4, 0.75): (4, 1, 3, 2),
    }
    assert (votes.stored, votes.questions, at(votes, 4, 0.75).coverage) == (4, 5, 0.6)


def test_the_original_settings_give_the_stored_labels(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy"])
    originals = {row.original_of[0]: row for row in votes.rows if row.original_of}
    assert set(originals) == {"student (seed 42)", "filtered (seed 42)"}
    for name, row in originals.items():
        (manifest,) = [m.to_json() for m in workspace.manifests("label") if m.used_by == [f"{name.split()[0]}/seed42"]]
        facts = manifest["labels"]
        assert (row.voted, row.kept, row.accuracy_kept) == (facts["voted"], facts["kept"], facts["accuracy_kept"])
    assert [note for note in votes.notes if "comes out differently" in note] == []


def test_a_verifier_without_votes_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels were voted on when its class still took votes."""
    monkeypatch.setattr(Numeric, "votes", False)
    with pytest.raises(InputError, match=r"labels of student.* cannot be voted on again: .* verifier 'numeric'"):
        revote(workspace, ["toy/student"])


def test_a_labeler_that_counts_no_answers_wants_no_votes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numeric, "votes", False)
    monkeypatch.setattr(Consensus, "needs_votes", False)
    (votes,) = revote(workspace, ["toy/student"])
    assert votes.rows


def test_labels_that_todays_code_does_not_give_are_noticed(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(workspace.root, tmp_path / "w")
    copy = Workspace(tmp_path / "w")
    (manifest,) = [m for m in copy.manifests("label") if m.used_by == ["student/seed42"]]
    path = manifest.folder / "labels.parquet"
    rows = tables.read(path)
    rows[0]["label"] = "77"
    tables.write(path, tables.LABELS, rows)
    (votes,) = revote(copy, ["toy/student"])
    assert votes.notes == [
        "the original vote of student (seed 42) comes out differently for 1 of 5 questions: the code has changed "
        "since, and this table is of today's"
    ]


def test_without_flags_k_goes_by_powers_of_two_at_the_original_thresholds(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy"])
    assert [(row.k, row.threshold) for row in votes.rows] == [(k, t) for k in (1, 2, 4) for t in (0.0, 0.75)]


def test_dropping_ties_leaves_tied_labels_out(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy/student"], ks=[2], ties="drop")
    row = at(votes, 2, 0.0, "drop")
    assert (row.voted, row.tied, row.kept, row.right_kept, row.spec) == (4, 2, 2, 1, None)


def test_a_tie_at_most_half_way_needs_no_rule_of_its_own(workspace: Workspace) -> None:
    """The advice for ties: a threshold above one half keeps what dropping ties keeps, and no tied label."""
    (votes,) = revote(workspace, ["toy/student"], ks=[2, 4], thresholds=[0.51])
    (dropped,) = revote(workspace, ["toy/student"], ks=[2, 4], thresholds=[0.51], ties="drop")
    assert [row.kept for row in votes.rows if row.threshold == 0.51] == [
        row.kept for row in dropped.rows if row.threshold == 0.51
    ]


def test_random_choices_of_samples_have_a_spread_below_the_stored_number(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy/student"], ks=[1], resamples=200)
    spread = at(votes, 1, 0.0).spread
    assert spread is not None and spread.resamples == 200 and spread.kept_mean == 4
    # One random sample is right with chances 1, 3/4, 1/2, 1/4: 2.5 of 4, and a variance of 7/16 / 16 per vote.
    assert spread.accuracy_kept_mean == pytest.approx(0.625, abs=0.05)
    assert spread.accuracy_kept_sd == pytest.approx((0.625 / 16) ** 0.5, rel=0.2)
    assert at(votes, 4, 0.0).spread is None
    assert revote(workspace, ["toy/student"], ks=[1], resamples=200) == [votes]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["toy/student"],
            {"ks": [8]},
            "--k 8: 4 samples of each question are stored for student (seed 42); more need to be generated, with "
            "k: 8 in the spec's labeler and nsd run",
        ),
        (
            ["toy/student"],
            {"thresholds": [1.5]},
            "labeler 'consensus' refuses threshold = 1.5: input should be less than or equal to 1",
        ),
        (["toy/student"], {"ks": [0]}, "labeler 'consensus' refuses k = 0: input should be greater than or equal to 1"),
        (["toy/student"], {"ties": "last"}, "--ties 'last': one of first, drop"),
        (
            ["toy/oracle"],
            {},
            "the labels of oracle (seed 42) come from labeler 'noisy_oracle', which draws no samples to vote on again",
        ),
        (
            ["toy/base"],
            {},
            "toy/base/seed42 was trained on no pseudo-labels: name a run whose condition has `pseudo` in train_on",
        ),
        (["toy/studnt"], {}, "no run or experiment is named 'toy/studnt'; did you mean 'toy/student/seed42'?"),
    ],
)
def test_what_cannot_be_voted_on_says_why(
    workspace: Workspace, names: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        revote(workspace, names, **options)
    assert str(error.value) == message


def test_an_imported_run_says_that_nothing_is_known_of_its_labels(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(workspace.root, tmp_path / "w")
    (tmp_path / "counts.csv").write_text("condition,correct,n\nelsewhere,5,10\n")
    place = ["--workspace", str(tmp_path / "w")]
    assert CliRunner().invoke(app, ["import", str(tmp_path / "counts.csv"), "--counts", *place]).exit_code == 0
    with pytest.raises(InputError, match="was imported: nsd has its results, and knows of no pseudo-labels"):
        revote(Workspace(tmp_path / "w"), ["*elsewhere*"])


def test_samples_that_were_deleted_are_missed_in_words(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(workspace.root, tmp_path / "w")
    for folder in (tmp_path / "w" / "artifacts").glob("sample-*"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"the samples behind the labels of student \(seed 42\) are gone"):
        revote(Workspace(tmp_path / "w"), ["toy/student"])


def test_the_spec_line_makes_the_setting_real(workspace: Workspace) -> None:
    out = nsd(workspace, "revote", "toy/student", "--k", "2", "--threshold", "0.6")
    (line,) = [line.strip() for line in out.splitlines() if line.strip().startswith("labeler: ")]
    assert line == "labeler: {use: consensus, k: 2, threshold: 0.6}"
    folder = workspace.root.parent
    text = (folder / "toy.yaml").read_text().replace("labeler: {use: consensus, k: 4}", line)
    (folder / "changed.yaml").write_text(text)
    labeler = load_spec(folder / "changed.yaml", run_files=True).conditions["student"].labeler
    assert labeler is not None and (labeler.config.k, labeler.config.threshold) == (2, 0.6)  # type: ignore[attr-defined]


def test_voting_again_writes_nothing(workspace: Workspace) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in workspace.root.rglob("*")}

    before = state()
    nsd(workspace, "revote", "toy", "--k", "2", "--resample", "2")
    assert state() == before


def nsd(workspace: Workspace, *arguments: str) -> str:
    outcome = CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_json_has_the_numbers_of_the_table(workspace: Workspace) -> None:
    (votes,) = json.loads(nsd(workspace, "revote", "toy/student", "--k", "2", "--json"))["revotes"]
    first = votes["rows"][0]
    assert (first["k"], first["threshold"], first["kept"], first["right_kept"]) == (2, 0.0, 4, 2)
    assert first["spec"] == {"use": "consensus", "k": 2, "threshold": 0.0}
    out = nsd(workspace, "revote", "toy/student", "--k", "2")
    assert "50.0%" in out and "original of student (seed 42)" in out


def test_the_labels_command_has_curve_calibration_and_agreement(workspace: Workspace) -> None:
    found = json.loads(nsd(workspace, "labels", "toy", "--json"))
    (student,) = [one for one in found["labels"] if one["conditions"] == ["student"]]
    assert student["risk_coverage"][0] == {"confidence": 1.0, "coverage": 0.2, "accuracy": 1.0, "n": 1}
    assert [(one["confidence"], one["n"], one["accuracy"]) for one in student["calibration"]] == [
        (0.5, 1, 1.0),
        (0.75, 2, 0.5),
        (1.0, 1, 1.0),
    ]
    assert len(found["agreement"]) == 3
    out = nsd(workspace, "labels", str(workspace.root.parent / "toy.yaml"))
    for part in ("confidence at least", "difference in points", "kappa of errors", "labels from the same samples"):
        assert part in out


# --------------------------------------------------------------------------- recorded completions of a real model


@pytest.mark.slow
def test_recorded_samples_of_a_real_model_vote_as_known(tmp_path: Path) -> None:
    """8 recorded samples of 100 MATH questions (Qwen2.5-Math): the majority of 8 is right on 93, four votes tied."""
    file = shared_data("samples/qwen25math_math100x8/math_cot_100.jsonl")
    recorded = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [{"q": row["question"], "a": row["gt"], "texts": row["response"]} for row in recorded]
    workspace = make(tmp_path, rows, 8, "math")
    (votes,) = revote(workspace, ["toy"], ks=[1, 2, 4, 8], thresholds=[0.0, 0.75])
    assert at(votes, 8, 0.0).original_of == ["student (seed 42)"]
    assert at(votes, 8, 0.0).right_kept == 93
    first_right = sum(row["score"][0] for row in recorded)
    assert at(votes, 1, 0.0).right_kept == first_right  # one sample's vote is that sample
    assert not [note for note in votes.notes if "comes out differently" in note]


@pytest.mark.slow
def test_twelve_settings_compare_the_answers_of_a_question_as_often_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"q": f"question {i}", "a": str(i % 97), "texts": [f"#### {(i + i * s % 3) % 97}" for s in range(8)]}
        for i in range(200)
    ]
    workspace = make(tmp_path, rows, 8, "numeric")
    calls: Counter[str] = Counter()
    for name in ("extract", "same"):
        original = getattr(Numeric, name)

        def counted(*given: Any, name: str = name, original: Any = original) -> Any:
            calls[name] += 1
            return original(*given)

        monkeypatch.setattr(Numeric, name, counted)
    revote(workspace, ["toy/student"], ks=[8], thresholds=[0.0])
    once = calls.copy()
    calls.clear()
    (votes,) = revote(workspace, ["toy/student"], ks=[1, 2, 4, 8], thresholds=[0.0, 0.5, 0.75])
    assert len(votes.rows) == 12
    assert calls["extract"] <= 2 * 1600 and calls["same"] <= 2 * once["same"], (once, calls)


def test_a_rule_that_stops_early_is_counted_against_the_plain_vote(workspace: Workspace) -> None:
    (votes,) = revote(workspace, ["toy/filtered"], ks=[4], thresholds=[0.75], stop_votes=["exact", "esc"])
    rows = {row.stop_vote: row for row in votes.rows if (row.k, row.threshold) == (4, 0.75)}
    # By hand, three of four needed: 1 is kept after three and 2 after four; of 3 a third 9 is possible until the
    # fourth; 4 is kept after three, and two texts without a number are the end of 5.
    assert (rows["exact"].seen, rows[""].seen) == (3 + 4 + 4 + 3 + 2, 20)
    assert (rows["exact"].kept, rows["exact"].right_kept) == (rows[""].kept, rows[""].right_kept)
    assert rows["exact"].against is not None and rows["exact"].against.only_this == 0
    assert rows[""].against is None


def test_an_exact_stop_knows_of_no_tie(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"--ties drop with stop_vote exact at threshold 0.*above 0.5"):
        revote(workspace, ["toy/student"], ks=[4], ties="drop", stop_votes=["exact"])
    (votes,) = revote(workspace, ["toy/student"], ks=[4], thresholds=[0.75], ties="drop", stop_votes=["exact"])
    kept = {row.stop_vote: row.kept for row in votes.rows if (row.threshold, row.ties) == (0.75, "drop")}
    assert kept[""] == kept["exact"] == 3


def test_the_spec_lines_are_of_what_was_asked_and_one_for_each_rule(workspace: Workspace) -> None:
    given = ("revote", "toy/filtered", "--k", "4", "--threshold", "0.6", "--stop-vote", "exact", "--stop-vote", "esc")
    lines = [line.strip() for line in nsd(workspace, *given).splitlines() if line.strip().startswith("labeler: ")]
    block = "labeler: {use: consensus, k: 4, threshold: 0.6"
    assert sorted(lines) == sorted([block + "}", block + ", stop_vote: esc}", block + ", stop_vote: exact}"])


def test_weights_need_stored_confidences(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="have no confidences; the engine hf stores them"):
        revote(workspace, ["toy"], weights=["mean"])
    with pytest.raises(InputError, match="--weights 'best': one of logprob, "):
        revote(workspace, ["toy"], weights=["best"])
    with pytest.raises(InputError, match="name one with --weights"):
        revote(workspace, ["toy"], top=0.5)


def test_weights_and_the_surest_share_change_who_wins(workspace: Workspace, tmp_path: Path) -> None:
    toy = give_confidences(Workspace(shutil.copytree(workspace.root, tmp_path / "w")))
    (votes,) = revote(toy, ["toy/student"], ks=[4], weights=["tail"])
    plain, tail = (next(row for row in votes.rows if row.k == 4 and row.weights == by) for by in ("", "tail"))
    # Right answers have weight 9 and others 1: 3 and 4 are won by the right ones, each with a share of its weight.
    assert (plain.right_kept, tail.right_kept) == (3, 4)
    assert tail.against is not None and (tail.against.only_this, tail.against.only_plain) == (1, 0)
    (one,) = revote(toy, ["toy/student"], ks=[4], thresholds=[0.8], weights=["tail"], top=0.25)
    surest = next(row for row in one.rows if row.weights and row.threshold == 0.8)
    assert (surest.kept, surest.right_kept) == (4, 4)  # one sample votes, with all of the weight


def give_confidences(toy: Workspace) -> Workspace:
    """Put confidences into the stored samples: 9 where the text is the question's true number, else 1."""
    (manifest,) = (one for one in toy.manifests("sample") if len(tables.read_completions(samples_of(toy, one))) == 20)
    questions = tables.read_questions(toy.data_file(next(iter(toy.manifests("label"))).made_of["questions"]))
    truth = {question.id: question.answer for question in questions}
    given = [
        replace(one, confidence=Confidence(*(9.0 if one.text == truth[one.question_id] else 1.0,) * 6))
        for one in tables.read_completions(samples_of(toy, manifest))
    ]
    tables.write_completions(samples_of(toy, manifest), given)
    return toy


def samples_of(toy: Workspace, manifest: Any) -> Path:
    return toy.folder("sample", manifest.digest) / "samples.parquet"
