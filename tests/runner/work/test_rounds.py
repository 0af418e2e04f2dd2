"""Votes that stop early, in real runs: what is drawn, by whom, and that neither kills nor neighbours change a label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.api import Completion, Question, StopReason, question_id
from nsd.plugins.errors import InputError
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.verifiers.numeric import Numeric
from nsd.reports.judge.label_quality import StoppedVotes, label_quality
from nsd.reports.page.data import collect_experiment
from nsd.reports.page.page import render_page
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.plan.saving import expected
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.drawing import share
from nsd.runner.work.execute import execute
from nsd.runner.work.revote import revote
from nsd.runner.work.rounds import Wanted

# Says what `answers` lists for a question, and writes down what it was asked for. `crash` names how many completions it
# gives before it breaks once.
ENGINE = """\
import json
from pathlib import Path

from nsd import Completion, Engine, StopReason

HERE = Path(__file__).parent


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        answers, crash = json.loads((HERE / "answers").read_text()), HERE / "crash"
        for sample in range(sampling.n):
            for one in requests:
                if (one.question_id, sample) in done:
                    continue
                if crash.exists():
                    left = int(crash.read_text())
                    crash.write_text(str(left - 1))
                    if left == 0:
                        crash.unlink()
                        raise RuntimeError("gone")
                yield [said(one, sample)]


def said(one, sample):
    with (HERE / "drawn").open("a") as log:
        log.write(f"{one.prompt} {sample}\\n")
    text = f"{sample} #### {json.loads((HERE / 'answers').read_text())[one.prompt][sample]}"
    return Completion(one.question_id, sample, text, 1, StopReason.STOP)


class Flow(Voice):
    # So many at a time as `width` says, of whichever questions; breaks as Voice does.

    grows = True

    def generate_growing(self, model, requests, sampling, seed, samples):
        width, crash = int((HERE / "width").read_text()), HERE / "crash"
        waiting = [(one, sample) for one in requests for sample in samples.first(one.question_id)]
        by_id = {one.question_id: one for one in requests}
        while waiting:
            now, waiting = waiting[-width:], waiting[:-width]
            if crash.exists():
                left = int(crash.read_text()) - len(now)
                crash.write_text(str(left))
                if left < 0:
                    crash.unlink()
                    raise RuntimeError("gone")
            made = [said(*one) for one in reversed(now)]
            for one in made:
                waiting += [(by_id[one.question_id], sample) for sample in samples.further(one)]
            yield made
"""
TRAINER = """

from nsd import Trainer, TrainResult


class Nothing(Trainer):
    def planned_steps(self, examples):
        return 0

    def train(self, job):
        job.output_dir.mkdir(parents=True, exist_ok=True)
        return TrainResult(steps=0, examples_seen=len(job.examples), tokens_seen=0)
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, unlabeled: unlabeled.jsonl, test: test.jsonl,
  fields: {question: q, answer: a}, split: {labeled: 1, unlabeled: 4, test: 1}}
prompt: {template: "{question}", chat: false}
engine: {use: ./mine.py:Voice}
verifier: numeric
labeler: {use: consensus, k: 8, threshold: 0.75}
trainer: {use: ./mine.py:Nothing}
eval: {use: accuracy}
conditions:
  base: {train_on: []}
  early: {train_on: [pseudo], label_with: base, labeler: {stop_vote: exact}}
  lower: {train_on: [pseudo], label_with: base, labeler: {stop_vote: exact, threshold: 0.5}}
  full: {train_on: [pseudo], label_with: base}
