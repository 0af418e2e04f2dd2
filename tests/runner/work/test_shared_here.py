"""Drawing and scoring that are shared, with every process's part done in the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Completion, Question, Score, StopReason
from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.plugins.verifiers.numeric import Numeric
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import PluginJob, ToSample
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import score
from nsd.runner.work.blocks import Kept
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import draw_over, draw_share
from nsd.runner.work.jobs import write_data
from nsd.runner.work.ray_machines import Connection, Member, Over
from nsd.runner.work.ray_pipeline import Actors
from nsd.runner.work.score import CHUNK, Judge, Scoring, verdicts

ENGINE = """\
from pathlib import Path

from nsd import Completion, Engine, StopReason
from nsd.plugins.errors import InputError


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        for request in requests:
            shard = [Completion(request.question_id, n, f"{seed} #### {n}", 3, StopReason.STOP)
                     for n in range(sampling.n) if (request.question_id, n) not in done]
            if shard:
                yield shard
            if Path(__file__).with_name("refuse").exists():
                raise InputError("this prompt is no prompt")
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
    monkeypatch.setattr("nsd.runner.work.score.through", through)
    return seen


# --------------------------------------------------------------------------- drawing


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


def test_what_an_actor_drew_before_it_was_refused_is_kept(
    toy: Toy, by_ray: list[tuple[int, Actors]], tmp_path: Path
) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(InputError, match="this prompt is no prompt"):
        draw_over(toy.work, toy.world(over=Over(each=2, gpus=0), ray=Cluster()), toy.kept(), toy.tell)
    assert toy.rows() == [(toy.questions[-1].id, n) for n in range(K)]


# --------------------------------------------------------------------------- scoring

NUMERIC = PluginJob("verifier", "numeric", {})


def said(*texts: str) -> tuple[list[Completion], dict[str, Question]]:
    completions = [Completion(f"q{n}", 0, text, 1, StopReason.STOP) for n, text in enumerate(texts)]
    return completions, {f"q{n}": Question(f"q{n}", "?", answer="2") for n in range(len(texts))}


class Many(Numeric):
    """Has a way of its own for many, and gives one verdict fewer for `short`."""

    asked: list[list[str]] = []

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        self.asked.append([text for text, _ in items])
        scores = [self.score(text, question) for text, question in items]
        return scores[1:] if any("short" in text for text, _ in items) else scores


class Single(Numeric):
    asked: list[str] = []

    def score(self, completion: str, question: Question) -> Score:
        self.asked.append(completion)
        return super().score(completion, question)


def test_a_verifier_without_a_way_for_many_is_asked_one_at_a_time() -> None:
    completions, questions = said("#### 2", "#### 3")
    found = verdicts(Single(), [(one, questions[one.question_id]) for one in completions])
    Single.asked.clear()
    assert next(found).correct and Single.asked == ["#### 2"]
    assert not next(found).correct and Single.asked == ["#### 2", "#### 3"]


def test_a_verifier_with_a_way_for_many_is_asked_once_and_not_for_what_failed() -> None:
    completions, questions = said("#### 2", "#### 3", "#### 2")
    completions[1] = Completion("q1", 0, "#### 2", 1, StopReason.ERROR, "gone")
    Many.asked.clear()
    found = list(verdicts(Many(), [(one, questions[one.question_id]) for one in completions]))
    assert Many.asked == [["#### 2", "#### 2"]]
    assert [one.correct for one in found] == [True, False, True] and found[1] == Score(0.0, False, None)


def test_a_verifier_that_gives_too_few_verdicts_fails_the_stage() -> None:
    completions, questions = said("short", "#### 2")
    with pytest.raises(StageFailed, match="gave 1 verdicts on 2 completions"):
        list(verdicts(Many(), [(one, questions[one.question_id]) for one in completions]))


def test_a_judge_gives_the_verdicts_on_a_block_and_nothing_after_an_error() -> None:
    completions, questions = said("#### 2", "#### 3")
    chunk = [(one, questions[one.question_id]) for one in completions]
    found = Judge(NUMERIC).do(chunk)
    assert found is not None and [one.correct for one in found] == [True, False]
    broken: Any = [(None, None)]
    assert Judge(NUMERIC).do(broken) is None


class Clock:
    """Each look at it is `pace` seconds later."""

    def __init__(self, pace: float) -> None:
        self.now, self.pace = 0.0, pace

    def monotonic(self) -> float:
        self.now += self.pace
        return self.now


def over_ray(folder: Path) -> Scoring:
    over = Over(each=1, gpus=0)
    return Scoring(NUMERIC, folder / "scores", lambda done, resumed: None, lambda: False, over=over, ray=Cluster())


@pytest.mark.parametrize(("seconds", "far"), [(60.0, False), (60.5, True)])
def test_what_would_take_every_core_over_a_minute_is_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, far: bool
) -> None:
    monkeypatch.setattr(score, "usable_cores", lambda: 3)
    monkeypatch.setattr(Scoring, "_tell", lambda self: None)
    monkeypatch.setattr(score, "time", Clock(3 * seconds))  # of the first chunk, as for the second and last
    completions, questions = said(*["#### 2"] * 2 * CHUNK)
    items = [(one, questions[one.question_id]) for one in completions]
    scoring = over_ray(tmp_path)
    assert scoring._alone([items[:CHUNK], items[CHUNK:]]) == [items[CHUNK:]]
    assert scoring._far is far


def test_what_another_process_could_not_judge_is_judged_here(tmp_path: Path) -> None:
    completions, questions = said("#### 2", "#### 3", "#### 2")
    items = [(one, questions[one.question_id]) for one in completions]
    scoring = over_ray(tmp_path)
    scoring._take(items[:2], None)
    scoring._take(items[2:], [Score(0.5, False, "told")])
    scoring._keep()
    found: dict[tuple[str, int], Score] = {}
    for path in sorted((tmp_path / "scores").iterdir()):
        found |= tables.read_scores(path)
    assert [(key, one.correct, one.answer) for key, one in found.items()] == [
        *((("q0", 0), True, "2"), (("q1", 0), False, "3"), (("q2", 0), False, "told")),
    ]


def test_actors_score_blocks_each_of_so_many_and_the_verdicts_stay_in_order(
    tmp_path: Path, by_ray: list[tuple[int, Actors]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "usable_cores", lambda: 1)
    monkeypatch.setattr(score, "time", Clock(100.0))
    monkeypatch.setattr(score, "BLOCKS_EACH", 1)
    texts = ["#### 2", "#### 3", "none"] * 9 * CHUNK
    found = over_ray(tmp_path).of(*said(*texts))
    assert [one.score.correct for one in found] == ["2" in text for text in texts]
    assert by_ray == [(8, Actors(8, 1))], "416 completions after the first sixteen: 52 for each of eight cores"
