"""The type of the weights in training and the type of sampling: which is held, which is saved, which is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Device, LoraConfig, ModelRef
from nsd.plugins.models import load_model, own_type, type_held
from nsd.plugins.trainers import _setup
from tiny_model import make_tiny_model
from training_job import Events, job, train

SFT = {"batch_size": 4, "epochs": 0.3, "learning_rate": 1e-6}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16."""
    first = make_tiny_model(tmp_path_factory.mktemp("first"))
    model, tokenizer = load_model(ModelRef(str(first), dtype="bfloat16"), device="cpu")
    folder = tmp_path_factory.mktemp("half")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stored(folder: Path) -> dict[str, Any]:
    """The tensors of a folder by name."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def types(folder: Path) -> set[str]:
    return {str(tensor.dtype).removeprefix("torch.") for tensor in stored(folder).values()}


def moved(before: Path, after: Path) -> float:
    """The share of the weights that a training moved."""
    old, new = stored(before), stored(after)
    differing = sum(int((old[name].float() != new[name].float()).sum()) for name in old)
    return differing / sum(tensor.numel() for tensor in old.values())


# --------------------------------------------------------------------------- which type is held


@pytest.mark.parametrize(
    ("dtype", "train_dtype", "kind", "drawing", "training"),
    [
        ("auto", None, "cuda", "bfloat16", "bfloat16"),
        ("auto", "float32", "cuda", "bfloat16", "float32"),
        ("auto", None, "cpu", "float32", "float32"),
        ("bfloat16", None, "cpu", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "cpu", "bfloat16", "float32"),
        ("float32", "bfloat16", "cuda", "float32", "bfloat16"),
    ],
)
def test_training_and_sampling_hold_the_types_of_their_own(
    half: Path, dtype: str, train_dtype: str | None, kind: str, drawing: str, training: str
) -> None:
    ref = ModelRef(str(half), dtype=dtype, train_dtype=train_dtype)
    assert (type_held(ref, kind, trainable=False), type_held(ref, kind, trainable=True)) == (drawing, training)


def test_a_device_without_units_for_it_replaces_either(half: Path) -> None:
    ref = ModelRef(str(half), dtype="bfloat16", train_dtype="bfloat16", device=Device("cuda", "float16"))
    assert (type_held(ref, "cuda", trainable=False), type_held(ref, "cuda", trainable=True)) == ("float16", "float32")
    own = ModelRef(str(half), device=Device("cuda", "float16"))
    assert type_held(own, "cuda", trainable=False) == "float16", "auto is the checkpoint's type, which it lacks too"


def test_a_checkpoint_that_names_no_type_is_taken_as_its_files_are(half: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(half, tmp_path / "silent"))
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    assert own_type(ModelRef(str(folder))) is None
    assert type_held(ModelRef(str(folder)), "cuda", trainable=False) == "auto"


def test_models_are_loaded_in_the_type_held(half: Path) -> None:
    import torch

    ref = ModelRef(str(half), dtype="bfloat16", train_dtype="float32")
    assert load_model(ref, device="cpu")[0].dtype == torch.bfloat16
    assert load_model(ref, device="cpu", trainable=True)[0].dtype == torch.float32


# --------------------------------------------------------------------------- what is saved


@pytest.mark.slow
def test_master_weights_in_float32_keep_the_updates_that_bfloat16_swallows(half: Path, tmp_path: Path) -> None:
    shares = {}
    for name, train_dtype in (("as sampled", None), ("float32", "float32")):
        events = Events()
        start = ModelRef(str(half), dtype="bfloat16", train_dtype=train_dtype)
        train("sft", SFT, job(tmp_path / name, start, events))
        shares[name] = moved(half, tmp_path / name / "weights")
        assert [field for _, field in events.warnings] == (["model.train_dtype"] if train_dtype is None else [])
    assert shares["as sampled"] < 0.2 < 0.9 < shares["float32"]


@pytest.mark.slow
def test_trained_weights_are_saved_as_trained_and_sampled_in_the_starts_type(half: Path, tmp_path: Path) -> None:
    import torch

    start = ModelRef(str(half), dtype="auto", train_dtype="float32")
    result = train("sft", SFT, job(tmp_path, start, Events()))
    weights = tmp_path / "weights"
    assert (types(weights), result.notes["dtype"]) == ({"float32"}, "float32")
    trained = ModelRef(str(weights))
    assert type_held(trained, "cuda", trainable=False) == "bfloat16" == type_held(ModelRef(str(half)), "cuda", False)
    again, _ = load_model(ModelRef(str(weights), train_dtype="float32"), device="cpu", trainable=True)
    saved = stored(weights)
    for name, tensor in again.state_dict().items():
        if name in saved:
            assert torch.equal(tensor, saved[name]), "the next training starts from what this one ended with"


@pytest.mark.slow
def test_on_a_cpu_trained_weights_are_sampled_unrounded(half: Path, tmp_path: Path) -> None:
    import torch

    train("sft", SFT | {"learning_rate": 1e-3}, job(tmp_path, ModelRef(str(half)), Events()))
    model, _ = load_model(ModelRef(str(tmp_path / "weights")), device="cpu")
    assert torch.equal(model.lm_head.weight, stored(tmp_path / "weights")["model.embed_tokens.weight"])
    assert moved(half, tmp_path / "weights") > 0.9


# --------------------------------------------------------------------------- a start with an adapter


@pytest.fixture(scope="module")
def adapter(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    train("sft", SFT | {"learning_rate": 1e-2}, job(folder, half, Events(), lora=LoraConfig(rank=2)))
    return folder / "weights"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "train_dtype", "kind", "expected"),
    [
        ("auto", None, "cuda", "bfloat16"),
        ("auto", None, "cpu", "float32"),
        ("auto", "float32", "cuda", "float32"),
        ("bfloat16", None, "cpu", "bfloat16"),
    ],
)
def test_a_start_merged_from_an_adapter_is_in_the_type_of_its_training(
    half: Path, adapter: Path, tmp_path: Path, dtype: str, train_dtype: str | None, kind: str, expected: str
) -> None:
    start = ModelRef(str(half), dtype=dtype, train_dtype=train_dtype, adapter=str(adapter))
    _setup._merge_to(start, tmp_path / "start", kind)
    assert types(tmp_path / "start") == {expected}
    merged = ModelRef(str(tmp_path / "start"), dtype=dtype, train_dtype=train_dtype)
    assert type_held(merged, kind, trainable=True) == expected
