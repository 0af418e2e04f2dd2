"""Where a model is, what identifies it, and that loading it fails with words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import models
from nsd.plugins.api import ModelRef
from nsd.plugins.errors import InputError, StageFailed
from tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "own"))


# --------------------------------------------------------------------------- resolve


def test_a_folder_becomes_absolute(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    assert models.resolve("./own") == models.resolve(str(own)) == str(own)
    assert models.resolve("own", base_dir=own.parent) == str(own)
    assert models.resolve("own") == "own"  # a hub id, whatever the current folder holds


def test_a_built_in_model_is_a_folder_of_the_package(monkeypatch: pytest.MonkeyPatch, own: Path) -> None:
    monkeypatch.setattr(models, "EMBEDDED", own.parent)
    assert models.resolve("builtin:own") == str(own)
    with pytest.raises(InputError, match=r"no such built-in model \(there are: own\)"):
        models.resolve("builtin:owl")


@pytest.mark.parametrize("text", ["Qwen/Qwen2.5-0.5B-Instruct", "gpt2", "a-b/c_d.e"])
def test_a_hub_id_stays(text: str) -> None:
    assert models.resolve(text) == text


def test_a_folder_that_is_no_model_does_not_hide_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert models.resolve("gpt2") == "gpt2"
    with pytest.raises(InputError, match=r"no config\.json"):
        models.resolve("./gpt2")


@pytest.mark.parametrize("text", ["./missing", "../missing", "/missing", "~/missing"])
def test_a_missing_folder_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"there is no folder /.*missing"):
        models.resolve(text)


@pytest.mark.parametrize("text", ["a/b/c", "", "two words", "-x", "http://x/y"])
def test_what_can_be_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="neither a folder"):
        models.resolve(text)


def test_an_adapter_alone_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="LoRA adapter, not a model"):
        models.resolve(str(tmp_path))


# --------------------------------------------------------------------------- identity


def test_identity_is_of_the_content_not_of_the_place(tiny: Path, own: Path) -> None:
    assert models.identity(str(tiny)) == models.identity(str(own))
    assert str(own) not in str(models.identity(str(own)))
    assert models.identity(str(own), dtype="float32") != models.identity(str(own))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_identity_changes_with_every_file_that_decides(own: Path, name: str) -> None:
    before = models.identity(str(own))
    content = bytearray((own / name).read_bytes())
    content[-3] ^= 1
    (own / name).write_bytes(content)
    assert models.identity(str(own)) != before


@pytest.mark.parametrize("name", ["README.md", "optimizer.pt", "training_args.bin", "trainer_state.json"])
def test_identity_does_not_change_with_what_does_not_decide(own: Path, name: str) -> None:
    before = models.identity(str(own))
    (own / name).write_text("x")
    assert models.identity(str(own)) == before


def test_identity_of_a_hub_model_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert models.identity("org/name", "v1") == {"hub": "org/name", "revision": "v1", "dtype": "auto"}
    references = tmp_path / "models--org--name" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text("a" * 40)
    assert models.identity("org/name")["revision"] == models.pin("org/name") == "a" * 40
    assert models.identity("org/name", "b" * 40)["revision"] == "b" * 40


def test_identity_loads_nothing_heavy(tiny: Path) -> None:
    code = (
        "import sys; from nsd.plugins.models import identity; identity(sys.argv[1]); identity('gpt2');"
        "print([name for name in ('torch', 'transformers', 'numpy', 'huggingface_hub') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --------------------------------------------------------------------------- loading


def test_the_tokenizer_pads_left_and_always_has_a_pad_token(own: Path) -> None:
    import json

    assert models.load_tokenizer(str(own)).pad_token == "<|pad|>"
    assert models.load_tokenizer(str(own)).padding_side == "left"
    config = json.loads((own / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (own / "tokenizer_config.json").write_text(json.dumps(config))
    assert models.load_tokenizer(str(own)).pad_token == "<|im_end|>"
    del config["eos_token"]
    (own / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no eos_token"):
        models.load_tokenizer(str(own))


def test_half_precision_is_widened_on_a_cpu_unless_asked_for(own: Path) -> None:
    import torch

    model, _ = models.load_model(ModelRef(str(own), dtype="bfloat16"), device="cpu")
    assert model.dtype == torch.bfloat16
    model.save_pretrained(own)
    widened, _ = models.load_model(ModelRef(str(own)), device="cpu")
    assert widened.dtype == torch.float32
    assert torch.equal(widened.lm_head.weight, model.lm_head.weight.float())


def test_a_model_for_training_has_all_its_gradients(tiny: Path) -> None:
    still, _ = models.load_model(ModelRef(str(tiny)), device="cpu")
    assert not still.training
    assert not any(parameter.requires_grad for parameter in still.parameters())
    learning, _ = models.load_model(ModelRef(str(tiny)), device="cpu", trainable=True)
    assert learning.training
    assert all(parameter.requires_grad for parameter in learning.parameters())


def test_an_adapter_is_merged(tiny: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    base, _ = models.load_model(ModelRef(str(tiny)), device="cpu")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    merged, _ = models.load_model(ModelRef(str(tiny), adapter=str(tmp_path / "adapter")), device="cpu")
    assert type(merged).__name__ == "Qwen3ForCausalLM"
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected, plain = adapted.eval()(ids).logits, None
        with adapted.disable_adapter():
            plain = adapted(ids).logits
        found = merged(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)


def test_a_model_that_cannot_be_had_is_told_with_the_way_out() -> None:
    with pytest.raises(InputError, match="hf download nobody/nothing"):
        models.load_model(ModelRef("nobody/nothing"), device="cpu")
    with pytest.raises(InputError, match="hf download nobody/nothing"):
        models.pin("nobody/nothing")


def test_damaged_weights_are_told_from_a_bug(own: Path) -> None:
    (own / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="could not be loaded: SafetensorError"):
        models.load_model(ModelRef(str(own)), device="cpu")


class Loading(Exception):
    """Stops a loading when it is known how it would go."""


def loaded_with(monkeypatch: pytest.MonkeyPatch, ref: ModelRef, device: str) -> dict[str, Any]:
    """What transformers is asked for; the check whether the device is there is left out, for there is none here."""
    import transformers

    asked: dict[str, Any] = {}

    def from_pretrained(path: str, **options: Any) -> Any:
        asked.update(options)
        raise Loading

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(models, "_check_device", lambda *_: None)
    with pytest.raises(InputError, match="Loading"):
        models.load_model(ref, device=device)
    return asked


def test_weights_go_straight_to_a_gpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked = loaded_with(monkeypatch, ModelRef(str(tiny)), "cuda:1")
    assert asked["device_map"] == {"": torch.device("cuda:1")}
    assert "device_map" not in loaded_with(monkeypatch, ModelRef(str(tiny)), "cpu")


def test_an_adapter_is_merged_in_main_memory_whatever_the_device(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "device_map" not in loaded_with(monkeypatch, ModelRef(str(tiny), adapter="x"), "cuda:1")


def test_a_model_put_on_a_device_while_it_loads_is_the_same_plain_model(tiny: Path) -> None:
    """The way of a GPU, with the processor named as the place: equal weights, and nothing of accelerate about them."""
    import torch
    import transformers

    plain, _ = models.load_model(ModelRef(str(tiny)), device="cpu")
    placed = transformers.AutoModelForCausalLM.from_pretrained(str(tiny), device_map={"": torch.device("cpu")})
    assert not hasattr(placed, "hf_device_map") and not hasattr(placed.lm_head, "_hf_hook")
    ours, theirs = plain.state_dict(), placed.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("trainable", "field"), [(False, "model.dtype"), (True, "model.train_dtype")])
def test_weights_that_do_not_fit_name_the_field(
    trainable: bool, field: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    def from_pretrained(path: str, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(StageFailed, match=rf"do not fit in the memory of cpu: .*\({field}\).*2\.00 GiB"):
        models.load_model(ModelRef(str(tiny)), device="cpu", trainable=trainable)


@pytest.mark.parametrize("dtype", ["int8", "float33", "nn", "Tensor"])
def test_a_dtype_that_is_none_is_refused(tiny: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="one of auto, float32"):
        models.load_model(ModelRef(str(tiny), dtype=dtype), device="cpu")


@pytest.mark.parametrize("device", ["nonsense", "meta:x", "xpu:99"])
def test_a_device_that_is_none_is_refused(tiny: Path, device: str) -> None:
    with pytest.raises(InputError, match=r"is none|could not be moved to xpu:99"):
        models.load_model(ModelRef(str(tiny)), device=device)
