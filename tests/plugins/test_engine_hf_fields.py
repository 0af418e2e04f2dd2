"""Fields of the `hf` engine that change texts: the type of the weights, a static cache, torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines import hf
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.hf_slots import Shift, StaticMemory
from nsd.plugins.errors import InputError
from nsd.plugins.models import resolve
from tiny_model import make_tiny_model, make_tokenizer

EMBEDDED = ModelRef(resolve("builtin:wordmath-1m"))


def requests(count: int) -> list[Request]:
    questions = Wordmath(Wordmath.Config(train=0, test=count)).pools().test or []
    return [Request(one.id, Wordmath.default_prompt.render(one)) for one in questions]


def drawn(ref: ModelRef, asked: list[Request], sampling: Sampling, **config: Any) -> dict[Any, Completion]:
    engine = HfEngine(HfEngine.Config(device="cpu", **config))
    return {(one.question_id, one.sample): one for shard in engine.generate(ref, asked, sampling, 7) for one in shard}


def texts(found: dict[Any, Completion]) -> dict[Any, str]:
    return {place: one.text for place, one in found.items()}


@pytest.fixture(autouse=True, scope="module")
def _freed() -> Iterator[None]:
    yield
    HfEngine().close()


@pytest.mark.slow
def test_a_static_cache_writes_the_same_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer slots than rows and columns than steps: slots are taken anew, the window moves, nothing grows."""
    moves = []
    inner = StaticMemory.make_room

    def watched(memory: StaticMemory) -> Shift:
        shift = inner(memory)
        moves.append((shift.first, shift.columns - memory.columns))
        return shift

    monkeypatch.setattr(StaticMemory, "make_room", watched)
    sampling = Sampling(8, 1.0, 40)
    plain = drawn(EMBEDDED, requests(8), sampling)
    static = drawn(EMBEDDED, requests(8), sampling, static_cache=True, batch_size=1)
    assert texts(static) == texts(plain)
    assert moves and all(first > 0 and not grown for first, grown in moves)


@pytest.mark.slow
def test_weights_in_bfloat16_write_valid_texts() -> None:
    """They stop by themselves, and are as sure as in float32."""
    sampling = Sampling(8, 1.0, 64)
    whole, half = (drawn(EMBEDDED, requests(8), sampling, dtype=dtype) for dtype in (None, "bfloat16"))
    assert hf._last is not None and hf._last.loaded.model.dtype == torch.bfloat16
    assert half.keys() == whole.keys()
    stopped = [sum(one.stop_reason is StopReason.STOP for one in found.values()) for found in (whole, half)]
    assert abs(stopped[0] - stopped[1]) <= 3 and stopped[1] > len(half) * 0.9
    sure = [[one.confidence.logprob for one in found.values() if one.confidence] for found in (whole, half)]
    assert sum(sure[1]) / len(sure[1]) == pytest.approx(sum(sure[0]) / len(sure[0]), abs=0.05)
    same = sum(whole[place].text == half[place].text for place in whole)
    assert len(whole) * 0.7 < same, "the same streams over nearly the same probabilities"


def test_a_model_with_a_sliding_window_cannot_be_static(tmp_path: Path) -> None:
    import transformers

    config = transformers.MistralConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=16, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="leave both fields out"):
        drawn(ModelRef(str(tmp_path)), [Request("q", "Tom")], Sampling(1, 0.0, 4), static_cache=True)


def test_compile_without_a_compiler_is_refused() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(InputError, match=r"install g\+\+"):
        HfEngine(HfEngine.Config(compile=True)).ready()
    HfEngine().ready()


@pytest.mark.slow
def test_compiled_steps_give_the_same_probabilities(tmp_path: Path) -> None:
    """A token's log-probability after compiled steps is that after plain ones, so greedy texts are the same."""
    ref = ModelRef(str(make_tiny_model(tmp_path, num_hidden_layers=1)))  # the compiler takes its time for each layer
    asked = [Request(f"q{number}", f"{'Well, ' * number}Tom has {number} apples.") for number in range(3)]
    plain, compiled = (drawn(ref, asked, Sampling(1, 0.0, 6), compile=one, batch_size=2) for one in (False, True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert texts(compiled) == texts(plain)
    for place, one in compiled.items():
        own = plain[place].confidence
        assert one.confidence is not None and own is not None
        assert one.confidence.logprob == pytest.approx(own.logprob, abs=1e-4)
