"""A run from its end: what it writes down, leaves in a store, tells who follows, and returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.cli import run as running
from nsd.runner.cli.run import full_digests, run_plan
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import record as recording
from nsd.runner.work import worker as working
from nsd.runner.work.events import Event, Told
from nsd.runner.work.execute import Outcome, _Workers, execute
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.sync import Sync
from nsd.runner.work.worker import Worker
from support import PATIENCE, REPOSITORY, wait_until

TOYS = Path(__file__).parents[1] / "toy_plugins.py"
SPEC = f"""\
name: toy
model: builtin:wordmath-1m
data: {{use: wordmath, split: {{labeled: 16, unlabeled: 8, test: 8}}}}
engine: {{use: "{TOYS}:ToyEngine"}}
trainer: {{use: "{TOYS}:ToyTrainer"}}
eval: {{use: accuracy, max_tokens: 16}}
seeds: [7]
conditions:
  base: {{train_on: []}}
  bad: {{train_on: [labeled], trainer: {{mark: bad}}}}
hypotheses: [bad > base]
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder through which a test and the toy plugins talk; the trainer of `bad` fails."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "fail").write_text("bad")
    (tmp_path / "toy.yaml").write_text(SPEC)
    monkeypatch.setenv("NSD_TOY", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    return folder


def plan_of(folder: Path) -> Plan:
    return build_plan(load_spec(folder / "toy.yaml", run_files=True))


def runs_of(workspace: Workspace) -> dict[str, Any]:
    (record,) = [one.to_json() for one in workspace.records()]
    return {run["condition"]: run for run in record["runs"]}


@pytest.mark.slow
def test_a_run_with_a_failure_tells_the_store_the_record_and_whoever_called(
    tmp_path: Path, toy: Path, here: Workspace, there: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("NSD_STORE", f"file://{store}")
    monkeypatch.setenv("NSD_JOB", "job-1")
    plan = plan_of(tmp_path)
    assert run_plan(plan, here, (), None, as_json=False) == 1

    runs = runs_of(here)
    assert (runs["base"]["status"], runs["base"]["reason"]) == ("done", None)
    assert (runs["bad"]["status"], runs["bad"]["reason"]) == ("failed", "it was told to fail")
    with Store(here).read() as index:
        assert index.execute("SELECT status FROM runs ORDER BY condition").fetchall() == [("failed",), ("done",)]

    for folder in (here.root, store):  # here, and for who follows from afar
        word = json.loads((folder / "outcomes" / "job-1.json").read_text())
        assert (word["exit_code"], word["stages_run"]) == (1, 2)
        (failure,) = word["failures"]
        assert failure["reason"] == "it was told to fail" and failure["used_by"] == ["bad/seed7"]
        assert failure["log_end"][-1] == "failed: it was told to fail" and len(failure["log_end"]) <= 30
        score = plan.stages[runs["bad"]["eval_digest"]]
        assert word["skipped"] == [score.inputs["samples"], score.digest]

    bucket = Bucket.open(f"file://{store}")
    base = plan.stages[runs["base"]["eval_digest"]]
    assert bucket.stages() == [("sample", base.inputs["samples"]), ("score", base.digest)]
    assert bucket.has(f"experiments/toy/{plan.spec_digest}.json")
    assert {path.name for path in (store / "data").iterdir()} == {f"{name}.parquet" for name in plan.data}

    # Another machine finds what is done and its claims' date, and makes the rest.
    (toy / "fail").unlink()
    (toy / "log").unlink()
    assert run_plan(plan, there, (), f"file://{store}", as_json=False) == 0
    assert "train bad" in (toy / "log").read_text() and (toy / "log").read_text().count("generate") == 1
    assert there.records()[0].recorded_at == here.records()[0].recorded_at
    assert json.loads((store / "outcomes" / "job-1.json").read_text())["exit_code"] == 0


@pytest.mark.slow
def test_the_store_that_is_named_comes_before_the_one_that_is_set(
    tmp_path: Path, toy: Path, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSD_STORE", f"file://{tmp_path / 'set'}")
    run_plan(plan_of(tmp_path), here, (), f"file://{tmp_path / 'named'}", as_json=True)
    assert (tmp_path / "named").exists() and not (tmp_path / "set").exists()


@pytest.mark.slow
def test_stages_that_are_named_run_with_their_causes_and_no_other(
    tmp_path: Path, toy: Path, here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "fail").unlink()
    plan = plan_of(tmp_path)
    wanted = next(run.eval_digest for run in plan.runs if run.condition == "bad")
    assert run_plan(plan, here, (wanted[:12],), None, as_json=False) == 0
    assert "3 stages run, 0 finished before, 0 failed" in capsys.readouterr().out
    assert {run["condition"]: run["status"] for run in runs_of(here).values()} == {"base": "pending", "bad": "done"}


def test_a_stage_is_named_by_a_beginning_that_only_it_has(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(tmp_path)
    stages = dict(zip(("aa1", "aa2", "b", "d", "e"), plan.stages.values(), strict=True))
    plan.stages = stages
    assert full_digests(plan, ["aa2", "b"]) == ["aa2", "b"]
    for beginning, how_many in (("aa", "2 stages"), ("c", "no stage"), ("", "5 stages")):
        with pytest.raises(InputError, match=f"--stage {beginning}: {how_many} of toy"):
            full_digests(plan, [beginning])


def test_claims_are_on_record_with_their_first_date_before_anything_runs(
    tmp_path: Path, toy: Path, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    noted: list[dict[str, Any]] = []

    def do(self: _Workers, *_: object) -> Event:
        noted.extend(one.to_json() for one in here.records())
        return Event(Told.INTERRUPTED)

    monkeypatch.setattr(_Workers, "do", do)
    dates = iter(f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3, 4, 5, 6, 7, 8, 9))
    monkeypatch.setattr(recording, "now", lambda: next(dates))
    for _ in range(2):
        outcome = execute(plan, here)
        assert (outcome.exit_code, outcome.done, outcome.skipped) == (75, 0, [])  # nothing more was tried
    assert len(noted) == 2
    assert [one["hypotheses"]["claims"][0]["text"] for one in noted] == ["bad > base"] * 2
    assert {one["recorded_at"] for one in noted} == {"2026-01-01T00:00:00+00:00"}
    assert {run["started_at"] for one in noted for run in one["runs"]} <= {
        noted[0]["runs"][0]["started_at"],
        noted[0]["runs"][1]["started_at"],
    }


@pytest.mark.slow
def test_what_is_finished_and_not_in_the_index_is_put_there(tmp_path: Path, toy: Path, here: Workspace) -> None:
    (toy / "fail").unlink()
    plan = plan_of(tmp_path)
    assert execute(plan, here).exit_code == 0
    with Store(here).write() as index:
        index.execute("DELETE FROM stages")
        index.execute("DELETE FROM eval_values")
    outcome = execute(plan, here)
    assert (outcome.done, outcome.cached) == (0, 5)
    with Store(here).read() as index:
        assert index.execute("SELECT count(*) FROM stages").fetchall() == [(5,)]
        assert index.execute("SELECT count(*) FROM eval_values").fetchall() == [(16,)]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(), 0),
        (Outcome(failures=["a failure"]), 1),  # type: ignore[list-item]
        (Outcome(interrupted=True), 75),
        (Outcome(failures=["a failure"], interrupted=True), 75),  # type: ignore[list-item]
    ],
)
def test_exit_codes(outcome: Outcome, code: int) -> None:
    assert outcome.exit_code == code


# --------------------------------------------------------------------------- signals


@pytest.fixture
def handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("signals", "asked"),
    [
        ([signal.SIGTERM], 1),
        ([signal.SIGTERM, signal.SIGTERM], 1),  # as Slurm says it once
        ([signal.SIGINT, signal.SIGINT], 2),  # a person who wants it at once
        ([signal.SIGINT, signal.SIGTERM], 1),
    ],
)
@pytest.mark.usefixtures("handlers")
def test_who_asks_twice(signals: list[signal.Signals], asked: int) -> None:
    with _Workers(ends_process=False, decision=None) as workers:
        for number in signals:
            os.kill(os.getpid(), number)
        assert workers.asked_to_stop == asked
        assert workers.do(None, Path("job"), None) == Event(Told.INTERRUPTED)  # type: ignore[arg-type]
        assert workers.process is None


