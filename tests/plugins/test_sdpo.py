"""sdpo on a real tiny model: its loss by hand in float64, its teachers, what they read, masks, stop and resume."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nsd.plugins.api import KeptRollout, LoraConfig, Rollout
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.plugins.registry import find
from nsd.plugins.trainers import _loop, _teachers
from on_policy_tools import SMALL, Never, Noise, Plain, batches, made_job, prompt_of, training
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import Events, train, weights_hash

LORA = LoraConfig(rank=2, alpha=8)
HAND = {"rewards": ["correct"], "distillation_topk": 7, "teacher_update_rate": 0.5, "micro_batch_size": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


# --------------------------------------------------------------------------- by hand


def read_by_teacher(drawn: list[Rollout], place: int) -> str | None:
    """The reprompt of a rollout of a batch in groups of four, None where there is nothing to read."""
    one, group = drawn[place], place // 4 * 4
    right = [other for other in range(group, group + 4) if drawn[other].score.correct and other != place]
    if right:
        inserted = f"\nCorrect solution:\n\n{drawn[right[0]].text}"
    elif one.score.feedback:
        inserted = f"\nThe following is feedback from your unsuccessful earlier attempt:\n\n{one.score.feedback}"
    else:
        return None
    return f"{prompt_of(one)}{inserted}\n\nCorrectly solve the original question."


def entries(logits: Any, seen: Any) -> Any:
    """Log-probabilities [T, k + 1] of the entries `seen` [T, k] and of all others together."""
    import torch

    logp = logits.log_softmax(-1)
    chosen = logp.gather(-1, seen)
    return torch.cat([chosen, (1 - chosen.exp().sum(-1, keepdim=True)).log()], -1)


def jsd(student: Any, teacher: Any) -> Any:
    """[T] of logits [T, V] over the student's seven likeliest entries and a tail; halves of student and teacher."""
    seen = student.detach().topk(7, -1).indices
    s, t = entries(student, seen), entries(teacher.detach(), seen)
    m = ((s.exp() + t.exp()) / 2).log()
    return 0.5 * (s.exp() * (s - m) + t.exp() * (t - m)).sum(-1)


def reverse(student: Any, teacher: Any) -> Any:
    """[T], KL(student || teacher) over the student's seven likeliest entries and a tail."""
    seen = student.detach().topk(7, -1).indices
    s, t = entries(student, seen), entries(teacher.detach(), seen)
    return (s.exp() * (s - t)).sum(-1)


def distillation(student: Plain, teacher_logits: Any, drawn: list[Rollout], divergence: Any = jsd) -> Any:
    """Mean over the tokens of rollouts that have something to read; `teacher_logits(text, tokens)`."""
    import torch

    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for place, one in enumerate(drawn):
        if (text := read_by_teacher(drawn, place)) is not None:
            values = divergence(student.logits(prompt_of(one), one.tokens), teacher_logits(text, one.tokens))
            total, tokens = total + values.sum(), tokens + len(one.tokens)
    return total / tokens


def masked(drawn: list[Rollout]) -> list[bool]:
    return [read_by_teacher(drawn, place) is None for place in range(len(drawn))]


def two_steps(
    config: dict[str, Any], tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Events, list[KeptRollout], list[list[Rollout]], Plain]:
    """Train two steps; what was said, kept and drawn, and the model between the steps."""
    training("sdpo", config, tmp_path / "1", model, **changes)
    drawn = batches(monkeypatch)
    events, kept = training("sdpo", config | {"steps": 2}, tmp_path / "2", model, **changes)
    return events, kept, drawn, Plain(tmp_path / "1" / "weights")


