"""A vote within a number of generated tokens: how many rounds are drawn, kept and told, and what claims say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, StopReason
from nsd.plugins.metrics import comparable
from nsd.reports.judge.answer import answer
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.drawing import rounds_within
from nsd.runner.work.execute import execute
from stage_here import do

# Sample 0 of a question has 1 token, all others as `lengths` says; `crash` names a sample before which it breaks once.
ENGINE = """\
import json
from pathlib import Path

from nsd import Completion, Engine, StopReason

HERE = Path(__file__).parent


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        lengths, crash = json.loads((HERE / "lengths").read_text()), HERE / "crash"
        for sample in range(sampling.n):
            for one in requests:
                if (one.question_id, sample) in done:
                    continue
                if crash.exists() and sample == int(crash.read_text()):
                    crash.unlink()
                    raise RuntimeError("gone")
                with (HERE / "drawn").open("a") as log:
                    log.write(f"{one.prompt} {sample}\\n")
                tokens = lengths[min(sample, len(lengths) - 1)]
                yield [Completion(one.question_id, sample, f"#### {sample % 3}", tokens, StopReason.STOP)]
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a}}
prompt: {template: "{question}", chat: false}
engine: ./mine.py:Voice
verifier: numeric
eval: {use: accuracy, temperature: 0.7}
controls: [{maj_at_k: {generated_tokens: N}}]
conditions: {base: {train_on: []}, other: {train_on: [], eval: {use: avg_at_k, k: 6, temperature: 0.7}}}
hypotheses: [base > base_maj_at_k]
"""


class Toy:
    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(ENGINE)
        (folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1"}))
        (folder / "test.jsonl").write_text("\n".join(json.dumps({"q": text, "a": "0"}) for text in ("one", "two")))
        self.lengths(4)

    def lengths(self, *tokens: int) -> None:
        (self.folder / "lengths").write_text(json.dumps(tokens))

    def plan(self, tokens: int, *only: str) -> Plan:
        (self.folder / "toy.yaml").write_text(SPEC.replace("N", str(tokens)))
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True), only=only)

    def run(self, tokens: int, *only: str) -> list[str]:
        """Do what is left of these conditions; what was drawn for it."""
        (self.folder / "drawn").unlink(missing_ok=True)
        plan = self.plan(tokens, *(only or ("base_maj_at_k",)))
        for stage in plan.stages.values():
            if not self.workspace.is_whole(stage.kind, stage.digest):
                do(plan, stage, self.workspace)
        path = self.folder / "drawn"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def manifests(self, tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the control's samples and of its scores."""
        plan = self.plan(tokens, "base_maj_at_k")
        score = plan.stages[plan.runs[0].eval_digest]
        found = [
            self.workspace.manifest("sample", score.inputs["samples"]),
            self.workspace.manifest("score", score.digest),
        ]
        return found[0].to_json(), found[1].to_json()

    def samples(self, tokens: int) -> list[tuple[str, int]]:
        plan = self.plan(tokens, "base_maj_at_k")
        folder = self.workspace.folder("sample", plan.stages[plan.runs[0].eval_digest].inputs["samples"])
        return [(row["question_id"], row["sample"]) for row in tables.read(folder / "samples.parquet")]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.mark.parametrize(("tokens", "rounds", "drawn"), [(55, 6, 12), (56, 7, 14), (17, 2, 8), (3, 1, 8)])
def test_as_many_complete_rounds_are_kept_as_the_tokens_hold_and_one_at_least(
    toy: Toy, tokens: int, rounds: int, drawn: int
) -> None:
    # Two questions of 4 tokens: a round takes 8. The first four rounds are drawn in any case, to see how long they are.
    assert len(toy.run(tokens)) == drawn
    assert len(toy.samples(tokens)) == 2 * rounds
    samples, scores = toy.manifests(tokens)
    assert samples["generation"] == {
        "completions": drawn,
        "tokens": 4 * drawn,
        "stop_reasons": {"stop": drawn},
        "rounds": rounds,
    }
    assert (scores["eval"]["metric"], scores["eval"]["samples"]) == (f"maj@tokens:{tokens}", rounds)


def test_rounds_that_get_longer_than_the_first_ones_are_not_kept_beyond_the_tokens(toy: Toy) -> None:
    toy.lengths(1, 1, 1, 1, 9)  # 2 tokens a round, then 18: of 100 tokens 8 go to the first four, 90 to five more
    toy.run(100)
    assert max(sample for _, sample in toy.samples(100)) + 1 == 4 + 5


def test_rounds_are_counted_by_hand() -> None:
    drawn = [
        Completion(question, sample, "", tokens, StopReason.STOP)
        for sample, both in enumerate([(3, 2), (1, 1), (5, 0)])
        for question, tokens in zip("ab", both, strict=True)
    ]
    assert [rounds_within(drawn, tokens) for tokens in (4, 5, 6, 7, 11, 12, 99)] == [1, 1, 1, 2, 2, 3, 3]


def test_a_stage_that_broke_is_continued_and_gives_what_an_unbroken_one_gives(toy: Toy) -> None:
    (toy.folder / "crash").write_text("5")
    with pytest.raises(RuntimeError, match="gone"):
        toy.run(56)
    assert len((toy.folder / "drawn").read_text().splitlines()) == 10  # five rounds of two
    assert toy.run(56) == ["one 5", "one 6", "two 5", "two 6"]
    assert len(toy.samples(56)) == 14
    assert toy.manifests(56)[0]["generation"]["rounds"] == 7


def test_samples_of_the_same_streams_are_not_drawn_again(toy: Toy) -> None:
    assert len(toy.run(56, "other")) == 12
    assert toy.run(56) == ["one 6", "two 6"]
    assert sum(toy.manifests(56)[0]["shared"].values()) == 12


def test_another_number_of_tokens_takes_what_is_there(toy: Toy) -> None:
    toy.run(40)
    assert toy.run(56) == ["one 5", "one 6", "two 5", "two 6"]


@pytest.mark.slow
def test_a_claim_against_it_is_judged_and_told_how_each_arm_was_measured(toy: Toy) -> None:
    assert execute(toy.plan(56, "base", "base_maj_at_k"), toy.workspace).exit_code == 0
    with Store(toy.workspace).read() as connection:
        found = answer(connection, "toy")
    (verdict,) = found.verdicts
    assert verdict.comparison is not None
    # Samples 0 to 6 answer 0 1 2 0 1 2 0: both arms are right on both questions.
    assert (verdict.comparison.mean_a, verdict.comparison.mean_b, verdict.comparison.n) == (1.0, 1.0, 2)
    assert verdict.comparison.metric == "accuracy against maj@tokens:56"
    first, second = "toy/base is measured by accuracy", "toy/base_maj_at_k is measured by maj@tokens:56"
    assert f"{first} and {second}, the majority of 7 completions" in verdict.note


@pytest.mark.parametrize(
    ("metrics", "so"),
    [
        (["accuracy", "maj@tokens:9"], True),
        (["avg@8", "maj@tokens:9"], True),
        (["maj@8", "maj@tokens:9"], True),
        (["pass@8", "maj@tokens:9"], False),
        (["somebody's", "maj@tokens:9"], False),
        (["accuracy", "maj@8"], False),
    ],
    ids=str,
)
def test_a_vote_within_tokens_compares_with_shares_of_right_answers_and_other_metrics_with_themselves(
    metrics: list[str], so: bool
) -> None:
    assert comparable(set(metrics)) is so
