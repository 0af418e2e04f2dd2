"""Completions of a stage drawn by several processes: the same as by one, whoever stops, fails or goes on.

The engine here needs no torch: what it draws follows from the stream alone, and it does what a file says.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Question
from nsd.plugins.data import question_id
from nsd.plugins.engines.hf import HfEngine
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import cores
from nsd.runner.work.device import Decision, Facts, decide
from nsd.runner.work.drawing import drawers, share
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.jobs import write_data, write_job
from nsd.runner.work.progress import PlainReporter
from nsd.runner.work.team import Mate, Team
from nsd.runner.work.worker import Worker
from support import REPOSITORY, wait_until
from toy_jobs import to_score

PLUGINS = '''
import os
import signal
import sys
import time
from pathlib import Path

from nsd import Completion, Engine, StopReason, Trainer, TrainResult
from nsd.plugins.seeds import stream

HERE = Path(__file__).parent
NUMBER = int(sys.argv[2]) if "--draw" in sys.argv else 0


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Told(Engine):
    """A completion at a time. `told` says which process does what after its second: "1 raise"."""

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        with (HERE / "seen").open("a") as seen:
            seen.write(f"{NUMBER} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES') or None}\\n")
        with (HERE / "threads").open("a") as threads:
            threads.write(f"draws {os.environ.get('OMP_NUM_THREADS')}\\n")
        told = (HERE / "told").read_text().split() if (HERE / "told").exists() else ["-", "nothing"]
        places = [(one.question_id, sample) for one in requests for sample in range(sampling.n)]
        for count, (question, sample) in enumerate(place for place in places if place not in done):
            if count >= 2 and told[0] in (str(NUMBER), "all"):
                self.act(told[1])
            with (HERE / "drawn").open("a") as drawn:
                drawn.write(f"{question} {sample} {NUMBER}\\n")
            text = f"The answer is {stream(seed, question, sample) % 10}"
            yield [Completion(question, sample, text, 4, StopReason.STOP)]
        (HERE / f"through{NUMBER}").touch()

    def act(self, what):
        if what == "late":
            while not (HERE / "through0").exists():
                time.sleep(0.01)
        if what in ("raise", "late"):
            raise ValueError("this prompt is no prompt")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "unready":  # to be told to stop
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if what in ("unready", "told"):
            os.kill(os.getpid(), signal.SIGTERM)
        if what == "wordless":
            os._exit(75)
        if what == "dawdle":
            (HERE / f"ready{NUMBER}").touch()
            time.sleep(1)


class Every(Told):
    uses_every_gpu = True


class Looks(Trainer):
    """Writes down which processes of the drawing are alive while it trains."""

    def planned_steps(self, examples):
        return 1

    def train(self, job):
        drew = {int(line.split()[1]) for line in (HERE / "seen").read_text().splitlines()} - {os.getpid()}
        with (HERE / "threads").open("a") as threads:
            threads.write(f"trains {os.environ.get('OMP_NUM_THREADS')}\\n")
        (HERE / "trained_on").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        (HERE / "alive").write_text(" ".join(str(pid) for pid in drew if alive(pid)))
        job.output_dir.mkdir(parents=True)
        (job.output_dir / "config.json").write_text("{}")
        return TrainResult(steps=1, examples_seen=1, tokens_seen=None, adapter_only=False, notes={})
'''
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 20, split: {labeled: 4, test: 13}}
engine: ./mine.py:Told
trainer: ./mine.py:Looks
eval: {use: avg_at_k, k: 2, temperature: 1.0, max_tokens: 8}
conditions: {base: {train_on: []}}
"""
PLACES = 26  # 13 questions, two samples each
AGAIN = "{train_on: [], prompt: {template: 'Q: {question}'}}"
THREE = f"conditions: {{base: {{train_on: []}}, again: {AGAIN}, a: {{train_on: [labeled]}}}}\n"


