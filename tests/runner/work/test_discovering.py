"""Searches for a solution of one question: what is drawn, when it ends, what an attempt is told, and what resumes."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nsd.plugins.api import Completion, Question, Score, Scored, StopReason
from nsd.plugins.verifiers.steps import Steps
from nsd.reports.judge.arms import warnings_of
from nsd.reports.judge.rows import run_rows
from nsd.reports.page.data import collect_experiment
from nsd.reports.page.page import render_page
from nsd.reports.text.summary import print_summary
from nsd.runner.cli.show_plan import print_plan
from nsd.runner.cli.show_run import print_run
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.discovering import Shards, Telling
from nsd.runner.work.execute import execute

# Sample n of a question is right where `right` names n for it; `crash` names a sample before which it breaks once.
ENGINE = """\
import json
from pathlib import Path

from nsd import Completion, Engine, StopReason

HERE = Path(__file__).parent


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        right, crash = json.loads((HERE / "right").read_text()), HERE / "crash"
        for one in requests:
            for sample in range(one.first, sampling.n):
                if crash.exists() and [one.prompt, sample] == json.loads(crash.read_text()):
                    crash.unlink()
                    raise RuntimeError("gone")
                with (HERE / "drawn").open("a") as log:
                    log.write(f"{one.prompt} {sample}\\n")
                said = "#### 3" if sample in right.get(one.prompt, []) else "#### 4"
                yield [Completion(one.question_id, sample, said, 5, StopReason.STOP)]
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a}}
prompt: {template: "{question}", chat: false}
engine: ./mine.py:Voice
verifier: numeric
eval: {use: discovery, samples: 8, batch: 4}
conditions: {base: {train_on: []}}
"""


class Toy:
    """Three questions: x is solved by its sixth sample, y by its first and third, z by none."""

    def __init__(self, folder: Path, spec: str = SPEC) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(ENGINE)
        (folder / "right").write_text(json.dumps({"x": [5, 7], "y": [0, 2]}))
        (folder / "toy.yaml").write_text(spec)
        rows = [json.dumps({"q": one, "a": "3"}) for one in "xyz"]
        (folder / "test.jsonl").write_text("\n".join(rows))
        (folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1"}))

    def plan(self, **options: Any) -> Plan:
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True), **options)

    def run(self) -> dict[str, float]:
        """Run, and give the value of each question by its text."""
        plan = self.plan()
        assert execute(plan, self.workspace).exit_code == 0
        return self.values(plan)

    def values(self, plan: Plan) -> dict[str, float]:
        texts = {one.id: one.text for questions in plan.data.values() for one in questions}
        folder = self.workspace.folder("score", plan.runs[0].eval_digest)
        return {texts[row["question_id"]]: row["value"] for row in tables.read(folder / "values.parquet")}

    def drawn(self) -> list[str]:
        return (self.folder / "drawn").read_text().splitlines()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy whose questions have been searched, to look at."""
    toy = Toy(tmp_path_factory.mktemp("searched"))
    toy.run()
    return toy


@pytest.fixture
def copied(searched: Toy, tmp_path: Path) -> Workspace:
    """A copy of its workspace, to change."""
    return Workspace(shutil.copytree(searched.workspace.root, tmp_path / "copied"))


@pytest.mark.slow
def test_the_number_of_the_first_right_sample_counts_whatever_the_batch(searched: Toy) -> None:
    # x: the 6th of 8, so 3 of 8 are left with it; y: the first; z: none.
    assert searched.values(searched.plan()) == {"x": 3 / 8, "y": 1.0, "z": 0.0}


@pytest.mark.slow
def test_a_search_ends_with_the_batch_that_holds_a_right_sample(searched: Toy) -> None:
    assert sorted(searched.drawn()) == [*(f"x {n}" for n in range(8)), *(f"y {n}" for n in range(4))] + [
        f"z {n}" for n in range(8)
    ]


@pytest.mark.slow
def test_each_question_is_a_stage_and_one_that_is_added_is_searched_alone(toy: Toy) -> None:
    toy.run()
    before = len(toy.drawn())
    with (toy.folder / "test.jsonl").open("a") as rows:
        rows.write("\n" + json.dumps({"q": "new", "a": "3"}))
    assert toy.run() == {"x": 3 / 8, "y": 1.0, "z": 0.0, "new": 0.0}
    assert toy.drawn()[before:] == [f"new {n}" for n in range(8)]


