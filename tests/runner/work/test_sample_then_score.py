"""Drawing and scoring are apart: what changes verdicts alone draws nothing and loads no model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from support import REPOSITORY
from toy_workspace import finish, record

ENGINE = '''
import json
import os
import sys
import time
from pathlib import Path

from nsd import Completion, Engine, StopReason
from nsd.plugins.verifiers.numeric import Numeric

HERE = Path(__file__).parent


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        with (HERE / "drawn").open("a") as log:
            log.write("drawn\\n")
        (HERE / "pids").write_text(str(os.getpid()))
        for one in requests:
            for sample in range(sampling.n):
                if (one.question_id, sample) not in done:
                    yield [Completion(one.question_id, sample, "The answer is 3", 4, StopReason.STOP)]


class Heard(Numeric):
    """Says which process scored, and whether torch was there; waits while a file says so."""

    def score(self, completion, question):
        with (HERE / "scored").open("a") as log:
            log.write(json.dumps([question.text, "torch" in sys.modules]) + "\\n")
        time.sleep(0.5 if (HERE / "wait").exists() else 0)
        return super().score(completion, question)
'''
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a}}
engine: ./mine.py:Voice
verifier: numeric
eval: {use: avg_at_k, k: 2}
conditions: {base: {train_on: []}}
"""


class Toy:
    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(ENGINE)
        self.data([3, 4, 5, 3, 3])
        (folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1"}))

    def data(self, answers: list[int]) -> None:
        rows = [json.dumps({"q": f"{i}?", "a": str(answer)}) for i, answer in enumerate(answers)]
        (self.folder / "test.jsonl").write_text("\n".join(rows))

    def plan(self, text: str = SPEC) -> Plan:
        (self.folder / "toy.yaml").write_text(text)
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True))

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def owed(self, plan: Plan) -> list[str]:
        return [stage.kind for stage in plan.pending(self.workspace)]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return Toy(tmp_path)


def test_another_verifier_of_the_quickstart_draws_nothing(tmp_path: Path) -> None:
    """Every stage but the trainings that learn from verdicts, and what comes of them, is where it was."""
    spec, arms = REPOSITORY / "specs" / "grpo_quickstart.yaml", ["base", "baseline", "oracle"]
    (tmp_path / "other.yaml").write_text(f"extends: {spec}\nname: other\nverifier: math\n")
    before, after = build_plan(load_spec(spec), arms), build_plan(load_spec(tmp_path / "other.yaml"), arms)
    gone, new = (
        [stage for stage in plan.stages.values() if stage.digest not in other.stages]
        for plan, other in ((before, after), (after, before))
    )
    assert [stage.kind for stage in gone] == [stage.kind for stage in new] == ["score"] * 3


@pytest.mark.slow
def test_another_verifier_scores_what_is_there_and_loads_no_torch(toy: Toy) -> None:
    assert execute(toy.plan(), toy.workspace).done == 2 and toy.lines("drawn") == ["drawn"]
    plan = toy.plan(SPEC.replace("verifier: numeric", "verifier: ./mine.py:Heard"))
    assert toy.owed(plan) == ["score"]
    assert execute(plan, toy.workspace).done == 1
    assert toy.lines("drawn") == ["drawn"] and len(toy.lines("scored")) == 10
    assert {json.loads(line)[1] for line in toy.lines("scored")} == {False}


@pytest.mark.slow
def test_a_corrected_answer_draws_nothing_and_is_scored_against(toy: Toy) -> None:
    def mean(plan: Plan) -> float:
        return float(toy.workspace.manifest("score", plan.runs[0].eval_digest).to_json()["eval"]["mean"])

    before = toy.plan()
    execute(before, toy.workspace)
    toy.data([3, 3, 5, 3, 3])
    after = toy.plan()
    assert toy.owed(after) == ["score"]
    execute(after, toy.workspace)
    assert (mean(before), mean(after)) == (pytest.approx(3 / 5), pytest.approx(4 / 5))


@pytest.mark.slow
def test_another_metric_over_as_many_samples_draws_nothing(toy: Toy) -> None:
    execute(toy.plan(), toy.workspace)
    assert toy.owed(toy.plan(SPEC.replace("avg_at_k", "pass_at_k"))) == ["score"]


@pytest.mark.slow
def test_what_another_scheme_left_is_readable_and_plan_says_once_why_it_is_owed(toy: Toy) -> None:
    before = finish(toy.workspace, "e1", [1.0, 0.0], used_by=["base/seed42"])
    record(toy.workspace, "toy", {"base": before})
    Store(toy.workspace).rebuild()
    with Store(toy.workspace).read() as index:
        assert index.execute("SELECT avg(value) FROM eval_values WHERE eval_digest = 'e1'").fetchall() == [(0.5,)]
    toy.plan()
    words = ["plan", str(toy.folder / "toy.yaml"), "--run-files", "--json", "--workspace", str(toy.workspace.root)]
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert [note for note in facts["notes"] if "digests of an earlier form" in note] == [
        "1 finished stage of these runs had digests of an earlier form, which held defaults too and let one stage draw "
        "and score: they are kept and can be reported, and today's stages are owed"
    ]
    execute(toy.plan(), toy.workspace)
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert not any("earlier form" in note for note in facts["notes"])


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, 1), (signal.SIGTERM, 75)])
def test_scoring_that_is_killed_or_stopped_goes_on_from_what_it_has(toy: Toy, how: signal.Signals, code: int) -> None:
    plan = toy.plan(SPEC.replace("verifier: numeric", "verifier: ./mine.py:Heard"))
    score = plan.runs[0].eval_digest
    partial = toy.workspace.partial("score", score)
    (toy.folder / "wait").touch()
    words = ["run", str(toy.folder / "toy.yaml"), "-w", str(toy.workspace.root)]
    command = [sys.executable, "-m", "nsd.runner.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    deadline = time.monotonic() + 300
    while not list((partial / "scores").glob("[0-9]*.parquet")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    if how == signal.SIGTERM:
        process.send_signal(how)
    else:
        (worker,) = {int(pid) for pid in toy.lines("pids")}
        os.kill(worker, how)
    assert process.wait(300) == code
    kept = [key for path in (partial / "scores").glob("[0-9]*.parquet") for key in tables.read_scores(path)]
    assert 0 < len(kept) < 10
    (toy.folder / "wait").unlink()
    (toy.folder / "scored").unlink()
    assert execute(plan, toy.workspace).exit_code == 0
    assert len(toy.lines("scored")) == 10 - len(kept) and toy.lines("drawn") == ["drawn"]
