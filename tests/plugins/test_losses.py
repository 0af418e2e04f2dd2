"""The on-policy losses: cases computed by hand, a reference in float64 numpy, gradients, and the same in chunks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nsd.plugins.errors import InputError

torch = pytest.importorskip("torch")

from nsd.plugins.trainers.losses import (  # noqa: E402
    Head,
    Teacher,
    distillation_loss,
    ema_update,
    importance_clip,
    masked_token_mean,
    sampled_token_divergence,
    token_divergence,
    trust_region_logits,
)

STUDENT = [[0.5, 0.25, 0.125, 0.125], [0.7, 0.1, 0.1, 0.1]]
TEACHER = [[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]]


def logits(probabilities: list[list[float]]) -> Any:
    """[1, T, V], off by a constant as logits are."""
    return torch.tensor([probabilities], dtype=torch.float64).log() + 3.0


@pytest.mark.parametrize(
    ("alpha", "values"),
    [
        (
            0,
            [0.522328, 0.429813],
        ),  # .1 ln(.1/.5) + .2 ln(.2/.25) + .3 ln(.3/.125) + .4 ln(.4/.125), and the second token
        (0.25, [0.096467, 0.079024]),
        (0.5, [0.130601, 0.105297]),
        (1, [0.605677, 0.445846]),  # .5 ln(.5/.1) + .25 ln(.25/.2) + .125 ln(.125/.3) + .125 ln(.125/.4)
    ],
)
def test_the_divergence_is_the_one_that_alpha_names(alpha: float, values: list[float]) -> None:
    found = token_divergence(logits(STUDENT), logits(TEACHER), alpha)
    assert found.shape == (1, 2) and found[0].tolist() == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize(
    ("alpha", "with_tail", "renormalised"),
    [  # the student's two likeliest entries: (.5, .25 | .25) and (.1, .2 | .7); (2/3, 1/3) and (1/3, 2/3)
        (0, 0.515161, 0.231049),
        (0.5, 0.129654, 0.056633),
        (1, 0.603100, 0.231049),
    ],
)
def test_the_students_likeliest_entries_are_compared_with_a_tail_or_without(
    alpha: float, with_tail: float, renormalised: float
) -> None:
    student, teacher = logits(STUDENT[:1]), logits(TEACHER[:1])
    assert token_divergence(student, teacher, alpha, topk=2).item() == pytest.approx(with_tail, abs=1e-6)
    assert token_divergence(student, teacher, alpha, 2, add_tail=False).item() == pytest.approx(renormalised, abs=1e-6)


@pytest.mark.parametrize("topk", [4, 9])
@pytest.mark.parametrize("add_tail", [True, False])
def test_as_many_entries_as_there_are_are_all_of_them(topk: int, add_tail: bool) -> None:
    found = token_divergence(logits(STUDENT), logits(TEACHER), 0.5, topk, add_tail)
    assert torch.equal(found, token_divergence(logits(STUDENT), logits(TEACHER), 0.5))


def test_no_entry_adds_more_than_its_clip() -> None:
    forward = token_divergence(logits(STUDENT), logits(TEACHER), 0, entry_clip=0.05)
    reverse = token_divergence(logits(STUDENT), logits(TEACHER), 1, entry_clip=0.05)
    # .1 ln(.1/.5) + .2 ln(.2/.25) + .05 + .05; .25 ln(.25/.7) + .05 + .05 + .05; and so on
    assert forward[0].tolist() == pytest.approx([-0.105573, -0.107405], abs=1e-6)
    assert reverse[0].tolist() == pytest.approx([-0.154827, -0.224887], abs=1e-6)


def test_a_wrong_alpha_or_topk_is_refused() -> None:
    for wrong in ({"alpha": -0.1}, {"alpha": 1.1}, {"alpha": 0.5, "topk": 0}):
        with pytest.raises(InputError, match=r"alpha|topk"):
            token_divergence(logits(STUDENT), logits(TEACHER), **wrong)


def reference(student: Any, teacher: Any, alpha: float, topk: int | None, tail: bool) -> Any:
    """The divergence by its definition over probabilities, in float64 numpy."""
    found = np.empty(student.shape[:-1])
    for place in np.ndindex(found.shape):
        p, q = (np.exp(one[place] - one[place].max()) for one in (student, teacher))
        p, q = p / p.sum(), q / q.sum()
        if topk is not None and topk < len(p):
            seen = np.argsort(-p, kind="stable")[:topk]
            p, q = (np.append(one[seen], one.sum() - one[seen].sum()) if tail else one[seen] for one in (p, q))
            p, q = p / p.sum(), q / q.sum()
        if alpha in (0, 1):
            a, b = (p, q) if alpha else (q, p)
            found[place] = np.sum(a * np.log(a / b))
        else:
            m = (1 - alpha) * p + alpha * q
            found[place] = (1 - alpha) * np.sum(p * np.log(p / m)) + alpha * np.sum(q * np.log(q / m))
    return found


@pytest.mark.parametrize("alpha", [0, 0.01, 0.3, 0.5, 0.99, 1])
@pytest.mark.parametrize(("topk", "tail"), [(None, True), (1, True), (7, True), (7, False), (29, True)])
def test_it_is_the_definition_over_random_logits(alpha: float, topk: int | None, tail: bool) -> None:
    generator = np.random.default_rng(5)
    student, teacher = (generator.normal(scale=3, size=(2, 6, 30)) for _ in range(2))
    found = token_divergence(torch.from_numpy(student), torch.from_numpy(teacher), alpha, topk, tail)
    np.testing.assert_allclose(found.numpy(), reference(student, teacher, alpha, topk, tail), rtol=1e-9, atol=1e-12)
    rough = token_divergence(torch.from_numpy(student).float(), torch.from_numpy(teacher).float(), alpha, topk, tail)
    np.testing.assert_allclose(rough.numpy(), found.numpy(), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
@pytest.mark.parametrize(
    ("topk", "tail", "clip"), [(None, True, None), (3, True, None), (3, False, None), (None, True, 0.02)]
)
def test_the_gradient_is_that_of_the_value_and_the_teacher_has_none(
    alpha: float, topk: int | None, tail: bool, clip: float | None
) -> None:
    torch.manual_seed(3)
    student = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: token_divergence(s, teacher, alpha, topk, tail, clip), (student,))
    token_divergence(student, teacher, alpha, topk, tail, clip).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("alpha", [0, 0.01, 0.5, 1])
@pytest.mark.parametrize(("topk", "tail"), [(None, True), (9, True), (9, False)])
def test_a_student_that_is_its_teacher_has_gradient_zero_to_the_bit(alpha: float, topk: int | None, tail: bool) -> None:
    torch.manual_seed(3)
    student = (5 * torch.randn(2, 30, 200)).requires_grad_()
    values = token_divergence(student, student.detach(), alpha, topk, tail)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert not values.any() and not gradient.any()


# --------------------------------------------------------------------------- sampled tokens


def test_a_sampled_token_weighs_its_own_log_probability() -> None:
    student = torch.tensor([math.log(0.5), math.log(0.1)], requires_grad=True)
    found = sampled_token_divergence(student, torch.tensor([math.log(0.25), math.log(0.2)]))
    # ln 2 ln .5, and -ln 2 ln .1
    assert found.tolist() == pytest.approx([-0.480453, 1.596030], abs=1e-6)
    found.sum().backward()
    assert student.grad.tolist() == pytest.approx([math.log(2), -math.log(2)])


def test_over_the_students_own_samples_its_gradient_is_the_reverse_divergences() -> None:
    student, teacher = logits(STUDENT).requires_grad_(), logits(TEACHER)
    logp, other = student.log_softmax(-1), teacher.log_softmax(-1)
    expected = (logp.exp().detach() * sampled_token_divergence(logp, other)).sum()  # every entry at its own frequency
    (found,) = torch.autograd.grad(expected, student)
    (whole,) = torch.autograd.grad(token_divergence(student, teacher, 1).sum(), student)
    assert torch.allclose(found, whole, atol=1e-12)


def test_sampled_tokens_estimate_no_other_divergence() -> None:
    with pytest.raises(InputError, match=r"alpha 0\.5"):
        sampled_token_divergence(torch.zeros(1), torch.zeros(1), alpha=0.5)


# --------------------------------------------------------------------------- weights, means, teachers


def test_the_importance_ratio_is_clipped_and_has_no_gradient() -> None:
    logp = torch.tensor([math.log(3.0), math.log(0.5), 1000.0, -1000.0], requires_grad=True)
    found = importance_clip(logp, torch.zeros(4), 2.0)
    assert found.tolist() == pytest.approx([2.0, 0.5, 2.0, math.exp(-20)]) and not found.requires_grad
    assert importance_clip(logp, torch.zeros(4), 1e12)[2].item() == pytest.approx(math.exp(20))
    assert importance_clip(logp, torch.zeros(4), None).tolist() == [1, 1, 1, 1]


def test_masked_tokens_do_not_dilute_the_mean() -> None:
    values = torch.tensor([[1.0, 2.0, math.nan], [6.0, math.inf, 9.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    loss = masked_token_mean(values, mask)
    loss.backward()
    assert loss.item() == 3.0
    assert torch.allclose(values.grad, mask / 3)
    assert masked_token_mean(values, mask, denominator=6).item() == 1.5


def test_with_every_row_masked_the_loss_is_zero_and_so_is_its_gradient() -> None:
    values = torch.tensor([[1.0, math.nan]], requires_grad=True)
    loss = masked_token_mean(values, torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == 0 and values.grad.tolist() == [[0, 0]]


def test_an_ema_teacher_follows_at_its_rate() -> None:
    teacher, student = [torch.tensor([0.0, 4.0])], [torch.tensor([1.0, 0.0], dtype=torch.bfloat16, requires_grad=True)]
    for _ in range(3):
        ema_update(teacher, student, 0.25)
    assert teacher[0].tolist() == [0.578125, 1.6875]  # 1 - .75^3 and 4 x .75^3
    assert not teacher[0].requires_grad


def test_the_trust_region_lies_between_reference_and_student() -> None:
    student = torch.tensor([2.0, -1.0], requires_grad=True)
    found = trust_region_logits(torch.tensor([0.0, 1.0]), student, 0.25)
    assert found.tolist() == [0.5, 0.5] and not found.requires_grad


# --------------------------------------------------------------------------- in chunks

ROWS, TOKENS, WIDTH, VOCABULARY = 3, 5, 4, 11


class Case:
    """A student, a teacher of another width, a mask and weights."""

    def __init__(self, dtype: Any, bias: bool = False, blend: bool = False) -> None:
        torch.manual_seed(11)

        def made(*shape: int) -> Any:
            return torch.randn(*shape, dtype=torch.float64).to(dtype)

        self.hidden = made(ROWS, TOKENS, WIDTH).requires_grad_()
        self.head = Head(made(VOCABULARY, WIDTH).requires_grad_(), made(VOCABULARY).requires_grad_() if bias else None)
        other = Teacher(made(ROWS, TOKENS, WIDTH), self.head) if blend else None
        self.teacher = Teacher(made(ROWS, TOKENS, 3), Head(made(VOCABULARY, 3)), other, 0.3 if blend else 0.0)
        self.mask = torch.rand(ROWS, TOKENS) < 0.7
        self.weight = torch.rand(ROWS, TOKENS, dtype=torch.float64).to(dtype)

    def gradients(self, loss: Any) -> list[Any]:
        wanted = [one for one in (self.hidden, self.head.weight, self.head.bias) if one is not None]
        return list(torch.autograd.grad(loss, wanted))

    def whole(self, alpha: float, temperature: float = 1.0, **how: Any) -> Any:
        """The loss from all logits at once."""
        theirs = self.teacher.head.logits(self.teacher.hidden)
        if self.teacher.other is not None:
            theirs = 0.7 * theirs + 0.3 * self.head.logits(self.teacher.other.hidden)
        mine = self.head.logits(self.hidden)
        values = token_divergence(mine / temperature, theirs / temperature, alpha, **how)
        return masked_token_mean(self.weight * values, self.mask)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("alpha", [0, 0.5, 1])
@pytest.mark.parametrize("how", [{}, {"topk": 3}, {"topk": 3, "add_tail": False}, {"entry_clip": 0.05}])
@pytest.mark.parametrize("kind", [{"dtype": torch.float64}, {"dtype": torch.float64, "bias": True, "blend": True}])
def test_in_chunks_value_and_gradients_are_the_same(chunk: int, alpha: float, how: Any, kind: Any) -> None:
    case = Case(**kind)
    loss = distillation_loss(
        case.hidden,
        case.head,
        case.teacher,
        case.mask,
        alpha,
        weight=case.weight,
        temperature=1.7,
        chunk_tokens=chunk,
        **how,
    )
    whole = case.whole(alpha, 1.7, **how)
    assert loss.item() == pytest.approx(whole.item(), abs=1e-12)
    for mine, theirs in zip(case.gradients(loss), case.gradients(whole), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_in_chunks_single_precision_is_the_same_to_a_millionth() -> None:
    case = Case(torch.float32)
    loss = distillation_loss(case.hidden, case.head, case.teacher, case.mask, 0.5, weight=case.weight, chunk_tokens=4)
    whole = case.whole(0.5)
    assert loss.item() == pytest.approx(whole.item(), abs=1e-6)
    for mine, theirs in zip(case.gradients(loss), case.gradients(whole), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
def test_in_half_precision_the_heads_gradient_loses_no_chunk() -> None:
    case, many = Case(torch.bfloat16), 2000
    hidden = case.hidden.detach()[:1, :1].expand(1, many, WIDTH).clone().requires_grad_()
    teacher = Teacher(case.teacher.hidden[:1, :1].expand(1, many, 3), case.teacher.head)
    mask = torch.ones(1, many)

    def gradient(chunk: int) -> Any:
        loss = distillation_loss(hidden, case.head, teacher, mask, 0.5, denominator=1, chunk_tokens=chunk)
        return torch.autograd.grad(loss, case.head.weight)[0].float()

    assert torch.allclose(gradient(1), gradient(many), rtol=0.02)


@pytest.mark.parametrize("how", [{}, {"topk": 3}])
@pytest.mark.parametrize("halves", [False, True])
def test_in_chunks_under_autocast_the_backward_pass_makes_the_same_logits(how: Any, halves: bool) -> None:
    case = Case(torch.float32)
    if halves:  # as a model under autocast gives them
        case.hidden = case.hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = distillation_loss(
            case.hidden, case.head, case.teacher, case.mask, 0.5, weight=case.weight, chunk_tokens=4, **how
        )
        whole = case.whole(0.5, **how)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    for mine, theirs in zip(case.gradients(loss), case.gradients(whole), strict=True):
        assert mine.dtype == theirs.dtype and torch.allclose(mine.float(), theirs.float(), rtol=0.02, atol=2e-3)


def test_in_chunks_nothing_flows_where_nothing_is_wanted() -> None:
    case = Case(torch.float32)
    frozen = Head(case.head.weight.detach())  # LoRA: the head does not learn
    loss = distillation_loss(case.hidden, frozen, case.teacher, case.mask, 0.5)
    (gradient,) = torch.autograd.grad(loss, case.hidden)
    assert gradient[~case.mask].abs().max() == 0 and gradient[case.mask].abs().max() > 0


def test_in_chunks_with_every_row_masked_all_gradients_are_zero() -> None:
    case = Case(torch.float32)
    loss = distillation_loss(case.hidden, case.head, case.teacher, torch.zeros(ROWS, TOKENS), 0.5)
    assert loss.item() == 0 and all(one.abs().max() == 0 for one in case.gradients(loss))


def test_no_more_logits_than_a_chunks_are_ever_held() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    vocabulary, tokens, chunk = 500, 64, 4
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            for one in found if isinstance(found, tuple | list) else [found]:
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.numel())
            return found

    hidden = torch.randn(1, tokens, 3, requires_grad=True)
    head, teacher = (
        Head(torch.randn(vocabulary, 3, requires_grad=True)),
        Teacher(torch.randn(1, tokens, 3), Head(torch.randn(vocabulary, 3))),
    )
    with Watch():
        distillation_loss(hidden, head, teacher, torch.ones(1, tokens), 0.5, topk=10, chunk_tokens=chunk).backward()
    assert largest == chunk * vocabulary
