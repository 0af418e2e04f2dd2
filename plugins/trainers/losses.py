"""Losses of the on-policy trainers: pure functions over tensors.

Shapes: B rows, T tokens of a row, V entries of the vocabulary, H hidden width. Logarithms are natural. "Student" is the
model that learns, "teacher" the one it is drawn to; nothing ever flows back into a teacher. Logits must be finite.

    values = token_divergence(student_logits, teacher_logits, alpha=0.5, topk=100)      # [B, T]
    loss = masked_token_mean(values * importance_clip(logp, logp_old, 2.0), mask)       # []

`distillation_loss` is the same from hidden states and never holds the logits of a whole batch.

`alpha` says which divergence: 0 is KL(teacher || student), the forward KL; 1 is KL(student || teacher), the reverse KL;
between them, with m = (1 - alpha) student + alpha teacher, it is (1 - alpha) KL(student || m) + alpha KL(teacher || m),
which at 0.5 is the Jensen-Shannon divergence. The mixture tends to 0 towards both ends, where the plain divergences
stand instead: the jump is by definition (SDPO, arXiv 2601.20802, and its README).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # e^20 is far above every clip, and far below what float32 holds
CHUNK_ENTRIES = 2**24  # logits held at once: 64 MiB in float32


# --------------------------------------------------------------------------- divergence of two distributions


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float,
    topk: int | None = None,
    add_tail: bool = True,
    entry_clip: float | None = None,
) -> Tensor:
    """Divergence of student and teacher at each token, in nats; see the module for `alpha`.

    Args:
        student_logits: [..., V]. Computed in float32, or in float64 where they are.
        teacher_logits: [..., V], for the same tokens; no gradient flows into them.
        alpha: from 0 to 1.
        topk: the entries looked at, those that the student holds most likely, for both; None looks at all.
        add_tail: with `topk`, all other entries are one more. Without it both sides are renormalised over the entries
            looked at.
        entry_clip: no entry adds more than this; None sets no bound.

    Returns:
        [...], at least 0 but for `entry_clip`.

    Raises:
        InputError: `alpha` outside 0 to 1, `topk` below 1.
    """
    _check(alpha, topk)
    student, teacher = _precise(student_logits), _precise(teacher_logits.detach())
    indices = _likeliest(student, topk)
    return _entries(_seen(student, indices, add_tail), _seen(teacher, indices, add_tail), alpha, entry_clip).sum(-1)


def _check(alpha: float, topk: int | None) -> None:
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha {alpha} lies outside 0 to 1")
    if topk is not None and topk < 1:
        raise InputError(f"topk {topk} looks at no entry")


def _likeliest(logits: Tensor, topk: int | None) -> Tensor | None:
    """[..., k], the entries that are looked at; None for all."""
    return None if topk is None or topk >= logits.shape[-1] else logits.detach().topk(topk, -1).indices


def _seen(logits: Tensor, indices: Tensor | None, add_tail: bool) -> Tensor:
    """Log-probabilities of the entries that are compared: [..., V], [..., k] or [..., k + 1]."""
    import torch

    if indices is None:
        return logits.log_softmax(-1)
    seen = logits.gather(-1, indices)
    if add_tail:
        others = logits.scatter(-1, indices, -math.inf).logsumexp(-1, keepdim=True)
        seen = torch.cat([seen, others], -1)
    return seen.log_softmax(-1)


def _entries(student: Tensor, teacher: Tensor, alpha: float, clip: float | None) -> Tensor:
    """What each entry adds to the divergence, from log-probabilities s and t that are each normalised."""
    if clip is not None:
        return _plain_entries(student, teacher, alpha).clamp(max=clip)
    # The values of the plain formulas, and gradients of which each term is a product with s - t, s - m or e^s - e^t:
    # where student and teacher are equal to the bit the gradient is exactly 0, where the plain formulas leave
    # differences of rounding, of which Adam makes full steps.
    # Here s = log softmax(z), whose backward pass turns g into g - e^s sum(g). So a part c e^s of g, which sums to c,
    # is c e^s - c e^s = 0 in z and may be left out or put in, and a g that sums to 0 goes through as it is.
    s, t = student.detach(), teacher
    if alpha == 1:
        # d/ds e^s (s - t) = e^s (s - t) + e^s, of which the second is such a part.
        return student.exp() * (s - t)
    if alpha == 0:
        # d/ds e^t (t - s) = -e^t, and with such a part e^s - e^t, which sums to 0.
        return t.exp() * (t - s) + (s.exp() - t.exp()) * (student - s)
    # With m = log((1 - alpha) e^s + alpha e^t) is dm/ds = (1 - alpha) e^(s - m), so that the derivative is (1 - alpha)
    # (e^s (s - m) + e^s) - e^m dm/ds = (1 - alpha) e^s (s - m): the rest is 0 entry by entry.
    from_s, from_t = _from_mixture(s, t, alpha)
    return (1 - alpha) * student.exp() * from_s + alpha * t.exp() * from_t


def _plain_entries(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """The same as it is written down, with the gradient of each entry by itself: what a clip cuts off has none."""
    if alpha == 0:
        return teacher.exp() * (teacher - student)
    if alpha == 1:
        return student.exp() * (student - teacher)
    from_s, from_t = _from_mixture(student, teacher, alpha)
    return (1 - alpha) * student.exp() * from_s + alpha * teacher.exp() * from_t


def _from_mixture(student: Tensor, teacher: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """s - m and t - m for m = log((1 - alpha) e^s + alpha e^t); exactly 0 where s and t are equal."""
    import torch

    mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
    equal = student == teacher
    return (student - mixture).masked_fill(equal, 0.0), (teacher - mixture).masked_fill(equal, 0.0)


def _precise(values: Tensor) -> Tensor:
    """In float32 at least: half precision has three digits, and a divergence is a difference of near equals."""
    import torch

    return values if values.dtype == torch.float64 else values.float()


def sampled_token_divergence(logp_student: Tensor, logp_teacher: Tensor, alpha: float = 1.0) -> Tensor:
    """KL(student || teacher) by the sampled token alone, as a value whose gradient estimates the divergence's.

    It is detach(log s - log t) * log s: the score function's gradient, for tokens that the student drew. The value
    itself is no divergence.

    Args:
        logp_student: [...], log-probability of each sampled token.
        logp_teacher: [...], the teacher's of the same token.
        alpha: 1, the only divergence that the student's own samples estimate so.

    Returns:
        [...].

    Raises:
        InputError: another `alpha`.
    """
    if alpha != 1:
        raise InputError(
            f"alpha {alpha} does not go with sampled tokens: they estimate KL(student || teacher), alpha 1"
        )
    return (logp_student - logp_teacher).detach() * logp_student


# --------------------------------------------------------------------------- weights and means


def importance_clip(logp: Tensor, logp_old: Tensor, limit: float | None) -> Tensor:
    """How much likelier a token is now than when it was sampled, at most `limit`; 1 where `limit` is None.

    min(exp(logp - logp_old), limit), shape as given, without gradient. The logarithm is held within +-20.
    """
    import torch

    if limit is None:
        return torch.ones_like(logp)
    return (logp - logp_old).detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=limit)


def masked_token_mean(values: Tensor, mask: Tensor, denominator: Tensor | float | None = None) -> Tensor:
    """Mean of `values` [B, T] over the tokens with a true `mask` [B, T]; 0, with gradient 0, where there are none.

    A value outside the mask may be inf or nan. What it was computed from should be finite all the same: a gradient of 0
    that flows back into an infinite ratio is nan.

    `denominator` is the number of tokens in the whole step, where a batch is only a part of it.
    """
    import torch

    kept = torch.where(mask.bool(), values, values.new_zeros(()))
    count = mask.bool().sum() if denominator is None else denominator
    return kept.sum() / (count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1))


# --------------------------------------------------------------------------- teachers


def ema_update(teacher: Iterable[Tensor], student: Iterable[Tensor], rate: float) -> None:
    """Move each tensor of the teacher, in place: t <- (1 - rate) t + rate s, in the teacher's number type."""
    import torch

    with torch.no_grad():
        for mine, theirs in zip(teacher, student, strict=True):
            mine.lerp_(theirs.detach().to(mine.dtype), rate)


