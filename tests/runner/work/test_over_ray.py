"""Drawing and scoring through Ray's actors: the same as by one process, whatever dies.

A real cluster of three nodes on this machine's loopback, shared by the tests here. The engine needs no torch: what it
draws follows from the stream alone, and it does what a file says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, Question, StopReason
from nsd.plugins.errors import MissingExtra
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import PluginJob, ToSample
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import score
from nsd.runner.work.device import Facts, decide
from nsd.runner.work.drawing_over import Drawer, in_blocks
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.ray_machines import ADDRESS_VARIABLE, LOOPBACK, Connection, Member, Over
from nsd.runner.work.ray_pipeline import AHEAD, RESTARTS, Actors, spread, spread_scoring
from nsd.runner.work.ready import make_ready
from nsd.runner.work.score import Scoring
from support import REPOSITORY, wait_until

PLUGINS = '''
import os
import sys
import time
from pathlib import Path

from nsd import Completion, Engine, StopReason
from nsd.plugins.errors import InputError
from nsd.plugins.seeds import stream

HERE = Path(__file__).parent
RAY = sys.modules.get("ray")
NODE = RAY.get_runtime_context().get_node_id() if RAY is not None and RAY.is_initialized() else "none"


class Told(Engine):
    """A completion at a time. `told` says what is done after so many questions on which node: "NODE 2 hang".

    Nobody begins before as many actors are there as `together` says: some take long to start.
    """

    asked = 0

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        together = HERE / "together"
        (HERE / f"here-{os.getpid()}").touch()
        while together.exists() and len(list(HERE.glob("here-*"))) < int(together.read_text()):
            time.sleep(0.05)
        for request in requests:
            if all((request.question_id, sample) in done for sample in range(sampling.n)):
                continue
            told = (HERE / "told").read_text().split() if (HERE / "told").exists() else ["none", "0", "none"]
            self.asked += 1
            if told[0] in (NODE, "all") and self.asked > int(told[1]):
                self.act(told[2])
            for sample in range(sampling.n):
                if (request.question_id, sample) not in done:
                    with (HERE / "drawn").open("a") as drawn:
                        drawn.write(f"{request.question_id} {sample} {NODE} {os.getpid()}\\n")
                    text = f"The answer is {stream(seed, request.question_id, sample) % 10}"
                    yield [Completion(request.question_id, sample, text, 4, StopReason.STOP)]

    def act(self, what):
        with (HERE / "ready").open("a") as ready:
            ready.write(f"{os.getpid()}\\n")
        if what == "hang":
            time.sleep(3600)
        if what == "refuse":
            raise InputError("engine told: this prompt is no prompt")
        if what == "die":
            os._exit(9)
'''
ALONE = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 40, split: {labeled: 4, test: 30}}
engine: ./mine.py:Told
eval: {use: avg_at_k, k: 2, temperature: 1.0, max_tokens: 8}
conditions: {base: {train_on: []}}
"""
OVER = ALONE + "resources: {device: cpu, over: ray}\n"
PLACES = 60  # 30 questions, two samples each
OBJECTS = 80 * 2**20


