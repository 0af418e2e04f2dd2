"""The model that ships for `code_puzzles`: what its folder holds, what it writes, and that its recipe repeats."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import models
from nsd.plugins.api import ModelRef, Question, Request, Sampling
from nsd.plugins.datasets.code_puzzles import CodePuzzles
from nsd.plugins.datasets.code_puzzles_tasks import fenced, puzzle, question, source
from nsd.plugins.datasets.wordmath_stories import Draw
from nsd.plugins.embedded import code_recipe
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.trainers.teacher_inputs import Templates
from nsd.plugins.verifiers import code_tests
from nsd.plugins.verifiers.code import Code

FOLDER = Path(models.resolve("builtin:codepuzzles-1m"))
PROMPT = CodePuzzles.default_prompt


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@cache
def questions() -> list[Question]:
    return CodePuzzles().pools().test or []


def answers(prompts: dict[str, str], temperature: float) -> dict[str, str]:
    """A completion of each prompt, by its key."""
    requests = [Request(key, prompt) for key, prompt in prompts.items()]
    shards = HfEngine().generate(ModelRef(str(FOLDER)), requests, Sampling(1, temperature, 96), 0)
    return {done.question_id: done.text for shard in shards for done in shard}


def plain(asked: list[Question]) -> dict[str, str]:
    return {question.id: str(PROMPT.render(question)) for question in asked}


# --------------------------------------------------------------------------- the tokenizer


def test_tasks_and_programs_go_through_the_tokenizer_and_back() -> None:
    for asked in questions()[:300]:
        text = f"{PROMPT.render(asked)}{asked.solution}"
        assert tokenizer().decode(tokenizer()(text)["input_ids"]) == text


def test_words_fences_and_indentation_are_one_token_and_letters_of_examples_are_each_their_own() -> None:
    tokens = tokenizer().convert_ids_to_tokens(tokenizer()("```python\n    x = x.upper()\n'abad' 12")["input_ids"])
    expected = ["```", "python", "Ċ", "ĠĠĠĠ", "x", "Ġ=", "Ġx", ".", "upper", "(", ")", "Ċ"]
    assert tokens == [*expected, "'", "a", "b", "a", "d", "'", "Ġ1", "2"]


# --------------------------------------------------------------------------- what it writes


@pytest.mark.slow
def test_a_pinned_task_gets_the_pinned_program() -> None:
    text = "Write a function f(x) for a list of numbers x. First keep the even numbers. Then add 3 to each number.\n"
    assert answers({"q": text}, 0.0) == {"q": PINNED}


PINNED = """\
```python
def f(x):
    x = [n for n in x if n % 2 == 0]
    x = [n + 3 for n in x]
    return x
```"""


@pytest.mark.slow
def test_the_base_solves_some_tasks_and_fails_others() -> None:
    asked = questions()[:120]
    said = answers(plain(asked), 0.1)
    verdicts = Code().score_many([(said[one.id], one) for one in asked])
    right = [verdict.correct for verdict in verdicts]
    known = [ok for ok, one in zip(right, asked, strict=True) if one.meta["plain"]]
    assert 0.3 < sum(right) / len(right) < 0.7
    assert sum(known) / len(known) > 0.8


def reprompted(asked: str, solution: str = "", feedback: str = "") -> str:
    """What a self-distillation's teacher reads."""
    words = Templates()
    text = words.reprompt.replace("{prompt}", asked)
    if solution:
        solution = words.solution.replace("{successful_previous_attempt}", solution)
    if feedback:
        feedback = words.feedback.replace("{feedback_raw}", feedback)
    return text.replace("{solution}", solution).replace("{feedback}", feedback)


@pytest.mark.slow
def test_a_teacher_that_reads_a_correct_program_solves_what_the_student_fails() -> None:
    asked = [one for one in questions() if not one.meta["plain"]][:60]
    first = answers(plain(asked), 1.0)
    verdicts = Code().score_many([(first[one.id], one) for one in asked])
    failed = [one for one, verdict in zip(asked, verdicts, strict=True) if not verdict.correct]
    assert len(failed) > 30
    read = {one.id: reprompted(str(PROMPT.render(one)), solution=str(one.solution)) for one in failed}
    said = answers(read, 1.0)
    found = Code().score_many([(said[one.id], one) for one in failed])
    assert sum(verdict.correct for verdict in found) / len(failed) > 0.7


@pytest.mark.slow
def test_failed_tests_tell_it_a_last_step_that_the_words_do_not() -> None:
    draw, alone, told, gold = Draw(11), dict[str, str](), dict[str, str](), dict[str, str]()
    while len(gold) < 120:
        made = puzzle(draw, 2, 1.0)
        said = code_recipe.feedback(draw, made, 1)
        if said is not None:
            key = str(len(gold))
            alone[key] = code_recipe.told(made, {1: code_recipe.blurred(draw, made.steps[1])}) + "\n"
            told[key], gold[key] = reprompted(alone[key], feedback=said), fenced(made.program)

    def exact(prompts: dict[str, str]) -> float:
        return sum(text == gold[key] for key, text in answers(prompts, 0.0).items()) / len(gold)

    assert exact(told) > exact(alone) + 0.1


# --------------------------------------------------------------------------- the recipe


@pytest.mark.slow
def test_the_corpus_has_no_task_of_the_default_pools_and_tells_no_other_wording() -> None:
    pools = CodePuzzles().pools()
    own = {question.text for question in [*pools.train, *(pools.test or [])]}
    other = {said.replace("{k}", "3").replace("{c}", "a") for one in code_recipe.OPERATIONS for said in one.said[1:]}
    for pieces in code_recipe.texts(1500):
        task = pieces[0][0].partition("\n")[0]
        assert task not in own
        assert not any(f"First {said}." in task or f"Then {said}." in task for said in other)


@pytest.mark.slow
def test_the_corpus_tells_failed_tests_as_the_verifier_does() -> None:
    draw, verifier, told = Draw(5), Code(Code.Config(tests="train")), 0
    for _ in range(12):
        made = puzzle(draw, 2, 1.0)
        asked = question(made)
        attempt = code_recipe.mistaken(draw, made, 1)
        seen = [test.number - 1 for test in code_tests.half(code_tests.tests_of(asked), asked, 0)]
        expected = code_recipe.failures(made, attempt, seen)
        if expected is not None:
            told += 1
            assert verifier.score(fenced(source(attempt)), asked).feedback == expected
    assert told > 5


@pytest.mark.slow
def test_the_recipe_run_twice_writes_the_same_bytes_with_the_shipped_tokenizer(tmp_path: Path) -> None:
    from nsd.plugins.embedded.recipe import make

    # The second time with the tokenizer that ships: the first is shown to have made the same.
    for name, words in (("a", code_recipe.build_tokenizer), ("b", tokenizer)):
        make(tmp_path / name, 2, 1, words, code_recipe.texts, code_recipe.SEED)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()
