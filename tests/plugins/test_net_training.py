"""What single faults planted by hand in the trainers got past: resuming, watching, rewards, lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

import training_job
from nsd.plugins.api import Budget, Example, Question, Reward, Rollout
from nsd.plugins.errors import ResumeRefused, StageFailed
from nsd.plugins.models import EMBEDDED
from nsd.plugins.registry import find
from nsd.plugins.rewards.correct import Correct
from nsd.plugins.rewards.finished import Finished
from nsd.plugins.trainers import _checkpoints, _setup, _trl
from nsd.plugins.trainers._checkpoints import Cadence, Marker
from nsd.plugins.trainers._grpo import TrlRollouts, reward_function
from nsd.plugins.trainers._order import with_resumable_order
from nsd.plugins.trainers._rollout_config import health_observer
from nsd.plugins.trainers._run import Run
from nsd.plugins.trainers.grpo import Grpo
from nsd.plugins.trainers.health import HealthConfig, HealthWarning, HealthWatch, Settings
from nsd.plugins.trainers.sft import Sft
from nsd.plugins.verifiers.numeric import Numeric

MODEL = EMBEDDED / "wordmath-1m"


@pytest.fixture
def events() -> training_job.Events:
    return training_job.Events()


def state(tmp_path: Path, events: training_job.Events, steps: int = 10, **changes: Any) -> Run:
    return Run(training_job.job(tmp_path, MODEL, events, **changes), Sft.Config(), steps)


def trainer(**fields: Any) -> Any:
    """What `_trl` asks of a TRL trainer."""
    return SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=1),
        args=SimpleNamespace(per_device_train_batch_size=4),
        is_world_process_zero=lambda: True,
        **fields,
    )


# --------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_that_lost_a_file_is_not_whole(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt"):
        (folder / name).write_text("numbers")
    _checkpoints.finish(folder, Marker(3, 21, 1, 4))
    ((_, marker),) = _checkpoints.whole(tmp_path)
    assert marker.files == {"model.safetensors": 7, "optimizer.pt": 7}
    (folder / "optimizer.pt").write_text("num")
    assert _checkpoints.whole(tmp_path) == []
    (folder / "optimizer.pt").unlink()
    assert _checkpoints.whole(tmp_path) == []


def test_a_checkpoint_that_loses_files_while_it_is_written_is_not_marked(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    (folder / "optimizer_0").mkdir(parents=True)
    for name in ("pytorch_model.bin", "optimizer_0/state"):
        (folder / name).write_text("numbers")
    with pytest.raises(FileNotFoundError, match=r"checkpoint-3 has lost scheduler.pt: something removes the files"):
        _checkpoints.finish(folder, Marker(3, 21, 1, 4), ("*model*", "optimizer*", "scheduler.pt"))
    assert _checkpoints.whole(tmp_path) == []


def test_the_newest_checkpoint_is_the_one_of_the_most_steps(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        _checkpoints.finish(folder, Marker(step, step * 7, 1, 4))
    assert [marker.step for _, marker in _checkpoints.whole(tmp_path)] == [9, 10, 100]
    _checkpoints.clean(tmp_path)
    assert [(path.name, marker.tokens) for path, marker in _checkpoints.whole(tmp_path)] == [
        ("checkpoint-10", 70),
        ("checkpoint-100", 700),
    ]


def test_a_dear_checkpoint_is_written_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    cadence = Cadence(None)
    found = []
    for after, cost in ((9.9, 0.0), (10.0, 2.0), (79.9, 0.0), (80.0, 0.1), (89.9, 0.0), (90.0, 0.0)):
        now[0] = after
        found.append(cadence.due(1))
        if found[-1]:
            cadence.saved(cost)
    assert found == [False, True, False, True, False, True], (
        "2 s spent and 2 s to come are 5 % of 80 s; never under 10 s"
    )


def test_the_first_checkpoint_waits_until_what_it_will_cost_is_a_small_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    cadence = Cadence(None)
    estimates: list[float] = []

    def estimate() -> float:
        estimates.append(now[0])
        return 3.0

    found = []
    for after in (9.0, 11.0, 59.0, 60.0):
        now[0] = after
        found.append(cadence.due(1, estimate))
    assert found == [False, False, False, True], "3 s are 5 % of 60 s"
    assert estimates == [11.0], "it is measured once, and not before it can matter"


def test_a_checkpoint_holds_the_weights_and_two_numbers_for_each_that_is_trained() -> None:
    import torch

    model = torch.nn.Linear(3, 2)  # 8 numbers of 4 bytes
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    step = 4  # AdamW also keeps the number of the step, for each tensor
    assert _checkpoints.size_of(model.parameters(), optimizer, adapter=False) == 8 * 4 + 2 * 6 * 4 + step
    assert _checkpoints.size_of(model.parameters(), optimizer, adapter=True) == 6 * 4 + 2 * 6 * 4 + step


def test_the_time_to_write_follows_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    inner = _checkpoints.flush

    def slow(path: Path) -> None:
        inner(path)
        now[0] += path.stat().st_size / 1e6  # a disk that takes 1 MB/s

    monkeypatch.setattr(_checkpoints, "flush", slow)
    for size, expected in ((10**8, 100.1), (10**10, 10010.0)):
        assert _checkpoints.seconds_to_write(tmp_path, size) == pytest.approx(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "refused"), [(9, False), (10, True), (11, True)])
def test_a_checkpoint_of_the_last_step_is_none_of_this_job(
    step: int, refused: bool, tmp_path: Path, events: training_job.Events
) -> None:
    resumed, made = state(tmp_path, events), trainer(_total_train_tokens=0)
    if refused:
        with pytest.raises(ResumeRefused, match=f"checkpoint of step {step}, but this job ends at step 10"):
            _trl._restore(made, resumed, Marker(step, 70, 1, 4))
        return
    _trl._restore(made, resumed, Marker(step, 70, 1, 4))
    assert (resumed.resumed_from, made._total_train_tokens, events.warnings) == (9, 70, [])


@pytest.mark.parametrize(
    ("marker", "field", "said"),
    [
        (Marker(3, 0, 2, 4), "resources", "another number of processes (1, was 2)"),
        (Marker(3, 0, 1, 2), "trainer.micro_batch_size", "another micro batch (4, was 2)"),
    ],
)
def test_a_resume_in_other_portions_is_said(
    marker: Marker, field: str, said: str, tmp_path: Path, events: training_job.Events
) -> None:
    _trl._restore(trainer(), state(tmp_path, events), marker)
    ((text, named),) = events.warnings
    assert said in text and named == field


def test_a_cap_shortens_the_run_and_never_lengthens_it(tmp_path: Path, events: training_job.Events) -> None:
    ends = [state(tmp_path, events, max_steps_cap=cap).stop_at for cap in (None, 3, 30)]
    assert ends == [10, 3, 10]


# --------------------------------------------------------------------------- while it runs


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_any_more_ends_the_training(
    name: str, value: float, tmp_path: Path, events: training_job.Events
) -> None:
    callback = _trl._callback(trainer(), state(tmp_path, events))
    at = SimpleNamespace(global_step=4, is_world_process_zero=True)
    logs = {"loss": 1.0, "grad_norm": 1.0}
    callback.on_log(None, at, None, logs=logs)
    with pytest.raises(StageFailed, match=f"{name} is .* at step 4: training has diverged"):
        callback.on_log(None, at, None, logs={**logs, name: value})
    assert [step for step, _, _ in events.reports] == [4, 4], "the last point is in the curve"


def test_a_health_warning_names_the_fields_of_the_spec_and_is_not_said_again_after_a_resume(tmp_path: Path) -> None:
    said: list[tuple[str, str, int | None]] = []
    job = training_job.job(tmp_path, MODEL, training_job.Events(), warn=lambda *given: said.append(given))
    config = Grpo.Config.model_validate({"beta": 0.7, "learning_rate": 3e-4, "health": {"window": 4}})
    for replayed in (True, False):
        warnings: list[HealthWarning] = []
        observe = health_observer(config, job, warnings)
        for step in range(1, 9):
            assert observe(step, {"kl": 9.0, "reward": 0.5}, replayed) is None
        assert [one.kind for one in warnings] == ["kl_high"], "what came before a resume is in the result all the same"
        assert len(said) == (0 if replayed else 1)
    ((text, field, step),) = said
    assert "Raise trainer.beta (now 0.7) or lower trainer.learning_rate (now 0.0003)" in text
    assert (field, step) == ("trainer.beta", 4)


def test_a_broken_run_ends_only_where_the_spec_says_so(tmp_path: Path, events: training_job.Events) -> None:
    config = Grpo.Config.model_validate({"health": {"window": 4, "stop": True}})
    observe = health_observer(config, training_job.job(tmp_path, MODEL, events), [])
    ends = [observe(step, {"kl": 9.0}, False) for step in range(1, 5)]
    assert ends[:3] == [None] * 3 and str(ends[3]).startswith("stopped by trainer.health.stop at step 4: the KL")


def test_while_a_run_is_broken_nothing_else_is_advised() -> None:
    watch = HealthWatch(HealthConfig(window=4))
    found = [
        problem.kind
        for step in range(12)
        for problem in watch.observe(step, {"kl": 9.0, "reward": 0.0, "reward_std": 0.0, "entropy": 1.0})
    ]
    assert found == ["kl_high"]


# --------------------------------------------------------------------------- rewards and order


class Sees(Reward):
    """Keeps what it is given."""

    given: list[list[tuple[Any, ...]]]

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        self.given.append([(one.text, one.question.answer, one.sample, one.tokens, one.truncated) for one in rollouts])
        return [0.5] * len(rollouts)


def test_a_rollout_without_a_token_or_without_an_end_is_truncated(tmp_path: Path, events: training_job.Events) -> None:
    reward = Sees()
    reward.given = []
    examples = [Example(Question(str(i), "q", str(i)), "", str(i), None, "labeled") for i in range(3)]
    job = training_job.job(tmp_path, MODEL, events, verifier=Numeric(), examples=examples)
    rollouts = TrlRollouts(job, [("sees", reward)])
    at = SimpleNamespace(global_step=0)
    rollouts.bind(SimpleNamespace(eos_token_ids=[1, 9], nsd_samples=[0, 0, 1, 0], state=at))
    score = reward_function("sees", reward, rollouts)
    chat = [{"role": "assistant", "content": "d"}]
    ids = [[], [5, 1], [1, 5], [9]]
    assert (
        score(prompts=[""] * 4, completions=["a", "b", "c", chat], completion_ids=ids, example=[2, 0, 0, 1])
        == [0.5] * 4
    )
    assert reward.given == [
        [
            ("a", "2", 0, (), True),
            ("b", "0", 0, (5, 1), False),
            ("c", "0", 1, (1, 5), True),
            ("d", "1", 0, (9,), False),
        ]
    ]


class Base:
    """The parts of a GRPO trainer that decide the order, resumed in its second epoch or not."""

    num_generations, num_iterations, shuffle_dataset = 2, 1, True
    args = SimpleNamespace(generation_batch_size=4, steps_per_generation=1)
    train_dataset = tuple(range(8))
    epochs_trained = 0

    def _get_train_sampler(self, dataset: object) -> object:
        raise AssertionError("the base's order is another")

    def _init_training_state(self) -> tuple[int, int]:
        return self.epochs_trained, 0


def test_a_run_resumed_in_a_later_epoch_goes_on_in_that_epochs_order() -> None:
    ordered = with_resumable_order(Base, 12)
    whole, resumed = ordered(), ordered()
    sampler = whole._get_train_sampler()
    first, second = list(sampler), list(sampler)
    assert first != second and sorted(first) == sorted(second)
    sampler = resumed._get_train_sampler()
    resumed.epochs_trained = 1
    assert resumed._init_training_state() == (1, 0)
    assert list(sampler) == second
    other = with_resumable_order(Base, 13)()._get_train_sampler()
    assert list(other) != first, "the order comes from its own seed"


# --------------------------------------------------------------------------- how long


def test_a_budget_of_tokens_is_spent_by_the_mean_length(tmp_path: Path, events: training_job.Events) -> None:
    sft = Sft(Sft.Config(batch_size=2))
    job = training_job.job(tmp_path, MODEL, events, budget=Budget(tokens=1000))
    assert sft._steps(job, [10, 30, 20]) == 25  # 1000 / (20 * 2)
    assert sft._steps(training_job.job(tmp_path, MODEL, events, budget=Budget(steps=7)), [10]) == 7
    assert sft._steps(training_job.job(tmp_path, MODEL, events), [10, 30, 20]) == sft.planned_steps(3) == 4


def test_rows_are_shared_out_over_processes_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _setup.split_batch(8, None, "trainer.batch_size") == (4, 1)
    assert _setup.split_batch(8, 2, "trainer.batch_size") == (2, 2)
    assert _setup.split_batch(8, 64, "trainer.batch_size") == (4, 1)


# --------------------------------------------------------------------------- what TRL is told when it starts


def started(folder: Path, events: training_job.Events, checkpoints: tuple[int, ...], **config: Any) -> dict[str, Any]:
    """What `_trl.run` hands to a trainer that trains nothing: a run of 5000 steps that a cap ends at 4500."""
    import torch
    from accelerate import Accelerator

    Accelerator()  # as every TRL trainer makes one
    found: dict[str, Any] = {}

    def train(resume_from_checkpoint: str | None) -> None:
        found.update(resumed=resume_from_checkpoint, seed=torch.initial_seed())

    job = training_job.job(folder, MODEL, events, max_steps_cap=4500)
    for step in checkpoints:
        (job.checkpoint_dir / f"checkpoint-{step}").mkdir(parents=True)
        _checkpoints.finish(job.checkpoint_dir / f"checkpoint-{step}", Marker(step, 0, 1, 4))
    made = trainer(add_callback=lambda callback: found.update(callback=callback), train=train)
    made.accelerator.wait_for_everyone = lambda: None
    made.state = SimpleNamespace(global_step=4500)
    _trl.run(made, Run(job, Sft.Config.model_validate(config), 5000), None)
    return found | vars(made.args)


def test_a_start_has_its_length_its_points_and_its_stream(tmp_path: Path, events: training_job.Events) -> None:
    found = started(tmp_path, events, ())
    assert (found["max_steps"], found["logging_steps"], found["resumed"]) == (5000, 3, None)
    assert found["seed"] == 13, "what is drawn while training comes from the rollout stream"
    assert started(tmp_path / "other", events, (), log_every=7)["logging_steps"] == 7


def test_a_start_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path, events: training_job.Events) -> None:
    half = tmp_path / "checkpoints" / "checkpoint-4000"
    half.mkdir(parents=True)
    found = started(tmp_path, events, (9, 10))
    assert found["resumed"] == str(tmp_path / "checkpoints" / "checkpoint-10") and not half.exists()


def test_another_process_neither_reports_nor_warns(
    tmp_path: Path, events: training_job.Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = training_job.job(tmp_path, MODEL, events)
    assert _setup.quiet_elsewhere(job) is job
    monkeypatch.setenv("RANK", "1")
    quiet = _setup.quiet_elsewhere(job)
    quiet.report(1, 2, {})
    quiet.warn("text", "field")
    assert (events.reports, events.warnings) == ([], [])


def test_another_version_of_a_reward_is_another_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Grpo(Grpo.Config.model_validate({"rewards": ["correct", "finished", "finished"]}))
    monkeypatch.setattr(Finished, "version", 7)
    assert made.digest_extra() == {"rewards": {"correct": Correct.version, "finished": 7, "finished_2": 7}}


@pytest.mark.parametrize(("lengths", "cut"), [([8, 7], 1), ([7, 7], 0)])
def test_an_example_that_fills_the_limit_may_be_cut(
    lengths: list[int], cut: int, tmp_path: Path, events: training_job.Events
) -> None:
    from datasets import Dataset

    rows = {"input_ids": [[5] * n for n in lengths], "labels": [[-100] * n for n in lengths]}
    nothing = Dataset.from_dict(rows)
    rows["labels"][1][-1] = 5
    prepared = Dataset.from_dict(rows)
    sft = Sft(Sft.Config(max_length=8))
    assert sft._check_lengths(prepared, training_job.job(tmp_path, MODEL, events)) == lengths
    assert [text.split(" reach")[0] for text, _ in events.warnings] == [f"{cut} of 2 examples"] * cut
    with pytest.raises(StageFailed, match="no example has a token to train on"):
        sft._check_lengths(nothing, training_job.job(tmp_path, MODEL, events))


# --------------------------------------------------------------------------- thresholds of the watch, refused fields

QUIET = {"reward": 0.5, "reward_std": 0.4, "kl": 0.01, "entropy": 1.0, "frac_reward_zero_std": 0.0}


def warned(rows: list[dict[str, float]], settings: Settings | None = None, **config: Any) -> list[HealthWarning]:
    watch = HealthWatch(HealthConfig.model_validate({"window": 8, **config}), settings)
    return [one for step, row in enumerate(rows) for one in watch.observe(step, QUIET | row)]


@pytest.mark.parametrize(
    ("field", "value", "metric", "level", "kind"),
    [
        ("zero_std_fraction", 0.5, "frac_reward_zero_std", 0.6, "zero_advantage"),
        ("kl_max", 1.0, "kl", 1.5, "kl_high"),
        ("kl_min", 0.1, "kl", 0.05, "kl_zero"),
        ("min_length", 5.0, "completions/mean_terminated_length", 4.0, "empty"),
        ("clipped_ratio_max", 0.3, "completions/clipped_ratio", 0.4, "cut_off"),
    ],
)
def test_each_threshold_of_the_watch_is_the_one_of_the_spec(
    field: str, value: float, metric: str, level: float, kind: str
) -> None:
    rows = [{metric: level}] * 10
    assert warned(rows) == []
    assert [one.kind for one in warned(rows, **{field: value})] == [kind]


def test_a_low_entropy_that_was_low_from_the_start_is_no_collapse() -> None:
    assert warned([{"entropy": 0.04}] * 20) == []
    fallen = warned([{"entropy": 0.4}] * 8 + [{"entropy": 0.04}] * 20)
    assert [one.kind for one in fallen] == ["entropy_collapse"]


@pytest.mark.parametrize(("beta", "field"), [(0.0, "trainer.beta"), (0.04, "trainer.learning_rate")])
def test_a_runaway_without_a_reference_is_told_to_have_one(beta: float, field: str) -> None:
    rows = [{"completions/clipped_ratio": 0.0}] * 8 + [{"completions/clipped_ratio": 0.9}] * 8
    (found,) = warned(rows, Settings(beta=beta))
    assert (found.kind, found.field) == ("runaway", field)


def test_a_fallen_reward_is_held_against_the_first_half_window() -> None:
    rows = [{"reward": 0.8 + 0.01 * (i % 3)} for i in range(10)] + [{"reward": 0.1 + 0.01 * (i % 3)} for i in range(40)]
    (found,) = warned(rows, window=20)
    assert found.kind == "reward_falling" and "in the first 10 steps to 0.11 in the last 20" in found.text


@pytest.mark.parametrize("kind", ["sft", "grpo"])
@pytest.mark.parametrize("name", ["seed", "data_seed", "output_dir", "max_steps", "save_strategy", "learning_rate"])
def test_what_nsd_decides_itself_is_not_for_trls_fields(kind: str, name: str) -> None:
    with pytest.raises(ValidationError, match=f"nsd sets '{name}' itself"):
        find("trainer", kind).Config.model_validate({"trl": {name: 1}})


def test_what_no_checkpoint_holds_is_refused() -> None:
    with pytest.raises(ValidationError, match="a resumed run would get another one"):
        Grpo.Config.model_validate({"trl": {"sync_ref_model": True}})


def test_checkpoints_of_grpo_fall_between_sampled_batches() -> None:
    several = {"steps_per_generation": 2, "num_iterations": 3}
    assert Grpo.Config.model_validate({**several, "save_every": 12}).boundary == 6
    for every in (2, 3, 4, 9):
        with pytest.raises(ValidationError, match=rf"save_every {every} is no multiple"):
            Grpo.Config.model_validate({**several, "save_every": every})


def test_the_steps_of_packed_examples_are_not_known_beforehand() -> None:
    assert Sft(Sft.Config.model_validate({"trl": {"packing": True}})).planned_steps(100) is None
    assert Sft(Sft.Config(batch_size=8, epochs=1.5)).planned_steps(100) == 20  # 13 steps an epoch
