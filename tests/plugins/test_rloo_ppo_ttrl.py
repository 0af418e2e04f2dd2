"""rloo, ppo and ttrl on a real tiny model: losses and gradients by hand from what was drawn, in float64."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nsd.plugins.api import LoraConfig, Rollout
from nsd.plugins.errors import Interrupted
from nsd.plugins.registry import find
from on_policy_tools import Noise, Plain, batches, made_job, prompt_of, training
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import Events, train, weights_hash

VOWELS = {"rewards": ["test_share_of_vowels"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def share_of_vowels(rollout: Rollout) -> float:
    return sum(c in "aeiou" for c in rollout.text) / max(1, len(rollout.text)) - 0.1 * rollout.truncated


def logps(plain: Plain, rollouts: list[Rollout]) -> list[Any]:
    return [plain.logp(prompt_of(one), one.tokens) for one in rollouts]


# --------------------------------------------------------------------------- rloo


def rloo_by_hand(plain: Plain, start: Plain, drawn: list[Rollout], mean: Any, beta: float) -> tuple[Any, list[float]]:
    """Loss and returns: r - beta * sum of log ratios, less `mean(returns of the group, own place)`."""
    import torch

    now, then = logps(plain, drawn), [one.detach() for one in logps(start, drawn)]
    returns = [
        share_of_vowels(one) - beta * (a.detach() - b).sum().item() for one, a, b in zip(drawn, now, then, strict=True)
    ]
    loss = torch.zeros((), dtype=torch.float64)
    for place, logp in enumerate(now):
        group = place // 4 * 4
        advantage = returns[place] - mean(returns[group : group + 4], place - group)
        loss = loss - advantage * (logp - logp.detach()).sum().exp() / len(drawn)
    return loss, returns


def leave_one_out(group: list[float], place: int) -> float:
    return statistics.mean(group[:place] + group[place + 1 :])


@pytest.mark.slow
@pytest.mark.parametrize("baseline", thinned(["leave_one_out", "running_mean", "none"]))
def test_the_second_step_of_rloo_by_hand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline: str
) -> None:
    config = VOWELS | {"baseline": baseline, "beta": 0.5, "micro_batch_size": 4}
    training("rloo", config, tmp_path / "one", model)
    drawn = batches(monkeypatch)
    events, kept = training("rloo", config | {"steps": 2}, tmp_path / "two", model)
    start, after = Plain(model), Plain(tmp_path / "one" / "weights")

    seen: list[float] = []
    means: dict[str, Any] = {
        "leave_one_out": leave_one_out,
        "running_mean": lambda group, place: statistics.mean(seen) if seen else 0.0,
        "none": lambda group, place: 0.0,
    }
    for step, plain in enumerate((start, after)):
        loss, returns = rloo_by_hand(plain, start, drawn[step], means[baseline], 0.5)
        seen += returns
        assert events.curve("loss")[step] == pytest.approx(loss.item(), abs=2e-6)
        assert events.curve("grad_norm")[step] == pytest.approx(plain.gradient_norm(loss), rel=1e-4)
    assert [one.text for one in kept] == [one.text for batch in drawn for one in batch]
    assert events.curve("kl")[0] == pytest.approx(0, abs=1e-6) and abs(events.curve("kl")[1]) > 1e-4


@pytest.mark.slow
def test_a_batch_used_again_has_the_ratio_of_whole_rollouts_clipped(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    config = VOWELS | {"num_iterations": 2, "beta": 0.0, "epsilon": 0.05}
    training("rloo", config, tmp_path / "one", model)
    drawn = batches(monkeypatch)
    events, _ = training("rloo", config | {"steps": 2}, tmp_path / "two", model)
    start, after = Plain(model), Plain(tmp_path / "one" / "weights")
    [batch] = drawn
    loss, clipped = torch.zeros((), dtype=torch.float64), 0
    for place, (now, then) in enumerate(zip(logps(after, batch), logps(start, batch), strict=True)):
        group = [share_of_vowels(one) for one in batch[place // 4 * 4 : place // 4 * 4 + 4]]
        advantage = group[place % 4] - leave_one_out(group, place % 4)
        ratio = (now.sum() - then.sum().detach()).exp()
        held = ratio.clamp(0.95, 1.05)
        clipped += (held * advantage < ratio * advantage).item()
        loss = loss - torch.minimum(ratio * advantage, held * advantage) / 8
    assert clipped
    assert events.curve("loss")[1] == pytest.approx(loss.item(), abs=1e-5)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(loss), rel=1e-3)


# --------------------------------------------------------------------------- ppo


class Critic:
    """Three steps of ppo on one batch by hand: advantages once, then Adam on the value head."""

    def __init__(self, start: Plain, drawn: list[Rollout]) -> None:
        import torch

        self.drawn, self.steps = drawn, 0
        self.old = [one.detach() for one in logps(start, drawn)]
        self.head = torch.zeros(65, dtype=torch.float64, requires_grad=True)  # weights, and the bias last
        self.moments = torch.zeros(2, 65, dtype=torch.float64)
        # gamma .9, lambda .8, values 0, and no KL yet: the reward stands on the last token alone.
        self.advantages = [
            torch.tensor(
                [share_of_vowels(one) * (0.9 * 0.8) ** (len(one.tokens) - 1 - t) for t in range(len(one.tokens))],
                dtype=torch.float64,
            )
            for one in drawn
        ]
        self.returns = self.advantages  # A + V with V = 0
        flat = torch.cat(self.advantages)
        self.whitened = [(one - flat.mean()) / (flat.var() + 1e-8).sqrt() for one in self.advantages]

    def loss(self, plain: Plain, trunk: bool) -> Any:
        import torch

        tokens = sum(len(one.tokens) for one in self.drawn)
        total = torch.zeros((), dtype=torch.float64)
        for one, old, advantage, back in zip(self.drawn, self.old, self.whitened, self.returns, strict=True):
            before = plain.tokenizer(prompt_of(one))["input_ids"]
            ids = torch.tensor([[*before, *one.tokens]])
            hidden = plain.model.model(input_ids=ids).last_hidden_state[0, len(before) - 1 : -1]
            logits = plain.model.lm_head(hidden) / plain.temperature
            logp = logits.log_softmax(-1).gather(-1, torch.tensor([list(one.tokens)]).T).squeeze(-1)
            ratio = (logp - old).exp()
            policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            values = (hidden if trunk else hidden.detach()) @ self.head[:64] + self.head[64]
            error = torch.maximum((values - back) ** 2, (values.clamp(-0.2, 0.2) - back) ** 2)
            total = total + (policy + 0.1 * 0.5 * error).sum() / tokens
        return total

    def step(self) -> None:
        """Adam (arXiv 1412.6980) by its formulas, at a rate of .02."""
        self.steps += 1
        gradient = self.head.grad
        assert gradient is not None
        for moment, decay, value in zip(self.moments, (0.9, 0.999), (gradient, gradient**2), strict=True):
            moment.mul_(decay).add_((1 - decay) * value)
        first, second = self.moments[0] / (1 - 0.9**self.steps), self.moments[1] / (1 - 0.999**self.steps)
        self.head = (self.head - 0.02 * first / (second.sqrt() + 1e-8)).detach().requires_grad_()


@pytest.mark.slow
@pytest.mark.parametrize("trunk", thinned([True, False]))
def test_three_steps_of_ppo_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trunk: bool) -> None:
    config = VOWELS | {
        "num_iterations": 3,
        "gamma": 0.9,
        "lam": 0.8,
        "value_learning_rate": 0.02,
        "value_trains_trunk": trunk,
        "micro_batch_size": 4,
    }
    training("ppo", config, tmp_path / "1", model)
    training("ppo", config | {"steps": 2}, tmp_path / "2", model)
    drawn = batches(monkeypatch)
    events, _ = training("ppo", config | {"steps": 3}, tmp_path / "3", model)
    [batch] = drawn
    critic = Critic(Plain(model), batch)
    for step, folder in enumerate((model, tmp_path / "1" / "weights", tmp_path / "2" / "weights")):
        plain = Plain(folder)
        loss = critic.loss(plain, trunk)
        norm = plain.gradient_norm(loss)
        assert events.curve("loss")[step] == pytest.approx(loss.item(), abs=1e-6)
        assert events.curve("grad_norm")[step] == pytest.approx(norm, rel=1e-3)
        critic.step()


@pytest.mark.slow
def test_the_value_head_is_clipped_too(model: Path, tmp_path: Path) -> None:
    """Adam moves a weight by about its rate, unless the gradient is far below its epsilon of 1e-8."""
    config = VOWELS | {"steps": 2, "num_iterations": 2, "value_learning_rate": 0.02}
    moved = []
    for name, limit in (("free", 100.0), ("clipped", 1e-14)):
        events, _ = training("ppo", config | {"max_grad_norm": limit}, tmp_path / name, model)
        moved.append(events.curve("value/loss"))
    assert moved[0][0] == moved[1][0]  # by the head that values everything at 0
    assert moved[0][1] != pytest.approx(moved[0][0], rel=1e-3)
    assert moved[1][1] == pytest.approx(moved[1][0], rel=1e-5)


@pytest.mark.slow
def test_the_kl_is_paid_for_by_each_token_of_the_second_batch(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Values stay 0 at a tiny rate, so that an advantage is the sum of what is earned from a token on (gamma, lambda 1).
    import torch

    config = VOWELS | {"num_iterations": 1, "lam": 1.0, "beta": 0.7, "value_learning_rate": 1e-12, "value_weight": 0.0}
    training("ppo", config, tmp_path / "1", model)
    drawn = batches(monkeypatch)
    events, _ = training("ppo", config | {"steps": 2}, tmp_path / "2", model)
    start, after = Plain(model), Plain(tmp_path / "1" / "weights")
    earned = []
    for one, now, then in zip(drawn[1], logps(after, drawn[1]), logps(start, drawn[1]), strict=True):
        rewards = -0.7 * (now - then).detach()
        rewards[-1] += share_of_vowels(one)
        earned.append(rewards.flip(0).cumsum(0).flip(0))
    flat = torch.cat(earned)
    loss = torch.zeros((), dtype=torch.float64)
    for one, now in zip(earned, logps(after, drawn[1]), strict=True):
        loss = loss - ((now - now.detach()).exp() * (one - flat.mean()) / (flat.var() + 1e-8).sqrt()).sum() / len(flat)
    assert events.curve("grad_norm")[1] == pytest.approx(after.gradient_norm(loss), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "moves"), [(True, True), (False, False)])
def test_the_value_loss_reaches_the_policy_only_where_it_may(
    model: Path, tmp_path: Path, trunk: bool, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With advantages of 0 all that is left is the value loss; its head has moved before the second step.
    import torch

    from nsd.plugins.trainers import advantages

    monkeypatch.setattr(advantages, "whitened", lambda values, mask, total: torch.zeros_like(values))
    config = VOWELS | {"value_trains_trunk": trunk, "num_iterations": 1, "steps": 2, "value_learning_rate": 0.05}
    events, _ = training("ppo", config, tmp_path, model)
    assert events.curve("grad_norm")[0] == 0 and (events.curve("grad_norm")[1] > 1e-3) == moves
    assert (weights_hash(tmp_path / "weights") != weights_hash(model)) == moves


@pytest.mark.slow
def test_the_value_head_is_not_among_the_saved_weights(model: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    names = []
    training("ppo", VOWELS, tmp_path, model)
    for folder in (model, tmp_path / "weights"):
        with safe_open(folder / "model.safetensors", framework="pt") as opened:
            names.append(sorted(opened.keys()))
    assert names[0] == names[1]


# --------------------------------------------------------------------------- ttrl


@pytest.mark.slow
def test_the_second_step_of_ttrl_by_hand(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    config = {"n_votes": 6, "num_generations": 4, "beta": 0.3, "prompts_per_step": 2, "micro_batch_size": 2}
    training("ttrl", config, tmp_path / "1", model)
    drawn = batches(monkeypatch)
    events, kept = training("ttrl", config | {"steps": 2}, tmp_path / "2", model)
    start, after = Plain(model), Plain(tmp_path / "1" / "weights")
    assert [len(batch) for batch in drawn] == [12, 12]
    spreads = set()
    for step, plain in enumerate((start, after)):
        loss, votes = torch.zeros((), dtype=torch.float64), list[float]()
        groups = [drawn[step][:6], drawn[step][6:]]
        tokens = sum(len(one.tokens) for group in groups for one in group[:4])
        for group in groups:
            # Answers 0 and 2 are of one class, 1 of the other, length 4 n + 3 has none; the first seen wins a tie.
            classes = [None if len(one.text) % 4 == 3 else len(one.text) % 2 for one in group]
            given = [one for one in classes if one is not None]
            winner = max(given, key=given.count) if given else -1
            rewards = [float(one == winner) for one in classes]
            votes += rewards
            deviation = statistics.stdev(rewards[:4]) + 1e-4
            spreads.add(deviation)
            for one, reward in zip(group[:4], rewards, strict=False):
                now, then = (whose.logp(prompt_of(one), one.tokens) for whose in (plain, start))
                gap = then.detach() - now
                advantage = (reward - statistics.mean(rewards[:4])) / deviation
                each = -advantage * (now - now.detach()).exp() + 0.3 * (gap.exp() - gap - 1)
                loss = loss + each.sum() / tokens
        assert events.curve("loss")[step] == pytest.approx(loss.item(), abs=5e-6)
        assert events.curve("grad_norm")[step] == pytest.approx(plain.gradient_norm(loss), rel=1e-3)
        assert events.curve("majority_ratio")[step] == pytest.approx(statistics.mean(votes))
        assert [one.reward for one in kept[12 * step : 12 * step + 12]] == votes
    assert len(spreads) > 1, "some group disagrees"
    # Those that vote alone are kept too, and said to be no part of the loss.
    assert [one.masked for one in kept] == 4 * ([False] * 4 + [True] * 2)


def test_fewer_votes_than_rollouts_to_train_on_are_refused() -> None:
    with pytest.raises(ValidationError, match="n_votes 8 is less than num_generations 16"):
        find("trainer", "ttrl").Config.model_validate({"n_votes": 8, "num_generations": 16})


@pytest.mark.slow
def test_a_group_without_any_answer_teaches_nothing(model: Path, tmp_path: Path) -> None:
    class Silent(Noise):
        def extract(self, completion: str) -> str | None:
            return None

    config = {"n_votes": 4, "num_generations": 4, "beta": 0.0, "prompts_per_step": 2}
    events, kept = training("ttrl", config, tmp_path, model, verifier=Silent())
    assert {one.reward for one in kept} == {0.0} and events.curve("grad_norm") == [0.0]
    assert weights_hash(tmp_path / "weights") == weights_hash(model)


# --------------------------------------------------------------------------- stop and resume

RESUMED: dict[str, tuple[str, dict[str, Any], LoraConfig | None]] = {
    "rloo": ("rloo", VOWELS | {"baseline": "running_mean"}, None),
    "ppo": ("ppo", VOWELS | {"num_iterations": 2}, None),
    "ppo-lora": ("ppo", VOWELS | {"num_iterations": 2, "micro_batch_size": 4}, LoraConfig(rank=2, alpha=8)),
    "ttrl": ("ttrl", {"n_votes": 6}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_stopped_and_resumed_run_ends_in_the_same_weights(model: Path, tmp_path: Path, case: str) -> None:
    kind, config, lora = RESUMED[case]
    config = {"steps": 6, "lr_scheduler": "linear"} | config
    whole, _ = training(kind, config, tmp_path / "whole", model, lora=lora, count=5)
    with pytest.raises(Interrupted):
        training_stopped(kind, config, tmp_path / "pieces", model, lora)
    events, _ = training(kind, config, tmp_path / "pieces", model, lora=lora, count=5)
    assert weights_hash(tmp_path / "pieces" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    for name in ("loss", "num_tokens", "generated_tokens"):
        assert events.curve(name)[-1] == whole.curve(name)[-1]


def training_stopped(kind: str, config: dict[str, Any], folder: Path, model: Path, lora: LoraConfig | None) -> None:
    from on_policy_tools import SMALL

    train(kind, SMALL | config, made_job(folder, model, Events(stop_after=3), lora=lora, count=5))