@pytest.mark.slow
def test_a_search_that_broke_goes_on_after_its_last_whole_batch(toy: Toy) -> None:
    (toy.folder / "crash").write_text(json.dumps(["x", 6]))
    assert execute(toy.plan(), toy.workspace).exit_code == 1
    before = len(toy.drawn())
    assert toy.run() == {"x": 3 / 8, "y": 1.0, "z": 0.0}
    assert toy.drawn()[before:] == [f"x {n}" for n in range(4, 8)]


@pytest.mark.slow
def test_a_question_that_a_run_beside_is_at_is_left_for_later(toy: Toy) -> None:
    plan = toy.plan()
    texts = {one.text: one for questions in plan.data.values() for one in questions}
    first = next(one for one in plan.stages.values() if one.kind == "discover")
    toy.workspace.create()
    beside = threading.Event()

    def hold() -> None:
        with toy.workspace.lock("discover", first.digest):
            beside.set()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not ((toy.folder / "drawn").exists() and len(toy.drawn()) >= 12):
                time.sleep(0.05)

    other = threading.Thread(target=hold)
    other.start()
    beside.wait()
    assert toy.run() == {"x": 3 / 8, "y": 1.0, "z": 0.0}
    other.join()
    (held,) = plan.data[first.key["question"]]
    assert texts[held.text] == held
    assert [line.split()[0] for line in toy.drawn()[-4:]] == [held.text] * 4


@pytest.mark.slow
def test_the_questions_of_a_spec_are_searched_and_no_others(toy: Toy) -> None:
    ids = {one.text: one.id for questions in toy.plan().data.values() for one in questions}
    (toy.folder / "toy.yaml").write_text(SPEC.replace("batch: 4", f"batch: 4, questions: ['{ids['z']}', '{ids['y']}']"))
    assert toy.run() == {"z": 0.0, "y": 1.0}


def test_a_smoke_run_finds_the_questions_of_a_spec_wherever_they_stand(toy: Toy) -> None:
    with (toy.folder / "test.jsonl").open("a") as rows:
        rows.writelines("\n" + json.dumps({"q": f"more {n}", "a": "3"}) for n in range(30))
    ids = [one.id for questions in toy.plan().data.values() for one in questions if one.text == "more 29"]
    (toy.folder / "toy.yaml").write_text(SPEC.replace("batch: 4", f"batch: 4, questions: ['{ids[0]}']"))
    plan = toy.plan(smoke=True)
    assert [[one.text for one in questions] for questions in plan.data.values()] == [["more 29"]]


def test_a_smoke_run_searches_few_of_the_questions_of_a_spec(toy: Toy) -> None:
    with (toy.folder / "test.jsonl").open("a") as rows:
        rows.writelines("\n" + json.dumps({"q": f"more {n}", "a": "3"}) for n in range(30))
    ids = sorted({one.id for questions in toy.plan().data.values() for one in questions})
    (toy.folder / "toy.yaml").write_text(SPEC.replace("batch: 4", f"batch: 4, questions: {json.dumps(ids)}"))
    assert sum(stage.kind == "discover" for stage in toy.plan(smoke=True).stages.values()) == 16


@pytest.mark.slow
def test_a_smoke_run_draws_fewer_samples_of_each_question(toy: Toy) -> None:
    (toy.folder / "toy.yaml").write_text(SPEC.replace("batch: 4", "batch: 2"))
    plan = toy.plan(smoke=True)
    assert execute(plan, toy.workspace).exit_code == 0
    assert max(int(line.split()[1]) for line in toy.drawn()) == 3


@pytest.mark.slow
def test_the_index_holds_the_budget_and_every_sample_with_its_verdict(searched: Toy) -> None:
    with Store(searched.workspace).read() as connection:
        assert connection.execute("SELECT metric, questions, samples FROM eval_info").fetchall() == [
            ("discovery@8", 3, 8)
        ]
        found = connection.execute(
            "SELECT min(sample) FILTER (WHERE correct), count(*) FROM eval_samples GROUP BY question_id ORDER BY 1"
        ).fetchall()
    assert found == [(0, 4), (5, 8), (None, 8)]


