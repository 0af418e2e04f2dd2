"""Rollouts of a training by a real vLLM beside it, where there is one (see test_vllm.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import models
from nsd.plugins.api import Device, ModelRef, Sampling
from nsd.plugins.engines.vllm_process import find_python
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.plugins.trainers._rollout_config import NOT_EXACT
from nsd.plugins.trainers._rollouts import Asked, Drawer
from nsd.plugins.trainers._vllm_rollouts import VllmDrawer
from nsd.plugins.trainers._vllm_server import side
from support import DEVICE
from training_job import Events, job, train

pytestmark = pytest.mark.slow

MODEL = ModelRef(models.resolve("builtin:wordmath-1m"), device=Device(DEVICE))
LIKELIEST = Sampling(2, 1.0, 24, top_k=1)  # then both loops write the same text, but for ties


@pytest.fixture(scope="module", autouse=True)
def there() -> None:
    try:
        find_python()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def drawers(tmp_path: Path) -> Iterator[tuple[Any, Drawer, VllmDrawer]]:
    import torch

    made = job(tmp_path, MODEL, Events())
    model, tokenizer = models.load_model(MODEL, trainable=True)
    own = Drawer(model, tokenizer, made.prompt, LIKELIEST, 13)
    config = find("trainer", "rloo").Config(rollout="vllm")
    other = VllmDrawer(model, tokenizer, made, LIKELIEST, 13, config, torch.device(DEVICE))
    yield model, own, other
    other.end()


def test_every_step_is_answered_by_the_weights_of_that_step(drawers: tuple[Any, Drawer, VllmDrawer]) -> None:
    """By a change of all weights, and by one as small as a step of reinforcement learning."""
    import torch

    model, own, other = drawers
    texts = ["Tom has 3 apples.", "Ann buys 12 pens and gives 5 away.", "Add: 3 + 4", "Six and 7"]
    asked = [
        Asked(row, sample, f"q{row}", own.loaded.tokenizer(text)["input_ids"])
        for row, text in enumerate(texts * 4)
        for sample in range(2)
    ]
    found, prints = [], []
    for step, size in enumerate([0.0, 0.3, 1e-6]):
        draws = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draws) * parameter.std() * size)
        expected, drawn = own.draw(asked, step), other.draw(asked, step)
        alike = sum(a.tokens == b.tokens and a.text == b.text for a, b in zip(expected, drawn, strict=True))
        assert alike >= 0.9 * len(asked)
        assert [one.asked for one in drawn] == asked
        found.append([one.text for one in drawn])
        told = other.notes()["rollouts_by"]
        prints.append(told["weights"])
    assert sum(a == b for a, b in zip(*found[:2], strict=True)) < 0.5 * len(asked)
    assert side().apart(*prints[:2]) > 1e-4 and 1e-12 < side().apart(*prints[1:]) < 1e-6
    assert (told["handovers"], told["processes"]) == (3, 1)


def test_a_training_hands_over_the_weights_of_its_last_step(tmp_path: Path) -> None:
    import torch

    block = {
        **{"rollout": "vllm", "steps": 3, "save_every": 1, "prompts_per_step": 2, "num_generations": 4},
        **{"max_tokens": 16, "learning_rate": 1e-3, "rewards": ["test_share_of_vowels"]},
    }
    events = Events()
    result = train("rloo", block, job(tmp_path, MODEL, events))
    told = result.notes["rollouts_by"]
    assert (told["handovers"], told["where"], told["resume_exact"]) == (3, "beside", False)
    (before,) = (tmp_path / "checkpoints").glob("checkpoint-2")
    near, far = (
        side().apart(side().print_of(folder, torch.float32), told["weights"]) for folder in (before, Path(MODEL.path))
    )
    assert near < 1e-7 and far > 100 * near
    assert [text for text, field in events.warnings if field == "trainer.rollout"] == [NOT_EXACT]