class Toy:
    def __init__(self, folder: Path, spec: str = SPEC) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(PLUGINS)
        (folder / "toy.yaml").write_text(spec)
        self.plan: Plan = build_plan(load_spec(folder / "toy.yaml", run_files=True))
        self.workspace = Workspace(folder / "w")
        self.sample: Stage = next(stage for stage in self.plan.stages.values() if stage.kind == "sample")

    def run(self, processes: int, told: str = "", only: Iterable[str] | None = None) -> Outcome:
        if told:
            (self.folder / "told").write_text(told)
        else:
            (self.folder / "told").unlink(missing_ok=True)
        decision = decide(Facts("Linux"), "cpu", sampling_processes=processes)
        chosen = list(only) if only is not None else None
        return execute(self.plan, self.workspace, only=chosen, settle=lambda pending: decision)

    def rows(self) -> list[dict[str, Any]]:
        return tables.read(self.workspace.folder("sample", self.sample.digest) / "samples.parquet")

    def shards(self) -> list[str]:
        folder = self.workspace.partial("sample", self.sample.digest) / "shards"
        return sorted(path.name for path in folder.glob("*.parquet"))

    def lines(self, name: str) -> list[list[str]]:
        return [line.split() for line in (self.folder / name).read_text().splitlines()]

    def manifest(self) -> dict[str, Any]:
        return self.workspace.manifest("sample", self.sample.digest).to_json()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    (tmp_path / "toy").mkdir()
    return Toy(tmp_path / "toy")


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process draws."""
    one = Toy(tmp_path_factory.mktemp("one"))
    assert one.run(1).exit_code == 0
    return one.rows()


# --------------------------------------------------------------------------- who draws what


def test_shares_are_disjoint_whole_even_and_whatever_the_order() -> None:
    questions = [Question(question_id(f"question {number}"), "?") for number in range(23)]
    for processes in (1, 2, 5, 23, 30):
        shares = [share(questions, number, processes) for number in range(processes)]
        assert sorted(one.id for mine in shares for one in mine) == sorted(one.id for one in questions)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for number, mine in enumerate(shares):
            assert {one.id for one in share(questions[::-1], number, processes)} == {one.id for one in mine}
            assert [one for one in questions if one in mine] == mine, "in the order of the questions"


def test_engines_that_spread_by_themselves_or_hold_no_model_are_asked_by_one_process(tmp_path: Path) -> None:
    told = Toy(tmp_path)
    every = Toy(tmp_path, SPEC.replace("Told", "Every"))
    (tmp_path / "texts.jsonl").write_text('{"question": "a", "completion": "b"}\n')
    replay = Toy(tmp_path, SPEC.replace("./mine.py:Told", "{use: replay, path: texts.jsonl}"))
    found = [drawers(one.sample.job, 4) for one in (told, every, replay)]
    assert found == [4, 1, 1]
    assert drawers(to_score("dada"), 4) == 1


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(toy: Toy, of_one: list[dict[str, Any]]) -> None:
    assert toy.run(2).exit_code == 0
    assert toy.rows() == of_one and len(of_one) == PLACES
    drawn = Counter(map(tuple, toy.lines("drawn")))
    assert set(drawn.values()) == {1} and len(drawn) == PLACES, "nothing is drawn twice"
    assert Counter(number for *_, number in drawn) == {"0": 14, "1": 12}, "seven questions and six"
    assert toy.manifest()["processes"] == 2


@pytest.mark.slow
def test_each_process_sees_a_gpu_of_its_own_and_a_spreading_engine_all(tmp_path: Path) -> None:
    decision = Decision("cuda", 1, "bfloat16", "bf16", (), ("3", "GPU-5", "7"), "a toy", drawing=3)
    seen = {}
    for name in ("Told", "Every"):
        (tmp_path / name).mkdir()
        toy = Toy(tmp_path / name, SPEC.replace("Told", name))
        execute(toy.plan, toy.workspace, settle=lambda pending: decision)
        seen[name] = sorted((number, gpu) for number, _, gpu in toy.lines("seen"))
    assert seen == {"Told": [("0", "3"), ("1", "GPU-5"), ("2", "7")], "Every": [("0", "3,GPU-5,7")]}


@pytest.mark.slow
def test_a_process_whose_share_is_empty_asks_no_engine(tmp_path: Path) -> None:
    toy = Toy(tmp_path, SPEC.replace("test: 13", "test: 2"))
    assert toy.run(3).exit_code == 0
    assert sorted(number for number, *_ in toy.lines("seen")) == ["0", "1"]


@pytest.mark.slow
def test_a_process_whose_share_is_drawn_asks_no_engine(toy: Toy, of_one: list[dict[str, Any]]) -> None:
    assert toy.run(2, "1 late").exit_code == 1
    (toy.folder / "seen").unlink()
    assert toy.run(2).exit_code == 0 and toy.rows() == of_one
    assert [number for number, *_ in toy.lines("seen")] == ["1"]


@pytest.mark.slow
def test_progress_adds_up_over_the_processes(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(PlainReporter, "update", lambda self, event: told.append(event.done))
    toy.run(2, only=[toy.sample.digest])
    assert told == sorted(told) and told[0] == 0 and told[-1] == PLACES


# --------------------------------------------------------------------------- stops and failures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", "process 2 of 3: ValueError: this prompt is no prompt"),
        pytest.param(
            "kill",
            "process 2 of 3: the worker was killed (SIGKILL): most often the machine ran out of memory",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["raise", "kill"],
)
def test_the_process_that_failed_is_named_and_what_all_have_drawn_is_kept(what: str, reason: str, toy: Toy) -> None:
    (failure,) = toy.run(3, f"1 {what}").failures
    assert failure.reason == reason
    log = Path(failure.log)
    assert log.name == "log-rank1.txt" and (what == "kill" or "this prompt is no prompt" in log.read_text())
    kept = len(toy.shards())
    assert kept == len(toy.lines("drawn")), "whoever did not fail saves what it has"
    assert toy.run(2).exit_code == 0
    assert len(toy.lines("drawn")) == PLACES


def test_where_one_cannot_be_started_those_that_have_begun_are_stopped(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third process cannot be: nothing of that name can be opened as its log."""
    toy.workspace.create()
    write_data(toy.plan, toy.workspace)
    job = write_job(toy.plan, toy.sample, toy.workspace)
    job.with_name("log-rank2.txt").mkdir()
    started: list[subprocess.Popen[str]] = []
    begin = Mate.begin

    def noted(self: Mate, *given: Any) -> None:
        started.append(self.process)
        begin(self, *given)

    monkeypatch.setattr(Mate, "begin", noted)
    team = Team(["", ""])
    with (
        pytest.raises(IsADirectoryError),
        team.drawing(job, 3, lambda *_: None, lambda: False),
    ):
        pass
    assert len(started) == 1 and started[0].returncode is not None


