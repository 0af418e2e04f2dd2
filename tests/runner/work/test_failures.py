"""Failed completions: they score 0 and have no vote, and most of a stage failing is a failed stage."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, PseudoLabel, Question, Score, Scored, StopReason
from nsd.plugins.errors import InputError
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.protocols.accuracy import Accuracy
from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.protocols.maj_at_k import MajAtK
from nsd.plugins.protocols.pass_at_k import PassAtK
from nsd.plugins.verifiers.numeric import Numeric
from nsd.reports.judge.metrics import values_sql
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.failures import failures
from nsd.runner.work.revote import revote

QUESTION = Question(id="q", text="q", answer="7")


def completions(*ends: str, text: str = "#### 7", error: str | None = None) -> list[Completion]:
    return [Completion("q", number, text, 1, StopReason(end), error) for number, end in enumerate(ends)]


# --------------------------------------------------------------------------- what one is worth


def test_an_error_scores_zero_whatever_its_text_says_and_a_cut_text_what_it_scores() -> None:
    error, cut = (Scored.judge(one, QUESTION, Numeric()) for one in completions("error", "length"))
    assert error.score == Score(score=0.0, correct=False, answer=None)
    assert cut.score == Score(score=1.0, correct=True, answer="7")


def test_a_verdict_cannot_be_attached_to_a_failed_completion() -> None:
    (error,) = completions("error")
    assert Scored(error, Score(1.0, True, "7")).score == Score(0.0, False, None)


@pytest.mark.parametrize(
    ("protocol", "value"),
    [
        (Accuracy(), 0),
        (AvgAtK(AvgAtK.Config(k=4)), 0.25),
        (PassAtK(PassAtK.Config(k=1, n=4)), 0.25),
        (MajAtK(MajAtK.Config(k=4)), 0),
    ],
)
def test_protocols_count_a_failed_completion_as_wrong(protocol: Any, value: float) -> None:
    right = completions("error", "error", "error", "stop")
    wrong = Completion("q", 4, "#### 8", 1, StopReason.STOP)
    scored = [Scored.judge(one, QUESTION, Numeric()) for one in right]
    if isinstance(protocol, MajAtK):  # two votes for 8 beat the one for 7 that did not fail
        scored = [*scored[:1], *[Scored.judge(wrong, QUESTION, Numeric())] * 2, scored[3]]
    assert protocol.value(scored, Numeric()) == value


def label(*ends: str, target: str = "first") -> PseudoLabel:
    labeler = Consensus(Consensus.Config(k=len(ends), target=target))
    drawn = [Completion("q", n, f"sample {n} #### 7", 9 - n, StopReason(end)) for n, end in enumerate(ends)]
    return labeler.label([QUESTION], {"q": drawn}, Numeric(), 0)[0]


@pytest.mark.parametrize("target", ["first", "shortest", "random"])
def test_a_failed_sample_neither_votes_nor_is_trained_on_and_stays_in_the_denominator(target: str) -> None:
    found = label("error", "stop", "length", "error", target=target)
    assert (found.label, found.votes, found.confidence) == ("7", 2, 0.5)
    assert found.target in ("sample 1 #### 7", "sample 2 #### 7")
    assert label("error", "error").label is None


# --------------------------------------------------------------------------- how many and why


def test_reasons_that_differ_in_numbers_are_one_kind_and_shown_with_theirs() -> None:
    reasons = ["the prompt has 5012 tokens", "the prompt has 4097 tokens", "no answer\n from the server", None]
    found = failures(
        [
            *completions("stop", "length", "stop"),
            *(one for reason in reasons for one in completions("error", error=reason)),
        ]
    )
    assert found is not None and found.most
    assert found.sentence() == "4 of 7 completions failed, most often (2 of 4): the prompt has 5012 tokens"


@pytest.mark.parametrize(("failed", "of", "most"), [(1, 2, True), (2, 3, True), (1, 3, False), (49, 100, False)])
def test_half_is_most(failed: int, of: int, most: bool) -> None:
    found = failures(completions(*["error"] * failed, *["stop"] * (of - failed)))
    assert found is not None and found.most == most
    assert found.sentence() == f"{failed} of {of} completions failed: no reason was given"
    assert failures(completions("stop", "length")) is None


# --------------------------------------------------------------------------- through plan and executor

SPEC = """\
name: failing
model: builtin:wordmath-1m
data: {use: jsonl, train: DATA/train.jsonl, unlabeled: DATA/unlabeled.jsonl, test: DATA/test.jsonl,
  fields: {question: q, answer: a}, split: {labeled: 1, unlabeled: 3, test: 3}}
verifier: numeric
engine: {use: ./engine.py:Recorded, state: DATA/state.json}
labeler: {use: consensus, k: 2}
trainer: {use: ./engine.py:Nothing}
eval: {use: avg_at_k, k: 2}
seeds: [1]
conditions:
  base: {train_on: []}
  student: {train_on: [pseudo], label_with: base}
