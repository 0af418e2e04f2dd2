"""GRPO's rollouts by TRL's vLLM: the arguments that TRL gets, and what is found out about the weights that answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from nsd.plugins.api import ModelRef
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.models import EMBEDDED, load_model
from nsd.plugins.registry import find
from nsd.plugins.trainers import _setup, _vllm_trl
from nsd.plugins.trainers._rollout_config import NOT_EXACT
from nsd.plugins.trainers._vllm_rollouts import Place, longest_prompt, options_of
from tiny_model import make_tiny_model
from training_job import Events, job, train

MODEL = EMBEDDED / "wordmath-1m"


class Built(Exception):
    """Stops a training when everything for it has been made."""


def arguments(block: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, gib: float | None) -> Any:
    """The GRPOConfig that a block gives on a card of so much memory, with what else the trainer is made of."""
    found: dict[str, Any] = {}

    def build(_: Any, **given: Any) -> Any:
        found.update(given)
        raise Built

    monkeypatch.setattr(_setup, "build", build)
    monkeypatch.setattr(Place, "of", classmethod(lambda cls, device: Place("cuda", 0, gib)))
    with pytest.raises(Built):
        train("grpo", {"max_tokens": 50, **block}, job(folder, ModelRef(str(MODEL)), Events()))
    return found["args"], found["processing_class"], found["model"]


@pytest.mark.parametrize(("gib", "sleeps"), [(22.5, True), (45.0, True), (79.6, False)])
def test_what_trl_is_told_of_a_vllm_beside_the_training(
    gib: float, sleeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, tokenizer, model = arguments({"rollout": "vllm", "rollout_memory": 0.4}, tmp_path, monkeypatch, gib)
    assert (args.use_vllm, args.vllm_mode, args.vllm_gpu_memory_utilization) == (True, "colocate", 0.4)
    longest = longest_prompt(job(tmp_path, ModelRef(str(MODEL)), Events()), tokenizer)
    assert args.vllm_max_model_length % 64 == 0
    assert longest + 50 <= args.vllm_max_model_length < longest + 50 + 64
    assert args.vllm_enable_sleep_mode is sleeps
    listed = model.generation_config.eos_token_id
    assert args.generation_kwargs == {"stop_token_ids": listed if isinstance(listed, list) else [listed]}


def test_what_trl_is_told_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args, *_ = arguments({"rollout": "vllm://10.0.0.7:8001"}, tmp_path, monkeypatch, 22.5)
    assert (args.use_vllm, args.vllm_mode, args.vllm_server_base_url) == (True, "server", "http://10.0.0.7:8001")
    assert args.vllm_max_model_length is None and not args.vllm_enable_sleep_mode


def test_trl_has_its_own_word_on_length_and_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"vllm_max_model_length": 999, "vllm_enable_sleep_mode": False, "generation_kwargs": {"min_tokens": 2}}
    args, *_ = arguments({"rollout": "vllm", "trl": own}, tmp_path, monkeypatch, 22.5)
    assert (args.vllm_max_model_length, args.vllm_enable_sleep_mode) == (999, False)
    assert args.generation_kwargs.keys() == {"stop_token_ids", "min_tokens"}


def test_without_the_field_trl_hears_nothing_of_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args, *_ = arguments({}, tmp_path, monkeypatch, 22.5)
    assert not args.use_vllm and args.generation_kwargs is None and args.vllm_max_model_length is None


@pytest.mark.parametrize("field", ["use_vllm", "vllm_mode", "vllm_server_host", "vllm_gpu_memory_utilization"])
def test_fields_of_trl_that_nsd_sets_name_the_field_to_use(field: str) -> None:
    with pytest.raises(ValidationError, match=r"use trainer\.rollout"):
        find("trainer", "grpo").Config(trl={field: 1})


@pytest.mark.parametrize(
    ("device", "version", "said"),
    [
        ("cpu", "0.30.0", "on GPUs alone"),
        ("cuda", None, r"none is here: .*pip install 'vllm>=0\.22\.0,<=0\.31\.0'"),
        ("cuda", "0.33.0", r"vLLM 0\.33\.0 is here, and TRL goes with 0\.22\.0 to 0\.31\.0"),
        ("cuda", "0.30.0", None),
    ],
)
def test_grpo_asks_for_a_vllm_of_trls_range_before_a_run(
    device: str, version: str | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsd.plugins.engines.vllm_versions.version_in", lambda python: version)
    config = find("trainer", "grpo").Config
    find("trainer", "grpo")(config()).ready(device)
    asked = find("trainer", "grpo")(config(rollout="vllm"))
    if said is None:
        asked.ready(device)
    else:
        with pytest.raises(InputError, match=said):
            asked.ready(device)


def test_beside_a_training_vllm_has_its_share_and_sleeps_on_a_small_card(tmp_path: Path) -> None:
    made = job(tmp_path, ModelRef(str(MODEL)), Events())
    small, large, cpu = (
        options_of(made, place, 320, 0.3) for place in (Place("cuda", 0, 22.5), Place("cuda", 1, 79.6), Place("cpu"))
    )
    assert (small["gpu_memory_utilization"], small["enable_sleep_mode"], small["max_model_len"]) == (0.3, True, 320)
    assert not large["enable_sleep_mode"] and "gpu_memory_utilization" not in cpu and cpu["enforce_eager"]


class ToyTrainer:
    """A trainer of TRL's as far as the hand-over of weights goes: `held` is what its vLLM has in memory."""

    def __init__(self, folder: Path, stale_from: int) -> None:
        self.model, _ = load_model(ModelRef(str(folder)), trainable=True)
        held, _ = load_model(ModelRef(str(folder)))
        self.state = SimpleNamespace(global_step=0)
        self.args = SimpleNamespace(use_vllm=True, vllm_mode="colocate", fsdp=[], vllm_tensor_parallel_size=1)
        self.accelerator = SimpleNamespace(unwrap_model=lambda model: model, is_main_process=True)
        worker = SimpleNamespace(model_runner=SimpleNamespace(get_model=lambda: held))
        engine = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=worker), model_config=SimpleNamespace(dtype=torch.float32)
        )

        def sync_weights() -> None:
            if self.state.global_step < stale_from:
                held.load_state_dict(self.model.state_dict())

        self.vllm_generation = SimpleNamespace(
            mode="colocate", llm=SimpleNamespace(llm_engine=engine), sync_weights=sync_weights
        )

    def learn(self, size: float) -> None:
        """A step that moves every weight by so much."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(size * torch.sign(torch.randn(parameter.shape)))
        self.state.global_step += 1


@pytest.mark.parametrize("size", [1e-2, 1e-6])
def test_a_hand_over_that_did_nothing_ends_the_training(size: float, tmp_path: Path) -> None:
    events = Events()
    toy = ToyTrainer(make_tiny_model(tmp_path / "model"), stale_from=2)
    watch = _vllm_trl.watch(toy, job(tmp_path, MODEL, events))
    assert watch is not None
    toy.vllm_generation.sync_weights()
    toy.learn(size)
    toy.vllm_generation.sync_weights()
    told = watch.notes()["rollouts_by"]
    assert (told["handovers"], told["checked"], told["resume_exact"]) == (2, 2, False)
    toy.learn(size)
    with pytest.raises(StageFailed, match="does not answer by the weights that it was handed before step 3"):
        toy.vllm_generation.sync_weights()
    assert [text for text, _ in events.warnings] == [NOT_EXACT]