@pytest.mark.slow
def test_the_answer_and_the_page_hold_the_curves_and_the_samples_of_each_question(toy: Toy) -> None:
    (toy.folder / "toy.yaml").write_text(SPEC.replace("[]}}", "[]}, again: {train_on: [], eval: {batch: 2}}}"))
    plan = toy.plan()
    assert execute(plan, toy.workspace).exit_code == 0
    screen = Console(file=io.StringIO(), width=80)
    with Store(toy.workspace).read() as connection:
        print_summary(connection, screen, "toy", plan.spec_digest, None)
        page = render_page(collect_experiment(connection, toy.workspace, "toy"))
    assert isinstance(screen.file, io.StringIO)
    assert re.search(r"again +2 of 3 +33.3% +33.3% +66.7% +\[.*%, .*%\]", screen.file.getvalue())
    assert page.count("2 of 3 questions solved within 8 samples, 95 % interval") == 2
    assert re.search(r'<th scope="row">\w+</th><td class="n">1</td><td class="n">1</td>', page)
    assert re.search(r'<th scope="row">\w+</th><td class="n">&gt; 8</td><td class="n">&gt; 8</td>', page)


@pytest.mark.slow
def test_a_run_costs_what_its_searches_did(copied: Workspace) -> None:
    price = json.dumps({"cost": {"usd_per_hour": 2}})
    with Store(copied).write() as connection:
        connection.execute("UPDATE stages SET seconds = 3600, manifest = json_merge_patch(manifest, ?)", [price])
    (row,) = run_rows(copied)
    assert row["usd"] == pytest.approx(2 * (3 + 1))  # three searches of an hour, and their gathering


@pytest.mark.slow
def test_what_a_search_warned_of_is_said_of_its_run(searched: Toy, copied: Workspace) -> None:
    plan = searched.plan()
    search = next(one for one in plan.stages.values() if one.kind == "discover")
    with Store(copied).write() as connection:
        connection.execute("INSERT INTO events VALUES (?, NULL, 'a completion failed', NULL)", [search.digest])
        assert [one.text for one in warnings_of(connection, [plan.runs[0].run])] == ["a completion failed"]


