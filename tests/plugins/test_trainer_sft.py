"""The sft trainer on a real tiny model: its loss by hand, its seeds, its resume, what it saves, how it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Budget, LoraConfig, ModelRef, Prompt, TrainSeeds
from nsd.plugins.errors import InputError, Interrupted, MissingExtra, ResumeRefused, StageFailed
from nsd.plugins.models import load_model
from nsd.plugins.registry import find
from nsd.plugins.trainers._order import grouped_by_length
from nsd.plugins.trainers.sft import examples_seen
from tiny_model import make_tiny_model, with_end_tokens
from training_job import Events, job, train, weights_hash

LORA = LoraConfig(rank=2, alpha=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def in_pieces(folder: Path, stops: list[int], config: dict[str, Any], model: Any, **changes: Any) -> tuple[str, Events]:
    """Train, asking for a stop at each of `stops` and starting anew; the hash of the final weights."""
    events = Events()
    for stop in stops:
        events = Events(stop_after=stop)
        with pytest.raises(Interrupted):
            train("sft", config, job(folder, model, events, **changes))
    events = Events()
    train("sft", config, job(folder, model, events, **changes))
    return weights_hash(folder / "weights"), events


# --------------------------------------------------------------------------- the loss


def negative_log_likelihood(folder: Path, ids: list[int], trained: int) -> list[float]:
    """Cross-entropy of the last `trained` tokens of `ids`, from the model's logits by the formula, in float64."""
    import torch

    model, _ = load_model(ModelRef(str(folder)), device="cpu")
    logits = model(torch.tensor([ids])).logits[0].double().detach().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return [-log_probs[place - 1, ids[place]] for place in range(len(ids) - trained, len(ids))]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["completion", "full"])