@pytest.mark.slow
def test_two_steps_with_a_moving_average_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events, kept, drawn, after = two_steps(HAND, tmp_path, model, monkeypatch)
    start = Plain(model)
    teachers = [Plain(model), Plain(model).moved(after, 0.5)]
    for step, (student, teacher) in enumerate(zip((start, after), teachers, strict=True)):
        assert 0 < sum(masked(drawn[step])) < 8, "some rows count, and the others do not dilute their mean"
        loss = distillation(student, teacher.logits, drawn[step])
        assert events.curve("loss")[step] == pytest.approx(loss.item(), rel=1e-4)
        assert events.curve("self_distillation/distillation_loss")[step] == pytest.approx(loss.item(), rel=1e-4)
        assert events.curve("grad_norm")[step] == pytest.approx(student.gradient_norm(loss), rel=1e-3)
    share = statistics.mean(not one for one in masked(drawn[1]))
    assert events.curve("self_distillation/reprompt_sample_fraction")[1] == pytest.approx(share)
    for batch, some in zip(drawn, (kept[:8], kept[8:]), strict=True):
        assert [one.masked for one in some] == masked(batch)
        assert [one.teacher_input for one in some] == [read_by_teacher(batch, place) for place in range(8)]


@pytest.mark.slow
def test_the_trust_regions_teacher_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = HAND | {"teacher_regularization": "trust-region", "teacher_update_rate": 0.3}
    events, _, drawn, after = two_steps(config, tmp_path, model, monkeypatch)
    start = Plain(model)

    def lerped(text: str, tokens: Any) -> Any:
        return 0.7 * start.logits(text, tokens) + 0.3 * after.logits(text, tokens)

    loss = distillation(after, lerped, drawn[1])
    assert events.curve("loss")[1] == pytest.approx(loss.item(), rel=1e-4)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(loss), rel=1e-3)


@pytest.mark.slow
def test_a_teacher_without_regularization_is_the_model_itself(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = HAND | {"teacher_regularization": "none", "alpha": 1}
    events, _, drawn, after = two_steps(config, tmp_path, model, monkeypatch)
    loss = distillation(after, after.logits, drawn[1], reverse)
    assert events.curve("loss")[1] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.slow
def test_the_sampled_token_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    config = HAND | {"full_logit_distillation": False, "alpha": 1, "distillation_topk": 100}
    events, _, drawn, after = two_steps(config, tmp_path, model, monkeypatch)
    teacher = Plain(model).moved(after, 0.5)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for place, one in enumerate(drawn[1]):
        if (text := read_by_teacher(drawn[1], place)) is not None:
            mine, theirs = after.logp(prompt_of(one), one.tokens), teacher.logp(text, one.tokens)
            total, tokens = total + ((mine - theirs).detach() * mine).sum(), tokens + len(one.tokens)
    assert events.curve("loss")[1] == pytest.approx((total / tokens).item(), rel=1e-4)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(total / tokens), rel=1e-3)


