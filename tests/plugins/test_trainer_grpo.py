"""The grpo trainer on a real tiny model: its loss by hand, its reference, its rewards, its resume, its warnings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from nsd.plugins.api import (
    KeptRollout,
    LoraConfig,
    ModelRef,
    PluginConfig,
    Request,
    Reward,
    Rollout,
    Sampling,
    TrainSeeds,
)
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.plugins.models import load_model
from nsd.plugins.registry import find, plugin
from nsd.plugins.seeds import stream
from nsd.plugins.trainers import _grpo
from tiny_model import make_tiny_model, with_end_tokens
from training_job import Events, job, train, weights_hash

LORA = LoraConfig(rank=2, alpha=8)
SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "steps": 6,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_tokens": 12,
    "rewards": ["test_share_of_vowels"],
}


@plugin("reward", "test_recorder")
class Recorder(Reward):
    """Rewards by position in the call, and keeps what it was shown."""

    seen: ClassVar[list[Rollout]] = []

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        self.seen.extend(rollouts)
        return [float(index**2 % 5) for index in range(len(rollouts))]


@plugin("reward", "test_scale")
class Scale(Reward):
    """A constant."""

    class Config(PluginConfig):
        weight: float = 1.0
        value: float = 1.0

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        return [self.config.value] * len(rollouts)


@plugin("reward", "test_broken")
class Broken(Reward):
    """Fails."""

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        raise KeyError("oops")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def in_pieces(folder: Path, stops: list[int], config: dict[str, Any], model: Any, **changes: Any) -> tuple[str, Events]:
    """Train, asking for a stop at each of `stops` and starting anew; the hash of the final weights."""
    for stop in stops:
        with pytest.raises(Interrupted):
            train("grpo", config, job(folder, model, Events(stop_after=stop), **changes))
    events = Events()
    train("grpo", config, job(folder, model, events, **changes))
    return weights_hash(folder / "weights"), events


# --------------------------------------------------------------------------- the loss


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["group", "none"])
def test_first_dr_grpo_loss_by_hand(model: Path, tmp_path: Path, scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # arXiv 2503.20783: with a ratio of 1 every token of rollout i contributes -A_i, summed over tokens and divided
    # by rollouts * max_tokens. A_i = r_i - mean of its group, over the group's standard deviation where scaled.
    lengths: list[int] = []
    inner = _grpo.reward_function

    def listening(*args: Any) -> Any:
        score = inner(*args)

        def both(**parts: Any) -> list[float]:
            lengths.extend(map(len, parts["completion_ids"]))
            return score(**parts)

        both.__name__ = score.__name__
        return both

    monkeypatch.setattr(_grpo, "reward_function", listening)
    events = Events()
    config = SMALL | {"steps": 1, "rewards": ["test_recorder"], "scale_rewards": scale, "micro_batch_size": 2}
    train("grpo", config, job(tmp_path, model, events))
    rewards = [float(index**2 % 5) for index in range(8)]
    advantages: list[float] = []
    for group in (rewards[:4], rewards[4:]):
        deviation = statistics.stdev(group) + 1e-4 if scale == "group" else 1.0
        advantages += [(reward - statistics.mean(group)) / deviation for reward in group]
    by_hand = -sum(a * n for a, n in zip(advantages, lengths, strict=True)) / (8 * 12)
    assert len(set(lengths)) > 1
    assert events.curve("loss")[0] == pytest.approx(by_hand, abs=1e-6)
    assert events.curve("reward")[0] == pytest.approx(statistics.mean(rewards))


@pytest.mark.slow
def test_rewards_see_the_label_the_group_and_the_cut(model: Path, tmp_path: Path) -> None:
    Recorder.seen.clear()
    made = job(tmp_path, model, Events())
    import dataclasses

    made.examples = [dataclasses.replace(e, answer=f"label {i}", source="pseudo") for i, e in enumerate(made.examples)]
    events = Events()
    made.report = events.report
    train("grpo", SMALL | {"steps": 1, "rewards": ["test_recorder"]}, made)
    questions = [rollout.question for rollout in Recorder.seen]
    assert len({q.id for q in questions[:4]}) == 1 and len({q.id for q in questions}) == 2
    labels = {e.question.id: e.answer for e in made.examples}
    assert all(q.answer == labels[q.id] for q in questions)
    cut = [rollout.truncated for rollout in Recorder.seen]
    assert statistics.mean(cut) == events.curve("completions/clipped_ratio")[0]
    assert 0 < statistics.mean(cut) < 1


@pytest.mark.slow
def test_a_rollout_that_ends_by_any_listed_end_token_is_not_cut(model: Path, tmp_path: Path) -> None:
    shares = []
    for name, listed in (("one", [1]), ("many", [1, *range(3, 259, 4)])):
        Recorder.seen.clear()
        events = Events()
        changed = with_end_tokens(model, tmp_path / name, listed)
        train(
            "grpo", SMALL | {"steps": 1, "rewards": ["test_recorder"]}, job(tmp_path / f"{name} job", changed, events)
        )
        shares.append(statistics.mean(rollout.truncated for rollout in Recorder.seen))
        assert shares[-1] == events.curve("completions/clipped_ratio")[0]
    assert shares[1] < shares[0]


@pytest.mark.slow
def test_rollouts_are_the_engines_draws_from_the_stream_of_their_step(model: Path, tmp_path: Path) -> None:
    kept: list[KeptRollout] = []
    made = job(tmp_path, model, Events(), keep=kept.extend)
    train("grpo", SMALL | {"steps": 1, "temperature": 0.7}, made)
    prompts = {example.question.id: example.prompt for example in made.examples}
    asked = [Request(question, prompts[question]) for question in dict.fromkeys(one.question_id for one in kept)]
    batches = HfEngine().generate(made.model, asked, Sampling(4, 0.7, 12), stream(made.seeds.rollout, 0))
    drawn = {(one.question_id, one.sample): (one.text, one.tokens) for batch in batches for one in batch}
    assert {(one.question_id, one.sample): (one.text, one.tokens) for one in kept} == drawn
    assert len(kept) == len(drawn) == 8 and {one.step for one in kept} == {0}


@pytest.mark.slow
def test_weights_of_rewards_and_names_of_twins(model: Path, tmp_path: Path) -> None:
    events = Events()
    rewards = [{"use": "test_scale", "weight": 2}, {"use": "test_scale", "value": 10, "weight": 0.5}]
    train("grpo", SMALL | {"steps": 1, "rewards": rewards}, job(tmp_path, model, events))
    assert events.curve("rewards/test_scale/mean") == [1.0]
    assert events.curve("rewards/test_scale_2/mean") == [10.0]
    assert events.curve("reward") == [2 * 1 + 0.5 * 10]


@pytest.mark.slow
def test_chat_prompts_work(model: Path, tmp_path: Path) -> None:
    Recorder.seen.clear()
    train("grpo", SMALL | {"steps": 1, "rewards": ["test_recorder"]}, job(tmp_path, model, Events(), chat=True))
    assert all(isinstance(rollout.text, str) for rollout in Recorder.seen)


# --------------------------------------------------------------------------- the reference model


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_kl_starts_at_zero_from_an_adapted_start_too(model: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    sft = {"batch_size": 4, "epochs": 1, "learning_rate": 3e-2}
    train("sft", sft, job(tmp_path / "sft", model, Events(), lora=LORA))
    start = ModelRef(str(model), adapter=str(tmp_path / "sft" / "weights"))
    events = Events()
    result = train("grpo", SMALL | {"steps": 3}, job(tmp_path / "grpo", start, events, lora=lora))
    kl = events.curve("kl")
    assert abs(kl[0]) < 1e-9 and kl[2] > 1e-6
    assert not result.adapter_only
    load_model(ModelRef(str(tmp_path / "grpo" / "weights")), device="cpu")


# --------------------------------------------------------------------------- seeds, neutrality, resume


@pytest.mark.slow
def test_the_same_job_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    first, _ = in_pieces(tmp_path / "a", [], SMALL, model)
    train("sft", {"epochs": 1}, job(tmp_path / "b", model, Events()))
    assert in_pieces(tmp_path / "c", [], SMALL, model)[0] == first


@pytest.mark.slow
def test_each_seed_does_its_own_work(model: Path, tmp_path: Path) -> None:
    def asked_and_said(name: str, **seeds: int) -> tuple[list[str], list[str]]:
        Recorder.seen.clear()
        made = TrainSeeds(**({"init": 1, "order": 2, "rollout": 3} | seeds))
        config = SMALL | {"steps": 2, "rewards": ["test_recorder"]}
        train("grpo", config, job(tmp_path / name, model, Events(), seeds=made, lora=LORA))
        return [rollout.question.id for rollout in Recorder.seen], [rollout.text for rollout in Recorder.seen]

    base = asked_and_said("base")
    rollout, order, init = asked_and_said("r", rollout=9), asked_and_said("o", order=9), asked_and_said("i", init=9)
    assert rollout[0] == base[0] and rollout[1] != base[1]
    assert order[0] != base[0]
    # LoRA's B matrix starts at zero, so the first rollouts are those of the base model whatever A is.
    assert init[0] == base[0] and init[1][:8] == base[1][:8]


@pytest.mark.slow
def test_micro_batches_change_rounding_only(model: Path, tmp_path: Path) -> None:
    curves = []
    for micro in (None, 4, 2):
        events = Events()
        train("grpo", SMALL | {"steps": 2, "micro_batch_size": micro}, job(tmp_path / str(micro), model, events))
        curves.append((events.curve("loss"), events.curve("num_tokens")))
    for loss, tokens in curves[1:]:
        assert loss == pytest.approx(curves[0][0], abs=1e-5)
        assert tokens == curves[0][1]


RESUMED = {
    "full": ({}, None, [1, 4]),
    "lora": ({}, LORA, [3]),
    "micro-batches": ({"micro_batch_size": 2}, None, [2]),
    # Two steps on every sampled batch, each batch used twice: stops fall on the next multiple of 4.
    "reused-batches": ({"steps": 10, "num_iterations": 2, "steps_per_generation": 2}, None, [3]),
    "no-reference": ({"beta": 0.0, "loss_type": "dapo"}, None, [3]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", list(RESUMED))
def test_a_stopped_and_resumed_run_ends_in_the_same_weights(model: Path, tmp_path: Path, case: str) -> None:
    # 5 questions, 2 a step: an epoch has two steps, so the stops fall into later epochs as well.
    changes, lora, stops = RESUMED[case]
    whole, whole_events = in_pieces(tmp_path / "whole", [], SMALL | changes, model, count=5, lora=lora)
    pieces, events = in_pieces(tmp_path / "pieces", stops, SMALL | changes, model, count=5, lora=lora)
    assert pieces == whole
    assert events.curve("reward")[-1] == whole_events.curve("reward")[-1]
    assert events.curve("num_tokens")[-1] == whole_events.curve("num_tokens")[-1]


@pytest.mark.slow
def test_a_stop_inside_a_sampled_batch_waits_for_its_end(model: Path, tmp_path: Path) -> None:
    config = SMALL | {"steps": 12, "num_iterations": 2, "steps_per_generation": 2}
    with pytest.raises(Interrupted, match="stopped at step 8 of 12"):
        train("grpo", config, job(tmp_path, model, Events(stop_after=5)))


# --------------------------------------------------------------------------- health


@pytest.mark.slow
def test_health_warnings_arrive_once_also_after_a_resume(model: Path, tmp_path: Path) -> None:
    config = SMALL | {"steps": 10, "rewards": ["test_scale"], "health": {"window": 4}}
    first = Events(stop_after=7)
    with pytest.raises(Interrupted):
        train("grpo", config, job(tmp_path, model, first))
    second = Events()
    result = train("grpo", config, job(tmp_path, model, second))
    assert [field for _, field in first.warnings if field == "data"] == ["data"]
    assert [field for _, field in second.warnings if field == "data"] == []
    assert {"step": 4, "kind": "all_right", "field": "data"} in result.notes["health"]


@pytest.mark.slow
def test_health_can_end_a_broken_run(model: Path, tmp_path: Path) -> None:
    health = {"window": 4, "kl_max": 1e-4, "stop": True}
    with pytest.raises(StageFailed, match=r"stopped by trainer\.health\.stop at step \d+: the KL to the start model"):
        train("grpo", SMALL | {"steps": 12, "learning_rate": 1e-2, "health": health}, job(tmp_path, model, Events()))


# --------------------------------------------------------------------------- failure


@pytest.mark.slow
def test_failures_name_the_reason(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="reward 'test_broken' failed: KeyError: 'oops'"):
        train("grpo", SMALL | {"rewards": ["test_broken"]}, job(tmp_path, model, Events()))
    with pytest.raises(StageFailed, match="reward 'test_scale' returned"):
        block = {"use": "test_scale", "value": math.inf}
        train("grpo", SMALL | {"rewards": [block]}, job(tmp_path, model, Events()))
    with pytest.raises(StageFailed, match="1 questions are fewer than the 2 of one sampled batch"):
        train("grpo", SMALL, job(tmp_path, model, Events(), count=1))
    with pytest.raises(StageFailed, match="every pseudo-label was filtered out"):
        train("grpo", SMALL, job(tmp_path, model, Events(), count=0))
    with pytest.raises(InputError, match="TRL refuses"):
        train("grpo", SMALL, job(tmp_path, model, Events(), lora=LoraConfig(rank=2, targets=["lm_head"])))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"save_every": 3, "num_iterations": 2}, "save_every 3 is no multiple of"),
        ({"micro_batch_size": 3}, "micro_batch_size 3 does not divide"),
        ({"micro_batch_size": 4, "loss_type": "bnpo"}, "depend on the micro-batch"),
        ({"num_generations": 1}, "greater than or equal to 2"),
        ({"rewards": []}, "at least 1 item"),
        ({"rewards": ["test_scal"]}, "did you mean 'test_scale'"),
        ({"rewards": [{"use": "test_scale", "valu": 3}]}, "reward 'test_scale': valu: Extra inputs"),
        ({"rewards": [{"weight": 3}]}, "a reward is a name or a block with `use: NAME`"),
        ({"health": {"windw": 3}}, "Extra inputs"),
    ],
)
def test_a_bad_block_is_refused_before_anything_is_loaded(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        find("trainer", "grpo").Config.model_validate({"rewards": ["test_scale"]} | block)
    assert message in str(caught.value)


def test_reward_blocks_are_filled_in() -> None:
    config: Any = find("trainer", "grpo").Config.model_validate({"rewards": ["test_scale", "./own.py:Mine"]})
    assert config.rewards == [{"use": "test_scale", "weight": 1.0, "value": 1.0}, {"use": "./own.py:Mine"}]
