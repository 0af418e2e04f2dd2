"""Scoring by itself: the number of processes changes nothing, what is kept is not scored again, a stop is heard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nsd.plugins.api import Completion, Question, Score, Scored, StopReason
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.runner.plan.jobs import PluginJob
from nsd.runner.store import tables
from nsd.runner.work.score import CHUNK, Scoring
from support import REPOSITORY

VERIFIER = '''
import os
import time
from pathlib import Path

from nsd.plugins.verifiers.numeric import Numeric

HERE = Path(__file__).parent


class Slow(Numeric):
    """Notes each text; waits, raises or dies where the text says so."""

    def score(self, completion, question):
        with (HERE / "scored").open("a") as log:
            log.write(f"{completion.split()[0]}\\n")
        if "wait" in completion:
            time.sleep(0.1)
        if "raise" in completion:
            raise ZeroDivisionError("a bug")
        if "die" in completion and not (HERE / "mended").exists():
            os._exit(9)
        return super().score(completion, question)
'''
NUMBER = 3 * CHUNK + 5


def asked(*words: str, n: int = NUMBER) -> tuple[list[Completion], dict[str, Question]]:
    """n completions of as many questions; each says `words[i]` where there is one and 2 for an answer."""
    extra = [*words, *[""] * n]
    completions = [
        Completion(f"q{i}", 0, f"{i} {extra[i]} The answer is {2 if i % 3 else 5}", 4, StopReason.STOP)
        for i in range(n)
    ]
    return completions, {f"q{i}": Question(f"q{i}", "?", answer="2") for i in range(n)}


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginJob:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (tmp_path / "slow.py").write_text(VERIFIER)
    return PluginJob("verifier", f"{tmp_path / 'slow.py'}:Slow", {})


def scoring(folder: Path, block: PluginJob, processes: int, stop: Callable[[], bool] = lambda: False) -> Scoring:
    return Scoring(block, folder / "scores", lambda done, resumed: None, stop, processes)


def scored_texts(folder: Path) -> list[str]:
    path = folder / "scored"
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    said = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{1}", "none", r"\boxed{2/4}"] * 12
    completions = [
        Completion(f"q{i // 4}", i % 4, text, 3, StopReason.ERROR if i == 7 else StopReason.STOP)
        for i, text in enumerate(said)
    ]
    questions = {f"q{i}": Question(f"q{i}", "?", answer="0.5") for i in range(15)}
    block = PluginJob("verifier", "math", {"cpu_seconds": 5})
    alone = scoring(tmp_path / "alone", block, 1).of(completions, questions)
    together = scoring(tmp_path / "together", block, 3).of(completions, questions)
    assert together == alone
    assert [one.score.correct for one in alone[:5]] == [True, True, False, False, True]
    assert alone[10].score.correct and alone[7].score == Score(0.0, False, None)  # 7 failed, whatever its text says


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kept_verdicts_are_not_made_again(tmp_path: Path, slow: PluginJob, processes: int) -> None:
    completions, questions = asked()
    kept = {(one.question_id, 0): Score(0.25, True, "kept", "why") for one in completions[:20]}
    tables.write_scores(tmp_path / "scores" / "000004.parquet", kept)
    told: list[tuple[int, int]] = []
    found = Scoring(
        slow, tmp_path / "scores", lambda done, resumed: told.append((done, resumed)), lambda: False, processes
    ).of(completions, questions)
    assert sorted(map(int, scored_texts(tmp_path))) == list(range(20, NUMBER))
    assert found[0] == Scored(completions[0], Score(0.25, True, "kept", "why"))
    assert found[20].score.answer == "2" and told[0] == (20, 20)
    assert (tmp_path / "scores" / "000005.parquet").exists()


def test_a_broken_shard_is_put_away_and_scored_again(tmp_path: Path, slow: PluginJob) -> None:
    completions, questions = asked(n=3)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "000000.parquet").write_text("torn")
    found = scoring(tmp_path, slow, 1).of(completions, questions)
    assert [one.score.correct for one in found] == [False, True, True]
    assert (tmp_path / "scores" / "000000.parquet.broken").read_text() == "torn"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_verifier_is_raised_as_what_it_is(tmp_path: Path, slow: PluginJob, processes: int) -> None:
    completions, questions = asked("", "", "raise")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        scoring(tmp_path, slow, processes).of(completions, questions)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_loses_nothing(tmp_path: Path, slow: PluginJob, processes: int) -> None:
    completions, questions = asked(*["wait"] * NUMBER)
    with pytest.raises(Interrupted):
        scoring(tmp_path, slow, processes, lambda: len(scored_texts(tmp_path)) > 4).of(completions, questions)
    before = len(scored_texts(tmp_path))
    assert before < NUMBER
    again = scoring(tmp_path, slow, processes).of(completions, questions)
    assert sorted(map(int, scored_texts(tmp_path))) == list(range(NUMBER)), "each was scored once, over both attempts"
    assert len(again) == NUMBER


@pytest.mark.slow
def test_a_process_that_dies_fails_the_stage_and_a_new_attempt_goes_on(tmp_path: Path, slow: PluginJob) -> None:
    completions, questions = asked(*[""] * (NUMBER - 1), "die")
    with pytest.raises(StageFailed, match="died"):
        scoring(tmp_path, slow, 2).of(completions, questions)
    (tmp_path / "mended").touch()
    assert len(scoring(tmp_path, slow, 2).of(completions, questions)) == NUMBER


@pytest.mark.slow
def test_what_takes_long_goes_over_the_cores(tmp_path: Path, slow: PluginJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself: the first completions show that the rest takes long, so that other processes do it."""
    monkeypatch.setattr("nsd.runner.work.score.ALONE_SECONDS", 0.1)
    monkeypatch.setattr("nsd.runner.work.score.usable_cores", lambda: 2)
    path = tmp_path / "slow.py"
    path.write_text(path.read_text().replace("{completion.split()[0]}", "{os.getpid()}"))
    completions, questions = asked(*["wait"] * NUMBER)
    found = Scoring(slow, tmp_path / "scores", lambda done, resumed: None, lambda: False).of(completions, questions)
    pids = scored_texts(tmp_path)
    assert [one.score.correct for one in found] == [i % 3 != 0 for i in range(NUMBER)]
    assert pids[0] == str(os.getpid()) and len(set(pids)) == 3 and len(pids) == NUMBER