def trust_region_logits(reference_logits: Tensor, student_logits: Tensor, rate: float) -> Tensor:
    """The trust region's teacher: (1 - rate) reference + rate student, shape as given, without gradient.

    Both logits are of the teacher's input: the student's too are not those that it learns by.
    """
    import torch

    # In half precision a small rate's step is less than the distance between two numbers.
    return torch.lerp(_precise(reference_logits.detach()), _precise(student_logits.detach()), rate)


# --------------------------------------------------------------------------- the same in chunks


@dataclass(frozen=True)
class Head:
    """The last layer: logits are hidden @ weight.T + bias. `weight` [V, H], `bias` [V]."""

    weight: Tensor
    bias: Tensor | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, V] of hidden states [N, H]."""
        from torch.nn.functional import linear

        return linear(hidden, self.weight, self.bias)


@dataclass(frozen=True)
class Teacher:
    """Where a teacher's logits come from: hidden states [B, T, H'] and a head, lerped by `rate` towards `other`'s.

    The trust region's teacher is the reference with the student on the same input as `other`.
    """

    hidden: Tensor
    head: Head
    other: Teacher | None = None
    rate: float = 0.0

    def chosen(self, mask: Tensor) -> Teacher:
        """The same for the tokens with a true `mask` alone: hidden states [N, H']."""
        other = None if self.other is None else self.other.chosen(mask)
        return Teacher(self.hidden.detach()[mask], self.head, other, self.rate)

    def logits(self, rows: slice) -> Tensor:
        """[N, V] of some of the tokens."""
        mine = self.head.logits(self.hidden[rows])
        return mine if self.other is None else trust_region_logits(mine, self.other.logits(rows), self.rate)


def distillation_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher: Teacher,
    mask: Tensor,
    alpha: float,
    topk: int | None = None,
    add_tail: bool = True,
    entry_clip: float | None = None,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    denominator: Tensor | float | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """`masked_token_mean(weight * token_divergence(...), mask, denominator)` from hidden states, a chunk at a time.

    The logits of a chunk are made, used and dropped, and made once more in the backward pass; masked tokens have none.

    Args:
        student_hidden: [B, T, H], what the student's head is applied to.
        student_head: gets a gradient where its weight wants one.
        teacher: gets none.
        mask: [B, T], true for the tokens that count.
        alpha, topk, add_tail, entry_clip: as in `token_divergence`.
        weight: [B, T], a factor for each token (an importance ratio); it gets no gradient.
        temperature: what both sides' logits are divided by: the temperature of sampling.
        denominator: as in `masked_token_mean`.
        chunk_tokens: tokens in a chunk; None takes as many as make 64 MiB of logits.

    Returns:
        [], differentiable in `student_hidden` and the student's head.

    Raises:
        InputError: `alpha` outside 0 to 1, `topk` below 1.
    """
    _check(alpha, topk)
    chosen = mask.bool()
    hidden = student_hidden[chosen]
    factors = None if weight is None else weight.detach()[chosen]
    options = _Options(alpha, topk, add_tail, entry_clip, temperature, chunk_tokens)
    values = _chunked()(hidden, student_head.weight, student_head.bias, teacher.chosen(chosen), options)
    values = values if factors is None else values * factors
    return masked_token_mean(values, chosen.new_ones(values.shape), denominator)


@dataclass(frozen=True)
class _Options:
    alpha: float
    topk: int | None
    add_tail: bool
    entry_clip: float | None
    temperature: float
    chunk_tokens: int | None

    def chunks(self, tokens: int, vocabulary: int) -> Iterator[slice]:
        size = self.chunk_tokens or max(1, CHUNK_ENTRIES // vocabulary)
        return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))

    def precise(self, logits: Tensor) -> Tensor:
        """Logits as they are compared."""
        return _precise(logits) if self.temperature == 1 else _precise(logits) / self.temperature

    def values(self, student: Tensor, indices: Tensor | None, teacher: Tensor) -> Tensor:
        """[N] from the student's logits [N, V] and the teacher's log-probabilities of the entries looked at."""
        return _entries(_seen(student, indices, self.add_tail), teacher, self.alpha, self.entry_clip).sum(-1)