"""
ANSWERS = {
    "sure": "77777777",
    "late": "17777771",  # six of eight, the last of them at the seventh
    "lost": "12345678",
    "half": "77771234",  # rejected at .75 with the seventh, kept at .5 with the eighth
    "test": "7",
}
# By hand: at .75 six votes are needed. `sure` has them after 6, `late` after 7, `lost` cannot have them after 4 and
# `half` after 7 (four of seven and one to come).
NEEDED = {"sure": 6, "late": 7, "lost": 4, "half": 7}


class Toy:
    def __init__(self, folder: Path, engine: str = "Voice", width: int = 1) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(ENGINE + TRAINER)
        (folder / "answers").write_text(json.dumps(ANSWERS))
        for name, questions in (("train", ["t"]), ("unlabeled", list(NEEDED)), ("test", ["test"])):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps({"q": q, "a": "7"}) + "\n" for q in questions))
        (folder / "toy.yaml").write_text(SPEC.replace("mine.py:Voice", f"mine.py:{engine}"))
        (folder / "width").write_text(str(width))

    def plan(self, *only: str) -> Plan:
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True), only=only)

    def run(self, *only: str, fails: bool = False) -> list[str]:
        """What the engine drew for the votes, as `QUESTION SAMPLE`."""
        (self.folder / "drawn").write_text("")
        assert execute(self.plan(*only), self.workspace).exit_code == int(fails)
        return [line for line in (self.folder / "drawn").read_text().splitlines() if not line.startswith("test")]

    def labels(self, condition: str) -> list[dict[str, Any]]:
        (run,) = (run for run in self.plan(condition).runs if run.condition == condition)
        assert run.label_digest is not None
        rows = tables.read(self.workspace.folder("label", run.label_digest) / "labels.parquet")
        by_id = {row["question_id"]: row for row in rows}
        return [by_id[question_id(name)] for name in NEEDED]

    def sample_manifest(self, condition: str) -> dict[str, Any]:
        (run,) = (run for run in self.plan(condition).runs if run.condition == condition)
        assert run.label_digest is not None
        drawn = self.workspace.manifest("label", run.label_digest).inputs["samples"]
        return self.workspace.manifest("sample", drawn).to_json()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture(scope="module")
def after_early(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where the arm `early` has run, and what it drew."""
    toy = Toy(tmp_path_factory.mktemp("early"))
    return toy.folder, toy.run("early")


@pytest.fixture
def early(after_early: tuple[Path, list[str]], tmp_path: Path) -> Toy:
    """A copy of it, whose `run` of other arms goes on from there."""
    folder, _ = after_early
    shutil.copytree(folder, tmp_path / "early")
    return Toy(tmp_path / "early")


@pytest.fixture
def drawn_early(after_early: tuple[Path, list[str]]) -> list[str]:
    return after_early[1]


def counts(drawn: list[str]) -> dict[str, int]:
    found = [line.split()[0] for line in drawn]
    return {name: found.count(name) for name in sorted(set(found))}


@pytest.mark.slow
def test_a_vote_draws_what_it_needs_and_the_full_one_beside_it_the_rest(early: Toy, drawn_early: list[str]) -> None:
    first, rest = drawn_early, early.run("full")
    assert counts(first) == dict(sorted(NEEDED.items()))
    assert sorted(first + rest) == sorted(f"{name} {sample}" for name in NEEDED for sample in range(8))
    kept = [(one["question_id"], one["label"], one["target"]) for one in early.labels("early") if one["kept"]]
    assert kept == [(one["question_id"], one["label"], one["target"]) for one in early.labels("full") if one["kept"]]
    assert [one["drawn"] for one in early.labels("early")] == list(NEEDED.values())
    assert [one["drawn"] for one in early.labels("full")] == [None] * 4


@pytest.mark.slow
def test_a_vote_beside_the_full_one_draws_nothing(toy: Toy) -> None:
    toy.run("full")
    assert toy.run("early") == []
    assert [one["drawn"] for one in toy.labels("early")] == list(NEEDED.values())
    generation = toy.sample_manifest("early")["generation"]
    assert (generation["completions"], generation["wanted"], generation["at_most"]) == (0, 24, 32)


