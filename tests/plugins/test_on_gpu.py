"""What only a GPU shows, on one: NSD_TEST_DEVICE=cuda pytest tests/plugins/test_on_gpu.py. Elsewhere it is skipped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import models
from nsd.plugins.api import Device, LoraConfig, ModelRef, Request, Sampling
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.vllm import VllmEngine
from nsd.plugins.engines.vllm_process import find_python
from nsd.plugins.errors import InputError, StageFailed
from support import DEVICE
from training_job import Events, job, train

pytestmark = [pytest.mark.slow, pytest.mark.skipif(DEVICE == "cpu", reason="NSD_TEST_DEVICE names no GPU")]

PATH = models.resolve("builtin:wordmath-1m")
GREEDY = Sampling(1, 0.0, 32)
ROLLOUTS = {
    **{"steps": 3, "prompts_per_step": 2, "num_generations": 4, "max_tokens": 16, "learning_rate": 1e-4},
    "rewards": ["test_share_of_vowels"],
}
# What a trainer needs besides. Each learns from any text: the reward has a spread, and every rollout is a success.
TRAINERS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 1, "batch_size": 4},
    "grpo": ROLLOUTS,
    "rloo": ROLLOUTS,
    "ppo": ROLLOUTS,
    "ttrl": {name: value for name, value in ROLLOUTS.items() if name != "rewards"},
    "sdpo": {**ROLLOUTS, "success_reward_threshold": 0.0},
    "pcsd": {name: value for name, value in ROLLOUTS.items() if name != "rewards"},
}


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    dataset = Wordmath(Wordmath.Config.model_validate({"split": {"test": 200}}))
    return [Request(one.id, dataset.default_prompt.render(one)) for one in dataset.pools().train[:200]]


def texts(engine: HfEngine | VllmEngine, ref: ModelRef, requests: list[Request], sampling: Sampling) -> list[str]:
    found = [one for block in engine.generate(ref, requests, sampling, 7) for one in block]
    return [one.text for one in sorted(found, key=lambda one: (one.question_id, one.sample))]


def alike(one: list[str], other: list[str]) -> float:
    assert len(one) == len(other)
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def test_the_likeliest_texts_are_those_of_a_processor(requests: list[Request]) -> None:
    on_cpu, on_gpu, rounded = (
        texts(HfEngine(), ModelRef(PATH, dtype=dtype, device=Device(kind)), requests, GREEDY)
        for kind, dtype in (("cpu", "float32"), (DEVICE, "float32"), (DEVICE, "bfloat16"))
    )
    assert alike(on_cpu, on_gpu) >= 0.95
    assert alike(on_cpu, rounded) >= 0.6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fields", [{"static_cache": True}, {"compile": True}], ids=["static", "compiled"])
def test_the_ways_of_drawing_write_the_same_texts(requests: list[Request], fields: dict[str, bool], dtype: str) -> None:
    ref = ModelRef(PATH, dtype=dtype, device=Device(DEVICE))
    plain, other = (texts(HfEngine(HfEngine.Config(**one)), ref, requests, GREEDY) for one in ({}, fields))
    assert alike(plain, other) >= (0.95 if dtype == "float32" else 0.7)


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_learns_in_bfloat16(name: str, tmp_path: Path) -> None:
    events = Events()
    made = job(tmp_path, ModelRef(PATH, device=Device(DEVICE, "bfloat16")), events)
    made.device = Device(DEVICE, "bfloat16")
    result = train(name, TRAINERS[name], made)
    losses = events.curve("loss")
    assert len(losses) == result.steps == 3 and all(map(math.isfinite, losses))
    assert moved(tmp_path / "weights") > 1e-6


def moved(folder: Path) -> float:
    """The largest change of a weight."""
    from safetensors.torch import load_file

    before, after = (load_file(one / "model.safetensors") for one in (Path(PATH), folder))
    return max(float((before[name].float() - after[name].float()).abs().max()) for name in after)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["all", "adapter"])
def test_the_losses_are_those_of_a_processor(lora: LoraConfig | None, tmp_path: Path) -> None:
    curves = []
    for kind in ("cpu", DEVICE):
        events = Events()
        made = job(tmp_path / kind, ModelRef(PATH, device=Device(kind)), events, lora=lora, device=Device(kind))
        train("sft", TRAINERS["sft"], made)
        curves.append(events.curve("loss"))
    assert len(curves[0]) == 3 and curves[0] == pytest.approx(curves[1], rel=1e-3)


@pytest.fixture
def small_card() -> Iterator[None]:
    """torch takes no more than about 700 MB."""
    import torch

    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(7e8 / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("small_card")
def test_a_step_that_is_too_large_names_the_field(tmp_path: Path) -> None:
    here = Device(DEVICE, "bfloat16")
    made = job(tmp_path, ModelRef(PATH, device=here), Events(), count=40_000, device=here)
    with pytest.raises(StageFailed, match=r"the GPU ran out of memory.*trainer\.micro_batch_size"):
        train("sft", {"epochs": 1, "batch_size": 40_000}, made)


@pytest.mark.usefixtures("small_card")
def test_a_drawing_that_is_too_large_is_halved_until_it_fits(requests: list[Request]) -> None:
    sampling = Sampling(256, 1.0, 32)
    engine = HfEngine(HfEngine.Config(batch_size=200))
    found = texts(engine, ModelRef(PATH, device=Device(DEVICE)), requests, sampling)
    assert len(found) == 200 * 256


@pytest.fixture
def vllm() -> Iterator[None]:
    try:
        find_python()
    except InputError as error:
        pytest.skip(str(error))
    yield
    VllmEngine.end()


@pytest.mark.usefixtures("vllm")
def test_a_vllm_that_slept_gave_its_memory_back_and_answers_as_before(requests: list[Request]) -> None:
    import torch

    ref, engine = ModelRef(PATH, device=Device(DEVICE)), VllmEngine(VllmEngine.Config(memory_share=0.5))
    before = texts(engine, ref, requests, GREEDY)
    awake, _ = torch.cuda.mem_get_info()
    process = engine.running().pid
    engine.close()
    asleep, whole = torch.cuda.mem_get_info()
    assert engine.running().alive and asleep - awake > 0.3 * whole
    after = texts(engine, ref, requests, GREEDY)
    assert engine.running().pid == process
    assert alike(before, after) >= 0.95
    assert alike(after, texts(HfEngine(), ref, requests, GREEDY)) >= 0.8


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_a_training_draws_by_a_vllm_beside_it(name: str, tmp_path: Path) -> None:
    if name == "grpo":
        pytest.importorskip("vllm", reason="TRL's vLLM runs in the environment that trains")
    events, here = Events(), Device(DEVICE, "bfloat16")
    made = job(tmp_path, ModelRef(PATH, device=here), events, device=here)
    result = train(name, {**ROLLOUTS, "rollout": "vllm", "rollout_memory": 0.2}, made)
    assert result.steps == 3 and all(map(math.isfinite, events.curve("loss")))
    assert moved(tmp_path / "weights") > 1e-6
