"""What a training sets and holds is gone when it ends: the process goes on with other stages."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import ModelRef, Request, Sampling
from nsd.plugins.engines import hf
from nsd.plugins.errors import StageFailed
from nsd.plugins.trainers import _setup
from tiny_model import make_tiny_model
from training_job import Events, job, train

pytestmark = pytest.mark.slow

GRPO = {"steps": 1, "num_generations": 2, "max_tokens": 4, "rewards": ["test_share_of_vowels"]}
CONFIGS: dict[str, dict[str, Any]] = {"sft": {"epochs": 0.3}, "grpo": GRPO}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def numbers_of_this_process() -> dict[str, Any]:
    """Whatever of torch and the environment changes how numbers are computed in this process."""
    import torch

    backends = torch.backends
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (backends.cudnn.deterministic, backends.cudnn.benchmark, backends.cudnn.allow_tf32),
        "matmul": (backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
        "precision": [
            place.fp32_precision for place in (backends, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        ],
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_full_determinism_ends_with_the_training(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # somebody's own, beside variables that are not there
    before = numbers_of_this_process()
    during: list[tuple[bool, str]] = []
    events = Events()
    made = job(tmp_path, model, events)

    def report(*given: Any) -> None:
        during.append((torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))

    made.report = report
    train(kind, CONFIGS[kind] | {"trl": {"full_determinism": True}}, made)
    assert during[0] == (True, ":16:8"), "the option was in force"
    assert numbers_of_this_process() == before


def test_tf32_ends_with_the_training_even_when_it_fails() -> None:
    import torch
    from transformers.utils.import_utils import enable_tf32

    before = numbers_of_this_process()
    with pytest.raises(StageFailed), _setup.left_as_found():  # TRL's own option needs a GPU; it calls this
        enable_tf32(True)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        raise StageFailed("the loss is nan")
    assert numbers_of_this_process() == before


# --------------------------------------------------------------------------- what it held


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Weak references to what a training builds, by name."""
    found: dict[str, Any] = {}
    inner = _setup.build

    def build(*args: Any, **parts: Any) -> Any:
        trainer = inner(*args, **parts)
        found.update(trainer=weakref.ref(trainer), model=weakref.ref(trainer.model))
        found["weights"] = weakref.ref(next(trainer.model.parameters()))
        if getattr(trainer, "ref_model", None) is not None:
            found["reference"] = weakref.ref(trainer.ref_model)
        create, loader = trainer.create_optimizer, trainer.get_train_dataloader

        def optimizer(*given: Any, **more: Any) -> Any:
            made = create(*given, **more)
            found["optimizer"] = weakref.ref(made)
            return made

        def dataloader(*given: Any, **more: Any) -> Any:
            made = loader(*given, **more)
            found["data"] = weakref.ref(made)
            return made

        trainer.create_optimizer, trainer.get_train_dataloader = optimizer, dataloader
        return trainer

    monkeypatch.setattr(_setup, "build", build)
    yield found


def alive(held: dict[str, Any]) -> list[str]:
    gc.collect()
    return [name for name, reference in held.items() if reference() is not None]


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_of_a_training_outlives_it(kind: str, model: Path, tmp_path: Path, held: dict[str, Any]) -> None:
    train(kind, CONFIGS[kind], job(tmp_path, model, Events()))
    expected = {"trainer", "model", "weights", "optimizer", "data"} | ({"reference"} if kind == "grpo" else set())
    assert set(held) == expected
    assert alive(held) == []


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_refers_to_a_training_any_more_when_its_memory_is_given_back(
    kind: str, model: Path, tmp_path: Path, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[list[str]] = []
    monkeypatch.setattr(_setup, "free_memory", lambda: looks.append(alive(held)))
    train(kind, CONFIGS[kind], job(tmp_path, model, Events()))
    assert "optimizer" in held and looks == [[], []], "before it, where there was none, and after it"


def test_nothing_of_a_failed_training_outlives_its_error(model: Path, tmp_path: Path, held: dict[str, Any]) -> None:
    made = job(tmp_path, model, Events())

    def report(*given: Any) -> None:
        raise StageFailed("the disk is full")

    made.report = report
    with pytest.raises(StageFailed):
        train("sft", CONFIGS["sft"], made)
    assert "optimizer" in held and alive(held) == []


def test_a_closed_engine_holds_no_model_though_a_drawing_was_left_in_the_middle(model: Path) -> None:
    engine = hf.HfEngine(hf.HfEngine.Config(device="cpu", batch_size=1))
    drawing = engine.generate(ModelRef(str(model)), [Request("a", "A"), Request("b", "B")], Sampling(1, 1.0, 3), 1)
    next(drawing)
    assert hf._last is not None
    held = {
        "model": weakref.ref(hf._last.loaded.model),
        "weights": weakref.ref(next(hf._last.loaded.model.parameters())),
    }
    assert alive(held) == ["model", "weights"]
    drawing.close()  # type: ignore[attr-defined]  # it is a generator
    engine.close()
    assert [name for name, reference in held.items() if reference() is not None] == [], "close() collects by itself"