@pytest.mark.slow
def test_a_vote_at_another_threshold_draws_only_what_the_first_one_left(early: Toy) -> None:
    # At .5 four votes are needed. `sure` and `half` have them after four, and with the fifth no other number, however
    # near, can be given as often; `late` is decided with the sixth, for a 1 was seen first; `lost` cannot have four
    # after six.
    drawn = early.run("lower")
    assert counts(drawn) == {"lost": 2}
    assert [one["drawn"] for one in early.labels("lower")] == [5, 6, 6, 5]
    assert [one["kept"] for one in early.labels("lower")] == [True, True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("completions", [1, 9, 17, 22])
def test_a_killed_vote_goes_on_where_it_was_and_comes_to_the_same(
    early: Toy, drawn_early: list[str], toy: Toy, completions: int
) -> None:
    whole, labels, again = drawn_early, early.labels("early"), toy
    (again.folder / "crash").write_text(str(completions))
    before = again.run("early", fails=True)
    after = again.run("early")
    assert len(before) == completions
    assert sorted(before + after) == sorted(whole)
    assert again.labels("early") == labels


@pytest.mark.slow
@pytest.mark.parametrize(("width", "completions"), [(3, 4), (50, None)])
def test_an_engine_that_takes_samples_while_it_draws_draws_the_same_ones(
    tmp_path: Path, width: int, completions: int | None
) -> None:
    """Whatever it draws at a time, and where it is killed in between."""
    flow = Toy(tmp_path, "Flow", width)
    before = []
    if completions is not None:
        (flow.folder / "crash").write_text(str(completions))
        before = flow.run("early", fails=True)
        assert before
    assert sorted(before + flow.run("early")) == sorted(
        f"{name} {n}" for name, upto in NEEDED.items() for n in range(upto)
    )
    assert [one["drawn"] for one in flow.labels("early")] == list(NEEDED.values())
    generation = flow.sample_manifest("early")["generation"]
    assert (generation["completions"], generation["wanted"], generation["at_most"]) == (24, 24, 32)


def test_page_and_run_state_the_samples_really_drawn_and_a_range_of_confidence(early: Toy) -> None:
    with Store(early.workspace).read() as connection:
        page = render_page(collect_experiment(connection, early.workspace, "toy"))
    assert "4 votes stopped early, after 24 of 32 samples in all: a confidence is a range there" in page
    found = CliRunner().invoke(app, ["show", "toy/early/seed42", "--workspace", str(early.workspace.root)])
    assert found.exit_code == 0, found.output
    shown = " ".join(found.output.split())
    assert '"completions": 24' in shown and '"wanted": 24, "at_most": 32' in shown
    assert '"stopped_early": 4' in shown


@pytest.mark.slow
def test_a_smaller_round_is_filled_up_and_the_labels_are_the_same(early: Toy, toy: Toy) -> None:
    filled = toy
    text = (filled.folder / "mine.py").read_text()
    (filled.folder / "mine.py").write_text(text.replace("(Engine):", "(Engine):\n    least_rows = 16\n"))
    drawn = filled.run("early")
    assert len(drawn) > sum(NEEDED.values())
    assert filled.labels("early") == early.labels("early")
    generation = filled.sample_manifest("early")["generation"]
    assert (generation["completions"], generation["wanted"]) == (len(drawn), sum(NEEDED.values()))


def test_the_samples_of_a_vote_are_keyed_by_what_ends_it_and_the_full_ones_are_not(toy: Toy) -> None:
    keys = {
        one.used_by[0].partition("/")[0]: one.key
        for one in toy.plan().stages.values()
        if one.kind == "sample" and "unlabeled" not in one.used_by and one.key["sampling"]["n"] == 8
    }
    assert keys["early"].pop("rounds") != keys["lower"].pop("rounds")
    assert keys["early"] == keys["lower"] == keys["full"]


def test_a_vote_that_stopped_has_no_curve_of_confidence_and_says_how_many_samples_it_saw(early: Toy) -> None:
    with Store(early.workspace).read() as connection:
        (found,) = label_quality(connection, ["toy/early/seed42"])
    assert found.stopped == StoppedVotes(4, 24, 32)
    assert (found.calibration, found.risk_coverage, found.histogram) == ([], [], [])
    assert (found.kept, found.right_kept) == (2, 2)


def test_a_vote_that_stopped_is_voted_again_only_where_its_samples_suffice(early: Toy) -> None:
    (votes,) = revote(early.workspace, ["toy"])
    assert {(row.k, row.threshold, row.kept) for row in votes.rows} == {(k, 0.75, n) for k, n in KEPT.items()}
    with pytest.raises(
        InputError, match=r"1 of 4 questions have too few samples for k 8, threshold 0\.5.*draws the rest"
    ):
        revote(early.workspace, ["toy"], ks=[8], thresholds=[0.5])
    with pytest.raises(InputError, match="an arm without stop_vote draws the rest"):
        revote(early.workspace, ["toy"], resamples=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", ["exact", pytest.param("adaptive", marks=pytest.mark.slow), pytest.param("esc", marks=pytest.mark.slow)]
)
def test_the_row_of_a_stopped_vote_bears_its_own_rule(toy: Toy, rule: str) -> None:
    path = toy.folder / "toy.yaml"
    path.write_text(
        path.read_text().replace(
            "early: {train_on: [pseudo], label_with: base, labeler: {stop_vote: exact}}",
            f"early: {{train_on: [pseudo], label_with: base, labeler: {{stop_vote: {rule}}}}}",
        )
    )
    toy.run("early")
    (votes,) = revote(toy.workspace, ["toy"])
    (row,) = (one for one in votes.rows if one.original_of)
    assert (row.stop_vote, row.against) == (rule, None)
    assert all(one.stop_vote == rule for one in votes.rows)
    assert votes.stopped and votes.drawn == row.seen < 32
    assert not [note for note in votes.notes if "comes out differently" in note]


@pytest.mark.slow
def test_an_arm_that_cannot_be_voted_on_again_leaves_the_others_in_the_table(early: Toy) -> None:
    early.run("full")
    (votes,) = revote(early.workspace, ["toy"], ks=[8], thresholds=[0.5])
    assert votes.labels_of == ["full (seed 42)"]
    assert any("left out: the votes of early (seed 42) stopped early" in note for note in votes.notes)
    with pytest.raises(InputError, match="too few samples"):
        revote(early.workspace, ["toy/early"], ks=[8], thresholds=[0.5])


@pytest.mark.slow
def test_the_plan_says_what_share_of_the_samples_is_expected_and_by_whose_votes(toy: Toy) -> None:
    (stage,) = (one for one in toy.plan("early").stages.values() if one.kind == "sample" and "rounds" in one.key)
    stated = expected(stage, toy.workspace.manifests())
    assert stated is not None and stated.share == pytest.approx(0.66, abs=0.02)
    assert "about 66% of the samples" in stated.sentence() and "the labeler states" in stated.sentence()
    toy.run("full")
    # Winners there have 8, 6, 1 and 4 votes of 8.
    earlier = expected(stage, toy.workspace.manifests())
    assert earlier is not None and "an earlier run here" in earlier.sentence()
    assert earlier.share == pytest.approx(0.72, abs=0.06)


def test_an_exact_vote_refuses_a_verifier_that_forms_classes_of_its_own(toy: Toy) -> None:
    own = "\nfrom nsd.plugins.verifiers.numeric import Numeric\n\n\nclass Own(Numeric):\n"
    with (toy.folder / "mine.py").open("a") as code:
        code.write(f"{own}    def group(self, answers):\n        return [0 for _ in answers]\n")
    (toy.folder / "toy.yaml").write_text(SPEC.replace("verifier: numeric", "verifier: {use: ./mine.py:Own}"))
    with pytest.raises(SpecErrors, match="forms its own"):
        toy.plan("early")


# With k samples at .75, by hand: of 1 every first number, of 2 both, of 4 three (`late` and `half` too), of 8 six.
KEPT = {1: 4, 2: 2, 4: 3, 8: 2}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_draw_shares_choose_the_samples_that_one_would(processes: int) -> None:
    questions = [Question(question_id(name), name) for name in NEEDED]
    labeler = Consensus(Consensus.Config(k=8, threshold=0.75, stop_vote="exact"))

    def drawn(parts: int) -> list[Completion]:
        held: dict[tuple[str, int], Completion] = {}
        for number in reversed(range(parts)):
            for waiting, upto in Wanted(labeler, Numeric(), 8, 1).rounds(share(questions, number, parts), held):
                for one in waiting:
                    for sample in range(upto):
                        text = f"#### {ANSWERS[one.text][sample]}"
                        held[one.id, sample] = Completion(one.id, sample, text, 1, StopReason.STOP)
        assert len(held) == sum(NEEDED.values())
        return Wanted(labeler, Numeric(), 8, 1).chosen(questions, held)

    assert drawn(processes) == drawn(1)