def test_first_loss_is_the_mean_cross_entropy_of_the_trained_tokens(model: Path, tmp_path: Path, loss: str) -> None:
    events = Events()
    made = job(tmp_path, model, events, count=3)
    train("sft", {"batch_size": 3, "epochs": 1, "loss": loss}, made)
    _, tokenizer = load_model(ModelRef(str(model)), device="cpu")
    losses: list[float] = []
    for example in made.examples:
        text = f"{example.prompt} {example.target}<|im_end|>"
        ids = tokenizer(text)["input_ids"]
        trained = len(tokenizer(f" {example.target}<|im_end|>")["input_ids"]) if loss == "completion" else len(ids) - 1
        losses += negative_log_likelihood(model, ids, trained)
    assert events.curve("loss")[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.slow
def test_training_appends_the_tokenizers_end_token_and_keeps_the_checkpoints_list(model: Path, tmp_path: Path) -> None:
    listed = [52, 222, 1]
    longer, events = with_end_tokens(model, tmp_path / "longer", listed), Events()
    made = job(tmp_path, longer, events, count=3)
    train("sft", {"batch_size": 3, "epochs": 1}, made)
    _, tokenizer = load_model(ModelRef(str(model)), device="cpu")
    losses: list[float] = []
    for example in made.examples:
        ids = tokenizer(f"{example.prompt} {example.target}<|im_end|>")["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id == 1
        losses += negative_log_likelihood(model, ids, len(tokenizer(f" {example.target}<|im_end|>")["input_ids"]))
    assert events.curve("loss")[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert set(json.loads((tmp_path / "weights" / "generation_config.json").read_text())["eos_token_id"]) == set(listed)


@pytest.mark.slow
def test_chat_examples_train_on_the_assistants_turn_alone(model: Path, tmp_path: Path) -> None:
    events = Events()
    made = job(tmp_path, model, events, count=2, chat=True)
    train("sft", {"batch_size": 2, "epochs": 1}, made)
    _, tokenizer = load_model(ModelRef(str(model)), device="cpu")
    losses: list[float] = []
    for example in made.examples:
        turn = f"{example.target}<|im_end|>"
        ids = tokenizer(f"<|im_start|>user\n{example.prompt[0]['content']}<|im_end|>\n<|im_start|>assistant\n{turn}")  # type: ignore[index]
        losses += negative_log_likelihood(model, ids["input_ids"], len(tokenizer(turn)["input_ids"]))
    assert events.curve("loss")[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.slow
def test_the_separator_stands_between_prompt_and_target(model: Path, tmp_path: Path) -> None:
    losses = []
    for separator in (" ", "\n"):
        events = Events()
        prompt = Prompt(template="Add: {question}", separator=separator)
        train("sft", {"batch_size": 4, "epochs": 1}, job(tmp_path / repr(separator), model, events, 4, prompt=prompt))
        losses.append(events.curve("loss")[0])
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_training_learns_the_targets(model: Path, tmp_path: Path) -> None:
    events = Events()
    train("sft", {"batch_size": 4, "epochs": 8, "learning_rate": 5e-3}, job(tmp_path, model, events))
    assert events.curve("loss")[-1] < 0.5 * events.curve("loss")[0]


# --------------------------------------------------------------------------- output-neutral fields, seeds


@pytest.mark.slow
def test_micro_batches_change_rounding_only(model: Path, tmp_path: Path) -> None:
    curves = []
    for micro in (None, 2, 1):
        events = Events()
        config = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3, "micro_batch_size": micro}
        train("sft", config, job(tmp_path / str(micro), model, events))
        curves.append(events.curve("loss"))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.slow
def test_gradient_checkpointing_and_logging_change_nothing(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3}
    plain = in_pieces(tmp_path / "a", [], config, model)[0]
    assert in_pieces(tmp_path / "b", [], config | {"gradient_checkpointing": True}, model)[0] == plain
    assert in_pieces(tmp_path / "c", [], config | {"log_every": 2, "save_every": 1}, model)[0] == plain


@pytest.mark.slow
def test_the_same_job_gives_the_same_weights_after_other_jobs(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3}
    first = in_pieces(tmp_path / "a", [], config, model, lora=LORA)[0]
    grpo = {"steps": 2, "num_generations": 2, "max_tokens": 4, "rewards": ["test_share_of_vowels"]}
    train("grpo", grpo, job(tmp_path / "b", model, Events()))
    assert in_pieces(tmp_path / "c", [], config, model, lora=LORA)[0] == first


@pytest.mark.slow
def test_each_seed_does_its_own_work(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3}

    def weights(name: str, lora: LoraConfig | None = None, **seeds: int) -> str:
        made = TrainSeeds(**({"init": 11, "order": 12, "rollout": 13} | seeds))
        return in_pieces(tmp_path / name, [], config, model, lora=lora, seeds=made)[0]

    assert weights("order", order=99) != weights("base")
    assert weights("rollout", rollout=2**62) == weights("base2")
    assert weights("init", init=99) == weights("base3")
    assert weights("lora-init", LORA, init=99) != weights("lora", LORA)


# --------------------------------------------------------------------------- batches alike in length


def test_a_batch_has_rows_of_neighbouring_lengths() -> None:
    lengths = [30, 2, 11, 31, 10, 3, 12, 32, 1]
    order = grouped_by_length(lengths, 3, seed=5)
    batches = [sorted(lengths[place] for place in order[start : start + 3]) for start in (0, 3, 6)]
    assert sorted(batches) == [[1, 2, 3], [10, 11, 12], [30, 31, 32]]


def test_the_smaller_batch_comes_last_and_has_rows_of_any_length() -> None:
    lengths = [1, 2, 50, 51, 100]
    orders = [grouped_by_length(lengths, 2, seed) for seed in range(60)]
    assert {lengths[order[4]] for order in orders} == set(lengths)


@given(st.lists(st.integers(1, 9), max_size=400), st.integers(1, 5), st.integers(0, 2**62))
def test_an_epoch_has_every_row_once(lengths: list[int], batch: int, seed: int) -> None:
    order = grouped_by_length(lengths, batch, seed)
    assert sorted(order) == list(range(len(lengths))) and order == grouped_by_length(lengths, batch, seed)


def test_batches_come_in_no_order_of_length() -> None:
    lengths = list(range(1, 401))
    first = [lengths[grouped_by_length(lengths, 4, seed)[0]] for seed in range(200)]
    assert abs(sum(first) / 200 - 200.5) < 3 * 115.5 / 200**0.5  # of a uniform draw, three standard errors
    assert grouped_by_length(lengths, 4, 1) != grouped_by_length(lengths, 4, 2)


@pytest.mark.slow
def test_rows_alike_in_length_are_trained_on_together(model: Path, tmp_path: Path) -> None:
    """A step's tokens are four times one row's: every target is once of one length, once of another."""
    config = {"batch_size": 4, "epochs": 2, "group_by_length": True}
    events = Events()
    made = job(tmp_path, model, events, count=8)
    for number, example in enumerate(made.examples):
        made.examples[number] = replace(example, target="a" if number % 2 else "a b c d e f")
    result = train("sft", config, made)
    tokens = [0, *events.curve("num_tokens")]
    steps = [after - before for before, after in pairwise(tokens)]
    assert result.steps == 4 and len(set(steps)) == 2 and sorted(steps[:2]) == sorted(steps[2:])


# --------------------------------------------------------------------------- stop and resume


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lora", "more"),
    [(None, {}), (LoraConfig(rank=2, alpha=8, dropout=0.3), {}), (None, {"group_by_length": True})],
    ids=["full", "lora-dropout", "by-length"],
)
def test_a_stopped_and_resumed_run_ends_in_the_same_weights(
    model: Path, tmp_path: Path, lora: LoraConfig | None, more: dict[str, Any]
) -> None:
    # 10 examples in batches of 4: epochs of three steps with a short last batch; stops within, at the end of and
    # after the first epoch.
    config = {"batch_size": 4, "epochs": 3, "learning_rate": 1e-3, "micro_batch_size": 2, **more}
    whole, whole_events = in_pieces(tmp_path / "whole", [], config, model, count=10, lora=lora)
    pieces, events = in_pieces(tmp_path / "pieces", [2, 3, 7], config, model, count=10, lora=lora)
    assert pieces == whole
    assert [step for step, _, _ in events.reports] == [8, 9]
    assert events.reports[-1][2]["loss"] == whole_events.reports[-1][2]["loss"]
    assert events.reports[-1][2]["num_tokens"] == whole_events.reports[-1][2]["num_tokens"]


@pytest.mark.slow
def test_a_half_written_checkpoint_is_not_resumed(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3}
    whole = in_pieces(tmp_path / "whole", [], config, model)[0]
    folder = tmp_path / "torn"
    with pytest.raises(Interrupted):
        train("sft", config, job(folder, model, Events(stop_after=3)))
    torn = folder / "checkpoints" / "checkpoint-4"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    (torn / "trainer_state.json").write_text("{")
    events = Events()
    train("sft", config, job(folder, model, events))
    assert events.reports[0][0] == 4
    assert not torn.exists()
    assert weights_hash(folder / "weights") == whole


@pytest.mark.slow
def test_only_the_last_two_checkpoints_are_kept(model: Path, tmp_path: Path) -> None:
    train("sft", {"batch_size": 4, "epochs": 2, "save_every": 1}, job(tmp_path, model, Events()))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-4", "checkpoint-5"]


@pytest.mark.slow
def test_a_checkpoint_of_a_longer_job_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("sft", {"batch_size": 4, "epochs": 4}, job(tmp_path, model, Events(stop_after=8)))
    with pytest.raises(ResumeRefused, match="checkpoint of step 8, but this job ends at step 3"):
        train("sft", {"batch_size": 4, "epochs": 1}, job(tmp_path, model, Events()))


# --------------------------------------------------------------------------- length of a run


@pytest.mark.slow
def test_planned_steps_are_the_steps_taken(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 1.5}
    trainer: Any = find("trainer", "sft")
    events = Events()
    result = train("sft", config, job(tmp_path, model, events, count=10))
    assert result.steps == 5 == trainer(trainer.Config(**config)).planned_steps(10)
    assert result.examples_seen == 10 + 8
    assert [total for _, total, _ in events.reports] == [5] * 5


@pytest.mark.slow
def test_a_budget_of_steps_or_tokens_sets_the_length(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 1}
    assert train("sft", config, job(tmp_path / "s", model, Events(), budget=Budget(steps=7))).steps == 7
    result = train("sft", config, job(tmp_path / "t", model, Events(), budget=Budget(tokens=500)))
    assert result.steps == round(500 / (result.notes["mean_tokens"] * 4))
    assert result.tokens_seen == pytest.approx(500, rel=0.15)


@pytest.mark.slow
def test_a_cap_ends_the_run_early_without_changing_its_steps(model: Path, tmp_path: Path) -> None:
    config = {"batch_size": 4, "epochs": 4, "learning_rate": 1e-3}
    whole, capped = Events(), Events()
    train("sft", config, job(tmp_path / "whole", model, whole))
    assert train("sft", config, job(tmp_path / "capped", model, capped, max_steps_cap=3)).steps == 3
    assert capped.curve("loss") == whole.curve("loss")[:3]
    assert capped.curve("learning_rate") == whole.curve("learning_rate")[:3]


@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 9))
def test_examples_seen_counts_the_rows_of_every_batch(steps: int, rows: int, batch: int) -> None:
    seen, left = 0, rows
    for _ in range(steps):
        seen += min(batch, left)
        left = left - batch if left > batch else rows
    assert examples_seen(steps, rows, batch) == seen