class Toy:
    def __init__(self, folder: Path, spec: str = OVER) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "mine.py").write_text(PLUGINS)
        (folder / "toy.yaml").write_text(spec)
        self.plan: Plan = build_plan(load_spec(folder / "toy.yaml", run_files=True))
        self.workspace = Workspace(folder / "w")
        self.sample: Stage = next(stage for stage in self.plan.stages.values() if stage.kind == "sample")
        self.score: Stage = next(stage for stage in self.plan.stages.values() if stage.kind == "score")

    def run(self, told: str = "", together: int = 0, each: int = 1) -> Outcome:
        self.tell(told, together)
        decision = decide(Facts("Linux"), "cpu", sampling_processes=each)
        return execute(self.plan, self.workspace, settle=lambda pending: decision)

    def tell(self, told: str, together: int = 0) -> None:
        for name, text in {"told": told, "together": str(together or "")}.items():
            (self.folder / name).unlink(missing_ok=True)
            if text:
                (self.folder / name).write_text(text)

    def rows(self) -> list[list[dict[str, Any]]]:
        """Texts and scores of every sample, and the values of the questions."""
        folder = self.workspace.folder("score", self.score.digest)
        return [tables.read(folder / name) for name in ("samples.parquet", "values.parquet")]

    def kept(self) -> set[tuple[str, int]]:
        shards = (self.workspace.partial("sample", self.sample.digest) / "shards").glob("*.parquet")
        return {(row["question_id"], row["sample"]) for path in shards for row in tables.read(path)}

    def drawn(self) -> list[tuple[str, int, str]]:
        """Question, sample and node of each drawing."""
        path = self.folder / "drawn"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(question, int(sample), node) for question, sample, node, _ in lines]

    def manifest(self) -> dict[str, Any]:
        return self.workspace.manifest("sample", self.sample.digest).to_json()


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What one process draws, without Ray."""
    one = Toy(tmp_path_factory.mktemp("one") / "toy", ALONE)
    assert one.run().exit_code == 0
    return one.rows()


@dataclass
class Three:
    """A cluster of three nodes with a processor each, by a process that holds it; `nodes` are ids, without the head."""

    holder: subprocess.Popen[str]
    nodes: list[str]

    def ask(self, line: str) -> str:
        """Tell the holder a line, and give its answer."""
        assert self.holder.stdin is not None
        self.holder.stdin.write(f"{line}\n")
        self.holder.stdin.flush()
        return self.said()

    def said(self) -> str:
        """Its next answer; what Ray prints in between is passed over."""
        assert self.holder.stdout is not None
        for line in self.holder.stdout:
            if line.startswith("said "):
                return line.removeprefix("said ").strip()
        raise AssertionError("the cluster has ended")

    def kill(self, node: str) -> None:
        """End a node with all its processes at once."""
        self.ask(f"kill {node}")
        self.nodes.remove(node)

    def complete(self) -> None:
        while len(self.nodes) < 2:
            self.nodes.append(self.ask("add"))


@pytest.fixture(scope="module")
def running() -> Iterator[Three]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt 'ray[data]'")
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**settings, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        command = [sys.executable, str(REPOSITORY / "tests" / "ray_nodes.py"), LOOPBACK, str(OBJECTS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            three = Three(holder, [])
            patch.setenv(ADDRESS_VARIABLE, three.said())
            yield three
            assert holder.stdin is not None
            holder.stdin.close()


@pytest.fixture
def three(running: Three) -> Three:
    running.complete()
    return running


# --------------------------------------------------------------------------- without a cluster


def test_a_run_without_ray_is_refused_with_the_way_out_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Toy(tmp_path / "toy")
    monkeypatch.setattr("nsd.runner.work.ready.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs the package 'ray.*pip install .*ray") as raised:
        execute(toy.plan, toy.workspace, settle=lambda pending: make_ready(toy.plan, pending))
    assert raised.value.exit_code == 2
    assert toy.drawn() == [] and not list(toy.workspace.root.rglob("shards"))


def test_an_actor_has_a_gpu_or_a_share_of_a_machines_cores() -> None:
    assert spread([Member(8, 0), Member(4, 0)], Over(2, 0)) == Actors(4, 2)
    assert spread([Member(1, 0)], Over(3, 0)) == Actors(3, 1)
    assert spread([Member(16, 4), Member(16, 2), Member(8, 0)], Over(4, 4)) == Actors(6, 1, 1)
    assert spread([Member(16, 4), Member(16, 4)], Over(1, 1)) == Actors(2, 1, 1), "sampling_processes: 1"
    assert spread([Member(16, 4), Member(16, 4)], Over(4, 4), every_gpu=True) == Actors(2, 1, 4)
    assert spread_scoring([Member(8, 0), Member(4, 0)], every_core=False) == Actors(12, 1)
    assert spread_scoring([Member(8, 0), Member(4, 0)], every_core=True) == Actors(2, 4)


def test_blocks_are_all_that_is_missing_and_an_actor_draws_what_one_process_does(
    tmp_path: Path, of_one: list[list[dict[str, Any]]]
) -> None:
    toy = Toy(tmp_path / "toy")
    work = toy.sample.job
    assert isinstance(work, ToSample)
    questions = toy.plan.data[work.questions]
    texts = {(row["question_id"], row["sample"]): row["text"] for row in of_one[0]}
    there = {
        (one.id, sample): Completion(one.id, sample, texts[one.id, sample], 4, StopReason.STOP)
        for number, one in enumerate(questions)
        for sample in range(2)
        if number < 8 or (number == 9 and sample == 0)
    }
    blocks = in_blocks(work, questions, {}, there, 2)  # four blocks for each of two actors: four questions in a block
    assert [len(block.questions) for block in blocks] == [4] * 5 + [2], "two whole blocks are there already"
    drawer = Drawer(work, None, str(toy.workspace.root))
    found = [one for block in blocks for one in drawer.do(block).completions]
    drawn = {(one.question_id, one.sample): one.text for one in found}
    assert len(drawn) == len(found) and not drawn.keys() & there.keys()
    assert {**drawn, **{place: one.text for place, one in there.items()}} == texts


# --------------------------------------------------------------------------- on a cluster


@pytest.mark.slow
def test_a_node_that_is_killed_costs_its_blocks_alone(
    three: Three, tmp_path: Path, of_one: list[list[dict[str, Any]]]
) -> None:
    toy = Toy(tmp_path / "toy")
    victim = three.nodes[0]
    killed: list[set[tuple[str, int]]] = []
    ended = threading.Event()

    def kill() -> None:
        # It has drawn a block, and hangs in its second one; meanwhile others draw.
        wait_until(lambda: ((toy.folder / "ready").exists() and len(toy.kept()) >= PLACES // 3) or ended.is_set())
        killed.append(toy.kept())
        three.kill(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = toy.run(f"{victim} 4 hang", together=3)
    ended.set()
    thread.join()
    assert outcome.exit_code == 0, outcome.failures
    assert toy.rows() == of_one
    times = Counter((question, sample) for question, sample, _ in toy.drawn())
    twice = {place for place, count in times.items() if count > 1}
    theirs = {(question, sample) for question, sample, node in toy.drawn() if node == victim}
    block = 2 * 3  # 30 questions, four blocks for each of three actors: three questions, two samples each
    assert len(times) == PLACES and max(times.values()) <= 2
    assert twice <= theirs - killed[0] and len(twice) <= AHEAD * block, "what was not yet kept of the node that died"
    assert toy.manifest()["processes"] == 3


@pytest.mark.slow
def test_after_kill_9_of_the_driver_finished_blocks_are_not_drawn_again(
    three: Three, tmp_path: Path, of_one: list[list[dict[str, Any]]]
) -> None:
    toy = Toy(tmp_path / "toy")
    toy.tell("all 7 hang", together=3)
    words = ["run", str(toy.folder / "toy.yaml"), "-w", str(toy.workspace.root)]
    process = subprocess.Popen([sys.executable, "-m", "nsd.runner.cli", *words], cwd=REPOSITORY, stderr=subprocess.PIPE)
    try:
        # Each of three actors has drawn two blocks of three questions, and hangs in its third one.
        wait_until(lambda: len(toy.kept()) == 36 or process.poll() is not None)
    finally:
        process.kill()
        _, said = process.communicate()
    kept, before = toy.kept(), toy.drawn()
    assert len(kept) == 36, said
    outcome = toy.run()
    assert outcome.exit_code == 0, outcome.failures
    assert toy.rows() == of_one
    again = {(question, sample) for question, sample, _ in toy.drawn()[len(before) :]}
    assert len(again) == PLACES - len(kept) and not again & kept
    spent = toy.manifest()["seconds"]
    assert spent > 0


@pytest.mark.slow
def test_what_an_engine_refuses_in_an_actor_is_said_and_what_was_drawn_is_kept(
    three: Three, tmp_path: Path, of_one: list[list[dict[str, Any]]]
) -> None:
    toy = Toy(tmp_path / "toy")
    (failure,) = toy.run("all 4 refuse").failures
    assert failure.reason == "engine told: this prompt is no prompt"
    kept, before = toy.kept(), len(toy.drawn())
    assert kept
    assert toy.run().exit_code == 0 and toy.rows() == of_one
    assert not {(question, sample) for question, sample, _ in toy.drawn()[before:]} & kept


@pytest.mark.slow
def test_an_actor_that_dies_again_and_again_fails_the_stage(three: Three, tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy")
    (failure,) = toy.run("all 0 die").failures
    assert failure.reason.startswith(f"a process that Ray started died {RESTARTS + 1} times")
    attempts = Counter((toy.folder / "ready").read_text().split())
    assert set(attempts.values()) == {1} and len(attempts) <= 3 * (RESTARTS + 1)


@pytest.mark.slow
def test_actors_score_as_one_process_does(three: Three, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "ALONE_SECONDS", -1.0)
    monkeypatch.setattr(score, "OVER_RAY_SECONDS", 0.0)
    completions = [Completion(f"q{i}", 0, f"The answer is {i % 5}", 4, StopReason.STOP) for i in range(90)]
    questions = {f"q{i}": Question(f"q{i}", "?", answer="2") for i in range(90)}
    block = PluginJob("verifier", "numeric", {})
    told: list[int] = []
    connection = Connection()

    def scoring(name: str, **more: Any) -> Scoring:
        return Scoring(block, tmp_path / name, lambda done, _: told.append(done), lambda: False, **more)

    try:
        found = scoring("over", over=Over(1, 0), ray=connection).of(completions, questions)
    finally:
        connection.close()
    assert found == scoring("alone", processes=1).of(completions, questions)
    assert sum(one.score.correct for one in found) == 18
    assert len(list((tmp_path / "over").glob("*.parquet"))) >= 1


@pytest.mark.slow
def test_one_machine_starts_a_ray_of_its_own_that_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_one: list[list[dict[str, Any]]]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt 'ray[data]'")
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    toy = Toy(tmp_path / "toy")
    outcome = toy.run(together=2, each=2)
    assert outcome.exit_code == 0, outcome.failures
    assert toy.rows() == of_one and toy.manifest()["processes"] == 2
    assert len(toy.drawn()) == PLACES
    pids = {int(line.split()[3]) for line in (toy.folder / "drawn").read_text().splitlines()}
    assert len(pids) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert os.environ.get(ADDRESS_VARIABLE) is None
