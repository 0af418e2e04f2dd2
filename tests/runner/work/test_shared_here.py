"""Drawing that is shared, with every process's part done in the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, StopReason
from nsd.plugins.errors import Interrupted
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import ToSample
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.blocks import Kept
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import draw_over, draw_share
from nsd.runner.work.jobs import write_data
from nsd.runner.work.ray_machines import Connection, Member, Over
from nsd.runner.work.ray_pipeline import Actors

ENGINE = """\
from nsd import Completion, Engine, StopReason


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        for request in requests:
            shard = [Completion(request.question_id, n, f"{seed} #### {n}", 3, StopReason.STOP)
                     for n in range(sampling.n) if (request.question_id, n) not in done]
            if shard:
                yield shard
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 40, split: {labeled: 4, test: 13}}
engine: ./mine.py:Voice
eval: {use: avg_at_k, k: 2, temperature: 1.0, max_tokens: 8}
conditions: {base: {train_on: []}}
"""
QUESTIONS, K = 13, 2


class Cluster(Connection):
    """Two machines, which are this one."""

    def open(self, over: Over) -> list[Member]:
        return [Member(4, 2), Member(4, 2)]


class Toy:
    def __init__(self, folder: Path) -> None:
        (folder / "mine.py").write_text(ENGINE)
        (folder / "toy.yaml").write_text(SPEC)
        plan = build_plan(load_spec(folder / "toy.yaml", run_files=True))
        stage = next(one for one in plan.stages.values() if one.kind == "sample")
        assert isinstance(stage.job, ToSample)
        self.work, self.questions = stage.job, plan.data[stage.job.questions]
        (workspace := Workspace(folder / "w")).create()
        write_data(plan, workspace)
        self.workspace, self.partial = workspace, workspace.partial("sample", stage.digest)
        self.told: list[tuple[int, int]] = []

    def tell(self, who: int, drawn: int, rate: float) -> None:
        self.told.append((who, drawn))

    def kept(self) -> Kept:
        return Kept(self.questions, K, self.partial / "shards")

    def world(self, **more: Any) -> Context:
        return Context(self.workspace, self.partial, lambda event: None, **{"should_stop": lambda: False, **more})

    def rows(self, shards: str = "*") -> list[tuple[str, int]]:
        found = [row for path in sorted((self.partial / "shards").glob(shards)) for row in tables.read(path)]
        return [(row["question_id"], row["sample"]) for row in found]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture
def by_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Actors]]:
    """What was given to actors, how many blocks at a time; this process does their work, the last block first."""
    seen: list[tuple[int, Actors]] = []

    def through(
        does: Any, given: tuple[Any, ...], blocks: Sequence[Any], actors: Actors, should_stop: Callable[[], bool]
    ) -> Iterator[tuple[int, Any]]:
        seen.append((len(blocks), actors))
        one = does(*given)
        for number in reversed(range(len(blocks))):
            yield number, one.do(blocks[number])

    monkeypatch.setattr("nsd.runner.work.drawing.through", through)
    return seen


def test_processes_draw_their_shares_and_together_everything_once(toy: Toy) -> None:
    for number in (0, 1):
        draw_share(toy.work, toy.world(number=number, processes=2), toy.kept(), toy.tell)
    first, second = toy.rows("??????.parquet"), toy.rows("*-1.parquet")
    assert (len(first), len(second)) == (7 * K, 6 * K)
    assert sorted(first + second) == sorted((one.id, n) for one in toy.questions for n in range(K))
    assert [(who, drawn) for who, drawn in toy.told if drawn > 10] == [(0, 12), (0, 14), (1, 12)]


def test_what_is_there_is_not_drawn_again(toy: Toy) -> None:
    draw_share(toy.work, toy.world(), toy.kept(), toy.tell)
    files = sorted((toy.partial / "shards").iterdir())
    draw_share(toy.work, toy.world(), toy.kept(), toy.tell)
    assert sorted((toy.partial / "shards").iterdir()) == files and len(files) == QUESTIONS


@pytest.mark.parametrize("broken", [False, True], ids=["told to stop", "a process of the team broke"])
def test_a_drawing_is_left_after_a_shard(toy: Toy, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    context = toy.world(should_stop=lambda: not broken)
    monkeypatch.setattr(type(context.team), "broken", property(lambda self: broken), raising=False)
    with pytest.raises(Interrupted, match="stopped after a shard"):
        draw_share(toy.work, context, toy.kept(), toy.tell)
    assert toy.rows() == [(toy.questions[0].id, n) for n in range(K)]


@pytest.mark.parametrize(("gpus", "had"), [(0, Actors(4, 2)), (2, Actors(4, 1, 1))])
def test_actors_draw_everything_and_the_gpus_that_they_have_are_counted(
    toy: Toy, by_ray: list[tuple[int, Actors]], gpus: int, had: Actors
) -> None:
    counted: list[tuple[int, int]] = []
    over = Over(each=2, gpus=gpus)
    context = toy.world(over=over, ray=Cluster(), computes_with=lambda *found: counted.append(found))
    draw_over(toy.work, context, toy.kept(), toy.tell)
    assert by_ray == [(QUESTIONS, had)] and counted == [(4, 4 * had.gpus)]
    assert sorted(toy.rows()) == sorted((one.id, n) for one in toy.questions for n in range(K))
    assert toy.told == [(0, K * (number + 1)) for number in range(QUESTIONS)]


def test_actors_draw_what_is_missing_and_nothing_where_nothing_is(toy: Toy, by_ray: list[tuple[int, Actors]]) -> None:
    context = toy.world(over=Over(each=2, gpus=0), ray=Cluster())
    drawn = [Completion(one.id, n, "", 1, StopReason.STOP) for one in toy.questions[:5] for n in range(K)]
    tables.write_completions(toy.partial / "shards" / "000000.parquet", drawn)
    for _ in range(2):
        draw_over(toy.work, context, toy.kept(), toy.tell)
    assert [blocks for blocks, _ in by_ray] == [QUESTIONS - 5]
    assert len(toy.rows()) == QUESTIONS * K