@functools.cache
def _chunked() -> Any:
    """The divergence of N tokens from hidden states, as one step of autograd."""
    import torch

    class Chunked(torch.autograd.Function):  # type: ignore[misc]  # torch's autograd has no types
        @staticmethod
        def forward(
            ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, teacher: Teacher, how: _Options
        ) -> Tensor:
            head = Head(weight, bias)
            found, entries, theirs = [], [], []
            for rows in how.chunks(len(hidden), len(weight)):
                student, other = how.precise(head.logits(hidden[rows])), how.precise(teacher.logits(rows))
                indices = _likeliest(student, how.topk)
                seen = _seen(other, indices, how.add_tail)
                found.append(how.values(student, indices, seen))
                if indices is not None:  # a hundred entries can be kept where all of them cannot
                    entries.append(indices)
                    theirs.append(seen)
            ctx.teacher, ctx.how, ctx.kept = teacher, how, bool(entries)
            # The backward pass runs outside of autocast, and must make the same logits.
            device = hidden.device.type
            ctx.types = {
                "device_type": device,
                "dtype": torch.get_autocast_dtype(device),
                "enabled": torch.is_autocast_enabled(device),
            }
            ctx.save_for_backward(hidden, weight, bias, *([torch.cat(entries), torch.cat(theirs)] if entries else []))
            return torch.cat(found) if found else _precise(hidden.new_zeros(0))

        @staticmethod
        def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
            with torch.autocast(**ctx.types):
                return Chunked.gradients(ctx, grads)

        @staticmethod
        def gradients(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
            hidden, weight, bias, *kept = ctx.saved_tensors
            head, how = Head(weight, bias), ctx.how
            wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
            # Sums over chunks: in half precision they would lose what a chunk adds.
            precise = torch.promote_types(weight.dtype, torch.float32)
            to_hidden = torch.empty_like(hidden) if wants_hidden else None
            to_weight = torch.zeros_like(weight, dtype=precise) if wants_weight else None
            to_bias = torch.zeros_like(bias, dtype=precise) if wants_bias and bias is not None else None
            for rows in how.chunks(len(hidden), len(weight)):
                if ctx.kept:
                    indices, seen = (one[rows] for one in kept)
                else:
                    indices, seen = None, _seen(how.precise(ctx.teacher.logits(rows)), None, how.add_tail)
                with torch.enable_grad():
                    logits = head.logits(hidden[rows]).detach().requires_grad_()
                    values = how.values(how.precise(logits), indices, seen)
                    (to_logits,) = torch.autograd.grad(values, logits, grads[rows])
                del values, logits, seen
                if to_hidden is not None:
                    to_hidden[rows] = to_logits @ weight
                if to_weight is not None:
                    to_weight.addmm_(to_logits.to(precise).T, hidden[rows].to(precise))
                if to_bias is not None:
                    to_bias += to_logits.to(precise).sum(0)
            given = to_weight if to_weight is None else to_weight.to(weight.dtype)
            return to_hidden, given, to_bias if to_bias is None else to_bias.to(bias.dtype), None, None

    return Chunked.apply
