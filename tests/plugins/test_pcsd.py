"""pcsd on a real tiny model: its loss in each direction by hand in float64, and nothing learned from nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Example, LoraConfig
from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.plugins.trainers import _setup
from on_policy_tools import SMALL, Plain, batches, made_job, prompt_of, training
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import Events, examples, train, weights_hash

LORA = LoraConfig(rank=2, alpha=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def divergence(kind: str, student: Any, teacher: Any) -> Any:
    """[T] of logits [T, V], by the definitions."""
    s, t = student.softmax(-1), teacher.detach().softmax(-1)
    if kind == "forward_kl":
        return (t * (t / s).log()).sum(-1)
    if kind == "reverse_kl":
        return (s * (s / t).log()).sum(-1)
    m = (s + t) / 2
    return 0.5 * ((s * (s / m).log()).sum(-1) + (t * (t / m).log()).sum(-1))


def solution(question: str) -> str:
    """The targets of the job's examples."""
    return f"that makes {sum(map(int, question.removesuffix('?').split('+')))}"


def by_hand(kind: str, student: Plain, teacher: Plain, drawn: list[Any], text: Any = solution) -> Any:
    import torch

    total = torch.zeros((), dtype=torch.float64)
    for one in drawn:
        theirs = teacher.logits(f"{prompt_of(one)}\n{text(one.question.text)}", one.tokens)
        total = total + divergence(kind, student.logits(prompt_of(one), one.tokens), theirs).sum()
    return total / sum(len(one.tokens) for one in drawn)


@pytest.mark.slow
@pytest.mark.parametrize("kind", thinned(["forward_kl", "reverse_kl", "jsd"]))
def test_two_steps_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config = {"divergence": kind, "micro_batch_size": 4}
    training("pcsd", config, tmp_path / "1", model)
    drawn = batches(monkeypatch)
    events, kept = training("pcsd", config | {"steps": 2}, tmp_path / "2", model)
    for step, plain in enumerate((Plain(model), Plain(tmp_path / "1" / "weights"))):
        loss = by_hand(kind, plain, plain, drawn[step])  # the teacher is the model as it is now
        assert events.curve("loss")[step] == pytest.approx(loss.item(), rel=1e-4)
        assert events.curve("grad_norm")[step] == pytest.approx(plain.gradient_norm(loss), rel=1e-3)
    batch = [one for some in drawn for one in some]
    assert [one.teacher_input for one in kept] == [f"{prompt_of(one)}\n{solution(one.question.text)}" for one in batch]
    assert not any(one.masked for one in kept)
    assert "reward" not in events.reports[0][2]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", thinned(["ema", "frozen"]))
def test_a_teacher_that_stays_behind_by_hand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    config = {"teacher": teacher, "teacher_update_rate": 0.5}
    training("pcsd", config, tmp_path / "1", model)
    drawn = batches(monkeypatch)
    events, _ = training("pcsd", config | {"steps": 2}, tmp_path / "2", model)
    after = Plain(tmp_path / "1" / "weights")
    behind = Plain(model) if teacher == "frozen" else Plain(model).moved(after, 0.5)
    loss = by_hand("forward_kl", after, behind, drawn[1])
    assert events.curve("loss")[1] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.slow
