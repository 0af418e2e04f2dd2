"""Trainings that end when something is spent: generated tokens or seconds, after however many steps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsd.plugins.api import Budget, TrainResult
from nsd.plugins.errors import InputError, Interrupted, ResumeRefused
from nsd.plugins.trainers import _checkpoints, _run
from nsd.plugins.trainers._checkpoints import Marker
from nsd.plugins.trainers._run import Run
from nsd.plugins.trainers.rloo import Rloo
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import Events, job, train, validation, weights_hash

SFT: dict[str, Any] = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3}
DRAWS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "steps": 4,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_tokens": 8,
    "rewards": ["test_share_of_vowels"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock of a run is a second after the last. A step has three: two seconds pass in it, and the
    learning rate of the next is found in their middle."""
    ticks = itertools.count()
    monkeypatch.setattr(_run, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def run(kind: str, config: Mapping[str, Any], folder: Path, model: Path, **changes: Any) -> tuple[TrainResult, Events]:
    events = Events()
    return train(kind, config, job(folder, model, events, **changes)), events


def made(tmp_path: Path, budget: Budget, boundary: int = 1, draws: bool = True, **changes: Any) -> Run:
    """A run whose schedule is 10 steps long."""
    changes |= {"budget": budget}
    return Run(job(tmp_path, tmp_path, Events(), **changes), Rloo.Config(), 10, boundary=boundary, draws=draws)


# --------------------------------------------------------------------------- generated tokens


@pytest.mark.slow
@pytest.mark.parametrize("kind", thinned(["grpo", "rloo"]))
def test_a_training_ends_at_the_first_batch_with_which_its_tokens_are_spent(
    model: Path, tmp_path: Path, kind: str
) -> None:
    # A batch draws at most 8 * 8 = 64 tokens, so that 300 are more than the 4 steps of the config.
    result, events = run(kind, DRAWS, tmp_path, model, budget=Budget(generated_tokens=300))
    drawn = events.curve("generated_tokens")
    assert drawn[-2] < 300 <= drawn[-1] == result.notes["generated_tokens"]
    assert result.steps == len(drawn) > 4
    assert {total for _, total, _ in events.reports} == {None}
    # The learning rate falls from 1e-3 to 0 over the budget, whatever the steps.
    rates = [1e-3 * (1 - spent / 300) for spent in [0.0, *drawn[:-1]]]
    assert events.curve("learning_rate") == pytest.approx(rates)


@pytest.mark.slow
def test_it_ends_between_two_sampled_batches_only(model: Path, tmp_path: Path) -> None:
    config = DRAWS | {"num_iterations": 3}
    result, events = run("rloo", config, tmp_path, model, budget=Budget(generated_tokens=100))
    drawn = events.curve("generated_tokens")
    assert result.steps % 3 == 0
    assert drawn[-4] < 100 <= drawn[-3] == drawn[-1]


def test_a_steps_share_of_the_budget_is_its_share_of_the_batch(tmp_path: Path) -> None:
    # Two steps for each batch; batches of 30 and 20 of 100 tokens; the schedule has 10 steps.
    state = made(tmp_path, Budget(generated_tokens=100), boundary=2)
    found = []
    for step, generated in ((1, 30), (2, 30), (3, 50), (4, 50)):
        state.generated = generated
        state.learn(step)
        found.append(state.scheduled())
    assert found == [1.5, 3.0, 4.0, 5.0]
    resumed = made(tmp_path, Budget(generated_tokens=100), boundary=2)
    resumed.restore(Marker(2, 0, 1, 4, generated=30))
    resumed.generated = 50
    resumed.learn(3)
    assert resumed.scheduled() == 4.0


def test_the_schedule_ends_where_it_ends(tmp_path: Path) -> None:
    state = made(tmp_path, Budget(generated_tokens=100))
    state.generated = 130
    state.learn(1)
    assert state.scheduled() == 10 and state.spent


@pytest.mark.slow
def test_a_stopped_and_resumed_training_spends_what_an_uninterrupted_one_spends(model: Path, tmp_path: Path) -> None:
    changes = {"budget": Budget(generated_tokens=300)}
    whole, whole_events = run("rloo", DRAWS, tmp_path / "whole", model, **changes)
    for stop in (2, 4):
        with pytest.raises(Interrupted, match=rf"stopped at step {stop}; the checkpoint is saved"):
            train("rloo", DRAWS, job(tmp_path / "pieces", model, Events(stop_after=stop), **changes))
    pieces, events = run("rloo", DRAWS, tmp_path / "pieces", model, **changes)
    assert weights_hash(tmp_path / "pieces" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    assert pieces.notes["generated_tokens"] == whole.notes["generated_tokens"]
    assert events.curve("learning_rate") == whole_events.curve("learning_rate")[4:]


@pytest.mark.slow
def test_what_validation_draws_is_not_spent(model: Path, tmp_path: Path) -> None:
    budget = Budget(generated_tokens=200)
    plain, _ = run("rloo", DRAWS, tmp_path / "plain", model, budget=budget)
    watched, events = run("rloo", DRAWS, tmp_path / "watched", model, budget=budget, validation=validation(100, "last"))
    assert weights_hash(tmp_path / "plain" / "weights") == weights_hash(tmp_path / "watched" / "weights")
    points = [(step, total) for step, total, metrics in events.reports if "validation/avg@4" in metrics]
    assert points == [(0, None), (plain.steps, None)]
    assert watched.notes["validation"]["kept_step"] == plain.steps


def test_a_cap_ends_it_all_the_same(model: Path, tmp_path: Path) -> None:
    result, events = run("rloo", DRAWS, tmp_path, model, budget=Budget(generated_tokens=10**9), max_steps_cap=2)
    assert result.steps == 2 and [total for _, total, _ in events.reports] == [None, None]


@pytest.mark.slow
def test_a_training_that_draws_nothing_reads_as_many_tokens(model: Path, tmp_path: Path) -> None:
    read, _ = run("sft", SFT, tmp_path / "read", model, budget=Budget(tokens=500))
    result, events = run("sft", SFT, tmp_path / "drawn", model, budget=Budget(generated_tokens=500))
    assert result.steps == read.steps == round(500 / (result.notes["mean_tokens"] * 4))
    assert {total for _, total, _ in events.reports} == {result.steps}
    assert weights_hash(tmp_path / "read" / "weights") == weights_hash(tmp_path / "drawn" / "weights")


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_tokens_of_training_texts_are_no_budget_of_what_draws(model: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=f"match: tokens does not go with {kind}"):
        run(kind, DRAWS, tmp_path, model, budget=Budget(tokens=100))


# --------------------------------------------------------------------------- seconds


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("kind", "config", "horizon"), thinned([("rloo", DRAWS, 4), ("sft", SFT, 6)]))
def test_a_training_ends_with_the_step_in_which_its_seconds_are_spent(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any], horizon: int
) -> None:
    # Steps end after 2, 4, ... 16 seconds; learning rates are found after 1, 3, ... 13.
    result, events = run(kind, config, tmp_path, model, budget=Budget(seconds=15))
    assert result.steps == 8 > horizon
    assert result.notes["seconds"] == 16
    assert {total for _, total, _ in events.reports} == {None}
    rates = [1e-3 * (1 - spent / 15) for spent in (0, 1, 3, 5, 7, 9, 11, 13)]
    assert events.curve("learning_rate") == pytest.approx(rates)


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_seconds_before_a_resume_are_spent(model: Path, tmp_path: Path) -> None:
    changes = {"budget": Budget(seconds=9)}
    run("sft", SFT, tmp_path / "whole", model, **changes)
    with pytest.raises(Interrupted):
        train("sft", SFT, job(tmp_path / "pieces", model, Events(stop_after=3), **changes))
    marker = json.loads((tmp_path / "pieces" / "checkpoints" / "checkpoint-3" / "nsd.json").read_text())
    assert marker["seconds"] == 6
    result, events = run("sft", SFT, tmp_path / "pieces", model, **changes)
    assert (result.steps, len(events.reports), result.notes["seconds"]) == (5, 2, 10)
    assert weights_hash(tmp_path / "pieces" / "weights") == weights_hash(tmp_path / "whole" / "weights")


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_seconds_end_a_training_between_two_sampled_batches_only(model: Path, tmp_path: Path) -> None:
    result, _ = run("rloo", DRAWS | {"num_iterations": 2}, tmp_path, model, budget=Budget(seconds=5))
    assert (result.steps, result.notes["seconds"]) == (4, 8)


