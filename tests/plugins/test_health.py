"""The health watch on curves with one fault each, and on a real run that collapses."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.trainers.health import HealthConfig, HealthWarning, HealthWatch, Settings

EMBEDDED = Path(__file__).resolve().parents[2] / "plugins" / "embedded" / "wordmath-1m"
Curve = Callable[[int], float]


def metrics(step: int, **curves: Curve | float) -> dict[str, float]:
    """A healthy run's metrics at `step`, with some of them replaced."""
    noise = random.Random(step)
    healthy: dict[str, Curve | float] = {
        "loss": 0.01,
        "grad_norm": 0.5,
        "reward": 0.4 + 0.002 * step + noise.uniform(-0.1, 0.1),
        "reward_std": 0.4,
        "frac_reward_zero_std": noise.choice([0.0, 0.0, 0.5]),
        "kl": 1e-4 * step,
        "entropy": 0.4 + noise.uniform(-0.1, 0.1),
        "clipped": 0.1,
        "length": 60 + noise.uniform(-10, 10),
    }
    values = {name: value(step) if callable(value) else value for name, value in (healthy | curves).items()}
    names = {
        "clipped": "completions/clipped_ratio",
        "length": "completions/mean_terminated_length",
        "success": "self_distillation/success_group_fraction",
        "read": "self_distillation/reprompt_sample_fraction",
        "distilled": "self_distillation/distillation_loss",
    }
    return {names.get(name, name): value for name, value in values.items()}


def warnings(steps: int = 100, config: HealthConfig | None = None, **curves: Curve | float) -> list[HealthWarning]:
    watch = HealthWatch(config or HealthConfig(), Settings(beta=0.04, max_tokens=128, privileged=True))
    return [warning for step in range(1, steps + 1) for warning in watch.observe(step, metrics(step, **curves))]


def after(step: int, then: float, before: float) -> Curve:
    return lambda now: then if now >= step else before


def test_a_healthy_run_is_silent() -> None:
    assert warnings(500) == []