@pytest.mark.parametrize(("ends", "asked"), [(True, True), (True, False), (False, True)])
@pytest.mark.usefixtures("handlers")
def test_a_second_sigterm_does_not_kill_what_is_about_to_end(ends: bool, asked: bool) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with _Workers(ends_process=ends, decision=None) as workers:
        workers.asked_to_stop = int(asked)
    assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if ends and asked else before)


SLOW_TO_STOP = """
import json, signal, sys, time
events = open(sys.argv[1], "w")
def stop(*_):
    open(sys.argv[2], "w").close()
    if sys.argv[3] == "1":
        events.write(json.dumps({"event": "interrupted"}) + "\\n"); events.flush(); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
events.write(json.dumps({"event": "waiting"}) + "\\n"); events.flush()
while True:
    time.sleep(600)
"""


class Shown:
    """A reporter that asks to stop, so many times, as soon as the worker is at work."""

    def __init__(self, workers: _Workers, times: int) -> None:
        self.workers, self.times = workers, times
        self.said: list[str] = []

    def update(self, event: Event) -> None: ...

    def message(self, text: str) -> None:
        self.said.append(text)
        if "waiting for it" in text:
            self.workers.asked_to_stop = self.times


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("handlers")
def test_asked_once_a_worker_may_save_what_there_is_and_asked_twice_it_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Path, times: int
) -> None:
    plan = plan_of(tmp_path)
    stage = next(stage for stage in plan.stages.values() if stage.kind == "train")
    stage.job = replace(stage.job, processes=2)  # a process of its own
    with _Workers(ends_process=False, decision=None) as workers:
        command = [sys.executable, "-c", SLOW_TO_STOP, str(workers.events_path), str(tmp_path / "saved"), str(times)]
        monkeypatch.setattr("nsd.runner.work.execute.training_command", lambda *_: command)
        shown = Shown(workers, times)
        event = workers.do(stage, tmp_path / "job.json", shown)  # type: ignore[arg-type]
    assert event == Event(Told.INTERRUPTED) and (tmp_path / "saved").exists() is (times == 1)
    assert any("stopping: saving" in text for text in shown.said) is (times == 1)


