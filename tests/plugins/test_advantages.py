"""Advantages and clipped losses, by cases computed by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from nsd.plugins.trainers.advantages import (  # noqa: E402
    centred_on_group,
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    leave_one_out,
    token_rewards,
    whitened,
)


def test_each_is_measured_by_the_others_of_its_question() -> None:
    found = leave_one_out(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 4.0]]))
    assert found.tolist() == [[1.0, -0.5, -0.5], [-1.5, -1.5, 3.0]]


def test_each_is_measured_by_its_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert centred_on_group(rewards).tolist() == [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0]]
    scaled = centred_on_group(rewards, scale=True)
    # the sample deviation of (1, 0, 0, 1) is the root of 1/3
    assert scaled[0].tolist() == pytest.approx([0.5 / (math.sqrt(1 / 3) + 1e-4) * sign for sign in (1, -1, -1, 1)])
    assert scaled[1].tolist() == [0, 0, 0, 0]


def test_the_outcome_lies_on_the_last_token_and_leaving_the_reference_costs_on_each() -> None:
    logp, reference = (
        torch.tensor([[-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]]),
        torch.tensor([[-1.5, -1.0, 0.0], [-1.0, -3.0, -1.0]]),
    )
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = token_rewards(torch.tensor([1.0, 0.5]), logp, reference, mask, beta=0.1)
    assert found[0].tolist() == pytest.approx([-0.05, 1.1, 0.0])
    assert found[1].tolist() == pytest.approx([0.0, -0.2, 0.5])


def test_advantages_follow_the_recursion() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.6]])
    found, returns = generalised_advantages(rewards, values, torch.ones(1, 3), gamma=0.9, lam=0.5)
    # delta: .9 x .4 - .5 = -.14; .9 x .6 - .4 = .14; 1 - .6 = .4
    # A: .4; .14 + .45 x .4 = .32; -.14 + .45 x .32 = .004
    assert found[0].tolist() == pytest.approx([0.004, 0.32, 0.4], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.504, 0.72, 1.0])


def test_nothing_after_a_rows_end_is_worth_anything() -> None:
    rewards, values = torch.tensor([[0.0, 1.0, 7.0]]), torch.tensor([[0.5, 0.4, 9.0]])
    found, returns = generalised_advantages(rewards, values, torch.tensor([[1, 1, 0]]), gamma=0.9, lam=0.5)
    assert found[0].tolist() == pytest.approx([-0.14 + 0.45 * 0.6, 0.6, 0.0])
    assert returns[0].tolist() == pytest.approx([-0.14 + 0.45 * 0.6 + 0.5, 1.0, 0.0])


def test_without_discount_each_token_is_measured_by_the_sum_to_come() -> None:
    found, returns = generalised_advantages(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.0, 1.0]]), torch.ones(1, 3), 1.0, 1.0
    )
    assert found.tolist() == [[5.5, 5.0, 2.0]] and returns.tolist() == [[6.0, 5.0, 3.0]]


def test_whitening_looks_at_the_tokens_that_count() -> None:
    found = whitened(torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert found[0].tolist() == pytest.approx([-1.0, 0.0, 0.0]) and found[1].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert whitened(torch.tensor([[4.0, 9.0]]), torch.tensor([[1, 0]])).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # low .2, high .3; the slope is that in logp
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.6, 0.0),  # up no further
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),  # down no further
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_the_surrogate_is_clipped_where_it_would_gain(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    logp = torch.tensor([[math.log(ratio) - 1.0]], requires_grad=True)
    found = clipped_policy_loss(logp, torch.tensor([[-1.0]]), torch.tensor([[advantage]]), 0.2, 0.3)
    found.sum().backward()
    assert found.item() == pytest.approx(loss) and logp.grad.item() == pytest.approx(slope)


def test_a_value_may_not_run_away_from_its_old_one() -> None:
    values = torch.tensor([[1.0, 0.1, 1.0]], requires_grad=True)
    found = clipped_value_loss(values, torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 2.0]]), clip=0.2)
    found.sum().backward()
    # held at .2: (.2 - 1)^2 / 2; not held: (.1 - 1)^2 / 2; held at .2: (.2 - 2)^2 / 2
    assert found[0].tolist() == pytest.approx([0.32, 0.405, 1.62])
    assert values.grad[0].tolist() == pytest.approx([0.0, -0.9, 0.0])
