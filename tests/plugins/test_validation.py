"""What watches a training: what it measures, that it disturbs nothing, and which weights the training leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import (
    Budget,
    LoraConfig,
    ModelRef,
    Question,
    Request,
    Score,
    Scored,
    TrainResult,
    Validation,
)
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.errors import InputError, Interrupted, ResumeRefused
from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.trainers import _checkpoints
from nsd.plugins.trainers._validation import HISTORY
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import Events, EvenVowels, LastWord, job, train, validation, weights_hash

LORA = LoraConfig(rank=2, alpha=8)
SFT: dict[str, Any] = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-2, "lr_scheduler": "constant"}
RLOO: dict[str, Any] = {
    "learning_rate": 1e-2,
    "steps": 6,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_tokens": 8,
    "rewards": ["test_share_of_vowels"],
}
METRIC = "validation/avg@4"


class Scripted(LastWord):
    """Has as many of the questions right at each measurement as it was told beforehand."""

    def __init__(self, right: Sequence[int]) -> None:
        super().__init__()
        self.right = list(right)

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        right = self.right.pop(0)
        return [Score(float(place < right), place < right, "") for place in range(len(items))]


def scripted(right: Sequence[int], every: int = 2, keep: Any = "best") -> Validation:
    """Five questions with one completion each: a measurement of n right ones is n / 5."""
    return validation(every, keep, Scripted(right), AvgAtK(AvgAtK.Config(k=1, max_tokens=2)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def run(kind: str, config: Mapping[str, Any], folder: Path, model: Any, **changes: Any) -> tuple[TrainResult, Events]:
    events = Events()
    return train(kind, config, job(folder, model, events, **changes)), events


def measured(events: Events, metric: str = METRIC) -> dict[int, float]:
    return {step: metrics[metric] for step, _, metrics in events.reports if metric in metrics}


def evaluated(weights: Path, watched: Validation) -> tuple[float, int]:
    """The mean and the drawn tokens of an evaluation by the engine, of weights in a folder."""
    sampling, total, tokens = watched.protocol.sampling(), 0.0, 0
    for example in watched.examples:
        request = Request(example.question.id, example.prompt)
        drawn = [
            one
            for batch in HfEngine().generate(ModelRef(str(weights)), [request], sampling, watched.seed)
            for one in batch
        ]
        drawn.sort(key=lambda one: one.sample)
        scored = [Scored.judge(one, example.question, watched.verifier) for one in drawn]
        total += watched.protocol.value(scored, watched.verifier)
        tokens += sum(one.tokens for one in drawn)
    return total / len(watched.examples), tokens


# --------------------------------------------------------------------------- what is measured


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "config"), thinned([("sft", SFT), ("rloo", RLOO)]))
def test_a_measurement_is_an_evaluation_of_the_weights(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    watched = validation(100, "last")
    result, events = run(kind, config, tmp_path, model, validation=watched)
    before, after = evaluated(model, watched), evaluated(tmp_path / "weights", watched)
    assert measured(events) == {0: pytest.approx(before[0]), 6: pytest.approx(after[0])}
    assert before[0] != after[0]
    assert result.notes["validation"]["tokens"] == before[1] + after[1]


@pytest.mark.slow
def test_it_measures_before_the_first_step_at_every_so_many_and_at_the_last(model: Path, tmp_path: Path) -> None:
    result, events = run("sft", SFT, tmp_path, model, validation=scripted([1, 3, 2, 4], keep="last"), max_steps_cap=5)
    assert measured(events, "validation/avg@1") == {0: 0.2, 2: 0.6, 4: 0.4, 5: 0.8}
    assert [total for _, total, _ in events.reports] == [5] * 9
    assert result.notes["validation"] == {
        "metric": "avg@1",
        "kept": "last",
        "kept_step": 5,
        "best_step": 5,
        "best": 0.8,
        "last": 0.8,
        "tokens": sum(point["tokens"] for point in json.loads((tmp_path / "checkpoints" / HISTORY).read_text())),
        "questions": 5,
    }


@pytest.mark.slow
def test_the_answer_of_an_example_is_what_completions_are_judged_by(model: Path, tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Noting(LastWord):
        def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
            seen.extend(question.answer for _, question in items)
            return super().score_many(items)

    watched = validation(100, "last", Noting())
    run("sft", SFT | {"epochs": 0.3}, tmp_path, model, validation=watched)
    assert seen == [example.answer for example in watched.examples for _ in range(4)] * 2


# --------------------------------------------------------------------------- what is not disturbed

UNDISTURBED = {
    "sft-dropout": ("sft", SFT, LoraConfig(rank=2, alpha=8, dropout=0.3)),
    "rloo-dropout": ("rloo", RLOO | {"steps": 3}, LoraConfig(rank=2, alpha=8, dropout=0.3)),
    "ppo": ("ppo", RLOO | {"steps": 3, "num_iterations": 2}, None),
    "grpo-drawn-by-trl": ("grpo", RLOO | {"steps": 3, "rollout": "trl"}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", thinned(UNDISTURBED))
def test_a_watched_training_takes_the_steps_of_an_unwatched_one(model: Path, tmp_path: Path, case: str) -> None:
    kind, config, lora = UNDISTURBED[case]
    plain, events = run(kind, config, tmp_path / "plain", model, lora=lora)
    seen, watched = run(kind, config, tmp_path / "seen", model, lora=lora, validation=validation(1, "last"))
    assert weights_hash(tmp_path / "seen" / "weights") == weights_hash(tmp_path / "plain" / "weights")
    assert watched.curve("loss") == events.curve("loss")
    assert len(watched.curve(METRIC)) == seen.steps + 1
    assert seen.tokens_seen == plain.tokens_seen, "what validation draws is counted apart"
    assert seen.notes.get("generated_tokens") == plain.notes.get("generated_tokens")


# --------------------------------------------------------------------------- which weights are left


@pytest.mark.slow
@pytest.mark.parametrize("start", ["full", "adapter", "adapter on a merged start"])
def test_the_first_of_the_best_measurements_is_kept(model: Path, tmp_path: Path, start: str) -> None:
    lora = None if start == "full" else LORA
    ref = ModelRef(str(model))
    if start == "adapter on a merged start":
        run("sft", SFT | {"epochs": 0.3}, tmp_path / "first", model, lora=LORA)
        ref = ModelRef(str(model), adapter=str(tmp_path / "first" / "weights"))
    result, _ = run("sft", SFT, tmp_path / "kept", ref, lora=lora, validation=scripted([1, 4, 4, 2]))
    run("sft", SFT, tmp_path / "short", ref, lora=lora, budget=Budget(steps=2))
    assert weights_hash(tmp_path / "kept" / "weights") == weights_hash(tmp_path / "short" / "weights")
    names = [{path.name for path in (tmp_path / one / "weights").iterdir()} for one in ("kept", "short")]
    assert names[0] == names[1]
    assert result.steps == 6 and result.adapter_only == (start == "adapter")
    note = result.notes["validation"]
    assert {name: note[name] for name in ("kept", "kept_step", "best_step", "best", "last")} == {
        **{"kept": "best", "kept_step": 2, "best_step": 2, "best": 0.8, "last": 0.4}
    }


@pytest.mark.slow
def test_the_last_weights_are_left_where_they_are_the_best_or_the_spec_says_so(model: Path, tmp_path: Path) -> None:
    run("sft", SFT, tmp_path / "plain", model)
    for name, watched, step in (
        ("best", scripted([1, 2, 3, 4]), 6),
        ("last", scripted([1, 4, 3, 2], keep="last"), 6),
    ):
        result, _ = run("sft", SFT, tmp_path / name, model, validation=watched)
        assert weights_hash(tmp_path / name / "weights") == weights_hash(tmp_path / "plain" / "weights")
        assert result.notes["validation"]["kept_step"] == step
    assert not list((tmp_path / "last" / "checkpoints").glob("best-*"))


@pytest.mark.slow
def test_a_training_that_only_harms_leaves_the_start(model: Path, tmp_path: Path) -> None:
    config = RLOO | {"steps": 2, "num_iterations": 2}
    result, _ = run("ppo", config, tmp_path, model, validation=scripted([3, 2]))
    assert result.notes["validation"]["kept_step"] == 0
    assert weights_hash(tmp_path / "weights") == weights_hash(model), "no value head among them either"


@pytest.mark.slow
def test_weights_that_no_checkpoint_can_come_back_to_are_deleted(model: Path, tmp_path: Path) -> None:
    # Measured at 0, 2, 4, 6 and always better; checkpoints at 1, 2, ... of which 4 and 5 are left in the end.
    run("sft", SFT | {"save_every": 1}, tmp_path, model, validation=scripted([1, 2, 3, 4]))
    folder = tmp_path / "checkpoints"
    assert [marker.step for _, marker in _checkpoints.whole(folder)] == [4, 5]
    assert sorted(path.name for path in folder.glob("best-*")) == ["best-4", "best-6"]


# --------------------------------------------------------------------------- stops and kills


def history(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "checkpoints" / HISTORY).read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "config"), [("sft", SFT), ("rloo", RLOO)])
def test_a_stopped_and_resumed_run_keeps_what_an_uninterrupted_one_keeps(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    whole, _ = run(kind, config, tmp_path / "whole", model, validation=validation(1, "best"))
    assert 0 < whole.notes["validation"]["kept_step"] < 6, "the case shows nothing where it is an end"
    for stop in (1, 3, 5):
        with pytest.raises(Interrupted):
            events = Events(stop_after=stop)
            train(kind, config, job(tmp_path / "pieces", model, events, validation=validation(1, "best")))
    pieces, _ = run(kind, config, tmp_path / "pieces", model, validation=validation(1, "best"))
    assert weights_hash(tmp_path / "pieces" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    assert pieces.notes["validation"] == whole.notes["validation"]
    assert history(tmp_path / "pieces") == history(tmp_path / "whole")


class Death(BaseException):
    """Ends a training without its help."""


SAVED = SFT | {"save_every": 2}


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """The folder and the result of SAVED, watched at every step and undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run("sft", SAVED, folder, model, validation=validation(1, "best"))[0]