def test_several_machines_without_a_store_are_refused(
    tmp_path: Path, toy: Path, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYPILOT_NUM_NODES", "2")
    monkeypatch.setenv("SKYPILOT_NODE_IPS", "10.0.0.1 10.0.0.2")
    with pytest.raises(InputError, match="2 machines need a store that all can reach"):
        run_plan(plan_of(tmp_path), here, (), None, as_json=False)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_machine_leads_and_the_others_take_part(
    tmp_path: Path, toy: Path, here: Workspace, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setenv("SKYPILOT_NUM_NODES", "2")
    monkeypatch.setenv("SKYPILOT_NODE_IPS", "10.0.0.1 10.0.0.2")
    monkeypatch.setenv("SKYPILOT_NODE_RANK", str(rank))
    calls: list[tuple[str, Any]] = []

    def leads(plan: Plan, workspace: Workspace, sync: Sync | None, only: Any, **more: Any) -> Outcome:
        calls.append(("leads", only))
        return Outcome(interrupted=True)

    def takes_part(plan: Plan, workspace: Workspace, sync: Sync, nodes: Any, only: Any, settle: Any) -> int:
        calls.append(("takes part", only))
        return 0

    monkeypatch.setattr("nsd.runner.work.execute.execute", leads)
    monkeypatch.setattr("nsd.runner.work.nodes.take_part", takes_part)
    plan = plan_of(tmp_path)
    stage = next(iter(plan.stages))
    code = running.run_plan(plan, here, (stage[:10],), f"file://{tmp_path / 'store'}", as_json=False)
    assert (code, calls) == ((0, [("takes part", [stage])]) if rank else (75, [("leads", [stage])]))


@pytest.mark.slow
def test_what_sigterm_stops_keeps_its_shards_and_goes_on(tmp_path: Path, toy: Path, here: Workspace) -> None:
    for name in ("gated", "log"):
        (toy / name).touch()
    command = [sys.executable, "-m", "nsd.runner.cli", "run", "toy.yaml", "--only", "base", "-w", str(here.root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stderr is not None
    (partial,) = wait_until(lambda: list(here.partials.glob("sample-*")) if (toy / "pids").exists() else [])
    wait_until(lambda: list((partial / "shards").glob("0*.parquet")))
    process.send_signal(signal.SIGTERM)
    for line in process.stderr:
        if "stopping: saving what there is" in line:
            break
    (toy / "gate").touch()
    assert "interrupted; the same command continues here" in process.stderr.read()
    assert process.wait(PATIENCE) == 75
    process.stderr.close()
    kept = sorted(path.name for path in (partial / "shards").iterdir())
    assert kept in (["000000.parquet"], ["000000.parquet", "000001.parquet"]) and not list(here.manifests())
    before = (toy / "log").read_text()
    outcome = execute(build_plan(load_spec(tmp_path / "toy.yaml", run_files=True), ["base"]), here)
    assert (outcome.exit_code, outcome.done) == (0, 2) and (toy / "log").read_text().count("generate") == 2
    assert before.count("generate") == 1


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL): most often the machine ran out of memory"),
        ("import os; os.kill(os.getpid(), 15)", "the worker died of SIGTERM"),
        ("raise SystemExit(3)", "the worker ended with exit code 3 before it could say why"),
    ],
)
def test_a_worker_that_dies_without_a_word_is_a_failure_that_says_how(
    tmp_path: Path, toy: Path, here: Workspace, monkeypatch: pytest.MonkeyPatch, end: str, words: str
) -> None:
    plan = plan_of(tmp_path)
    trained = next(run for run in plan.runs if run.train_digest is not None)
    stage = plan.stages[trained.train_digest or ""]
    stage.job = replace(stage.job, processes=2)
    monkeypatch.setattr("nsd.runner.work.execute.training_command", lambda *_: [sys.executable, "-c", end])
    outcome = execute(plan, here, only=[trained.eval_digest])
    assert [words in failure.reason for failure in outcome.failures] == [True]
    assert [stage.kind for stage in outcome.skipped] == ["sample", "score"] and outcome.exit_code == 1


def test_a_worker_knows_its_parent_and_imports_nothing_of_the_current_folder() -> None:
    environment = worker_environment()
    told = {name: environment[name] for name in ("NSD_PARENT_PID", "TOKENIZERS_PARALLELISM", "PYTHONSAFEPATH")}
    assert told == {"NSD_PARENT_PID": str(os.getpid()), "TOKENIZERS_PARALLELISM": "false", "PYTHONSAFEPATH": "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("handlers")
def test_a_worker_that_is_told_to_stop_looks_at_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def run(self: Worker, job: Path) -> int:
        os.kill(os.getpid(), number)
        return 75 if self.stop.is_set() else 0

    monkeypatch.setattr(Worker, "run", run)
    signal.signal(number, lambda *_: None)
    assert working.main(["--job", "job.json", str(tmp_path / "events")]) == 75
