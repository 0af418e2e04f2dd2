"""The folders of the models that ship: small, plain, and what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsd.plugins import models

SHIPPED = [("wordmath-1m", 894_464, "recipe"), ("codepuzzles-1m", 844_672, "code_recipe")]


def folder_of(name: str) -> Path:
    return Path(models.resolve(f"builtin:{name}"))


@pytest.mark.parametrize("name", [name for name, _, _ in SHIPPED])
def test_the_folder_is_small_and_holds_no_pickle(name: str) -> None:
    files = [file for file in folder_of(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 6_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".jinja", ".md"}


@pytest.mark.parametrize("name", [name for name, _, _ in SHIPPED])
def test_it_is_a_tied_qwen3_in_float32_without_machine_paths(name: str) -> None:
    config = json.loads((folder_of(name) / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["dtype"] == "float32"
    assert "_name_or_path" not in config


@pytest.mark.parametrize(("name", "parameters", "recipe"), SHIPPED)
def test_the_card_states_the_size_and_the_recipe(name: str, parameters: int, recipe: str) -> None:
    card = (folder_of(name) / "README.md").read_text()
    assert f"{parameters:,}" in card
    assert f"python -m nsd.plugins.embedded.{recipe}" in card


@pytest.mark.parametrize(("name", "parameters", "recipe"), SHIPPED)
def test_it_loads_with_the_stated_number_of_parameters_all_finite(name: str, parameters: int, recipe: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder_of(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
