"""Full fine-tuning spread over processes by FSDP 2: on processors (gloo), with torch's own `fully_shard`.

Nothing here ran on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import training_job
from nsd.plugins.api import LoraConfig
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers import _setup, _sharding
from nsd.plugins.trainers._options import TrlTrainerConfig
from nsd.plugins.trainers.grpo import Grpo
from nsd.plugins.trainers.sft import Sft
from several_processes import GRPO, SFT, finish, log_of, start, write_job
from tiny_model import make_tiny_model
from training_job import weights_hash

CONFIGS: dict[str, dict[str, Any]] = {"sft": SFT | {"epochs": 2}, "grpo": GRPO | {"steps": 6, "rollout": "trl"}}
SPREAD = {
    "sft": CONFIGS["sft"] | {"fsdp": True, "gradient_checkpointing": True},
    "grpo": CONFIGS["grpo"] | {"fsdp": True},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def spread(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted spread training of a kind, in two processes."""

    @cache
    def trained(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("spread") / kind
        finish(write_job(folder, model, kind, SPREAD[kind], count=12), processes=2)
        return folder

    return trained


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log_of(folder) if "loss" in line]


def notes(folder: Path, rank: int = 0) -> dict[str, Any]:
    [found] = [line["notes"] for line in log_of(folder, rank) if "notes" in line]
    return dict(found)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "weights" / "model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_spread_training_learns_the_same_and_is_saved_as_one_process_saves_it(
    kind: str, model: Path, spread: Callable[[str], Path], tmp_path: Path
) -> None:
    """Beside one process (SFT), and beside two that hold everything (GRPO, whose rollouts differ with their number)."""
    folder, whole = spread(kind), tmp_path / "whole"
    finish(write_job(whole, model, kind, CONFIGS[kind], count=12), processes=1 if kind == "sft" else 2)
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-4, abs=1e-6)
    ours, theirs = weights(folder), weights(whole)
    assert set(ours) == set(theirs)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) < 1e-4
    assert all(ours[name].dtype == theirs[name].dtype for name in theirs)
    files = [sorted(path.name for path in (place / "weights").iterdir()) for place in (folder, whole)]
    assert files[0] == files[1]


@pytest.mark.slow
def test_each_process_holds_its_share_of_the_weights(spread: Callable[[str], Path]) -> None:
    found = [notes(spread("sft"), rank) for rank in (0, 1)]
    assert [one["processes"] for one in found] == [2, 2]
    assert sum(one["parameters_here"] for one in found) == found[0]["parameters"]
    assert found[0]["parameters_here"] == pytest.approx(found[0]["parameters"] / 2, rel=0.01), "rows are not cut"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_spread_training_resumes_exactly(
    kind: str, model: Path, spread: Callable[[str], Path], tmp_path: Path
) -> None:
    stopped = write_job(tmp_path / "stopped", model, kind, SPREAD[kind], count=12, stop_after=3)
    assert start(stopped, 2).returncode != 0
    stopped.write_text(json.dumps(json.loads(stopped.read_text()) | {"stop_after": None}))
    finish(stopped, processes=2)
    assert notes(stopped.parent)["resumed_from"] in (3, 4)
    assert weights_hash(stopped.parent / "weights") == weights_hash(spread(kind) / "weights")


# --------------------------------------------------------------------------- what is refused


def test_weights_that_are_not_spread_are_an_error() -> None:
    import torch

    with pytest.raises(StageFailed, match=r"2 weights are not spread over the processes \(such as weight\)"):
        _sharding.check(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=1)], ids=["one process", "with an adapter"])
def test_what_cannot_be_spread_is_refused_by_the_trainer_too(lora: LoraConfig | None, tmp_path: Path) -> None:
    made = training_job.job(tmp_path, tmp_path, training_job.Events(), lora=lora)
    said = r"more GPUs, or on processors resources\.processes: 2" if lora is None else r"does not go with model\.lora"
    with pytest.raises(InputError, match=said):
        training_job.train("sft", {"fsdp": True}, made)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_deepspeed_in_the_environment_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(InputError, match=f"{name} asks for .*not tested with nsd: unset it"):
        training_job.train("sft", {}, training_job.job(tmp_path, tmp_path, training_job.Events()))


def test_fsdp_in_the_environment_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"ACCELERATE_USE_FSDP asks for FSDP, and the spec does not: unset it, or set"):
        training_job.train("sft", {}, training_job.job(tmp_path, tmp_path, training_job.Events()))


def test_a_reward_that_asks_the_model_again_is_refused() -> None:
    block = {"fsdp": True, "rollout": "trl", "rewards": ["correct", "self_certainty"]}
    config = Grpo.Config.model_validate(block)
    assert "does not go with the reward 'self_certainty'" in (Grpo(config).unfit(2, lora=False) or "")
    assert Grpo(config.model_copy(update={"rewards": [{"use": "correct"}]})).unfit(2, lora=False) is None


def test_the_decode_loop_does_not_draw_from_spread_weights() -> None:
    config = Grpo.Config.model_validate({"fsdp": True, "rewards": ["correct"]})
    assert "set trainer.rollout: trl" in (Grpo(config).unfit(2, lora=False) or "")


@pytest.mark.parametrize(
    ("field", "way"), [("deepspeed", "not tested"), ("fsdp", "trainer.fsdp"), ("fsdp_config", "trainer.fsdp")]
)
def test_trls_own_fields_for_it_are_refused(field: str, way: str) -> None:
    with pytest.raises(ValueError, match=rf"nsd sets '{field}' itself: .*{way}"):
        Sft.Config.model_validate({"trl": {field: "x"}})


def test_what_trl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_setup, "world_size", lambda: 2)
    monkeypatch.setattr(_setup, "_join", lambda timeout: None)
    config = TrlTrainerConfig(learning_rate=1e-3, fsdp=True, gradient_checkpointing=True)
    made = training_job.job(tmp_path, tmp_path, training_job.Events())
    with _setup.left_as_found():
        fields = _setup.arguments(dict, made, config, {})
    assert fields["fsdp"] is True and fields["fsdp_config"]["version"] == 2
    assert (fields["activation_checkpointing"], fields["fsdp_config"]["activation_checkpointing"]) == (False, True)