# Before the first step, at the step whose checkpoint is not whole yet, at the one after it, and at the last.
@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 4, 7])
def test_a_run_that_dies_at_a_measurement_keeps_what_an_uninterrupted_one_keeps(
    model: Path, tmp_path: Path, whole: tuple[Path, TrainResult], after: int
) -> None:
    made = job(tmp_path, model, Events(), validation=validation(1, "best"))
    left = after

    def report(step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        nonlocal left
        left -= METRIC in metrics
        if left == 0:
            raise Death

    made.report = report
    with pytest.raises(Death):
        train("sft", SAVED, made)
    again, events = run("sft", SAVED, tmp_path, model, validation=validation(1, "best"))
    from_step = (after - 2) // 2 * 2 if after > 2 else 0  # the newest checkpoint then
    assert again.notes["resumed_from"] == (from_step or None)
    assert sorted(measured(events)) == list(range(from_step + 1 if from_step else 0, 7))
    assert weights_hash(tmp_path / "weights") == weights_hash(whole[0] / "weights")
    assert again.notes["validation"] == whole[1].notes["validation"]


@pytest.mark.slow
def test_a_run_that_dies_once_its_weights_are_in_place_ends_once_more(
    model: Path, tmp_path: Path, whole: tuple[Path, TrainResult]
) -> None:
    for _ in range(2):
        run("sft", SAVED, tmp_path, model, validation=validation(1, "best"))
    assert weights_hash(tmp_path / "weights") == weights_hash(whole[0] / "weights")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [HISTORY, "best-0"])
def test_a_run_whose_best_weights_are_gone_is_not_resumed(model: Path, tmp_path: Path, lost: str) -> None:
    with pytest.raises(Interrupted):
        train("sft", SFT, job(tmp_path, model, Events(stop_after=3), validation=scripted([3, 2])))
    path = tmp_path / "checkpoints" / lost
    path.rename(tmp_path / "lost")
    with pytest.raises(ResumeRefused, match=f"a checkpoint of step 2, but not the {lost} of its validation"):
        train("sft", SFT, job(tmp_path, model, Events(), validation=scripted([3, 2])))


# --------------------------------------------------------------------------- refusals


def test_spread_weights_are_not_measured(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"validation does not go with trainer\.fsdp"):
        train("sft", SFT | {"fsdp": True}, job(tmp_path, model, Events(), validation=validation(1, "last")))


def test_the_even_vowels_of_a_text_by_hand() -> None:
    question = Question("q", "q")
    scores = [EvenVowels().score(text, question).correct for text in ("", "b", "a", "ae", "hello", "aeiou")]
    assert scores == [True, True, False, True, True, False]
