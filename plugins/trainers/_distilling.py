"""The step that sdpo and pcsd share: a teacher's inputs as columns, and the divergence of a micro batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import StageFailed
from nsd.plugins.trainers.losses import (
    distillation_loss,
    importance_clip,
    masked_token_mean,
    sampled_token_divergence,
)

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Forward, Loop, Micro, Sampled
    from nsd.plugins.trainers._teachers import Teachers
    from nsd.plugins.trainers.teacher_inputs import TeacherInput


def teacher_columns(loop: Loop, sampled: Sampled, inputs: Sequence[TeacherInput]) -> dict[str, Tensor]:
    """Teacher's ids and attention [R, P' + T] with the response behind what it reads, and the tokens that count [R, T].

    A rollout without an input of its own is masked; its teacher reads what the student read, and does not count.
    Raises StageFailed where an input and its response are longer than the model's context.
    """
    import torch

    from nsd.plugins.trainers._forward import padded

    read = [one.ids for one in sampled.of_trained(inputs)]
    prompts = [own if ids is None else ids for own, ids in zip(sampled.of_trained(sampled.prompts), read, strict=True)]
    responses = [list(one.tokens) for one in sampled.of_trained(sampled.rollouts)]
    longest, context = max(map(len, map(operator.add, prompts, responses))), loop.drawer.loaded.context
    if context is not None and longest > context:
        raise StageFailed(
            f"what the teacher reads and the response have {longest} tokens, and the model's context {context}: have "
            "the inserted text cut (truncation right or left), or take a model with a longer one"
        )
    ids, attention, _ = padded(prompts, responses, loop.drawer.loaded.pad_id, loop.args.device)
    given = torch.tensor([one is not None for one in read], device=ids.device)
    sampled.teacher_inputs = [one.text for one in sampled.of_trained(inputs)]
    more = [one.ids is not None and (one.has_solution or one.has_feedback) for one in sampled.of_trained(inputs)]
    loop.note("self_distillation/reprompt_sample_fraction", sum(more), len(more))
    # By the sampled tokens, before the temperature: the distributions themselves are never held whole.
    drawn = [one for one in sampled.of_trained(sampled.drawn) if one.logprob is not None]
    if drawn:  # vLLM is not asked for log-probabilities
        lengths = [len(one.tokens) for one in drawn]
        loop.note("entropy", -sum(one.logprob * n for one, n in zip(drawn, lengths, strict=True)), sum(lengths))
    return {"teacher_ids": ids, "teacher_attention": attention, "loss_mask": sampled.mask & given[:, None]}


def distilled(
    loop: Loop,
    model: Any,
    micro: Micro,
    seen: Forward,
    teachers: Teachers,
    alpha: float,
    topk: int | None,
    add_tail: bool,
    entry_clip: float | None,
    is_clip: float | None,
    sampled: bool = False,
) -> Tensor:
    """Divergence of student and teacher times the clipped importance ratio, over the unmasked tokens of the step.

    With `sampled` it is that of the sampled token alone.
    """
    from nsd.plugins.trainers._teachers import head_of

    mask = micro.loss_mask
    weight = None
    if is_clip is not None and "logp_old" in micro.columns:
        weight = importance_clip(seen.logp, micro.columns["logp_old"], is_clip)
    if sampled:
        values = sampled_token_divergence(seen.logp, teachers.logprobs(loop, micro))
        loss = masked_token_mean(values if weight is None else values * weight, mask, micro.tokens)
    else:
        with loop.accelerator.autocast():
            loss = distillation_loss(
                seen.hidden,
                head_of(model),
                teachers.of(loop, micro),
                mask,
                alpha=alpha,
                topk=topk,
                add_tail=add_tail,
                entry_clip=entry_clip,
                weight=weight,
                temperature=loop.config.temperature,
                denominator=micro.tokens,
            )
    loop.note("self_distillation/distillation_loss", loss.item() * micro.tokens, mask.sum().item())
    return loss