@pytest.mark.slow
def test_show_says_of_each_search_whether_it_solved_its_question(
    searched: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = searched.plan().runs[0].run
    capsys.readouterr()
    print_run(searched.workspace, run, as_json=False)
    shown = capsys.readouterr().out
    found = ('{"by": "sampling", "solved": true, "samples": 6}', '{"by": "sampling", "solved": false, "samples": 8}')
    assert [shown.count(one) for one in found] == [1, 1]


def test_a_search_is_named_by_its_question_and_those_alike_stand_as_one(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan = toy.plan()
    searches = [stage for stage in plan.stages.values() if stage.kind == "discover"]
    ids = [plan.data[stage.key["question"]][0].id for stage in searches]
    assert [stage.size for stage in searches] == [f"question {one}, up to 8 samples by sampling" for one in ids]
    print_plan(plan, toy.workspace, as_json=False)
    assert capsys.readouterr().out.count("3 questions, up to 8 samples by sampling") == 1


PROGRAMS = """\
name: toy
model: builtin:wordmath-1m
data: {use: code_puzzles, train: 4, test: 4, split: {test: 2}}
engine: ./mine.py:Voice
eval: {use: discovery, samples: 2, batch: 2}
conditions: {base: {train_on: []}}
"""


@pytest.mark.slow
def test_a_search_says_in_what_its_programs_ran(tmp_path: Path) -> None:
    toy = Toy(tmp_path, PROGRAMS)
    plan = toy.plan()
    assert execute(plan, toy.workspace).exit_code == 0
    searches = [toy.workspace.manifest(one.kind, one.digest) for one in plan.stages.values() if one.kind == "discover"]
    gathered = toy.workspace.manifest("score", plan.runs[0].eval_digest)
    assert gathered.sandbox is not None
    assert [one.sandbox for one in searches] == [gathered.sandbox] * 2


TURNS = (
    SPEC.replace("verifier: numeric", "verifier: steps")
    .replace("batch: 4", "by: multi_turn")
    .replace("Voice", "Told")
    .replace('"{question}"', '"{question}?"')
)
# Answers 4, with a step that says where the number is from; right as soon as it was told so three times.
TOLD = """\
import json
from pathlib import Path

from nsd import Completion, Engine, StopReason

HERE = Path(__file__).parent


class Told(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        (one,) = requests
        with (HERE / "prompts").open("a") as log:
            log.write(json.dumps([one.prompt, one.first, sampling.n]) + "\\n")
        said = "#### 3" if one.prompt.count("is 3, not 4") >= 3 else "1 + 2 = 4\\n#### 4"
        yield [Completion(one.question_id, one.first, said, 5, StopReason.STOP)]
"""


@pytest.mark.slow
def test_turns_are_told_all_feedback_so_far_and_end_with_the_first_right_one(tmp_path: Path) -> None:
    toy = Toy(tmp_path, TURNS)
    (tmp_path / "mine.py").write_text(TOLD)
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "x", "a": "3"}))
    assert toy.run() == {"x": 5 / 8}
    prompts = [json.loads(line) for line in (tmp_path / "prompts").read_text().splitlines()]
    assert [(first, upto) for _, first, upto in prompts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [prompt.count("Step 1 is wrong: 1 + 2 is 3, not 4.") for prompt, *_ in prompts] == [0, 1, 2, 3]
    assert all(prompt.startswith("x?") and "####" not in prompt for prompt, *_ in prompts)


def scored(sample: int, right: bool) -> Scored:
    completion = Completion("q", sample, "text", 1, StopReason.STOP)
    return Scored(completion, Score(float(right), right, None, None if right else "wrong"))


def test_a_batch_that_is_drawn_again_takes_away_those_that_came_after(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1)
    for number in range(3):
        shards.keep(number, [scored(number, False)])
    shards.keep(1, [scored(1, True)])
    assert [one.score.correct for one in Shards(tmp_path, 1).scored()] == [False, True]


def test_a_broken_batch_is_owed_with_all_that_came_after(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1)
    for number in range(3):
        shards.keep(number, [scored(number, False)])
    (tmp_path / "000001.parquet").write_bytes(b"torn")
    assert len(Shards(tmp_path, 1).scored()) == 1


def test_a_failed_sample_is_owed_again_with_all_that_came_after(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1)
    failed = Scored(Completion("q", 1, "", 0, StopReason.ERROR, "gone"), Score(0.0, False, None))
    for number, one in enumerate([scored(0, False), failed, scored(2, False)]):
        shards.keep(number, [one])
    assert [one.completion.sample for one in Shards(tmp_path, 1).scored()] == [0]


def failed(sample: int) -> Scored:
    return Scored(Completion("q", sample, "", 0, StopReason.ERROR, "gone"), Score(0.0, False, None))


@pytest.mark.parametrize("how", ["broken", "failed"])
def test_what_came_after_an_owed_batch_is_gone_also_when_the_next_attempt_breaks(how: str, tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1)
    for number in range(4):
        shards.keep(number, [failed(1) if (how, number) == ("failed", 1) else scored(number, False)])
    if how == "broken":
        (tmp_path / "000001.parquet").write_bytes(b"torn")
    Shards(tmp_path, 1).keep(1, [scored(1, False)])  # and then it breaks again
    assert [one.completion.sample for one in Shards(tmp_path, 1).scored()] == [0, 1]


@pytest.mark.parametrize("how", ["broken", "failed"])
def test_an_independent_batch_is_drawn_again_alone(how: str, tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1, chained=False)
    for number in range(4):
        shards.keep(number, [failed(1) if (how, number) == ("failed", 1) else scored(number, False)])
    if how == "broken":
        (tmp_path / "000001.parquet").write_bytes(b"torn")
    again = Shards(tmp_path, 1, chained=False)
    assert (again.owed, len(again.scored()), again.ended(4)) == (1, 1, False)
    again.keep(1, [scored(1, False)])
    assert [one.completion.sample for one in again.scored()] == [0, 1, 2, 3]
    assert again.ended(4)


def test_an_independent_batch_that_is_right_when_drawn_again_ends_the_search_there(tmp_path: Path) -> None:
    for number, one in enumerate([scored(0, False), failed(1), scored(2, True)]):
        Shards(tmp_path, 1, chained=False).keep(number, [one])
    again = Shards(tmp_path, 1, chained=False)
    assert not again.ended(4)  # the second may be the first right one
    again.keep(1, [scored(1, True)])
    assert [one.completion.sample for one in again.scored()] == [0, 1]


@pytest.mark.slow
def test_a_failed_sample_of_a_search_by_sampling_costs_its_own_batch_alone(toy: Toy) -> None:
    (toy.folder / "toy.yaml").write_text(SPEC.replace("batch: 4", "batch: 2"))
    (toy.folder / "right").write_text("{}")
    (toy.folder / "crash").write_text(json.dumps(["x", 6]))
    assert execute(toy.plan(), toy.workspace).exit_code == 1
    (shard,) = (toy.folder / "w").rglob("shards/000000.parquet")
    first, second = tables.read_scored(shard)
    gone = replace(second.completion, text="", stop_reason=StopReason.ERROR, error="gone")
    tables.write_scored(shard, [first, Scored(gone, second.score)])
    before = len(toy.drawn())
    toy.run()
    assert [line for line in toy.drawn()[before:] if line.startswith("x")] == ["x 0", "x 1", "x 6", "x 7"]


def test_a_verdict_knows_the_truth_that_its_asker_has_not() -> None:
    truth = Question("q", "What is 1 + 2?", "3", "Sum: 1 + 2 = 3\n#### 3")
    telling, blind = Telling(Steps(), truth), Question("q", "What is 1 + 2?")
    assert telling.score("1 + 2 = 3\n#### 3", blind).correct
    told = telling.score_many([("1 + 3 = 4\n#### 4", blind)])[0]
    assert (told.correct, told.feedback) == (False, "Step 1 is wrong: 1 + 3 does not belong to this question.")


# --------------------------------------------------------------------------- on the embedded model

TRAININGS = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 50, test: 400, steps: [0, 0, 0, 1], split: {labeled: 8, test: 2}}
verifier: ./mine.py:Never
resources: {device: cpu}
eval: {use: discovery, samples: 12, batch: 4, max_tokens: 24}
conditions:
"""
# 24 tokens hold no solution of four steps. It counts what it is shown, and breaks once where a file names the count.
NEVER = """
from pathlib import Path