def test_a_process_that_cannot_be_started_leaves_no_pipe_open(tmp_path: Path) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = opened()
    with pytest.raises(IsADirectoryError):
        Mate(1, "", tmp_path, threading.Event())
    assert opened() == before


@pytest.mark.slow
def test_the_failure_of_the_leader_has_no_number_and_stops_the_others(toy: Toy) -> None:
    (failure,) = toy.run(2, "0 raise").failures
    assert failure.reason == "ValueError: this prompt is no prompt" and Path(failure.log).name == "log.txt"
    assert len(toy.shards()) == len(toy.lines("drawn"))


def test_a_disk_that_is_full_at_the_end_of_a_stage_is_said(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Workspace, "commit", full)
    toy.workspace.create()
    write_data(toy.plan, toy.workspace)
    said = io.StringIO()
    assert Worker(said).run(write_job(toy.plan, toy.sample, toy.workspace)) == 1
    last = json.loads(said.getvalue().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("failed", "OSError: [Errno 28] No space left on device")
    assert len(toy.shards()) == PLACES, "all that was drawn is kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["told", *(pytest.param(what, marks=pytest.mark.slow) for what in ("unready", "wordless"))]
)
def test_a_process_that_somebody_else_stops_interrupts_the_run(
    what: str, toy: Toy, of_one: list[dict[str, Any]]
) -> None:
    """As Slurm does, which tells every process by itself."""
    outcome = toy.run(2, f"1 {what}")
    assert (outcome.exit_code, outcome.failures) == (75, [])
    assert toy.run(2).exit_code == 0 and toy.rows() == of_one
    assert len(toy.lines("drawn")) == PLACES


