"""The `vllm` engine on a real vLLM, where there is one: NSD_VLLM names its environment, or the user's cache has it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asked_as_they_go import MOST, asked_for, asked_of
from nsd.plugins import models
from nsd.plugins.api import Completion, Device, Engine, ModelRef, Request, Sampling, StopReason
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.vllm import VllmEngine
from nsd.plugins.engines.vllm_process import find_python
from nsd.plugins.errors import InputError, StageFailed
from support import DEVICE, wait_until

pytestmark = pytest.mark.slow

HERE = Device(DEVICE)
EMBEDDED = ModelRef(models.resolve("builtin:wordmath-1m"), device=HERE)
GREEDY = Sampling(1, 0.0, 32)
# Sums in another order move a logit's last digits: a tie of the two most likely tokens may fall the other way.
ALIKE = 0.9


@pytest.fixture(scope="module", autouse=True)
def there() -> Iterator[None]:
    try:
        find_python()
    except InputError as error:
        pytest.skip(str(error))
    yield
    VllmEngine.end()


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    dataset = Wordmath(Wordmath.Config.model_validate({"split": {"test": 40}}))
    return [Request(one.id, dataset.default_prompt.render(one)) for one in dataset.pools().train[:40]]


def drawn(
    engine: Engine, ref: ModelRef, requests: list[Request], sampling: Sampling, seed: int = 7
) -> dict[tuple[str, int], Completion]:
    found = [one for block in engine.generate(ref, requests, sampling, seed) for one in block]
    assert len({(one.question_id, one.sample) for one in found}) == len(found)
    return {(one.question_id, one.sample): one for one in found}


def share_alike(one: dict[tuple[str, int], Completion], other: dict[tuple[str, int], Completion]) -> float:
    assert one.keys() == other.keys()
    return sum(one[place].text == other[place].text for place in one) / len(one)


def other_weights(folder: Path, size: float) -> ModelRef:
    """The embedded model with noise on its weights: it answers otherwise."""
    import torch

    model, tokenizer = models.load_model(EMBEDDED)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * parameter.std() * size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelRef(str(folder), device=HERE)


def adapter(folder: Path) -> ModelRef:
    """The embedded model with an adapter of random weights."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, _ = models.load_model(EMBEDDED)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.1)
    adapted.save_pretrained(folder)
    return ModelRef(EMBEDDED.path, adapter=str(folder), device=HERE)


def test_greedy_texts_are_those_of_hf(requests: list[Request]) -> None:
    own, other = (drawn(engine(), EMBEDDED, requests, GREEDY) for engine in (VllmEngine, HfEngine))
    assert share_alike(own, other) >= ALIKE
    assert {one.stop_reason for one in own.values()} <= {StopReason.STOP, StopReason.LENGTH}
    same = [(own[place], other[place]) for place in own if own[place].text == other[place].text]
    assert all(a.tokens == b.tokens and a.stop_reason == b.stop_reason for a, b in same)
    for a, b in same:
        assert a.confidence is not None and b.confidence is not None
        assert a.confidence.logprob == pytest.approx(b.confidence.logprob, abs=1e-3)
        assert a.confidence.mean == pytest.approx(b.confidence.mean, rel=1e-2)


def test_a_repeat_with_another_seed_shares_no_streams(requests: list[Request]) -> None:
    """With n=K in one request sample s of seed 8 would be sample s + 1 of seed 7: nearly all of 120 texts alike.

    Thirteen are alike by chance, in some versions of vLLM.
    """
    hot = Sampling(4, 1.5, 16)
    one, other = (drawn(VllmEngine(), EMBEDDED, requests, hot, seed) for seed in (7, 8))
    shared = sum(
        one[question, sample + 1].text == other[question, sample].text
        for question, sample in one
        if sample < 3 and one[question, sample + 1].tokens > 8
    )
    assert shared <= len(requests) * 3 // 4


