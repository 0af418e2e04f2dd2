"""The hf engine: the model's own text when greedy, its distribution when sampling, the same at any batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins import models
from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason
from nsd.plugins.engines import hf
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.hf_decode import Rows, decode
from nsd.plugins.engines.hf_sizes import batch_shape, bytes_per_row
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.model_shape import ModelShape
from tiny_model import make_tiny_model, make_tokenizer, with_end_tokens

PROMPTS = [f"{'Well, ' * (number % 5)}Tom has {number} apples. How many?" for number in range(24)]
REQUESTS = [Request(f"q{number}", prompt) for number, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(make_tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(autouse=True, scope="module")
def _freed() -> Iterator[None]:
    yield
    engine().close()


def engine(**config: Any) -> HfEngine:
    return HfEngine(HfEngine.Config(device="cpu", **config))


def answers(
    made: HfEngine, ref: ModelRef, requests: list[Request], sampling: Sampling, seed: int = 7
) -> dict[tuple[str, int], Completion]:
    batches = list(made.generate(ref, requests, sampling, seed))
    return {(one.question_id, one.sample): one for batch in batches for one in batch}


def generate_alone(model: Any, tokenizer: Any, ids: list[int], max_tokens: int) -> tuple[str, int]:
    """What transformers writes for one prompt: (text, tokens with the end token)."""
    output = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=max_tokens)[0, len(ids) :].tolist()
    return tokenizer.decode(output, skip_special_tokens=True), len(output)


# --------------------------------------------------------------------------- what it writes


@pytest.mark.slow
def test_greedy_text_is_what_transformers_writes_for_each_prompt_alone(ref: ModelRef) -> None:
    model, tokenizer = models.load_model(ref, device="cpu")
    found = answers(engine(batch_size=8), ref, REQUESTS, Sampling(1, 0.0, 40))
    expected = [generate_alone(model, tokenizer, tokenizer(prompt)["input_ids"], 40) for prompt in PROMPTS]
    assert [(found[r.question_id, 0].text, found[r.question_id, 0].tokens) for r in REQUESTS] == expected
    reasons = {one.stop_reason for one in found.values()}
    assert reasons == {StopReason.STOP, StopReason.LENGTH}, "the toy should show both ways to end"
    assert all((one.tokens < 40) or one.stop_reason is StopReason.LENGTH for one in found.values())


@pytest.mark.slow
def test_every_end_token_that_the_checkpoint_lists_ends_a_completion(ref: ModelRef, tmp_path: Path) -> None:
    own, others = 1, [52, 222]  # two bytes that this model writes often
    changed = ModelRef(str(with_end_tokens(ref.path, tmp_path / "longer", [own, *others])))
    model, tokenizer = models.load_model(changed, device="cpu")
    found = answers(engine(batch_size=8), changed, REQUESTS, Sampling(1, 0.0, 40))
    ended_by = []
    for request in REQUESTS:
        ids = tokenizer(request.prompt)["input_ids"]
        output = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=40)[0, len(ids) :].tolist()
        ended = output[-1] in (own, *others)
        ended_by += [output[-1]] if ended else []
        one = found[request.question_id, 0]
        text = tokenizer.decode(output[:-1] if ended else output, skip_special_tokens=True)
        assert (one.text, one.tokens) == (text, len(output))
        assert one.stop_reason is (StopReason.STOP if ended else StopReason.LENGTH)
    assert {own, *others} == set(ended_by), "the toy should show every way to end"
    # The tokenizer's own end token counts also where the list leaves it out.
    without = ModelRef(str(with_end_tokens(ref.path, tmp_path / "without", others)))
    assert answers(engine(batch_size=8), without, REQUESTS, Sampling(1, 0.0, 40)) == found


@pytest.mark.slow
def test_a_chat_goes_through_the_chat_template(ref: ModelRef) -> None:
    model, tokenizer = models.load_model(ref, device="cpu")
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}]
    found = answers(engine(), ref, [Request("q", messages)], Sampling(1, 0.0, 20))
    assert (found["q", 0].text, found["q", 0].tokens) == generate_alone(model, tokenizer, tokenizer(text).input_ids, 20)


@pytest.mark.slow
def test_a_plain_prompt_gets_the_tokenizers_own_bos(ref: ModelRef, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = make_tiny_model(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)]
    )
    tokenizer.save_pretrained(folder)
    model, tokenizer = models.load_model(ModelRef(str(folder)), device="cpu")
    ids = tokenizer(PROMPTS[3])["input_ids"]
    assert ids[0] == 2
    found = answers(engine(), ModelRef(str(folder)), [REQUESTS[3]], Sampling(1, 0.0, 20))
    assert found["q3", 0].text == generate_alone(model, tokenizer, ids, 20)[0]


@pytest.mark.slow
def test_the_first_token_follows_the_models_distribution(ref: ModelRef) -> None:
    from scipy.stats import chisquare

    model, tokenizer = models.load_model(ref, device="cpu")
    ids, rows, temperature = tokenizer(PROMPTS[0])["input_ids"], 20_000, 0.7
    drawn = decode(model, Rows([ids], [0] * rows, range(1, rows + 1), [1] * rows), Sampling(1, temperature, 1), [], 0)
    with torch.no_grad():
        expected = (model(torch.tensor([ids])).logits[0, -1] / temperature).softmax(-1).double() * rows
    counts = Counter(one.tokens[0] for one in drawn)
    frequent = [token for token in range(len(expected)) if expected[token] >= 10]
    observed = [counts[token] for token in frequent]
    rest = (rows - sum(observed), rows - float(expected[frequent].sum()))
    assert len(frequent) > 50
    assert chisquare([*observed, rest[0]], [*expected[frequent].tolist(), rest[1]]).pvalue > 0.01


@pytest.mark.slow
def test_samples_of_a_question_and_seeds_differ(ref: ModelRef) -> None:
    sampling = Sampling(4, 1.0, 30)
    one, other = (answers(engine(), ref, REQUESTS[:2], sampling, seed) for seed in (1, 2))
    assert len({completion.text for completion in [*one.values(), *other.values()]}) == 16


def test_greedy_samples_of_a_question_are_the_same(ref: ModelRef) -> None:
    found = answers(engine(), ref, REQUESTS[:3], Sampling(3, 0.0, 20))
    assert len(found) == 9
    assert all(found[key].text == found[key[0], 0].text for key in found)
    assert len({one.text for one in found.values()}) > 1


# --------------------------------------------------------------------------- the same at any batch


@pytest.mark.slow
def test_a_completion_does_not_depend_on_its_batch(ref: ModelRef) -> None:
    """Batch 1, 7, 64, another order of questions, two shards: up to rounding, which may move a text in hundreds."""
    sampling = Sampling(4, 1.0, 40)
    alone = answers(engine(batch_size=1), ref, REQUESTS, sampling)
    shuffled = random.Random(5).sample(REQUESTS, len(REQUESTS))
    others = {
        "7": answers(engine(batch_size=7), ref, REQUESTS, sampling),
        "64": answers(engine(batch_size=64), ref, REQUESTS, sampling),
        "default": answers(engine(), ref, REQUESTS, sampling),
        "order": answers(engine(batch_size=7), ref, shuffled, sampling),
        "shards": answers(engine(), ref, REQUESTS[::2], sampling) | answers(engine(), ref, REQUESTS[1::2], sampling),
    }
    for name, found in others.items():
        assert found.keys() == alone.keys()
        assert sum(found[key] != alone[key] for key in alone) <= 1, name
    assert others["order"] == others["7"], "batches are cut by length and id, so the order of questions is nothing"


def test_a_resumed_call_yields_exactly_the_batches_still_owed(ref: ModelRef) -> None:
    sampling = Sampling(2, 1.0, 20)
    whole = list(engine(batch_size=5).generate(ref, REQUESTS, sampling, 7))
    assert len(whole) == 5
    done = {(one.question_id, one.sample) for batch in whole[:2] for one in batch}
    assert list(engine(batch_size=5).generate(ref, REQUESTS, sampling, 7, done)) == whole[2:]


def test_a_resumed_call_may_owe_single_samples(ref: ModelRef) -> None:
    sampling = Sampling(4, 1.0, 20)
    whole = answers(engine(), ref, REQUESTS, sampling)
    done = {key for index, key in enumerate(sorted(whole)) if index % 3}
    rest = {
        (one.question_id, one.sample): one
        for batch in engine().generate(ref, REQUESTS, sampling, 7, done)
        for one in batch
    }
    assert rest.keys() == whole.keys() - done
    assert sum(rest[key] != whole[key] for key in rest) <= 1  # other batches, so up to rounding


def test_samples_that_another_drew_make_full_batches_of_the_rest(ref: ModelRef) -> None:
    sampling = Sampling(4, 1.0, 20)
    whole = answers(engine(), ref, REQUESTS, sampling)
    firsts = [2, 0, 4] * len(REQUESTS)
    asked = [replace(request, first=first) for request, first in zip(REQUESTS, firsts, strict=False)]
    done = {(one.question_id, sample) for one in asked for sample in range(one.first)}
    batches = list(engine(batch_size=4).generate(ref, asked, sampling, 7, done))
    rest = {(one.question_id, one.sample): one for batch in batches for one in batch}
    assert rest.keys() == whole.keys() - done
    assert sum(rest[key] != whole[key] for key in rest) <= 1  # other batches, so up to rounding
    alike = {first: sum(one.first == first for one in asked) for first in (0, 2)}
    assert [len(batch) for batch in batches] == [
        count * (4 - first)
        for first in (0, 2)
        for count in [4] * (alike[first] // 4) + [alike[first] % 4] * (alike[first] % 4 > 0)
    ]


def test_nothing_is_loaded_where_nothing_is_owed() -> None:
    done = {(request.question_id, 0) for request in REQUESTS}
    assert list(engine().generate(ModelRef("/nowhere"), REQUESTS, Sampling(1, 1.0, 5), 7, done)) == []


def test_looking_less_often_at_what_has_ended_changes_nothing(ref: ModelRef) -> None:
    model, tokenizer = models.load_model(ref, device="cpu")
    rows = Rows([tokenizer(p)["input_ids"] for p in PROMPTS], range(24), range(1, 25), [60] * 24)
    often, seldom = (decode(model, rows, Sampling(1, 1.0, 60), [1], 0, check_every=every) for every in (1, 8))
    assert sum(one != other for one, other in zip(often, seldom, strict=True)) <= 1
    assert 0 < sum(one.ended for one in often) < 24


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.integers(1, 90), st.lists(st.integers(0, 30), min_size=1, max_size=5)), max_size=12))
def test_the_roomy_cache_holds_what_transformers_own_holds(steps: list[int | list[int]]) -> None:
    from transformers.cache_utils import DynamicLayer

    from nsd.plugins.engines.hf_cache import RoomyLayer

    roomy, plain, rows = RoomyLayer(), DynamicLayer(), 3
    generator = torch.Generator().manual_seed(0)
    for step in [2, *steps]:
        if isinstance(step, int):
            states = torch.randn(2, rows, 2, step, 4, generator=generator)
            found, expected = roomy.update(*states), plain.update(*states)
        else:  # pick rows, with repeats
            indices = torch.tensor(step) % rows
            roomy.batch_select_indices(indices)
            plain.batch_select_indices(indices)
            rows, found, expected = len(step), (roomy.keys, roomy.values), (plain.keys, plain.values)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert roomy.get_seq_length() == plain.get_seq_length()


# --------------------------------------------------------------------------- what cannot be written


@pytest.mark.slow
def test_a_prompt_beyond_the_context_is_an_error_completion(tmp_path: Path) -> None:
    small = ModelRef(str(make_tiny_model(tmp_path, max_position_embeddings=64)))
    requests = [Request("long", "x" * 64), Request("fits", "x" * 60), Request("empty", ""), Request("short", "x")]
    found = answers(engine(), small, requests, Sampling(2, 1.0, 8))
    assert found["long", 1].stop_reason is StopReason.ERROR
    assert "64 tokens and the model's context 64" in str(found["long", 1].error)
    assert (found["long", 1].text, found["long", 1].tokens) == ("", 0)
    assert found["empty", 0].error == "the prompt has no tokens"
    assert found["short", 0].error is None
    ended = [found["fits", sample] for sample in range(2)]
    assert all(one.tokens <= 4 and one.error is None for one in ended)
    assert any(one.stop_reason is StopReason.LENGTH for one in ended)


@pytest.mark.slow
def test_a_diverged_model_gives_error_completions(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    model, _ = models.load_model(ModelRef(str(folder)), device="cpu")
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(folder)
    for temperature in (0.0, 1.0):
        found = answers(engine(), ModelRef(str(folder)), REQUESTS[:2], Sampling(2, temperature, 8))
        assert {(one.stop_reason, one.text, one.tokens) for one in found.values()} == {(StopReason.ERROR, "", 0)}
        assert "not finite" in str(found["q0", 0].error)


@pytest.mark.slow
def test_a_chat_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        answers(engine(), ModelRef(str(folder)), [Request("q", [{"role": "user", "content": "x"}])], Sampling(1, 1, 5))


@pytest.mark.parametrize(
    "sampling", [Sampling(0, 1, 5), Sampling(1, 1, 0), Sampling(1, -1, 5), Sampling(1, 1, 5, top_p=0)]
)
def test_impossible_sampling_is_refused(ref: ModelRef, sampling: Sampling) -> None:
    with pytest.raises(InputError, match="engine hf"):
        answers(engine(), ref, REQUESTS, sampling)


def test_a_question_asked_twice_is_refused(ref: ModelRef) -> None:
    with pytest.raises(InputError, match="q1 is asked twice"):
        answers(engine(), ref, [*REQUESTS, REQUESTS[1]], Sampling(1, 1, 5))


# --------------------------------------------------------------------------- memory


class TooLarge:
    """Makes a model's forward run out of memory above so many rows, as a GPU would."""

    def __init__(self, model: Any, rows: int) -> None:
        self.forward, self.rows, self.tried = model.forward, rows, []

    def __call__(self, input_ids: Any, **more: Any) -> Any:
        self.tried.append(len(input_ids))
        if len(input_ids) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.forward(input_ids=input_ids, **more)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved(ref: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(4, 1.0, 20)
    made = engine(batch_size=12)
    whole = answers(made, ref, REQUESTS, sampling)
    assert hf._last is not None
    limited = TooLarge(hf._last.loaded.model, rows=13)
    monkeypatch.setattr(hf._last.loaded.model, "forward", limited)
    halved = answers(made, ref, REQUESTS, sampling)
    assert sum(halved[key] != whole[key] for key in whole) <= 1
    assert halved.keys() == whole.keys()
    assert made.notes["out_of_memory_at_rows"] == [48, 24], "remembered: the second batch starts with what fits"


@pytest.mark.slow
def test_memory_for_not_even_one_row_stops_the_stage(ref: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(engine(), ref, REQUESTS[:1], Sampling(1, 1.0, 2))
    assert hf._last is not None
    monkeypatch.setattr(hf._last.loaded.model, "forward", TooLarge(hf._last.loaded.model, rows=0))
    with pytest.raises(StageFailed, match="not even one completion of 9 tokens"):
        answers(engine(), ref, REQUESTS, Sampling(1, 1.0, 9))


def test_other_failures_of_the_model_are_not_taken_for_a_lack_of_memory(
    ref: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(engine(), ref, REQUESTS[:1], Sampling(1, 1.0, 2))

    def broken(**_: Any) -> None:
        raise RuntimeError("shapes do not match")

    assert hf._last is not None
    monkeypatch.setattr(hf._last.loaded.model, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        answers(engine(), ref, REQUESTS, Sampling(1, 1.0, 9))


@pytest.mark.slow
def test_the_model_stays_loaded_until_its_files_change(tmp_path: Path) -> None:
    own = ModelRef(str(make_tiny_model(tmp_path)))
    before = answers(engine(), own, REQUESTS[:2], Sampling(1, 0.0, 10))
    kept = hf._last
    answers(engine(batch_size=3), own, REQUESTS[:2], Sampling(1, 1.0, 10))
    assert hf._last is kept, "another engine of the same process uses it too"
    make_tiny_model(tmp_path, seed=1)
    assert answers(engine(), own, REQUESTS[:2], Sampling(1, 0.0, 10)) != before
    engine().close()
    assert hf._last is None


def test_default_batches_hold_whole_questions_until_one_has_too_many_samples(ref: ModelRef) -> None:
    model, _ = models.load_model(ref, device="cpu")
    many, few = (batch_shape(model, Sampling(n, 1.0, 40), 30, None) for n in (2000, 8))
    assert (few.samples, many.prompts) == (8, 1)
    assert 1 < many.samples <= 256
    assert 1 < few.prompts * few.samples <= 256
    assert batch_shape(model, Sampling(8, 1.0, 10**9), 30, None).prompts == 1
    found = answers(engine(), ref, REQUESTS[:1], Sampling(600, 1.0, 1))
    assert sorted(sample for _, sample in found) == list(range(600))


def test_the_samples_of_a_prompt_share_its_prefill() -> None:
    """By hand: two layers with 8 numbers for keys and for values, 2 bytes each, and 64 columns of room."""
    shape = ModelShape(
        layers=2, hidden=16, intermediate=50, heads=4, key_value_heads=2, head_size=4, vocabulary=100, tied=True
    )
    cache, logits, prefill = 2 * 2 * 8 * 2 * (10 + 30 + 64) * 1.2, 100 * 24, 10 * (4 * 50 * 2 + 10 * 4)
    assert bytes_per_row(shape, 2, 10, 30) == pytest.approx(cache + logits + prefill)
    assert bytes_per_row(shape, 2, 10, 30, samples=8) == pytest.approx(cache + logits + prefill / 8)


# --------------------------------------------------------------------------- other architectures


def _small(name: str) -> Any:
    import transformers as t

    size: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    wide = size | {"intermediate_size": 96, "num_key_value_heads": 1, "initializer_range": 0.15}
    head = wide | {"head_dim": 32}
    return {
        "llama": lambda: t.LlamaConfig(**wide),
        "gpt2": lambda: t.GPT2Config(**(size | {"n_inner": 96, "initializer_range": 0.15})),
        "opt": lambda: t.OPTConfig(**(size | {"ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.15})),
        "mistral_window": lambda: t.MistralConfig(**(head | {"sliding_window": 16})),
        "gemma2_window": lambda: t.Gemma2Config(**(head | {"sliding_window": 16, "query_pre_attn_scalar": 32})),
        "lfm2_hybrid": lambda: t.Lfm2Config(**(wide | {"layer_types": ["conv", "full_attention"]})),
        "mamba": lambda: t.MambaConfig(**(size | {"num_attention_heads": 1})),
    }[name]()


def _made(name: str, folder: Path) -> ModelRef:
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(_small(name))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return ModelRef(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "mistral_window", "gemma2_window", "lfm2_hybrid"])
def test_greedy_text_of_other_architectures(name: str, tmp_path: Path) -> None:
    """Learned, rotary and model-counted positions; sliding windows shorter than the prompt; convolution states."""
    own = _made(name, tmp_path)
    model, tokenizer = models.load_model(own, device="cpu")
    found = answers(engine(batch_size=8), own, REQUESTS[:8], Sampling(1, 0.0, 24))
    expected = [generate_alone(model, tokenizer, tokenizer(prompt)["input_ids"], 24) for prompt in PROMPTS[:8]]
    assert [(found[r.question_id, 0].text, found[r.question_id, 0].tokens) for r in REQUESTS[:8]] == expected
    sampled = [answers(engine(batch_size=size), own, REQUESTS[:8], Sampling(3, 1.0, 24)) for size in (1, 8)]
    assert sum(sampled[0][key] != sampled[1][key] for key in sampled[0]) <= 1


@pytest.mark.slow
def test_a_model_without_a_key_value_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MambaForCausalLM"):
        answers(engine(), _made("mamba", tmp_path), REQUESTS[:2], Sampling(1, 1.0, 4))