@pytest.mark.slow
@pytest.mark.parametrize("again", [1, 3])
def test_a_stop_reaches_every_process_and_another_number_goes_on(
    again: int, toy: Toy, of_one: list[dict[str, Any]]
) -> None:
    (toy.folder / "told").write_text("all dawdle")
    (toy.folder / "toy.yaml").write_text(SPEC + "resources: {device: cpu, sampling_processes: 2}\n")
    words = ["run", str(toy.folder / "toy.yaml"), "-w", str(toy.workspace.root)]
    command = [sys.executable, "-m", "nsd.runner.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        ready = [toy.folder / f"ready{number}" for number in (0, 1)]
        wait_until(lambda: all(path.exists() for path in ready) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, said
    drawn = toy.lines("drawn")
    assert {number for *_, number in drawn} == {"0", "1"} and len(drawn) < PLACES
    assert len(toy.shards()) == len(drawn), "each has saved its shard"
    assert toy.run(again).exit_code == 0
    assert toy.rows() == of_one and len(toy.lines("drawn")) == PLACES


@pytest.mark.slow
def test_after_kill_9_of_the_leader_the_others_end_and_three_go_on(toy: Toy, of_one: list[dict[str, Any]]) -> None:
    assert toy.run(2, "0 kill", only=[toy.sample.digest]).exit_code == 1
    wait_until(lambda: not any(alive(int(pid)) for _, pid, _ in toy.lines("seen")))
    kept = len(toy.shards())
    before = len(toy.lines("drawn"))
    assert 2 <= kept <= before
    assert toy.run(3).exit_code == 0
    assert toy.rows() == of_one
    assert len(toy.lines("drawn")) - before == PLACES - kept, "every completion on disk counts, whoever drew it"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --------------------------------------------------------------------------- from stage to stage


@pytest.mark.slow
def test_the_processes_serve_every_drawing_and_are_gone_while_something_trains(tmp_path: Path) -> None:
    toy = Toy(tmp_path, SPEC.partition("conditions")[0] + THREE)
    drawing = [s.digest for s in toy.plan.stages.values() if s.kind == "sample" and "a/seed" not in s.used_by[0]]
    (training,) = (s.digest for s in toy.plan.stages.values() if s.kind == "train")
    assert len(drawing) == 2 and toy.run(3, only=[*drawing, training]).exit_code == 0
    pids: dict[str, list[str]] = {}
    for number, pid, _ in toy.lines("seen"):
        pids.setdefault(number, []).append(pid)
    assert {(number, len(found), len(set(found))) for number, found in pids.items()} == {
        *((str(number), 2, 1) for number in range(3))
    }
    assert (tmp_path / "alive").read_text() == ""


@pytest.mark.slow
def test_processes_that_draw_share_the_cores_of_a_quota_and_a_training_has_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in cores.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "physical_cores", lambda: 8)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 6.0)
    monkeypatch.setattr(cores, "usable_cores", lambda: 6)
    toy = Toy(tmp_path, SPEC.partition("conditions")[0] + THREE)
    assert toy.run(2).exit_code == 0
    assert Counter(map(tuple, toy.lines("threads"))) == {("draws", "3"): 6, ("trains", "6"): 1}


@pytest.mark.slow
def test_a_spreading_engine_stays_loaded_and_a_training_after_it_sees_one_gpu(tmp_path: Path) -> None:
    toy = Toy(tmp_path, (SPEC.partition("conditions")[0] + THREE).replace("Told", "Every"))
    decision = Decision("cuda", 1, "bfloat16", "bf16", (), ("3", "5"), "a toy", drawing=2)
    assert execute(toy.plan, toy.workspace, settle=lambda pending: decision).exit_code == 0
    seen = [(pid, gpus) for _, pid, gpus in toy.lines("seen")]
    assert [gpus for _, gpus in seen] == ["3,5"] * 3
    assert seen[0] == seen[1] != seen[2], "votes and verdicts between two drawings end nothing, a training does"
    assert (tmp_path / "trained_on").read_text() == "3"


def test_every_gpu_of_every_process_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.runner.store import provenance
    from nsd.runner.work.spending import Spending

    monkeypatch.setattr(provenance, "gpu_count", lambda: 1)
    with Spending(tmp_path, processes=3) as spending:
        pass
    assert spending.seconds > 0 and spending.gpu_seconds == pytest.approx(3 * spending.seconds)


# --------------------------------------------------------------------------- the real engine


@pytest.mark.slow
def test_two_processes_of_the_hf_engine_write_the_texts_of_one(tmp_path: Path) -> None:
    spec = SPEC.replace("./mine.py:Told", "hf").replace("max_tokens: 8", "max_tokens: 40")
    one, two = (tmp_path / name for name in ("one", "two"))
    one.mkdir()
    two.mkdir()
    alone, both = Toy(one, spec), Toy(two, spec)
    alone.workspace.create()
    write_data(alone.plan, alone.workspace)
    assert Worker(io.StringIO()).run(write_job(alone.plan, alone.sample, alone.workspace)) == 0
    HfEngine().close()
    assert both.run(2, only=[both.sample.digest]).exit_code == 0
    assert [toy.manifest()["processes"] for toy in (alone, both)] == [1, 2]
    first, second = (
        [[row[name] for name in ("question_id", "sample", "text", "tokens")] for row in toy.rows()]
        for toy in (alone, both)
    )
    assert first == second and len(first) == PLACES
