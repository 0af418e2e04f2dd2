"""Samples of the same random streams are drawn once, however many of them each stage asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.launch.estimate import Estimator
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.plan.relatives import siblings
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.workspace import Workspace, digest_of
from nsd.runner.work.execute import execute
from nsd.runner.work.sync import Sync

ENGINE = '''
import json
from pathlib import Path

from nsd import Completion, Engine, StopReason

HERE = Path(__file__).parent


class Voice(Engine):
    """Says its seed, question and sample; writes down which it was asked for; fails where a file says so."""

    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        for one in requests:
            for sample in range(sampling.n):
                if (one.question_id, sample) in done:
                    continue
                with (HERE / "drawn").open("a") as log:
                    log.write(f"{one.prompt} {sample} {one.first}\\n")
                if sample == 1 and (HERE / "fail").exists():
                    yield [Completion(one.question_id, sample, "", 0, StopReason.ERROR, "server said 500")]
                else:
                    yield [Completion(one.question_id, sample, f"{seed} {one.prompt} {sample}", 4, StopReason.STOP)]
'''
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a}}
prompt: {template: "{question}", chat: false}
engine: ./mine.py:Voice
verifier: numeric
eval: {use: avg_at_k, k: K, temperature: 0.5}
conditions: {base: {train_on: []}}
"""


class Toy:
    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(ENGINE)
        (folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1"}))
        self.ask("one", "two")

    def ask(self, *texts: str) -> None:
        (self.folder / "test.jsonl").write_text("\n".join(json.dumps({"q": text, "a": "3"}) for text in texts))

    def plan(self, k: int, spec: str = SPEC) -> Plan:
        (self.folder / "toy.yaml").write_text(spec.replace("K", str(k)))
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True))

    def run(self, k: int, spec: str = SPEC, workspace: Workspace | None = None) -> list[str]:
        """Run it and return what was drawn: prompt, sample, and the first sample that was asked for."""
        (self.folder / "drawn").unlink(missing_ok=True)
        assert execute(self.plan(k, spec), workspace or self.workspace).exit_code == 0
        path = self.folder / "drawn"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def samples(self, k: int, workspace: Workspace | None = None) -> list[dict[str, Any]]:
        plan = self.plan(k)
        folder = (workspace or self.workspace).folder("sample", plan.stages[plan.runs[0].eval_digest].inputs["samples"])
        return tables.read(folder / "samples.parquet")


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.mark.slow
def test_four_samples_after_two_draw_two_more_and_are_what_four_alone_are(toy: Toy) -> None:
    assert len(toy.run(2)) == 4
    assert toy.run(4) == ["one 2 2", "one 3 2", "two 2 2", "two 3 2"]
    alone = Workspace(toy.folder / "alone")
    assert len(toy.run(4, workspace=alone)) == 8
    assert toy.samples(4) == toy.samples(4, alone)


@pytest.mark.slow
def test_fewer_samples_after_more_draw_none(toy: Toy) -> None:
    toy.run(4)
    assert toy.run(2) == []
    assert [(row["question_id"], row["sample"]) for row in toy.samples(2)] == [
        (row["question_id"], row["sample"]) for row in toy.samples(4) if row["sample"] < 2
    ]


@pytest.mark.slow
def test_questions_that_are_added_are_drawn_alone(toy: Toy) -> None:
    toy.run(2)
    toy.ask("one", "three", "two")
    assert toy.run(2) == ["three 0 0", "three 1 0"]


@pytest.mark.slow
def test_a_question_whose_text_changed_is_drawn_anew(toy: Toy) -> None:
    fields = "fields: {question: q, answer: a, id: i}"
    spec = SPEC.replace("fields: {question: q, answer: a}", fields)

    def ask(text: str) -> None:
        (toy.folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1", "i": "t"}))
        rows = [{"q": "one", "a": "3", "i": "a"}, {"q": text, "a": "3", "i": "b"}]
        (toy.folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))

    ask("two")
    toy.run(2, spec)
    ask("two, really")
    assert toy.run(2, spec) == ["two, really 0 0", "two, really 1 0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("temperature: 0.5", "temperature: 0.6"),
        ("name: toy", "name: toy\nseed: 7"),
        ('"{question}"', '"Say {question}"'),
        ("temperature: 0.5", "temperature: 0.5, max_tokens: 9"),
    ],
)
def test_nothing_is_taken_from_other_streams(toy: Toy, old: str, new: str) -> None:
    toy.run(2)
    assert len(toy.run(4, SPEC.replace(old, new))) == 8