@pytest.mark.slow
def test_validation_takes_no_seconds(model: Path, tmp_path: Path) -> None:
    budget = Budget(seconds=1e-9)
    result, _ = run("sft", SFT, tmp_path, model, budget=budget, validation=validation(1, "last"))
    assert result.steps == 1
    assert "seconds" not in run("sft", SFT, tmp_path / "other", model, max_steps_cap=1)[0].notes


# --------------------------------------------------------------------------- how long it is, and what a checkpoint says


def test_the_end_is_known_or_it_is_not(tmp_path: Path) -> None:
    cases = [
        (Budget(), True, None, (10, 10)),
        (Budget(), True, 3, (3, 3)),
        (Budget(generated_tokens=5), True, None, (None, None)),
        (Budget(generated_tokens=5), True, 3, (3, None)),
        (Budget(generated_tokens=5), False, None, (10, 10)),  # sft has made steps of them
        (Budget(seconds=5), False, None, (None, None)),
    ]
    for budget, draws, cap, ends in cases:
        state = made(tmp_path, budget, draws=draws, max_steps_cap=cap)
        assert (state.stop_at, state.total) == ends


@pytest.mark.slow
def test_points_of_a_training_without_a_known_end_are_as_many_as_its_schedule_gives(
    model: Path, tmp_path: Path
) -> None:
    # 6000 steps of schedule: a point every third step, not one in 10**9 / 2000.
    config = DRAWS | {"steps": 6000}
    _, events = run("rloo", config, tmp_path, model, budget=Budget(generated_tokens=330))
    steps = [step for step, _, _ in events.reports]
    assert steps[:2] == [3, 6]


@pytest.mark.slow
def test_a_checkpoint_with_everything_spent_belongs_to_another_training(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        budget = Budget(generated_tokens=300)
        train("rloo", DRAWS, job(tmp_path, model, Events(stop_after=3), budget=budget))
    with pytest.raises(ResumeRefused, match="checkpoint of step 3, but this job ends before its budget is spent"):
        run("rloo", DRAWS, tmp_path, model, budget=Budget(generated_tokens=20))


def test_a_marker_of_earlier_versions_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    old = {"step": 7, "tokens": 5, "world_size": 1, "micro_batch_size": 4, "files": {}}
    (folder / _checkpoints.MARKER).write_text(json.dumps(old))
    assert _checkpoints.whole(tmp_path) == [(folder, Marker(7, 5, 1, 4, generated=0, seconds=0.0))]