def test_another_questions_solution_is_what_the_control_reads(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = batches(monkeypatch)
    events, kept = training("pcsd", {"privileged": "other_question"}, tmp_path, model, count=2)
    (other,) = ([sum(map(int, text.split("+"))) for text in ("0+0", "1+7")],)
    swapped = {"0+0?": f"that makes {other[1]}", "1+7?": f"that makes {other[0]}"}
    loss = by_hand("forward_kl", Plain(model), Plain(model), drawn[0], swapped.__getitem__)
    assert events.curve("loss")[0] == pytest.approx(loss.item(), rel=1e-4)
    assert all(str(one.teacher_input).endswith(("that makes 8", "that makes 0")) for one in kept)


# --------------------------------------------------------------------------- nothing to learn


def hidden_but_for_one_that_is_not_drawn() -> list[Example]:
    """Twelve sums without privileged text, and one with, which these seeds do not come to in two steps."""
    known, *rest = reversed(examples(13))
    return [dataclasses.replace(one, source="questions", target=None) for one in rest] + [known]


def test_no_privileged_text_at_all_is_refused(model: Path, tmp_path: Path) -> None:
    nothing = [dataclasses.replace(one, source="questions", target=None) for one in examples(4)]
    with pytest.raises(InputError, match="privileged: solution has no text for any question"):
        training("pcsd", {}, tmp_path, model, examples=nothing)


@pytest.mark.slow
@pytest.mark.parametrize("kind", thinned(["forward_kl", "reverse_kl", "jsd"]))
@pytest.mark.parametrize("how", [{}, {"topk": 5}, {"topk": 5, "add_tail": False}], ids=["all", "topk", "no-tail"])
def test_without_privileged_text_the_weights_stay_to_the_bit(
    model: Path, tmp_path: Path, kind: str, how: dict[str, Any]
) -> None:
    # Adam divides a gradient by its own size: were it 1e-9 and not 0, the weights would move as far as any.
    hidden = hidden_but_for_one_that_is_not_drawn()
    events, _ = training("pcsd", {"divergence": kind, "steps": 2} | how, tmp_path, model, examples=hidden)
    assert events.curve("loss") == [0.0, 0.0] and events.curve("grad_norm") == [0.0, 0.0]
    assert weights_hash(tmp_path / "weights") == weights_hash(model)
    assert [field for _, field in events.warnings] == ["trainer.privileged"]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_that_holds_in_micro_batches_and_with_recomputing_too(
    model: Path, tmp_path: Path, lora: LoraConfig | None, changes: dict[str, Any]
) -> None:
    hidden = hidden_but_for_one_that_is_not_drawn()
    config = {"divergence": "jsd", "num_generations": 3} | changes
    events, _ = training("pcsd", config, tmp_path, model, examples=hidden, lora=lora)
    assert events.curve("grad_norm") == [0.0]


@pytest.mark.slow
def test_a_privileged_text_of_some_teaches_from_those(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [
        dataclasses.replace(one, source="questions", target=None) if place else one
        for place, one in enumerate(examples(2))
    ]
    drawn = batches(monkeypatch)
    events, _ = training("pcsd", {}, tmp_path, model, examples=some)
    known = [one for one in drawn[0] if one.question.text == "0+0?"]
    loss = by_hand("forward_kl", Plain(model), Plain(model), known)
    share = sum(len(one.tokens) for one in known) / sum(len(one.tokens) for one in drawn[0])
    assert events.curve("loss")[0] == pytest.approx(loss.item() * share, rel=1e-4), "all tokens count in the mean"


def test_a_text_that_is_too_long_is_refused_by_the_fields_of_pcsd(model: Path, tmp_path: Path) -> None:
    message = r"trainer.max_teacher_len is 12: raise it, or cut the inserted text with trainer.truncation: right"
    with pytest.raises(StageFailed, match=message):
        training("pcsd", {"max_teacher_len": 12, "truncation": "error"}, tmp_path, model)


# --------------------------------------------------------------------------- the head, the rest


@pytest.mark.slow
def test_a_head_of_its_own_and_one_shared_with_the_embedding_learn_alike(tmp_path: Path) -> None:
    # The gradient of a shared one is that of the embedding and of the head together; Plain has it so.
    for tied in (True, False):
        folder = make_tiny_model(tmp_path / f"{tied}", tie_word_embeddings=tied)
        with pytest.MonkeyPatch.context() as patch:
            drawn = batches(patch)
            events, _ = training("pcsd", {}, tmp_path / f"{tied} job", folder)
        plain = Plain(folder)
        loss = by_hand("forward_kl", plain, plain, drawn[0])
        assert events.curve("grad_norm")[0] == pytest.approx(plain.gradient_norm(loss), rel=1e-3)
        head = plain.model.get_output_embeddings().weight
        assert (head is plain.model.get_input_embeddings().weight) == tied and head.grad.abs().max() > 0


def test_one_rollout_a_question_is_enough(model: Path, tmp_path: Path) -> None:
    events, kept = training("pcsd", {"num_generations": 1}, tmp_path, model)
    assert len(kept) == 2 and events.curve("loss")[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_recomputing_changes_nothing(
    model: Path, tmp_path: Path, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    passes: list[bool] = []
    inner = _setup.build

    def build(*args: Any, **parts: Any) -> Any:
        trainer = inner(*args, **parts)
        layer = next(module for name, module in trainer.model.named_modules() if name.endswith("layers.0.self_attn"))
        layer.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
        return trainer

    monkeypatch.setattr(_setup, "build", build)
    found, learning = [], []
    for again in (False, True):
        passes.clear()
        config = {"gradient_checkpointing": again, "steps": 2}
        events, _ = training("pcsd", config, tmp_path / str(again), model, lora=lora)
        found.append((weights_hash(tmp_path / str(again) / "weights"), events.curve("loss")))
        learning.append(sum(passes))
    assert found[0] == found[1]
    assert learning == [2, 4], "each layer is computed once more in the backward pass, and the teacher's not"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "lora"), [({}, None), ({"teacher": "ema"}, LORA), ({"teacher": "frozen"}, None)], ids=str
)
def test_a_stopped_and_resumed_run_ends_in_the_same_weights(
    model: Path, tmp_path: Path, changes: dict[str, Any], lora: LoraConfig | None
) -> None:
    config = {"steps": 6, "lr_scheduler": "linear"} | changes
    training("pcsd", config, tmp_path / "whole", model, lora=lora, count=5)
    with pytest.raises(Interrupted):
        train("pcsd", SMALL | config, made_job(tmp_path / "p", model, Events(stop_after=3), lora=lora, count=5))
    training("pcsd", config, tmp_path / "p", model, lora=lora, count=5)
    assert weights_hash(tmp_path / "p" / "weights") == weights_hash(tmp_path / "whole" / "weights")


@pytest.mark.slow
def test_micro_batches_change_rounding_only(model: Path, tmp_path: Path) -> None:
    curves = []
    for size in (None, 4, 1):
        config = {"steps": 2, "micro_batch_size": size, "learning_rate": 1e-4}
        events, _ = training("pcsd", config, tmp_path / str(size), model)
        curves.append([events.curve(name) for name in ("loss", "grad_norm")])
    for curve in curves[1:]:
        assert curve[0] == pytest.approx(curves[0][0], rel=1e-4)
        assert curve[1] == pytest.approx(curves[0][1], rel=1e-4)
