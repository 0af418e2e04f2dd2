"""Rollouts by a vLLM server: the hand-over of weights and its proof, over real HTTP with a stub (vllm_stub.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from nsd.plugins.api import LoraConfig, ModelRef, Sampling
from nsd.plugins.engines.vllm_versions import OF_NSD, OF_TRL, check
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.models import load_model
from nsd.plugins.registry import find
from nsd.plugins.seeds import stream
from nsd.plugins.trainers import _handover
from nsd.plugins.trainers._rollouts import Asked, Drawer
from nsd.plugins.trainers._vllm_rollouts import VllmDrawer
from nsd.plugins.trainers._vllm_server import reached
from nsd.runner.spec.digest import digest_config
from tiny_model import make_tiny_model
from training_job import Events, job, train
from vllm_stub import VllmStub

LIKELIEST = Sampling(2, 1.0, 6, top_k=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def shaken(model: Any, size: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * size)


def drawers(folder: Path, model: Path, rollout: str) -> tuple[Any, Drawer, VllmDrawer, list[Asked]]:
    made = job(folder, model, Events())
    loaded, tokenizer = load_model(ModelRef(str(model)), trainable=True)
    own = Drawer(loaded, tokenizer, made.prompt, LIKELIEST, 13)
    config = find("trainer", "rloo").Config(rollout=rollout)
    other = VllmDrawer(loaded, tokenizer, made, LIKELIEST, 13, config, torch.device("cpu"))
    texts = ["add 1 and 2", "seven", "three plus four"]
    asked = [Asked(r, s, f"q{r}", tokenizer(text)["input_ids"]) for r, text in enumerate(texts) for s in range(2)]
    return loaded, own, other, asked


@pytest.mark.slow
def test_the_weights_of_a_step_answer_in_that_step(model: Path, tmp_path: Path) -> None:
    with VllmStub(model) as stub:
        loaded, own, other, asked = drawers(tmp_path, model, stub.rollout)
        found = []
        for step in range(3):
            if step:
                shaken(loaded, 0.3, step)
            drawn = other.draw(asked, step)
            assert drawn == [type(one)(one.asked, one.text, one.tokens, one.ended) for one in own.draw(asked, step)]
            found.append([one.tokens for one in drawn])
        assert found[0] != found[1] != found[2]
        assert stub.calls == ["blank", "weights_here", "reload_weights", "renew", "weights_here"] * 3
        rows = [(step, row, sample) for step in range(3) for row in range(3) for sample in range(2)]
        seeds = {stream(stream(13, step), f"q{row}", sample) % 2**63 for step, row, sample in rows}
        assert set(stub.seeds) == seeds and len(stub.seeds) == len(seeds)
        told = other.notes()["rollouts_by"]
        assert (told["where"], told["vllm"], told["handovers"], told["resume_exact"]) == ("server", "0.32.0", 3, False)
        other.end()


@pytest.mark.parametrize("size", [0.3, 1e-4], ids=["other weights", "a step of fine-tuning"])
def test_a_server_that_goes_on_with_older_weights_ends_the_training(model: Path, tmp_path: Path, size: float) -> None:
    with VllmStub(model) as stub:
        loaded, _, other, asked = drawers(tmp_path, model, stub.rollout)
        other.draw(asked, 0)
        shaken(loaded, size, 1)
        stub.stale = True
        with pytest.raises(StageFailed, match="does not hold the weights that it was given before step 2"):
            other.draw(asked, 1)
        other.end()


@pytest.mark.slow
def test_a_training_on_rollouts_of_a_server(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_handover, "IN_MEMORY", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    block = {"steps": 2, "prompts_per_step": 2, "num_generations": 2, "max_tokens": 6, "learning_rate": 1e-2}
    with VllmStub(model) as stub:
        block |= {"rollout": stub.rollout, "rewards": ["test_share_of_vowels"]}
        result = train("rloo", block, job(tmp_path, model, Events()))
    assert result.steps == 2 and result.notes["rollouts_by"]["handovers"] == 2
    assert not list((tmp_path / "memory").iterdir())


def test_what_stands_in_the_way_is_said_with_the_way_out(model: Path, tmp_path: Path) -> None:
    with (
        VllmStub(model, developer=False) as stub,
        pytest.raises(InputError, match=r"DEV_MODE=1 .*nsd_vllm"),
    ):
        drawers(tmp_path, model, stub.rollout)
    with VllmStub(model, context=8) as stub, pytest.raises(InputError, match=r"reads 8 tokens.*--max-model-len 64"):
        drawers(tmp_path, model, stub.rollout)
    with VllmStub(model, version="0.99.0") as stub, pytest.raises(InputError, match=r"0\.99\.0 is here.*0\.22\.0 to"):
        reached(stub.rollout)
    gone = stub.rollout
    with pytest.raises(InputError, match=r"no vLLM answers at http://127\.0\.0\.1"):
        reached(gone)


@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo", "ttrl", "sdpo", "pcsd"])
def test_every_trainer_on_rollouts_takes_the_field(name: str) -> None:
    config = find("trainer", name).Config
    assert config().rollout == "hf" and "rollout" not in digest_config(config())
    beside, there, elsewhere = (
        digest_config(config(rollout=one)) for one in ("vllm", "vllm://10.0.0.7:8000", "vllm://[::1]:80")
    )
    # Who draws shapes the texts; where it stands does not.
    assert beside == there == elsewhere and beside["rollout"] == "vllm"
    assert digest_config(config(rollout="vllm://h:1"), neutral=True)["rollout"] == "vllm://h:1"
    for bad in ("vlm", "vllm://", "vllm://host", "vllm://host:0", "vllm://host:99999", "vllm://a b:1"):
        with pytest.raises(ValidationError, match=r"is none of .*vllm://HOST:PORT"):
            config(rollout=bad)


def test_an_adapter_goes_into_the_weights_that_are_handed_over(model: Path, tmp_path: Path) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from nsd.plugins.trainers._setup import peft_config

    loaded, _ = load_model(ModelRef(str(model)), trainable=True)
    adapted = get_peft_model(loaded, peft_config(LoraConfig(rank=2)))
    shaken(adapted, 0.1, 3)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    _handover.write_weights(adapted, tmp_path / "written")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "written")
    ids = torch.tensor([[5, 6, 7, 8]])
    adapted.eval()
    with torch.no_grad():
        assert torch.allclose(read(ids).logits, adapted(ids).logits, atol=1e-5)
        assert not torch.allclose(read(ids).logits, load_model(ModelRef(str(model)))[0](ids).logits, atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


@pytest.mark.parametrize(
    ("version", "fits"),
    [("0.21.9", False), ("0.22.0", True), ("0.31.0+cu129", True), ("0.31.1", False), ("0.33.0", False), ("dev", False)],
)
def test_the_range_of_versions_is_trls(version: str, fits: bool) -> None:
    import trl

    text = Path(trl.__file__).with_name("import_utils.py").read_text()
    read = re.search(r'Version\("([\d.]+)"\) <= _vllm_base_version <= Version\("([\d.]+)"\)', text)
    assert read is not None and str(OF_TRL) == f"{read[1]} to {read[2]}", "TRL goes with other versions now"
    if fits:
        check(version, OF_TRL, "toy")
    else:
        with pytest.raises(InputError, match=r"TRL goes with 0\.22\.0 to 0\.31\.0"):
            check(version, OF_TRL, "toy")
    assert OF_NSD.last >= OF_TRL.last
