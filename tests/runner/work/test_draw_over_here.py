"""Drawing through Ray's actors, whose work is done in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import blocks, drawing
from nsd.runner.work.context import Context
from nsd.runner.work.drawing_over import Drawer, DrawnBlock, QuestionBlock
from nsd.runner.work.events import Event
from nsd.runner.work.jobs import job_of, write_data
from nsd.runner.work.ray_machines import Connection, Member, Over
from nsd.runner.work.ray_pipeline import Actors
from nsd.runner.work.stages import run_stage

# Refuses after as many completions as `refuse` says.
ENGINE = """\
from pathlib import Path

from nsd import Completion, Engine, StopReason
from nsd.plugins.errors import InputError

REFUSE = Path(__file__).parent / "refuse"


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        left = int(REFUSE.read_text()) if REFUSE.exists() else 99
        for request in requests:
            for sample in range(sampling.n):
                if (request.question_id, sample) not in done:
                    if left == 0:
                        raise InputError("this prompt is no prompt")
                    left -= 1
                    yield [Completion(request.question_id, sample, model.path, 4, StopReason.STOP)]
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 40, split: {labeled: 4, test: 30}}
engine: ./mine.py:Voice
eval: {use: avg_at_k, k: 2, temperature: 1.0, max_tokens: 8}
conditions: {base: {train_on: []}}
"""


class Two(Connection):
    def open(self, over: Over) -> list[Member]:
        return [Member(8, 0), Member(8, 0)]


class Toy:
    """`given` are the blocks' sizes and the actors of each time that Ray was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "mine.py").write_text(ENGINE)
        (folder / "toy.yaml").write_text(SPEC)
        self.folder, self.workspace = folder, Workspace(folder / "w")
        self.plan = build_plan(load_spec(folder / "toy.yaml", run_files=True))
        (self.stage,) = (stage for stage in self.plan.stages.values() if stage.kind == "sample")
        self.given: list[tuple[list[int], Actors]] = []
        self.computed: list[tuple[int, int]] = []
        self.events: list[Event] = []
        self.shards = self.workspace.partial("sample", self.stage.digest) / "shards"
        monkeypatch.setattr(drawing, "through", self.through)

    def through(
        self,
        does: type[Drawer],
        given: tuple[Any, ...],
        owed: Sequence[QuestionBlock],
        actors: Actors,
        stop: Callable[[], bool],
    ) -> Iterator[tuple[int, DrawnBlock]]:
        self.given.append(([len(one.questions) for one in owed], actors))
        assert given[2] == str(self.workspace.root.resolve())
        drawer = does(*given)
        for number in reversed(range(len(owed))):
            yield number, drawer.do(owed[number])

    def draw(self) -> list[dict[str, Any]]:
        write_data(self.plan, self.workspace)
        with self.workspace.lock("sample", self.stage.digest) as partial:
            (partial / "artifact").mkdir(exist_ok=True)
            context = Context(self.workspace, partial, self.events.append, lambda: False, over=Over(2, 0), ray=Two())
            context.computes_with = lambda processes, gpus: self.computed.append((processes, gpus))
            run_stage(job_of(self.plan, self.stage, self.workspace), context)
            return tables.read(partial / "artifact" / "samples.parquet")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(tmp_path, monkeypatch)


def test_each_actor_has_at_least_four_blocks(toy: Toy) -> None:
    rows = toy.draw()
    assert toy.given == [([2] * 15, Actors(4, 4))] and toy.computed == [(4, 0)]
    assert [row["sample"] for row in rows] == [0, 1] * 30 and len({row["question_id"] for row in rows}) == 30
    assert {Path(row["text"]).name for row in rows} == {"wordmath-1m"}
    assert len(list(toy.shards.glob("*.parquet"))) == 15
    assert [event.done for event in toy.events] == [0, *range(4, 61, 4)]
    assert {event.total for event in toy.events} == {60}


def test_so_many_questions_at_a_time_go_to_ray(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_size", lambda samples: 4)
    monkeypatch.setattr(drawing, "AT_ONCE", 3)
    assert len(toy.draw()) == 60
    assert [sum(sizes) for sizes, _ in toy.given] == [12, 12, 6]


def test_what_was_drawn_before_an_engine_refused_is_kept(toy: Toy) -> None:
    (toy.folder / "refuse").write_text("3")
    with pytest.raises(InputError, match=r"^this prompt is no prompt$"):
        toy.draw()
    (shard,) = toy.shards.glob("*.parquet")
    assert len(tables.read_completions(shard)) == 3
    (toy.folder / "refuse").unlink()
    assert len(toy.draw()) == 60
    assert [event.done for event in toy.events if event.resumed] == [3] and toy.events[-1].done == 60


def test_a_block_of_which_nothing_came_leaves_no_shard(toy: Toy) -> None:
    (toy.folder / "refuse").write_text("0")
    with pytest.raises(InputError, match=r"^this prompt is no prompt$"):
        toy.draw()
    assert not any(toy.shards.iterdir())


def test_nothing_that_is_there_goes_to_ray(toy: Toy) -> None:
    toy.draw()
    toy.draw()
    assert len(toy.given) == 1