@pytest.mark.slow
def test_a_failed_completion_is_not_taken(toy: Toy) -> None:
    (toy.folder / "fail").touch()
    toy.ask("one", "two", "three")
    toy.run(3)
    (toy.folder / "fail").unlink()
    assert toy.run(4) == sorted(f"{text} {sample} 1" for text in ("one", "two", "three") for sample in (1, 3))


@pytest.mark.slow
def test_a_manifest_says_what_was_drawn_and_what_was_taken_from_whom(toy: Toy) -> None:
    toy.run(2)
    first, _ = toy.plan(2).stages.values()
    toy.run(3)
    second, _ = toy.plan(3).stages.values()
    found = toy.workspace.manifest("sample", second.digest).to_json()
    assert found["shared"] == {first.digest: 4}
    assert found["generation"] == {"completions": 2, "tokens": 8, "stop_reasons": {"stop": 2}}
    assert toy.workspace.manifest("sample", first.digest).shared == {}


@pytest.mark.slow
def test_nothing_is_taken_from_a_stage_of_another_torch(toy: Toy) -> None:
    toy.run(2)
    first, _ = toy.plan(2).stages.values()
    path = toy.workspace.folder("sample", first.digest) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "packages": {**manifest["packages"], "torch": "1.0"}}))
    assert len(toy.run(3)) == 6


@pytest.mark.slow
def test_plan_says_how_many_completions_are_there(toy: Toy) -> None:
    toy.run(2)
    toy.plan(8)
    words = ["plan", str(toy.folder / "toy.yaml"), "--run-files", "--workspace", str(toy.workspace.root)]
    facts = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [stage["samples_there"] for stage in facts["stages"]] == [2, None]
    assert "2 of 8 samples are there" in " ".join(CliRunner().invoke(app, words).stdout.split())


@pytest.mark.slow
def test_an_estimate_counts_what_is_left_to_draw(toy: Toy) -> None:
    whole = Estimator(toy.plan(8), toy.workspace).on("L4").stages[0]
    toy.run(2)
    left = Estimator(toy.plan(8), toy.workspace).on("L4").stages[0]
    assert left.digest == whole.digest and left.seconds == pytest.approx(whole.seconds * 6 / 8)


def test_siblings_are_the_digests_of_other_numbers_of_samples(toy: Toy) -> None:
    digests = {k: next(iter(toy.plan(k).stages)) for k in (2, 8, 64)}
    key = toy.plan(8).stages[digests[8]].key
    found = list(siblings(key))
    assert found.index(digests[64]) < found.index(digests[2]) and digests[8] not in found


def test_siblings_of_a_key_that_holds_other_numbers_are_digests_of_the_whole_key() -> None:
    sampling = {"n": 513, "top_k": 513}
    key = {"prompt": "513 of 514", "rounds": 3, "sampling": sampling, "seed": 515}
    others = [{**key, "sampling": {**sampling, "n": n}} for n in range(512, 0, -1)]
    for one in others:
        del one["rounds"]
    assert list(siblings(key)) == [digest_of(one) for one in others]


@pytest.mark.slow
def test_a_machine_brings_samples_of_the_same_streams_from_the_store(toy: Toy) -> None:
    toy.run(2)
    bucket = Bucket.open(f"file://{toy.folder / 'store'}")
    first, _ = toy.plan(2).stages.values()
    bucket.push_stage(toy.workspace, "sample", first.digest)
    there = Workspace(toy.folder / "there")
    there.create()
    Sync(bucket, there, toy.plan(3)).fetch()
    assert toy.run(3, workspace=there) == ["one 2 2", "two 2 2"]
