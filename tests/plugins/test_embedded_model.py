"""The model that ships with nsd: what its folder holds, that it loads, what it says, and that the recipe repeats."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins import models
from nsd.plugins.api import Question
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.verifiers.numeric import Numeric
from support import shared_data

FOLDER = Path(models.resolve("builtin:wordmath-1m"))
PROMPT = Wordmath.default_prompt


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@cache
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER)


@cache
def questions() -> list[Question]:
    return Wordmath().pools().test or []


def ids(text: str) -> list[int]:
    return list(tokenizer()(text)["input_ids"])


# --------------------------------------------------------------------------- the tokenizer


def test_wordmath_text_goes_through_the_tokenizer_and_back() -> None:
    for question in questions()[:500]:
        text = PROMPT.render(question) + str(question.solution)
        assert tokenizer().decode(ids(text)) == text


def test_every_wordmath_word_is_one_token_and_every_digit_its_own() -> None:
    for question in questions()[:500]:
        tokens = tokenizer().convert_ids_to_tokens(ids(f"{question.text}\n{question.solution}"))
        words = [token for token in tokens if any(letter.isascii() and letter.isalpha() for letter in token)]
        text_words = sum(len(part.strip(".,?:")) > 0 and part[0].isalpha() for part in _split(question))
        assert len(words) == text_words, question.text
        assert all(len(token.lstrip("Ġ")) == 1 for token in tokens if any(letter.isdigit() for letter in token))


def _split(question: Question) -> list[str]:
    return f"{question.text}\n{question.solution}".split()


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_unicode_text_goes_through_the_tokenizer_and_back(text: str) -> None:
    if any(special in text for special in tokenizer().all_special_tokens):
        return
    assert tokenizer().decode(ids(text)) == text


@pytest.mark.slow
@given(prompt=st.text(max_size=40), completion=st.text(max_size=40))
@settings(deadline=None)
def test_a_prompt_ending_in_a_line_break_keeps_its_tokens_when_a_completion_follows(
    prompt: str, completion: str
) -> None:
    # TRL finds where the completion begins by the prompt's tokens being a prefix of the whole text's.
    if any(ord(letter) in range(0xD800, 0xE000) for letter in prompt + completion):
        return
    start = ids(prompt + "\n")
    assert ids(prompt + "\n" + completion)[: len(start)] == start


def test_end_and_pad_are_different_single_tokens_and_no_other_token_is_added() -> None:
    assert tokenizer().eos_token_id != tokenizer().pad_token_id
    assert len(tokenizer()) == model().config.vocab_size
    assert model().config.eos_token_id == model().generation_config.eos_token_id == tokenizer().eos_token_id
    assert ids("Tom") == tokenizer().convert_tokens_to_ids(["Tom"])


def test_the_chat_template_writes_the_text_the_model_was_trained_on() -> None:
    question = questions()[0]
    turns = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.solution}]
    assert tokenizer().apply_chat_template(turns, tokenize=False) == (
        f"{PROMPT.render(question)}{question.solution}{tokenizer().eos_token}"
    )
    prompt = tokenizer().apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == PROMPT.render(question)


def test_real_gsm8k_questions_can_be_encoded_and_decoded() -> None:
    lines = shared_data("gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[:200]:
        text = json.loads(line)["question"]
        assert tokenizer().decode(ids(text)) == text
        assert len(ids(text)) < model().config.max_position_embeddings


# --------------------------------------------------------------------------- the model


def greedy(text: str) -> str:
    prompt = tokenizer()(text, return_tensors="pt")
    output = model().generate(**prompt, do_sample=False, max_new_tokens=64)
    return str(tokenizer().decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


def test_a_pinned_question_gets_the_pinned_greedy_answer() -> None:
    text = "Mia has 25 shells. Then she finds 17 more at the beach. How many shells does Mia have now?\n"
    assert greedy(text) == PINNED


PINNED = "Now: 25 + 17 = 42\n#### 42"


@pytest.mark.slow
def test_the_numeric_verifier_reads_the_models_answers() -> None:
    from nsd.plugins.verifiers.numeric import Numeric

    verifier = Numeric()
    answers = [verifier.extract(greedy(str(PROMPT.render(question)))) for question in questions()[:8]]
    assert all(answer is not None and answer.lstrip("-").isdigit() for answer in answers)


@pytest.mark.slow
def test_the_base_solves_between_15_and_45_percent_of_the_test_pool() -> None:
    from nsd.plugins.api import ModelRef, Request, Sampling
    from nsd.plugins.engines.hf import HfEngine

    by_id = {question.id: question for question in questions()[:600]}
    requests = [Request(question.id, PROMPT.render(question)) for question in by_id.values()]
    shards = HfEngine().generate(ModelRef(str(FOLDER)), requests, Sampling(n=1, temperature=0.1, max_tokens=64), 0)
    verifier = Numeric()
    correct = [verifier.score(done.text, by_id[done.question_id]).correct for shard in shards for done in shard]
    assert len(correct) == 600
    assert 0.15 < sum(correct) / 600 < 0.45


# --------------------------------------------------------------------------- the recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that the recipe trained for two steps."""
    from nsd.plugins.embedded.recipe import make

    folder = tmp_path_factory.mktemp("made")
    make(folder, steps=2, threads=1)
    return folder


@pytest.mark.slow
def test_the_recipe_makes_the_shipped_tokenizer(made: Path) -> None:
    from transformers import AutoTokenizer

    assert (made / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(made).chat_template == tokenizer().chat_template


@pytest.mark.slow
def test_the_recipe_run_twice_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """With the tokenizer that ships the second time, which the first made anew: that takes longer than the steps."""
    from nsd.plugins.embedded.recipe import make

    make(tmp_path, steps=2, threads=1, tokenizer=tokenizer)
    assert (tmp_path / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_recipe_learns() -> None:
    from nsd.plugins.embedded.recipe import build_model, train

    losses = [loss for _, loss in train(build_model(tokenizer(), 0), tokenizer(), steps=30, batch=8)]
    assert losses[-1] < losses[0] - 1


def test_the_corpus_has_no_question_of_the_default_pools() -> None:
    from nsd.plugins.embedded.recipe import corpus

    pools = Wordmath().pools()
    own = {question.id for question in [*pools.train, *(pools.test or [])]}
    made = {question.id for question in corpus(5_000)}
    assert len(made) == 5_000 and not made & own