hypotheses: {claims: [student > base]}
"""
ENGINE = '''
import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from nsd.plugins.api import Completion, Engine, OutputNeutral, PluginConfig, StopReason, Trainer, TrainResult

class Recorded(Engine):
    """Fails on the questions that a file names, notes what it is asked, and gives one shard per completion."""

    class Config(PluginConfig):
        state: Annotated[str, OutputNeutral()]

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        path = Path(self.config.state)
        state = json.loads(path.read_text())
        for request in requests:
            for sample in range(sampling.n):
                if (request.question_id, sample) in done:
                    continue
                end = StopReason(state["ends"].get(f"{request.prompt} {sample}", "stop"))
                state["asked"].append(f"{request.prompt} {sample}")
                path.write_text(json.dumps(state))
                reason = f"server said {100 + len(state['asked'])}" if end is StopReason.ERROR else None
                text = f"FAILED #### {request.prompt[-1]}" if reason else f"#### {request.prompt[-1]}"
                yield [Completion(request.question_id, sample, text, 1, end, reason)]

class Nothing(Trainer):
    def planned_steps(self, examples):
        return 0

    def train(self, job):
        job.output_dir.mkdir(parents=True, exist_ok=True)
        seen = [[e.question.text, e.answer, e.target] for e in job.examples]
        (job.output_dir / "seen.json").write_text(json.dumps(seen))
        return TrainResult(steps=0, examples_seen=len(seen), tokens_seen=0)
'''


class Toy:
    """A spec whose engine fails where `ends` says, and its workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "workspace")
        for name, first in (("train", "l"), ("unlabeled", "u"), ("test", "t")):
            rows = [json.dumps({"q": f"{first}{number}", "a": str(number)}) for number in range(3)]
            (folder / f"{name}.jsonl").write_text("\n".join(rows))
        (folder / "engine.py").write_text(ENGINE)
        text = SPEC.replace("DATA", str(folder)).replace("eval:", 'prompt: {template: "{question}"}\neval:')
        (folder / "failing.yaml").write_text(text)

    def plan(self) -> Plan:
        return build_plan(load_spec(self.folder / "failing.yaml", run_files=True))

    def run(self, *failing: str, cut: Sequence[str] = ()) -> Outcome:
        state = {"asked": [], "ends": {**dict.fromkeys(cut, "length"), **dict.fromkeys(failing, "error")}}
        (self.folder / "state.json").write_text(json.dumps(state))
        return execute(self.plan(), self.workspace)

    def copy(self, folder: Path) -> Toy:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        copied = Toy(folder)
        for path in folder.glob("*.yaml"):  # its data stay where they were: the same stages
            path.write_text((self.folder / path.name).read_text())
        return copied

    def asked(self) -> list[str]:
        return list(json.loads((self.folder / "state.json").read_text())["asked"])

    def manifest(self, kind: str, user: str) -> dict[str, Any]:
        # Of samples those of the untrained model: they were drawn for the labels.
        its = [one for one in self.workspace.manifests(kind) if user in one.used_by]
        (one,) = [one for one in its if kind != "sample" or not one.inputs]
        found = {**one.to_json(), "folder": str(one.folder)}
        return found