from nsd.plugins.verifiers.steps import Steps

HERE = Path(__file__).parent


class Never(Steps):
    def score(self, completion, question):
        with (HERE / "seen").open("a") as log:
            log.write("seen\\n")
        seen = len((HERE / "seen").read_text().splitlines())
        if (HERE / "stop").exists() and seen > int((HERE / "stop").read_text()):
            (HERE / "stop").unlink()
            raise RuntimeError("stopped")
        return super().score(completion, question)
"""


# An arm of another trainer, or of other steps.
ARM = """\
  {0}:
    train_on: []
    eval:
      by: training
      trainer: {{use: {1}, num_generations: 4, max_tokens: 24, learning_rate: {2}, save_every: 1}}
"""
LEARNED = TRAININGS + ARM.format("learns", "sdpo", "1e-4")
OTHERS = ARM.format("grpo", "grpo", "1e-4") + ARM.format("rloo", "rloo", "1e-4")
STANDS = ARM.format("stands", "sdpo", "1e-12")  # too small a step to change a word


def learned(folder: Path, spec: str = LEARNED) -> tuple[Plan, Workspace]:
    (folder / "mine.py").write_text(NEVER)
    (folder / "toy.yaml").write_text(spec)
    return build_plan(load_spec(folder / "toy.yaml", run_files=True)), Workspace(folder / "w")


def samples(plan: Plan, workspace: Workspace, arm: str = "learns") -> list[tuple[str, int, str]]:
    (digest,) = (run.eval_digest for run in plan.runs if run.condition == arm)
    path = workspace.folder("score", digest) / "samples.parquet"
    return [(row["question_id"], row["sample"], row["text"]) for row in tables.read(path)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Workspace]:
    """One run, undisturbed, in which every trainer searched."""
    plan, workspace = learned(tmp_path_factory.mktemp("trained"), LEARNED + OTHERS + STANDS)
    assert execute(plan, workspace).exit_code == 0
    return plan, workspace


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["learns", "grpo", "rloo"])
def test_a_trainer_searches_each_question_from_the_same_weights(arm: str, trained: tuple[Plan, Workspace]) -> None:
    drawn = samples(*trained, arm)
    numbers = [sample for _, sample, _ in drawn]
    assert len({question for question, _, _ in drawn}) == 2
    assert numbers == [*range(12)] * 2  # no sample is right, so all are drawn
    assert not [stage for stage in trained[1].manifests("discover") if stage.has_weights]


@pytest.mark.slow
def test_a_search_that_learns_moves_its_later_samples(trained: tuple[Plan, Workspace]) -> None:
    mine, theirs = samples(*trained), samples(*trained, "stands")
    assert [one for one in mine if one[1] < 4] == [one for one in theirs if one[1] < 4]
    assert [one for one in mine if one[1] >= 4] != [one for one in theirs if one[1] >= 4]


@pytest.mark.slow
def test_a_search_that_broke_in_its_training_ends_as_an_uninterrupted_one(
    trained: tuple[Plan, Workspace], tmp_path: Path
) -> None:
    (tmp_path / "stop").write_text("9")  # in the first question's third batch
    again, elsewhere = learned(tmp_path)
    assert execute(again, elsewhere).exit_code == 1
    assert execute(again, elsewhere).exit_code == 0
    assert samples(again, elsewhere) == samples(*trained)