def test_weights_and_an_adapter_follow_each_other_in_one_process(requests: list[Request], tmp_path: Path) -> None:
    first, second, adapted = EMBEDDED, other_weights(tmp_path / "second", 0.3), adapter(tmp_path / "adapter")
    expected = {ref: drawn(HfEngine(), ref, requests, GREEDY) for ref in (first, second, adapted)}
    assert share_alike(expected[first], expected[second]) < 0.5
    assert share_alike(expected[first], expected[adapted]) < 0.5
    engine = VllmEngine()
    processes = set()
    for ref in (adapted, first, second, adapted, first):
        assert share_alike(drawn(engine, ref, requests, GREEDY), expected[ref]) >= ALIKE
        assert engine.loaded is not None and engine.loaded.known
        processes.add(engine.running().pid)
    # Older ones find no names of weights in a model that takes adapters, and a new process loads them.
    version = engine.loaded.versions["vllm"]
    assert len(processes) == 1 or tuple(map(int, version.split(".")[:2])) < (0, 29)


def test_a_folder_that_was_written_anew_is_read_again(requests: list[Request], tmp_path: Path) -> None:
    ref = other_weights(tmp_path / "model", 0.3)
    engine = VllmEngine()
    before = drawn(engine, ref, requests, GREEDY)
    shutil.rmtree(tmp_path / "model")
    other_weights(tmp_path / "model", 0.6)
    after = drawn(engine, ref, requests, GREEDY)
    assert share_alike(before, after) < 0.5
    assert share_alike(after, drawn(HfEngine(), ref, requests, GREEDY)) >= ALIKE


def test_what_is_done_is_not_drawn_again(requests: list[Request]) -> None:
    done = frozenset((one.question_id, sample) for one in requests[:39] for sample in range(2))
    found = [one for block in VllmEngine().generate(EMBEDDED, requests, Sampling(3, 0.7, 16), 7, done) for one in block]
    assert {(one.question_id, one.sample) for one in found} == {
        (one.question_id, sample) for one in requests for sample in range(3)
    } - done


def test_a_stop_string_ends_a_text_before_it(requests: list[Request]) -> None:
    found = drawn(VllmEngine(), EMBEDDED, requests[:8], Sampling(1, 0.0, 48, stop=("####",)))
    assert all("####" not in one.text for one in found.values())
    assert any(one.stop_reason is StopReason.STOP for one in found.values())


def test_a_process_that_dies_fails_the_stage_and_the_next_has_another(requests: list[Request]) -> None:
    engine = VllmEngine()
    blocks = engine.generate(EMBEDDED, requests, Sampling(64, 0.7, 64), 7)
    next(blocks)
    os.killpg(engine.running().pid, signal.SIGKILL)
    with pytest.raises(StageFailed, match="ended by signal 9"):
        list(blocks)
    assert len(drawn(engine, EMBEDDED, requests, GREEDY)) == len(requests)


def test_nothing_of_it_outlives_whoever_asked(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from nsd.plugins import models\n"
        "from nsd.plugins.api import Device, ModelRef, Request, Sampling\n"
        "from nsd.plugins.engines import vllm\n"
        f"ref = ModelRef(models.resolve('builtin:wordmath-1m'), device=Device({DEVICE!r}))\n"
        "list(vllm.VllmEngine().generate(ref, [Request('q', 'one')], Sampling(1, 0.0, 4), 7))\n"
        "print(vllm.VllmEngine.running().pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    group = int(asking.stdout.readline())
    asking.kill()
    asking.wait()
    wait_until(lambda: not members(group))


def members(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_samples_asked_for_in_between_are_those_that_the_texts_ask_for(requests: list[Request]) -> None:
    sampling = Sampling(MOST, 1.0, 12)
    blocks = VllmEngine().generate_growing(EMBEDDED, requests, sampling, 7, asked_of(requests))
    found = [one for block in blocks for one in block]
    there = {(one.question_id, one.sample): one for one in found}
    assert len(there) == len(found)
    full = drawn(VllmEngine(), EMBEDDED, requests, sampling)
    expected = asked_for(requests, {**full, **there})  # of its own texts, which another batch may round otherwise
    assert there.keys() == expected and len(expected) < len(full)
