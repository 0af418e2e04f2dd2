"""Which vLLM is taken, which running process does for a stage, and how weights are told apart: no vLLM is needed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from nsd.plugins.engines.vllm import _both, _rank
from nsd.plugins.engines.vllm_process import SIDE, find_python, made_environment
from nsd.plugins.errors import InputError


@pytest.fixture(scope="module")
def side() -> ModuleType:
    """The file that vLLM's own Python runs."""
    spec = importlib.util.spec_from_file_location("nsd_vllm", SIDE / "nsd_vllm.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_print_is_of_all_files_and_a_tied_head_counts_once(side: ModuleType, tmp_path: Path) -> None:
    first, second = (one.double() for one in side.directions(2))
    upper, lower = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0], [0.0, 3.0]])
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    save_file({"a": upper, "lm_head.weight": torch.tensor([[5.0, 5.0]])}, tmp_path / "1.safetensors")
    save_file({"b": lower}, tmp_path / "2.safetensors")
    rows = [[1.0, -2.0], [0.5, 4.0], [0.0, 3.0]]
    products = [[row[0] * float(way[0]) + row[1] * float(way[1]) for row in rows] for way in (first, second)]
    size = sum(abs(one) for way in products for one in way)
    assert side.print_of(tmp_path, torch.float32) == pytest.approx([sum(products[0]), sum(products[1]), size])
    (tmp_path / "config.json").write_text("{}")
    head = [5 * float(way.sum()) for way in (first, second)]
    assert side.print_of(tmp_path, torch.float32)[:2] == pytest.approx(
        [sum(products[0]) + head[0], sum(products[1]) + head[1]]
    )


def test_a_print_of_matrices_in_one_is_that_of_each(side: ModuleType) -> None:
    draws = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 8, generator=draws) for size in (8, 4, 4)]
    apart, together = [0.0] * 3, [0.0] * 3
    for part in parts:
        side.add_print(apart, part)
    side.add_print(together, torch.cat(parts))
    assert together == pytest.approx(apart)


def test_a_print_is_of_the_type_in_memory(side: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.tensor([[1.0 + 2**-12]])}, tmp_path / "1.safetensors")
    rounded = [0.0] * 3
    side.add_print(rounded, torch.tensor([[1.0]]))
    assert side.print_of(tmp_path, torch.bfloat16) == rounded


@pytest.mark.parametrize("change", [1e-4, 1e-6], ids=["a step of fine-tuning", "a step of reinforcement"])
def test_weights_a_step_apart_have_prints_apart(side: ModuleType, change: float) -> None:
    draws = torch.Generator().manual_seed(0)
    before = torch.randn(512, 512, generator=draws) / 20
    after = before + change * torch.randn(512, 512, generator=draws).sign()
    prints = [[0.0] * 3, [0.0] * 3]
    for one, tensor in zip(prints, (before, after), strict=True):
        side.add_print(one, tensor)
    assert side.apart(*prints) > 40 * 1e-12
    assert side.apart(prints[0], prints[0]) == 0


RUNNING = {"dtype": "float32", "max_model_len": 512}


@pytest.mark.parametrize(
    ("running", "wanted", "does"),
    [
        (RUNNING, RUNNING, True),
        (RUNNING, {"dtype": "float32", "max_model_len": 256}, True),
        (RUNNING, {"dtype": "float32", "max_model_len": 768}, False),
        (RUNNING, {"dtype": "bfloat16", "max_model_len": 512}, False),
        (RUNNING, {**RUNNING, "enable_lora": True, "max_lora_rank": 8}, False),
        ({**RUNNING, "enable_lora": True, "max_lora_rank": 16}, RUNNING, True),
        (
            {**RUNNING, "enable_lora": True, "max_lora_rank": 8},
            {**RUNNING, "enable_lora": True, "max_lora_rank": 16},
            False,
        ),
    ],
    ids=["same", "shorter", "longer", "type", "adapter", "none", "rank"],
)
def test_a_running_process_does_where_it_has_room(
    running: dict[str, object], wanted: dict[str, object], does: bool
) -> None:
    assert _both(running, wanted) == (running if does else None)


def test_an_adapters_rank_is_the_largest_of_its_layers(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 32}}))
    assert _rank(str(tmp_path)) == 32
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(InputError, match="rank 512 at most, not 1024"):
        _rank(str(tmp_path))


def test_the_environment_is_the_named_one_then_the_made_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NSD_VLLM", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"-m nsd.plugins.engines.vllm_environment makes an environment"):
        find_python()
    for folder in (made_environment(), tmp_path / "mine"):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()
    assert find_python() == made_environment() / "bin" / "python"
    monkeypatch.setenv("NSD_VLLM", str(tmp_path / "mine"))
    assert find_python() == tmp_path / "mine" / "bin" / "python"
    monkeypatch.setenv("NSD_VLLM", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"NSD_VLLM is .*, and there is no Python"):
        find_python()
