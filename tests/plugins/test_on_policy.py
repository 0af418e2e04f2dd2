"""What the on-policy trainers share: their first rollouts, the streams of these, what is kept, what is refused."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from nsd.plugins.api import KeptRollout, LoraConfig, ModelRef, PluginConfig, Prompt, Reward, Rollout, Sampling
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.models import load_model
from nsd.plugins.registry import find, plugin
from nsd.plugins.trainers._rollouts import Asked, Drawer
from on_policy_tools import SMALL, Plain, training
from several_processes import finish, log_of, start, write_job
from thinned import thinned
from tiny_model import make_tiny_model
from training_job import weights_hash

KINDS = ("grpo", "rloo", "ppo", "ttrl", "sdpo", "pcsd")
ON_THE_LOOP = KINDS[1:]
LORA = LoraConfig(rank=2, alpha=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def told(kept: Sequence[KeptRollout]) -> list[tuple[int, str, int, str, int]]:
    return [(one.step, one.question_id, one.sample, one.text, one.tokens) for one in kept]


# --------------------------------------------------------------------------- the same first rollouts


@pytest.mark.slow
@pytest.mark.parametrize("lora", thinned([None, LORA]), ids=["full", "lora"])
def test_all_trainers_draw_the_same_first_rollouts(model: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    found = {}
    for kind in KINDS:
        votes = {"n_votes": 4} if kind == "ttrl" else {}
        _, kept = training(kind, votes, tmp_path / kind, model, lora=lora)
        found[kind] = told(kept)
    assert len(set(found["rloo"])) == 8
    assert all(found[kind] == found["grpo"] for kind in KINDS)


@pytest.mark.slow
def test_more_votes_leave_the_first_rollouts_as_they_are(model: Path, tmp_path: Path) -> None:
    _, few = training("rloo", {}, tmp_path / "few", model)
    _, many = training("ttrl", {"n_votes": 7}, tmp_path / "many", model)
    assert told([one for one in many if one.sample < 4]) == told(few)


# --------------------------------------------------------------------------- streams


@pytest.fixture(scope="module")
def drawer(model: Path) -> Drawer:
    loaded, tokenizer = load_model(ModelRef(str(model)), device="cpu")
    return Drawer(loaded, tokenizer, Prompt(template="{question}"), Sampling(2, 1.0, 24), seed=5)


def asked(text: str, sample: int = 0) -> Asked:
    return Asked(0, sample, text, [3 + ord(letter) % 200 for letter in text])


def test_a_rollout_does_not_depend_on_its_neighbours(drawer: Drawer) -> None:
    wanted = [asked("what is it?"), asked("what is it?", 1)]
    alone = drawer.draw(wanted, 3)
    others = [asked("and a much longer question than that, is it?", place) for place in range(5)]
    among = drawer.draw([*others, *wanted, asked("x")], 3)[5:7]
    assert [one.text for one in alone] == [one.text for one in among]
    assert alone[0].text != alone[1].text, "samples differ"


def test_a_rollout_depends_on_seed_question_and_step(drawer: Drawer) -> None:
    one = drawer.draw([asked("what is it?")], 3)[0].tokens
    assert drawer.draw([asked("what is it?")], 3)[0].tokens == one
    assert drawer.draw([asked("what is it?")], 4)[0].tokens != one
    same = asked("what is it?")
    assert drawer.draw([Asked(0, 0, "another id", same.ids)], 3)[0].tokens != one
    other = Drawer(drawer.loaded.model, drawer.loaded.tokenizer, Prompt(template="{question}"), drawer.sampling, 6)
    assert other.draw([same], 3)[0].tokens != one


def test_drawing_leaves_the_model_in_the_mode_it_was_in(drawer: Drawer) -> None:
    drawer.loaded.model.train()
    drawer.draw([asked("x")], 0)
    assert drawer.loaded.model.training
    drawer.loaded.model.eval()


# --------------------------------------------------------------------------- grpo: nsd's loop and TRL's


@plugin("reward", "test_first_tokens")
class FirstTokens(Reward):
    """Counts the first tokens of the rollouts it sees; a reward of 1 for all, so that nothing is learned."""

    class Config(PluginConfig):
        weight: float = 1.0

    seen: ClassVar[Counter[int]] = Counter()

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        self.seen.update(rollout.tokens[0] for rollout in rollouts)
        return [1.0] * len(rollouts)


@pytest.mark.slow
def test_grpo_draws_from_the_same_distribution_by_either_loop(model: Path, tmp_path: Path) -> None:
    # Both beside the exact distribution, and beside one another. Seeds are fixed: no test of chance.
    import torch
    from scipy.stats import chi2_contingency, chisquare

    counts = []
    for rollout in ("hf", "trl"):
        FirstTokens.seen.clear()
        config = {"rollout": rollout, "num_generations": 256, "prompts_per_step": 1, "steps": 4, "max_tokens": 1}
        config |= {"rewards": ["test_first_tokens"], "beta": 0.0, "temperature": 0.7, "top_p": 1.0}
        training("grpo", config, tmp_path / rollout, model, count=1)
        assert weights_hash(tmp_path / rollout / "weights") == weights_hash(model), "one distribution throughout"
        counts.append(Counter(FirstTokens.seen))
    with torch.no_grad():
        exact = Plain(model, 0.7).logits("Add: 0+0?", [3]).softmax(-1)[0].numpy()
    common = [token for token in range(len(exact)) if exact[token] * 1024 > 8]
    assert len(common) > 8

    def binned(values: Any) -> list[float]:
        chosen = [float(values[token]) for token in common]
        whole = sum(values.values()) if isinstance(values, Counter) else 1.0
        return [*chosen, whole - sum(chosen)]

    expected = [1024 * value for value in binned(exact)]
    for some in counts:
        assert sum(some.values()) == 1024
        assert chisquare(binned(some), expected).pvalue > 0.01
    assert chi2_contingency([binned(some) for some in counts]).pvalue > 0.01
    wrong = [1024 * value for value in binned(Plain(model, 1.0).logits("Add: 0+0?", [3]).softmax(-1)[0].detach())]
    assert chisquare(binned(counts[0]), wrong).pvalue < 1e-6, "another temperature would be seen"


def test_grpo_with_spread_weights_is_shown_the_way_out() -> None:
    grpo: Any = find("trainer", "grpo")
    reason = grpo(grpo.Config.model_validate({"fsdp": True})).unfit(2, False)
    assert reason is not None and "set trainer.rollout: trl" in reason
    assert grpo(grpo.Config.model_validate({"fsdp": True, "rollout": "trl"})).unfit(2, False) is None


@pytest.mark.parametrize("kind", ON_THE_LOOP)
def test_fsdp_is_not_to_be_had(kind: str) -> None:
    trainer: Any = find("trainer", kind)
    reason = trainer(trainer.Config.model_validate({"fsdp": True})).unfit(2, False)
    assert reason is not None and reason.startswith(f"trainer.fsdp does not go with {kind}")
    assert trainer(trainer.Config.model_validate({})).unfit(2, True) is None


# --------------------------------------------------------------------------- what the plan asks, what is refused


def test_processes_share_whole_groups() -> None:
    sdpo: Any = find("trainer", "sdpo")
    made = sdpo(sdpo.Config.model_validate({"prompts_per_step": 2, "num_generations": 4}))
    assert made.rows_per_step() == 8 and made.shares(2) and not made.shares(4) and not made.shares(3)


@pytest.mark.parametrize("kind", ON_THE_LOOP)
@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"save_every": 3, "num_iterations": 2, "steps_per_generation": 1}, "save_every 3 is no multiple of"),
        ({"prompts_per_step": 1, "num_generations": 4, "micro_batch_size": 3}, "micro_batch_size 3 does not divide"),
        ({"temperature": 0}, "greater than 0"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "warmup_steps or warmup_ratio"),
        ({"not_a_field": 3}, "Extra inputs"),
    ],
)
def test_a_bad_block_is_refused(kind: str, block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        find("trainer", kind).Config.model_validate(block)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ON_THE_LOOP)
def test_a_prompt_that_leaves_no_room_is_an_error(tmp_path: Path, kind: str) -> None:
    short = make_tiny_model(tmp_path / "short", max_position_embeddings=8)
    with pytest.raises(StageFailed, match="has 9 tokens, and the model's context 8: no room for a completion"):
        training(kind, {"n_votes": 4} if kind == "ttrl" else {}, tmp_path / "job", short, count=2)


def test_too_few_questions_and_a_budget_in_texts_are_errors(model: Path, tmp_path: Path) -> None:
    from nsd.plugins.api import Budget

    with pytest.raises(StageFailed, match="1 questions are fewer than the 2 of one sampled batch"):
        training("pcsd", {}, tmp_path, model, count=1)
    with pytest.raises(InputError, match="match: tokens does not go with sdpo"):
        training("sdpo", {}, tmp_path, model, budget=Budget(tokens=100))


# --------------------------------------------------------------------------- any model


def test_a_model_that_counts_places_itself_is_seen_without_padding(tmp_path: Path) -> None:
    # GPT-2 has an embedding for each place: a prompt that is padded on the left must not be seen from a later one.
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from nsd.plugins.trainers import _loop

    torch.manual_seed(0)
    made = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_positions=64, n_embd=32, n_layer=1, n_head=2)).eval()
    ids, attention, mask = _loop.padded([[5, 6, 7, 8], [9]], [[10, 11], [12, 13]], 0, "cpu")
    seen = _loop.forward(_loop.prepared(made, 1.0), ids, attention, mask.shape[1], True)
    hidden = _loop.forward(made, ids, attention, mask.shape[1], False).hidden
    alone = GPT2LMHeadModel(made.config).eval()
    alone.load_state_dict(made.state_dict())
    for row, (before, after) in enumerate((([5, 6, 7, 8], [10, 11]), ([9], [12, 13]))):
        output = alone(torch.tensor([[*before, *after]]), output_hidden_states=True)
        logp = output.logits[0, len(before) - 1 : -1].log_softmax(-1)
        expected = [logp[place, token].item() for place, token in enumerate(after)]
        assert seen.logp[row].tolist() == pytest.approx(expected, abs=1e-5)
        entropy = -(logp.exp() * logp).sum(-1)
        assert seen.entropy[row].tolist() == pytest.approx(entropy.tolist(), abs=1e-5)
        for found in (hidden, seen.hidden):
            assert torch.allclose(found[row], output.hidden_states[-1][0, len(before) - 1 : -1], atol=1e-5)


@pytest.mark.slow
def test_a_dropout_of_the_adapter_is_off_where_nothing_is_learned(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nsd.plugins.trainers import _loop

    modes: list[tuple[bool, bool]] = []
    inner = _loop.forward

    def forward(given: Any, *args: Any) -> Any:
        import torch

        modes.append((torch.is_grad_enabled(), given.training))
        return inner(given, *args)

    monkeypatch.setattr(_loop, "forward", forward)
    for kind in ON_THE_LOOP:
        modes.clear()
        training(kind, {"n_votes": 4} if kind == "ttrl" else {}, tmp_path / kind, model, lora=LORA)
        assert (True, True) in modes and (False, False) in modes
        assert all(learning == training_mode for learning, training_mode in modes), kind


# --------------------------------------------------------------------------- processes of their own

PROCESSES: dict[str, dict[str, Any]] = {
    "sdpo": {"rewards": ["test_share_of_vowels"], "success_reward_threshold": 0.0},
    "pcsd": {},
    "rloo": {"rewards": ["test_share_of_vowels"], "beta": 0.2, "baseline": "running_mean"},
    "ppo": {"rewards": ["test_share_of_vowels"], "num_iterations": 2},
    "ttrl": {"n_votes": 6},
}
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tied"), [("sdpo", True), ("pcsd", False), ("rloo", True), ("ppo", False)])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, kind: str, tied: bool) -> None:
    model = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    config = SMALL | {"steps": 3, "learning_rate": 1e-4} | PROCESSES[kind]
    for name, processes in (("one", 1), ("two", 2)):
        finish(write_job(tmp_path / name, model, kind, config), processes)
    curves = [[line for line in log_of(tmp_path / name) if "loss" in line] for name in ("one", "two")]
    assert len(curves[0]) == 3
    if kind == "sdpo":
        share = "self_distillation/reprompt_sample_fraction"
        assert any(0 < line[share] < 1 for line in curves[0]), "the processes hold unequally many rows that count"
    for metric in ("loss", "grad_norm", "num_tokens", "generated_tokens", "completions/mean_length"):
        alone, shared = ([line[metric] for line in curve if metric in line] for curve in curves)
        assert alone and shared == pytest.approx(alone, rel=2e-3, abs=1e-6), metric
    assert [line for line in log_of(tmp_path / "two", rank=1) if "loss" in line] == []


@pytest.mark.slow
@needs_kill
@pytest.mark.parametrize("kind", ["sdpo", "pcsd", "ttrl", "ppo"])
def test_killed_at_any_moment_ends_in_the_same_weights(model: Path, tmp_path: Path, kind: str) -> None:
    import json
    import random

    config = SMALL | {"steps": 16, "save_every": 2, "lr_scheduler": "linear"} | PROCESSES[kind]
    finish(write_job(tmp_path / "whole", model, kind, config, count=5))
    path = write_job(tmp_path / "killed", model, kind, config, count=5)
    told, chance = json.loads(path.read_text()), random.Random(kind)
    for moment in ("report", "file", "report"):
        after = chance.randint(3, 5) if moment == "report" else chance.randint(2, 40)
        path.write_text(json.dumps(told | {"die": {"at": moment, "after": after}}))
        done = start(path, 1)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    path.write_text(json.dumps(told))
    finish(path)
    assert weights_hash(tmp_path / "killed" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    [end] = [line for line in log_of(tmp_path / "killed") if "result" in line]
    assert end["notes"]["resumed_from"] is not None
    loss = {line["step"]: line["loss"] for line in log_of(tmp_path / "whole") if "loss" in line}
    assert all(line["loss"] == loss[line["step"]] for line in log_of(tmp_path / "killed") if "loss" in line)