FAULTS: dict[str, tuple[dict[str, Curve | float], str, str, range]] = {
    "reward 0 throughout": (
        {"reward": 0.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0},
        "all_wrong",
        "trainer.num_generations",
        range(20, 21),
    ),
    "reward 1 from step 40": (
        {"reward": after(40, 1.0, 0.5), "reward_std": after(40, 0.0, 0.4), "frac_reward_zero_std": after(40, 1, 0.2)},
        "zero_advantage",
        "trainer.temperature",
        range(50, 60),
    ),
    "the same reward for all": (
        {"reward": 0.5, "reward_std": 0.0, "frac_reward_zero_std": 1.0},
        "no_reward_spread",
        "trainer.temperature",
        range(20, 21),
    ),
    "groups that agree": ({"frac_reward_zero_std": 0.9}, "zero_advantage", "trainer.temperature", range(20, 21)),
    "kl stays at 0": ({"kl": 0.0}, "kl_zero", "trainer.learning_rate", range(20, 21)),
    "kl explodes": ({"kl": lambda step: 0.01 * 1.1**step}, "kl_high", "trainer.beta", range(50, 65)),
    "completions stop ending": (
        {"clipped": lambda step: min(0.96, 0.12 + 0.03 * max(0, step - 10))},
        "runaway",
        "trainer.learning_rate",
        range(15, 28),
    ),
    "cut off from the start": ({"clipped": 0.8}, "cut_off", "trainer.max_tokens", range(6, 7)),
    "empty answers": ({"length": after(30, 1.0, 1.9)}, "empty", "trainer.beta", range(6, 7)),
    "answers shrink": ({"length": after(30, 10.0, 60.0)}, "shrinking", "trainer.beta", range(30, 36)),
    "answers near the limit": ({"length": 120.0}, "near_limit", "trainer.max_tokens", range(6, 7)),
    "entropy collapses": ({"entropy": after(50, 0.01, 0.5)}, "entropy_collapse", "trainer.temperature", range(50, 56)),
    "reward falls": (
        {"reward": lambda step: 0.45 - 0.007 * min(step, 55) + random.Random(step).uniform(-0.1, 0.1)},
        "reward_falling",
        "trainer.learning_rate",
        range(30, 75),
    ),
    "nobody succeeds and nothing is fed back": (
        {"success": 0.0, "read": 0.0, "distilled": 0.0},
        "no_success",
        "trainer.success_reward_threshold",
        range(20, 21),
    ),
    "all is masked": ({"success": 0.5, "read": 0.0}, "all_masked", "trainer.max_reprompt_len", range(20, 21)),
    "the teacher knows no more": (
        {"read": 1.0, "distilled": 0.0},
        "teacher_equals_student",
        "trainer.privileged",
        range(20, 21),
    ),
    "loss is nan": ({"loss": after(7, math.nan, 0.1)}, "not_finite", "trainer.learning_rate", range(7, 8)),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_each_fault_is_said_first_and_in_time(name: str) -> None:
    curves, kind, field, when = FAULTS[name]
    found = warnings(**curves)
    assert found, "nothing was said"
    assert (found[0].kind, found[0].field) == (kind, field)
    assert found[0].step in when
    assert field == "data" or field in found[0].text
    assert [warning.kind for warning in found].count(kind) == 1


def test_equal_rewards_are_no_fault_where_rewards_are_not_compared_within_groups() -> None:
    watch = HealthWatch(HealthConfig(), Settings(compared=False))
    flat = {"reward": 1.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0}
    assert not [found for step in range(60) for found in watch.observe(step, metrics(step) | flat)]


def test_one_cause_is_not_said_in_two_ways() -> None:
    # No reward: the KL cannot move either, and every group has zero spread.
    found = warnings(reward=0.0, reward_std=0.0, frac_reward_zero_std=1.0, kl=0.0)
    assert [warning.kind for warning in found] == ["all_wrong"]


# Mean rewards of real runs of 0.9 M models with beta 0 (learning rate 5e-4, eight questions a step), which forgot what
# they knew without ever running into the token limit.
# fmt: off
FALLEN = [
    [
        .422, .359, .5, .312, .031, .062, .312, .219, .375, .125, .297, .156, 0, .172, .125, .016, .141, .125, .125,
        .094, .047, .172, .172, .188, 0, .109, .188, 0, .125, .25, .344, .141, .109, .094, .109, .016, .219, .125,
        .141, 0, 0, .078, .016, 0, .047, .016, 0, .031, .016, .062, .109, .172, .25, 0, .188, .172, 0, .156, .109, 0,
    ],
    [
        .109, .266, .188, .047, .031, .125, .125, .156, .016, .016, .031, 0, 0, 0, .016, .062, 0, 0, .031, .016, 0,
        .031, 0, 0, 0, 0, .031, 0, .016, 0, .031, .016, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, .047, .062, 0,
    ],
    [
        .094, .391, .188, .047, 0, .031, .125, .016, .078, .016, .094, 0, .016, 0, .031, .047, 0, .016, 0, .016, .031,
        .047, 0, 0, .078, 0, 0, 0, 0, .016, 0, .062, 0, .031, .016, 0, 0, .016, 0, 0, 0, .016, .047, 0, 0,
    ],
]
# fmt: on


@pytest.mark.parametrize("reward", FALLEN)
def test_a_fallen_reward_is_noticed_through_the_noise(reward: list[float]) -> None:
    found = warnings(len(reward), reward=lambda step: reward[step - 1])
    assert [(warning.kind, warning.field) for warning in found] == [("reward_falling", "trainer.learning_rate")]


@given(st.integers(0, 2**32), st.floats(0.2, 0.95))
def test_noise_alone_is_no_fall(seed: int, level: float) -> None:
    noise = random.Random(seed)
    rewards = [sum(noise.random() < level for _ in range(64)) / 64 for _ in range(100)]
    assert "reward_falling" not in [w.kind for w in warnings(100, reward=lambda step: rewards[step - 1])]


def test_while_a_run_is_broken_its_symptoms_are_not_said() -> None:
    # Recorded from a real collapse: completions run away, then no reward is left and every group agrees.
    curves = {"clipped": lambda s: min(1.0, 0.1 * s), "reward": lambda s: 0.1 if s < 6 else 0.0}
    flat = {"reward_std": lambda s: 0.3 if s < 6 else 0.0, "frac_reward_zero_std": lambda s: float(s >= 6)}
    found = warnings(60, **curves, **flat)
    assert found[0].kind == "runaway" and found[0].step < 10
    assert all(warning.broken for warning in found)


def test_an_episode_is_said_again_only_after_a_clear_window() -> None:
    def twice(gap: int) -> int:
        bad = {*range(30, 45), *range(45 + gap, 60 + gap)}
        found = warnings(150, clipped=lambda step: 0.9 if step in bad else 0.1)
        return [warning.kind for warning in found].count("runaway")

    assert twice(gap=10) == 1
    assert twice(gap=40) == 2


def test_metrics_that_are_missing_hide_nothing_and_break_nothing() -> None:
    # Steps on a batch that was sampled before log no reward and no length; a run without a KL term logs no kl.
    watch = HealthWatch(HealthConfig(), Settings())
    found = []
    for step in range(1, 101):
        row = metrics(step, frac_reward_zero_std=1.0)
        row.pop("kl")
        if step % 2:
            row = {"loss": 0.1, "grad_norm": 0.1}
        found += watch.observe(step, row)
    assert [warning.kind for warning in found] == ["zero_advantage"]
    assert found[0].step == 40


def test_the_texts_name_the_present_values() -> None:
    watch = HealthWatch(HealthConfig(), Settings(beta=0.0, max_tokens=80, learning_rate=5e-4))
    found = [w for step in range(1, 40) for w in watch.observe(step, metrics(step, clipped=lambda s: min(1, s * 0.03)))]
    assert found[0].field == "trainer.beta"
    assert "token limit (80)" in found[0].text and "trainer.learning_rate (now 0.0005)" in found[0].text


values = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0])
rows = st.lists(st.dictionaries(st.sampled_from(sorted(metrics(1))), values), max_size=60)