# --------------------------------------------------------------------------- what is saved


@pytest.mark.slow
def test_full_weights_are_safetensors_that_load(model: Path, tmp_path: Path) -> None:
    result = train("sft", {"batch_size": 4, "epochs": 1}, job(tmp_path, model, Events()))
    assert not result.adapter_only
    assert {path.suffix for path in (tmp_path / "weights").iterdir()} <= {".safetensors", ".json", ".jinja"}
    load_model(ModelRef(str(tmp_path / "weights")), device="cpu")


@pytest.mark.slow
def test_lora_is_saved_alone_and_moves_the_model(model: Path, tmp_path: Path) -> None:
    import torch

    result = train(
        "sft", {"batch_size": 4, "epochs": 1, "learning_rate": 1e-2}, job(tmp_path, model, Events(), lora=LORA)
    )
    assert result.adapter_only
    assert 0 < result.notes["trainable_parameters"] < result.notes["parameters"] / 4
    assert not (tmp_path / "weights" / "model.safetensors").exists()
    start, _ = load_model(ModelRef(str(model)), device="cpu")
    tuned, _ = load_model(ModelRef(str(model), adapter=str(tmp_path / "weights")), device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(start(ids).logits, tuned(ids).logits, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_start_with_an_adapter_gives_full_weights(model: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    config = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-2}
    train("sft", config, job(tmp_path / "first", model, Events(), lora=LORA))
    start = ModelRef(str(model), adapter=str(tmp_path / "first" / "weights"))
    events = Events()
    result = train("sft", config, job(tmp_path / "second", start, events, lora=lora))
    assert not result.adapter_only
    merged, _ = load_model(start, device="cpu")
    begun, _ = load_model(ModelRef(str(tmp_path / "second" / "checkpoints" / "start")), device="cpu")
    assert all((a == b).all() for a, b in zip(merged.parameters(), begun.parameters(), strict=True))
    load_model(ModelRef(str(tmp_path / "second" / "weights")), device="cpu")


# --------------------------------------------------------------------------- failure and warnings


@pytest.mark.slow
def test_failures_name_the_reason(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no example to train on"):
        train("sft", {}, job(tmp_path, model, Events(), examples=[]))
    with pytest.raises(
        StageFailed, match=r"(loss|grad_norm) is nan at step 2: training has diverged; lower trainer\.learning_rate"
    ):
        train("sft", {"learning_rate": 1e30}, job(tmp_path, model, Events()))
    with pytest.raises(
        StageFailed, match=r"no example has a token to train on within trainer\.max_length \(8 tokens\)"
    ):
        train("sft", {"max_length": 8}, job(tmp_path, model, Events()))
    with pytest.raises(InputError, match=r"trainer\.micro_batch_size 3 does not divide the 4 rows"):
        train("sft", {"micro_batch_size": 3}, job(tmp_path, model, Events()))
    with pytest.raises(InputError, match="TRL"):
        train("sft", {"trl": {"loss_type": "nonsense"}}, job(tmp_path, model, Events()))


def test_a_target_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    import dataclasses

    made = job(tmp_path, model, Events())
    made.examples[3] = dataclasses.replace(made.examples[3], target=None)
    with pytest.raises(StageFailed, match=f"1 of 12 examples have no target.*{made.examples[3].question.id}"):
        train("sft", {}, made)


@pytest.mark.slow
def test_cut_examples_are_warned_of(model: Path, tmp_path: Path) -> None:
    events = Events()
    train("sft", {"max_length": 24, "epochs": 1}, job(tmp_path, model, events))
    [(text, field)] = events.warnings
    assert field == "trainer.max_length"
    assert "of 12 examples reach trainer.max_length (24 tokens)" in text


@pytest.mark.slow
def test_bfloat16_weights_with_a_tiny_learning_rate_are_warned_of(model: Path, tmp_path: Path) -> None:
    for name, rate, dtype, expected in (
        ("tiny", 1e-6, "bfloat16", ["model.train_dtype"]),
        ("large", 1e-1, "bfloat16", []),
        ("float", 1e-6, "float32", []),
    ):
        events = Events()
        start = ModelRef(str(model), dtype=dtype)
        train("sft", {"learning_rate": rate, "epochs": 0.3}, job(tmp_path / name, start, events))
        assert [field for _, field in events.warnings] == expected


@pytest.mark.slow
def test_trackers_write_beside_the_weights(model: Path, tmp_path: Path) -> None:
    train("sft", {"epochs": 1}, job(tmp_path, model, Events(), trackers=["tensorboard"]))
    assert list((tmp_path / "trackers" / "tensorboard").glob("events.*"))
    assert not list((tmp_path / "weights").glob("events.*"))


def test_an_absent_tracker_names_the_extra(model: Path, tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here")
    with pytest.raises(MissingExtra, match=r"'wandb': install it with  .* -m pip install .*'wandb>="):
        train("sft", {}, job(tmp_path, model, Events(), trackers=["wandb"]))


@pytest.mark.slow
def test_the_learning_rate_schedule_is_the_spec_s(model: Path, tmp_path: Path) -> None:
    events = Events()
    config = {"epochs": 1, "batch_size": 3, "learning_rate": 1.0e-3, "lr_scheduler": "constant_with_warmup"}
    train("sft", config | {"warmup_steps": 2}, job(tmp_path, model, events))
    assert events.curve("learning_rate") == pytest.approx([0.0, 5e-4, 1e-3, 1e-3])


@pytest.mark.slow
def test_a_trl_field_arrives(model: Path, tmp_path: Path) -> None:
    plain, other = Events(), Events()
    train("sft", {"epochs": 1, "learning_rate": 1e-2}, job(tmp_path / "a", model, plain))
    train("sft", {"epochs": 1, "learning_rate": 1e-2, "trl": {"optim": "sgd"}}, job(tmp_path / "b", model, other))
    assert plain.curve("loss")[0] == other.curve("loss")[0]
    assert plain.curve("loss")[1] != other.curve("loss")[1]


@pytest.mark.slow
def test_the_marker_says_what_a_resume_needs(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("sft", {"batch_size": 4}, job(tmp_path, model, Events(stop_after=2)))
    marker = json.loads((tmp_path / "checkpoints" / "checkpoint-2" / "nsd.json").read_text())
    assert marker["step"] == 2 and marker["world_size"] == 1 and marker["micro_batch_size"] == 4
    assert marker["tokens"] > 0