@pytest.mark.slow
def test_a_stage_that_mostly_failed_tries_its_failed_completions_again_and_no_other(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    outcome = toy.run("u0 0", "u1 0", "u1 1")
    assert outcome.exit_code == 1
    assert [(failure.stage.kind, failure.reason[:-4]) for failure in outcome.failures] == [
        ("sample", "3 of 6 completions failed: server said")
    ]
    assert {stage.kind for stage in outcome.skipped} == {"label", "train", "sample", "score"}
    assert [one.used_by for one in toy.workspace.manifests("sample")] == [["base/seed1"]]
    assert toy.run("u0 0", "u1 0", "u1 1").exit_code == 1
    (shards,) = toy.workspace.partials.glob("sample-*/shards")
    assert len(list(shards.glob("*.parquet"))) == 6 + 3, "another attempt's shards take no other's place"
    assert toy.run().exit_code == 0
    assert sorted(one for one in toy.asked() if one.startswith("u")) == ["u0 0", "u1 0", "u1 1"]
    samples = tables.read_completions(Path(toy.manifest("sample", "student/seed1")["folder"]) / "samples.parquet")
    assert [(one.sample, str(one.stop_reason)) for one in samples] == [(0, "stop"), (1, "stop")] * 3
    facts = toy.manifest("label", "student/seed1")["labels"]
    assert (facts["kept"], facts["accuracy_kept"]) == (3, 1.0)


@pytest.mark.slow
def test_an_evaluation_that_mostly_failed_is_no_accuracy(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    outcome = toy.run("t0 0", "t1 0", "t2 0")
    assert {failure.stage.kind for failure in outcome.failures} == {"sample"}
    with Store(toy.workspace).read() as connection:
        assert connection.execute("SELECT DISTINCT status FROM runs").fetchall() == [("failed",)]
        assert connection.execute("SELECT count(*) FROM eval_values").fetchall() == [(0,)]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, str]:
    """Two of six completions failed while labelling and one while evaluating, where the others were cut; the output."""
    toy = Toy(tmp_path_factory.mktemp("few"))
    cut = [f"t{number} {sample}" for number in range(3) for sample in range(2)]
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert toy.run("u0 0", "u2 1", "t1 0", cut=cut).exit_code == 0
    return toy, printed.getvalue()


@pytest.mark.slow
def test_below_half_the_run_says_how_many_and_why_and_keeps_it(few: tuple[Toy, str]) -> None:
    toy, printed = few
    sampled = "2 of 6 completions failed: server said "
    assert f"warning: {sampled}" in printed and "warning: 1 of 6 completions failed: server said " in printed
    (event,) = toy.manifest("sample", "student/seed1")["events"]
    assert event["text"].startswith(sampled)
    stored = tables.read(Path(toy.manifest("score", "base/seed1")["folder"]) / "samples.parquet")
    assert [(row["score"], row["correct"], row["answer"]) for row in stored].count((0.0, False, None)) == 1
    assert any(row["text"].startswith("FAILED") and row["stop_reason"] == "error" for row in stored)
    labels = tables.read(Path(toy.manifest("label", "student/seed1")["folder"]) / "labels.parquet")
    assert sorted((row["label"], row["votes"], row["confidence"]) for row in labels) == [
        ("0", 1, 0.5),
        ("1", 2, 1.0),
        ("2", 1, 0.5),
    ]
    seen = json.loads((Path(toy.manifest("train", "student/seed1")["folder"]) / "model" / "seen.json").read_text())
    assert sorted(seen) == [[f"u{n}", str(n), f"#### {n}"] for n in range(3)]
    (votes,) = revote(toy.workspace, ["failing/student/seed1"], ks=[2])
    assert [row.voted for row in votes.rows] == [3]
    assert [note for note in votes.notes if note.startswith(sampled)]


def test_a_cut_completion_counts_as_it_scores_and_as_truncated(few: tuple[Toy, str]) -> None:
    manifest = few[0].manifest("score", "base/seed1")
    assert manifest["eval"]["mean"] == pytest.approx(5 / 6)
    drawn = few[0].manifest("sample", "base/seed1")
    assert drawn["generation"]["stop_reasons"] == {"error": 1, "length": 5}


def written_by_another_version(manifest: dict[str, Any], name: str, schema: Any, rows: list[dict[str, Any]]) -> None:
    """Put other rows into a stored table, with the size that its manifest says."""
    folder = Path(manifest["folder"])
    tables.write(folder / name, schema, rows)
    said = json.loads((folder / "manifest.json").read_text())
    said["files"][name] = (folder / name).stat().st_size
    del said["sha256"]
    (folder / "manifest.json").write_text(json.dumps(said))


def test_stored_samples_of_another_version_give_a_failed_one_nothing(few: tuple[Toy, str], tmp_path: Path) -> None:
    # As nsd stored them before: right, with an answer, though they had failed.
    toy = few[0].copy(tmp_path)
    manifest = toy.manifest("score", "base/seed1")
    path = Path(manifest["folder"]) / "samples.parquet"
    rows = [{**row, "correct": True, "score": 1.0, "answer": "1"} for row in tables.read(path)]
    written_by_another_version(manifest, path.name, tables.SCORED, rows)
    store = Store(toy.workspace)
    store.rebuild()
    digest = manifest["digest"]
    with store.read() as connection:
        for metric, mean in (
            ("accuracy", 5 / 6),
            ("score", 5 / 6),
            ("avg@1", 2 / 3),
            ("pass@1", 5 / 6),
            ("maj@1", 2 / 3),
        ):
            query = f"SELECT avg(value) FROM ({values_sql(connection, metric, [digest])}) WHERE eval_digest = ?"
            assert connection.execute(query, [digest]).fetchone() == (pytest.approx(mean),), metric


@pytest.mark.slow
def test_stored_samples_most_of_which_failed_are_not_voted_on(few: tuple[Toy, str], tmp_path: Path) -> None:
    toy = few[0].copy(tmp_path)
    manifest = toy.manifest("sample", "student/seed1")
    path = Path(manifest["folder"]) / "samples.parquet"
    rows = [{**row, "stop_reason": "error", "error": "gone"} for row in tables.read(path)]
    written_by_another_version(manifest, path.name, tables.COMPLETIONS, rows)
    with pytest.raises(InputError, match="6 of 6 completions failed: gone"):
        revote(toy.workspace, ["failing/student/seed1"])
    label = toy.manifest("label", "student/seed1")
    (Path(label["folder"]) / "manifest.json").unlink()
    outcome = toy.run()
    assert [(f.stage.kind, f.reason.split(";")[0]) for f in outcome.failures] == [
        ("label", "6 of 6 completions failed: gone")
    ]