@pytest.mark.slow
@given(rows, st.integers(4, 12))
def test_any_metrics_are_taken_and_the_same_ones_say_the_same(given_rows: list[dict[str, float]], window: int) -> None:
    def told(chosen: Iterable[dict[str, float]]) -> list[str]:
        watch = HealthWatch(HealthConfig(window=window))
        return [w.text for step, row in enumerate(chosen) for w in watch.observe(step, row)]

    assert told(given_rows) == told([dict(row) for row in given_rows])


# --------------------------------------------------------------------------- a real collapse


@pytest.mark.slow
def test_a_real_collapse_is_caught_while_it_happens(tmp_path: Path) -> None:
    if not (EMBEDDED / "config.json").is_file():
        pytest.skip("the embedded model is not built here")
    from nsd.plugins.api import Example, Prompt
    from nsd.plugins.registry import find
    from training_job import Events, job, train

    dataset_class: Any = find("dataset", "wordmath")
    dataset = dataset_class(dataset_class.Config())
    prompt: Prompt = dataset.default_prompt
    examples = [
        Example(question, prompt.render(question), question.answer, None, "unlabeled")
        for question in dataset.pools().train[:200]
    ]
    verifier_class: Any = find("verifier", dataset.default_verifier)
    config = {
        "learning_rate": 3e-3,
        "beta": 0.0,
        "steps": 14,
        "prompts_per_step": 8,
        "num_generations": 4,
        "max_tokens": 48,
        "lr_scheduler": "constant",
        "rewards": ["correct"],
    }
    events = Events()
    made = dataclasses.replace(
        job(tmp_path, EMBEDDED, events), examples=examples, prompt=prompt, verifier=verifier_class()
    )
    result = train("grpo", config, made)
    clipped, reward = events.curve("completions/clipped_ratio"), events.curve("reward")
    assert max(clipped) > 0.8 or sum(reward[-10:]) < 0.2 * sum(reward[:3]), "the run did not collapse"
    broken = [entry for entry in result.notes["health"] if entry["kind"] in ("runaway", "reward_falling")]
    assert broken and broken[0]["step"] < 14, result.notes["health"]
    if max(clipped) > 0.8:
        first_bad = next(step for step, ratio in enumerate(clipped, 1) if ratio > 0.8)
        assert broken[0]["kind"] == "runaway" and broken[0]["step"] <= first_bad + 3
    assert {field for _, field in events.warnings} & {"trainer.beta", "trainer.learning_rate"}
