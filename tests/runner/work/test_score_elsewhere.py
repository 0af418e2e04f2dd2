"""Scoring in other processes and through Ray, whose work is done in the test's own process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsd.plugins.api import Completion, Question, Score, StopReason, Verifier
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.plugins.verifiers.numeric import Numeric
from nsd.runner.plan.jobs import PluginJob
from nsd.runner.store import tables
from nsd.runner.work import score
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.ray_machines import Connection, Member, Over
from nsd.runner.work.ray_pipeline import Actors
from nsd.runner.work.score import CHUNK, Judge, Scoring
from support import PATIENCE

NUMBER = 10 * CHUNK
NUMERIC = PluginJob("verifier", "numeric", {})
RAISES_ONCE = """
from pathlib import Path

from nsd.plugins.verifiers.numeric import Numeric

MET = Path(__file__).parent / "met"


class Once(Numeric):
    def score(self, completion, question):
        if "odd" in completion and not MET.exists():
            MET.touch()
            raise ZeroDivisionError("once")
        return super().score(completion, question)
"""


def asked(n: int = NUMBER) -> tuple[list[Completion], dict[str, Question]]:
    """Each third answer is wrong; the one before the last says `odd`."""
    completions = [
        Completion(f"q{i}", 0, f"{'odd ' * (i == n - 2)}The answer is {2 if i % 3 else 5}", 4, StopReason.STOP)
        for i in range(n)
    ]
    return completions, {f"q{i}": Question(f"q{i}", "?", answer="2") for i in range(n)}


def scoring(folder: Path, block: PluginJob = NUMERIC, stop: Callable[[], bool] = lambda: False) -> Scoring:
    return Scoring(block, folder / "scores", lambda done, resumed: None, stop, 2)


class Pool(concurrent.futures.Executor):
    """Does at once, here, what it is given."""

    def __init__(self, count: int, start: Any, begin: Any, given: tuple[PluginJob, Any]) -> None:
        self.count, self.start, self.begin, self.block, self.stop = count, start, begin, *given
        self.sent: list[int] = []
        self.cancelled: bool | None = None
        score._here.update(verifier=make_plugin(self.block, Verifier), stop=self.stop)

    def submit(self, function: Any, /, *given: Any, **named: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.sent.append(len(given[0]))
        future.set_result(function(*given))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.cancelled = wait and cancel_futures


class Dead(Pool):
    def submit(self, function: Any, /, *given: Any, **named: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    made: list[Pool] = []

    def pool(*given: Any) -> Pool:
        made.append(Pool(*given))
        return made[-1]

    monkeypatch.setattr(score, "_here", {})
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", pool)
    return made


def test_chunks_go_to_as_many_processes_four_for_each_at_a_time(tmp_path: Path, pools: list[Pool]) -> None:
    completions, questions = asked()
    sent: list[int] = []

    def looks() -> bool:
        sent.append(len(pools[0].sent))
        return False

    found = scoring(tmp_path, stop=looks).of(completions, questions)
    assert [one.score.correct for one in found] == [i % 3 != 0 for i in range(NUMBER)]
    (pool,) = pools
    assert (pool.count, pool.start.get_start_method(), pool.begin) == (2, "spawn", score._begin)
    assert pool.block == NUMERIC and pool.sent == [CHUNK] * 10 and sent == [8, 10]
    assert pool.stop.is_set() and pool.cancelled


def test_no_more_processes_than_chunks_start(tmp_path: Path, pools: list[Pool]) -> None:
    completions, questions = asked(CHUNK)
    scoring(tmp_path).of(completions, questions)
    assert pools[0].count == 1


def test_a_stop_keeps_what_other_processes_have_scored(tmp_path: Path, pools: list[Pool]) -> None:
    completions, questions = asked()
    with pytest.raises(Interrupted, match=r"^stopped while scoring$"):
        scoring(tmp_path, stop=lambda: True).of(completions, questions)
    assert pools[0].stop.is_set() and pools[0].cancelled
    assert set(tables.read_scores(tmp_path / "scores" / "000000.parquet")) == {(f"q{i}", 0) for i in range(8 * CHUNK)}


def test_a_chunk_that_failed_elsewhere_is_scored_here(tmp_path: Path, pools: list[Pool]) -> None:
    (tmp_path / "once.py").write_text(RAISES_ONCE)
    completions, questions = asked(2 * CHUNK)
    found = scoring(tmp_path, PluginJob("verifier", f"{tmp_path / 'once.py'}:Once", {})).of(completions, questions)
    assert (tmp_path / "met").exists()
    assert [one.score.correct for one in found] == [i % 3 != 0 for i in range(2 * CHUNK)]


def test_processes_that_die_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_here", {})
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Dead)
    with pytest.raises(StageFailed) as failed:
        scoring(tmp_path).of(*asked())
    assert str(failed.value) == (
        "a process that scores completions died, most often because the machine ran out of memory; what was scored is "
        "kept, and the same command continues there"
    )


def test_a_process_leaves_off_after_the_completion_that_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(score, "_here", {"verifier": Numeric(), "stop": stop})
    completions, questions = asked(4)
    chunk = [(one, questions[one.question_id]) for one in completions]
    assert [one.answer for one in score._verdicts(chunk) or ()] == ["5", "2", "2", "5"]
    stop.set()
    assert [one.answer for one in score._verdicts(chunk) or ()] == ["5"]


def test_a_process_hears_no_signal_and_ends_with_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here: dict[str, Any] = {}
    signals: list[tuple[int, Any]] = []
    ended: list[int] = []
    done, stop = threading.Event(), threading.Event()
    sentinel, parent = multiprocessing.Pipe()

    def ends(code: int) -> None:
        ended.append(code)
        done.set()

    monkeypatch.setattr(score, "_here", here)
    monkeypatch.setattr(signal, "signal", lambda number, does: signals.append((number, does)))
    monkeypatch.setattr(os, "_exit", ends)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=sentinel))
    before = set(threading.enumerate())
    score._begin(NUMERIC, stop)  # type: ignore[arg-type]
    assert signals == [(signal.SIGTERM, signal.SIG_IGN), (signal.SIGINT, signal.SIG_IGN)]
    assert type(here["verifier"]) is Numeric and here["stop"] is stop
    (waits,) = set(threading.enumerate()) - before
    assert waits.daemon and not done.wait(0.05)
    parent.close()
    assert done.wait(PATIENCE) and ended == [1]
    waits.join(PATIENCE)


class Open(Connection):
    def open(self, over: Over) -> list[Member]:
        return [Member(over.each, 0)]


def over_ray(folder: Path, cores: int = 1) -> Scoring:
    return Scoring(
        NUMERIC, folder / "scores", lambda done, resumed: None, lambda: False, over=Over(cores, 0), ray=Open()
    )


@pytest.mark.parametrize(
    ("most", "cores", "sizes"), [(2048, 1, [36] * 4), (2048, 4, [16] * 9), (30, 1, [30, 30, 30, 30, 24])]
)
def test_what_takes_very_long_goes_to_ray_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, cores: int, sizes: list[int]
) -> None:
    given_to: list[tuple[list[int], Actors]] = []

    def through(
        does: type[Judge], given: tuple[PluginJob], blocks: Sequence[Any], actors: Actors, stop: Callable[[], bool]
    ) -> Iterator[tuple[int, list[Score] | None]]:
        given_to.append(([len(block) for block in blocks], actors))
        judge = does(*given)
        for number in reversed(range(len(blocks))):
            yield number, judge.do(blocks[number])

    for name in ("ALONE_SECONDS", "OVER_RAY_SECONDS"):
        monkeypatch.setattr(score, name, 0.0)
    monkeypatch.setattr(score, "BLOCK", most)
    monkeypatch.setattr(score, "through", through)
    completions, questions = asked()
    found = over_ray(tmp_path, cores).of(completions, questions)
    assert [one.score.correct for one in found] == [i % 3 != 0 for i in range(NUMBER)]
    assert given_to == [(sizes, Actors(cores, 1))]


def test_a_judge_gives_none_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(RAISES_ONCE)
    completions, questions = asked(3)
    chunk = [(one, questions[one.question_id]) for one in completions]
    judge = Judge(PluginJob("verifier", f"{tmp_path / 'once.py'}:Once", {}))
    assert judge.do(chunk) is None
    assert [one.answer for one in judge.do(chunk) or ()] == ["5", "2", "2"]


class Many(Numeric):
    """Scores many at once by the length of their texts, and of one text `few` none."""

    asked: list[list[str]] = []

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        self.asked.append([text for text, _ in items])
        return [Score(float(len(text)), True, text) for text, _ in items if text != "few"]


def said(*texts: str | None) -> list[tuple[Completion, Question]]:
    return [
        (
            Completion("q", i, text or "", 1, StopReason.ERROR if text is None else StopReason.STOP),
            Question("q", "?", answer="2"),
        )
        for i, text in enumerate(texts)
    ]


def test_a_verifier_of_many_is_asked_once_and_not_for_what_failed() -> None:
    Many.asked.clear()
    found = list(score.verdicts(Many(), said("a", None, "bcd")))
    assert found == [Score(1.0, True, "a"), Score(0.0, False, None), Score(3.0, True, "bcd")]
    assert Many.asked == [["a", "bcd"]]


def test_a_verifier_of_many_that_gives_too_few_verdicts_is_named() -> None:
    with pytest.raises(StageFailed) as failed:
        list(score.verdicts(Many(), said("a", "few", None)))
    assert str(failed.value) == f"the verifier {Many().name} gave 1 verdicts on 2 completions"


class Single(Numeric):
    asked: list[str] = []

    def score(self, completion: str, question: Question) -> Score:
        self.asked.append(completion)
        return super().score(completion, question)


def test_a_verifier_without_a_way_for_many_is_asked_one_at_a_time() -> None:
    found = score.verdicts(Single(), said("#### 2", "#### 3"))
    Single.asked.clear()
    assert next(found).correct and Single.asked == ["#### 2"]
    assert not next(found).correct and Single.asked == ["#### 2", "#### 3"]


class Clock:
    """Each look at it is `pace` seconds later."""

    def __init__(self, pace: float) -> None:
        self.now, self.pace = 0.0, pace

    def monotonic(self) -> float:
        self.now += self.pace
        return self.now


@pytest.mark.parametrize(("seconds", "far"), [(60.0, False), (60.5, True)])
def test_what_would_take_every_core_over_a_minute_is_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, far: bool
) -> None:
    monkeypatch.setattr(score, "usable_cores", lambda: 3)
    monkeypatch.setattr(Scoring, "_tell", lambda self: None)
    monkeypatch.setattr(score, "time", Clock(3 * seconds))  # of the first chunk, as for the second and last
    items = said(*["#### 2"] * 2 * CHUNK)
    work = over_ray(tmp_path)
    assert work._alone([items[:CHUNK], items[CHUNK:]]) == [items[CHUNK:]]
    assert work._far is far


def test_what_another_process_could_not_judge_is_judged_here(tmp_path: Path) -> None:
    items = said("#### 2", "#### 3", "#### 2")
    work = over_ray(tmp_path)
    work._take(items[:2], None)
    work._take(items[2:], [Score(0.5, False, "told")])
    work._keep()
    found: dict[tuple[str, int], Score] = {}
    for path in sorted((tmp_path / "scores").iterdir()):
        found |= tables.read_scores(path)
    assert [(key, one.correct, one.answer) for key, one in found.items()] == [
        *((("q", 0), True, "2"), (("q", 1), False, "3"), (("q", 2), False, "told")),
    ]