@pytest.mark.slow
def test_a_mixed_loss_has_two_denominators(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    events, _, drawn, after = two_steps(HAND | {"distillation_weight": 0.5}, tmp_path, model, monkeypatch)
    teacher = Plain(model).moved(after, 0.5)
    policy, tokens = torch.zeros((), dtype=torch.float64), sum(len(one.tokens) for one in drawn[1])
    for place, one in enumerate(drawn[1]):
        rewards = [float(other.score.correct) for other in drawn[1][place // 4 * 4 : place // 4 * 4 + 4]]
        logp = after.logp(prompt_of(one), one.tokens)
        advantage = rewards[place % 4] - statistics.mean(rewards)
        policy = policy - (advantage * (logp - logp.detach()).exp()).sum() / tokens
    loss = 0.5 * distillation(after, teacher.logits, drawn[1]) + 0.5 * policy
    assert events.curve("policy_loss")[1] == pytest.approx(policy.item(), rel=1e-3, abs=1e-6)
    assert events.curve("loss")[1] == pytest.approx(loss.item(), rel=1e-4)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(loss), rel=1e-3)


@pytest.mark.slow
def test_a_batch_used_again_is_weighted_by_the_clipped_ratio(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The teacher moves after the batch alone, so that it is the start in both steps.
    import torch

    config = HAND | {"num_iterations": 2, "is_clip": 1.02}
    events, _, drawn, after = two_steps(config, tmp_path, model, monkeypatch)
    [batch] = drawn
    start = Plain(model)
    total, tokens, clipped = torch.zeros((), dtype=torch.float64), 0, 0
    for place, one in enumerate(batch):
        if (text := read_by_teacher(batch, place)) is not None:
            asked = prompt_of(one), one.tokens
            ratio = (after.logp(*asked) - start.logp(*asked)).exp().detach()
            values = jsd(after.logits(*asked), start.logits(text, one.tokens)) * ratio.clamp(max=1.02)
            total, tokens = total + values.sum(), tokens + len(one.tokens)
            clipped += (ratio > 1.02).sum().item()
    assert clipped
    assert events.curve("loss")[1] == pytest.approx((total / tokens).item(), rel=1e-4)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(total / tokens), rel=1e-3)


# --------------------------------------------------------------------------- masks


class MutedLater(Noise):
    """As `Noise` for the first eight texts, then `Never`."""

    said = 0

    def score(self, completion: str, question: Any) -> Any:
        self.said += 1
        return (Noise if self.said <= 8 else Never).score(self, completion, question)


@pytest.mark.slow
@pytest.mark.parametrize("micro", thinned([None, 2]))
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_batch_with_every_row_masked_takes_no_step(
    model: Path, tmp_path: Path, lora: LoraConfig | None, micro: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    optimizers: list[Any] = []
    seen: list[dict[str, Any]] = []
    inner = _loop._setup.build

    def build(*args: Any, **parts: Any) -> Any:
        from transformers import TrainerCallback

        trainer = inner(*args, **parts)

        class Look(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
            def on_step_end(self, *_: Any, optimizer: Any = None, model: Any = None, **__: Any) -> None:
                optimizers.append(optimizer)
                state = {
                    f"{place} {name}": value.clone() if isinstance(value, torch.Tensor) else torch.tensor(value)
                    for place, one in optimizer.state_dict()["state"].items()
                    for name, value in one.items()
                }
                seen.append(state | {name: value.detach().clone() for name, value in model.named_parameters()})

        trainer.add_callback(Look())
        return trainer

    monkeypatch.setattr(_loop._setup, "build", build)
    config = {"steps": 3, "weight_decay": 0.1, "micro_batch_size": micro}
    events, kept = training("sdpo", config, tmp_path, model, lora=lora, verifier=MutedLater())
    assert [one.masked for one in kept[8:]] == [True] * 16 and not all(one.masked for one in kept[:8])
    assert events.curve("loss")[1:] == [0.0, 0.0] and events.curve("loss")[0] > 0
    assert seen[0].keys() == seen[2].keys() and any(name.endswith("exp_avg") for name in seen[0])
    assert all(torch.equal(seen[0][name], seen[2][name]) for name in seen[0])


def test_where_everything_is_masked_the_policy_loss_still_counts(model: Path, tmp_path: Path) -> None:
    config = {"distillation_weight": 0.5, "rewards": ["test_share_of_vowels"], "success_reward_threshold": 9}
    _, kept = training("sdpo", config, tmp_path, model, verifier=Never())
    assert all(one.masked for one in kept)
    assert weights_hash(tmp_path / "weights") != weights_hash(model)


# --------------------------------------------------------------------------- what the teacher reads


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_a_long_reprompt_keeps_the_question(model: Path, tmp_path: Path, chat: bool) -> None:
    config = {"max_reprompt_len": 110 if chat else 90, "steps": 3}
    _, kept = training("sdpo", config, tmp_path, model, chat=chat, count=2)
    read = [one.teacher_input for one in kept if one.teacher_input is not None]
    asked = ("Add: 0+0?", "Add: 1+7?")
    assert read and all(any(question in text for question in asked) for text in read)
    assert all(text.endswith("assistant\n" if chat else "Correctly solve the original question.") for text in read)
    tokenizer = Plain(model).tokenizer
    assert max(len(tokenizer(text)["input_ids"]) for text in read) <= config["max_reprompt_len"]


@pytest.mark.slow
def test_what_a_teacher_reads_stays_within_the_models_context(tmp_path: Path) -> None:
    short = make_tiny_model(tmp_path / "short", max_position_embeddings=90)
    config = {"steps": 2, "include_environment_feedback": False}
    events, kept = training("sdpo", config, tmp_path / "job", short)
    tokenizer = Plain(short).tokenizer
    read = [len(tokenizer(one.teacher_input)["input_ids"]) for one in kept if one.teacher_input is not None]
    assert read and max(read) <= 90 - SMALL["max_tokens"]
    assert max(events.curve("self_distillation/cut_fraction")) > 0
    with pytest.raises(StageFailed, match=r"have \d+ tokens, and the model's context 90: have the inserted text cut"):
        training("sdpo", config | {"reprompt_truncation": "error"}, tmp_path / "strict", short)


@pytest.mark.slow
def test_feedback_is_that_of_the_rollouts_own_verdict(model: Path, tmp_path: Path) -> None:
    config = {
        "success_reward_threshold": 2.0,
        "steps": 4,
        "max_tokens": 14,
    }  # nothing succeeds, so that feedback is all there is
    _, kept = training("sdpo", config, tmp_path, model)
    read = [one for one in kept if one.teacher_input is not None]
    assert read and len({len(one.text) for one in read}) > 1
    assert all(f"\n\nit has {len(one.text)} characters\n\n" in str(one.teacher_input) for one in read)
    assert {one.masked for one in kept if len(one.text) % 2 == 0 or len(one.text) % 3 == 0} == {True}
    silent = config | {"include_environment_feedback": False}
    _, kept = training("sdpo", silent, tmp_path / "silent", model)
    assert all(one.masked and one.teacher_input is None for one in kept)


# --------------------------------------------------------------------------- teachers


class Bench:
    """A loop that does not train, with a model in memory, for teachers to be made of."""

    def __init__(self, model: Any) -> None:
        import contextlib
        from types import SimpleNamespace

        self.model = _loop.prepared(model, 1.0)
        self.config = SimpleNamespace(temperature=1.0)
        self.args = SimpleNamespace(per_device_train_batch_size=8)
        self.accelerator = SimpleNamespace(unwrap_model=lambda model: model, autocast=contextlib.nullcontext)

    def hidden(self, model: Any, ids: Any, attention: Any, mask: Any, size: int) -> list[Any]:
        return [_loop.forward(model, ids, attention, mask.shape[1], False).hidden]


def micro(read: list[int], response: list[int]) -> _loop.Micro:
    """One row whose teacher reads `read` before the response."""
    ids, attention, mask = _loop.padded([read], [response], 0, "cpu")
    return _loop.Micro(ids, attention, mask, {"teacher_ids": ids, "teacher_attention": attention}, 1, 1, 1)


def loaded(folder: Path, lora: LoraConfig | None) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from nsd.plugins.trainers import _setup

    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(5)
    return model if lora is None else get_peft_model(model, _setup.peft_config(lora))


def shaken(model: Any, seed: int) -> None:
    """Move all weights that are trained."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += 0.02 * torch.randn(value.shape, generator=generator)


def effective(model: Any) -> dict[str, Any]:
    """The weights that a model computes with, as numpy has them: W + alpha / rank * B A where there is an adapter."""
    if not hasattr(model, "peft_config"):
        return {name: value.detach().double().numpy().copy() for name, value in model.named_parameters()}
    raw = {name: value.detach().double().numpy().copy() for name, value in model.base_model.model.named_parameters()}
    found = {}
    for name, value in raw.items():
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            up, down = (raw[f"{layer}.lora_{side}.default.weight"] for side in "BA")
            found[f"{layer}.weight"] = value + LORA.alpha / LORA.rank * up @ down
        elif ".lora_" not in name:
            found[name] = value
    return found


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_an_average_starts_at_the_student_in_memory_and_averages_the_weights_in_force(
    model: Path, lora: LoraConfig | None
) -> None:
    import numpy as np

    student = loaded(model, lora)
    shaken(student, 1)  # so that it is not what lies in the files, and an adapter is not 0
    loop: Any = Bench(student)
    teachers = _teachers.Teachers(loop, "ema", 0.25)
    states = [effective(student)]
    for seed in (2, 3):
        shaken(student, seed)
        teachers.move(loop)
        states.append(effective(student))
    first, second, third = states
    for name, value in teachers.average.named_parameters():
        by_hand = 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
        np.testing.assert_allclose(value.detach().numpy(), by_hand, atol=2e-6)
        assert not value.requires_grad
    files = effective(loaded(model, None))
    assert max(abs(first[name] - files[name]).max() for name in files) > 1e-3
    assert {name for name, _ in teachers.average.named_parameters()} == set(files)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_an_average_of_halves_loses_no_small_step(model: Path, lora: LoraConfig | None) -> None:
    # The student moves one bfloat16 step and stays there: a tenth of it, time and again, has to arrive.
    import torch

    student = loaded(model, lora)
    student.get_base_model().to(torch.bfloat16) if lora else student.to(torch.bfloat16)
    loop: Any = Bench(student)
    teachers = _teachers.Teachers(loop, "ema", 0.1)
    norm = (student.get_base_model() if lora else student).model.norm.weight  # of ones
    with torch.no_grad():
        norm.copy_(norm + 2**-7)
    for _ in range(40):
        teachers.move(loop)
    assert teachers.average.model.norm.weight.dtype == torch.bfloat16
    assert torch.equal(teachers.average.model.norm.weight, norm.detach())
    state = teachers.state()["teacher.model.norm.weight"]
    assert state.dtype == torch.float32
    assert state[0].item() == pytest.approx(1 + 2**-7 * (1 - 0.9**40), abs=1e-6)
    again = _teachers.Teachers(loop, "ema", 0.1)
    again.restore(teachers.state())
    for one in (teachers, again):
        one.move(loop)
    assert all(torch.equal(value, again.state()[name]) for name, value in teachers.state().items())


@pytest.mark.parametrize("kind", ["frozen", "ema", "trust_region", "current"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_every_teacher_is_made_of_the_model_in_memory(model: Path, kind: Any, lora: LoraConfig | None) -> None:
    import torch

    student, other = loaded(model, lora), loaded(model, lora)
    with torch.no_grad():
        student.get_base_model().model.norm.weight.mul_(1.5) if lora else student.model.norm.weight.mul_(1.5)
    seen = []
    for one in (student, other):
        loop: Any = Bench(one)
        given = _teachers.Teachers(loop, kind, 0.5).of(loop, micro([5, 6, 7], [8, 9, 10]))
        seen.append(given.hidden)
    assert torch.allclose(seen[0], 1.5 * seen[1], rtol=1e-4)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_frozen_teacher_stays_and_the_trust_region_has_both(model: Path, lora: LoraConfig | None) -> None:
    import torch

    student = loaded(model, lora)
    loop: Any = Bench(student)
    row = micro([5, 6, 7], [8, 9, 10])
    frozen, region = (_teachers.Teachers(loop, kind, 0.5) for kind in ("frozen", "trust_region"))
    before = frozen.of(loop, row).hidden
    shaken(student, 4)
    now = _teachers.Teachers(loop, "current", 0.5).of(loop, row).hidden
    assert torch.equal(frozen.of(loop, row).hidden, before) and not torch.allclose(now, before)
    both = region.of(loop, row)
    assert both.other is not None and both.rate == 0.5
    assert torch.equal(both.hidden, before) and torch.equal(both.other.hidden, now)
    trained = [name for name, value in student.named_parameters() if value.requires_grad]
    assert trained, "looking at the start leaves the adapter to be trained"


def test_the_response_stands_in_the_teachers_input(model: Path) -> None:
    import torch

    loop: Any = Bench(loaded(model, None))
    teachers = _teachers.Teachers(loop, "frozen", 0.0)
    one, other = (teachers.of(loop, micro([5, 6, 7], [8, word, 10])).hidden[0] for word in (9, 50))
    assert torch.equal(one[:2], other[:2]), "what stands before a token does not depend on it"
    assert not torch.allclose(one[2], other[2], atol=1e-3)


def test_an_adapter_on_the_last_layer_is_refused(model: Path, tmp_path: Path) -> None:
    untied = make_tiny_model(tmp_path / "untied", tie_word_embeddings=False)
    lora = LoraConfig(rank=2, targets=["lm_head", "q_proj"])
    with pytest.raises(StageFailed, match="a LoRA that leaves lm_head out"):
        training("sdpo", {}, tmp_path / "job", untied, lora=lora)


# --------------------------------------------------------------------------- stop, resume, micro batches

RESUMED: dict[str, tuple[dict[str, Any], LoraConfig | None]] = {
    "ema": ({}, None),
    "ema-lora": ({}, LORA),
    "trust-region": ({"teacher_regularization": "trust-region"}, None),
    "trust-region-lora": ({"teacher_regularization": "trust-region"}, LORA),
    "reused-batches": ({"num_iterations": 2, "steps_per_generation": 2, "steps": 8}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_stopped_and_resumed_run_ends_in_the_same_weights_and_teacher(
    model: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    made: list[_teachers.Teachers] = []
    inner = _teachers.Teachers.__init__

    def remembered(self: Any, *given: Any) -> None:
        inner(self, *given)
        made.append(self)

    monkeypatch.setattr(_teachers.Teachers, "__init__", remembered)
    changes, lora = RESUMED[case]
    config = {"steps": 6, "teacher_update_rate": 0.3, "lr_scheduler": "linear"} | changes
    whole, _ = training("sdpo", config, tmp_path / "whole", model, lora=lora, count=5)
    with pytest.raises(Interrupted):
        train("sdpo", SMALL | config, made_job(tmp_path / "p", model, Events(stop_after=3), lora=lora, count=5))
    events, _ = training("sdpo", config, tmp_path / "p", model, lora=lora, count=5)
    assert weights_hash(tmp_path / "p" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    assert events.curve("loss")[-1] == whole.curve("loss")[-1] != 0
    states = [made[0].state(), made[2].state()]
    assert bool(states[0]) == case.startswith(("ema", "reused"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_micro_batches_change_rounding_only(model: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    curves = []
    for size in (None, 4, 1):
        config = {"steps": 2, "micro_batch_size": size, "distillation_weight": 0.5, "learning_rate": 1e-4}
        events, _ = training("sdpo", config, tmp_path / str(size), model, lora=lora)
        curves.append([events.curve(name) for name in ("loss", "grad_norm", "policy_loss", "num_tokens")])
    for curve in curves[1:]:
        for found, expected in zip(curve, curves[0], strict=True):
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


# --------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"full_logit_distillation": False}, "set alpha to 1 (now 0.5)"),
        (
            {"full_logit_distillation": False, "alpha": 1, "teacher_regularization": "trust-region"},
            "it needs full_logit_distillation",
        ),
        ({"num_generations": 1}, "greater than or equal to 2"),
        ({"templates": {"solution": "no placeholder"}}, "successful_previous_attempt"),
        ({"alpha": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_bad_block_is_refused(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        find("trainer", "sdpo").Config.model_validate(block)
    assert message in str(caught.value)


def test_the_defaults_are_the_readmes() -> None:
    config: Any = find("trainer", "sdpo").Config.model_validate({})
    assert (config.alpha, config.distillation_topk, config.distillation_add_tail, config.is_clip) == (0.5, 100, True, 2)
    assert (config.teacher_regularization, config.teacher_update_rate) == ("ema", 0.05)
    assert (config.success_reward_threshold, config.max_reprompt_len, config.reprompt_truncation) == (1, 10240, "right")
    switches = ("dont_reprompt_on_self_success", "remove_thinking_from_demonstration", "include_environment_feedback")
    assert all(getattr(config, name) for name in (*switches, "environment_feedback_only_without_solution"))
    assert config.full_logit_distillation and math.isclose(config.distillation_weight, 1)


@pytest.mark.slow
def test_an_adapter_on_a_shared_embedding_has_no_averaged_teacher(tmp_path: Path) -> None:
    """Merged, what it adds to the embedding would be added to the last layer too, which the student's is not."""
    model = make_tiny_model(tmp_path / "model", tie_word_embeddings=True)
    lora = LoraConfig(rank=2, targets=["embed_tokens"])
    with pytest.raises(StageFailed, match=r"leave embed_tokens out of model\.lora\.targets"):
        training("sdpo", {"steps": 1}, tmp_path / "one", model, lora=lora)
    training("sdpo", {"steps": 1, "teacher_regularization": "none"}, tmp_path / "two", model, lora=lora)
