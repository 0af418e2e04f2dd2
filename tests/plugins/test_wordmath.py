"""The generated word problems: right arithmetic, distinct, disjoint, the same for the same seed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.api import Question, question_id
from nsd.plugins.datasets import wordmath_problems
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.datasets.wordmath_problems import even_mix, generate, problem
from nsd.plugins.datasets.wordmath_stories import FAMILIES, Draw, Story
from nsd.plugins.registry import find

LINE = re.compile(r"[A-Z][a-z]+: (\d+) ([-+*/]) (\d+) = (\d+)")


def check_solution(question: Question) -> None:
    """Work the solution out again: every line is true, and the last result is the answer."""
    assert question.solution is not None
    *lines, final = question.solution.split("\n")
    results = []
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        a, operator, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
        value = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b or 1)}[operator]
        assert value == result, line
        assert 0 <= result <= 999
        results.append(result)
    assert final == f"#### {results[-1]}"
    assert question.answer == str(results[-1])


def numbers_of(text: str) -> set[int]:
    words = {"twice": 2, "three times": 3, "four times": 4, "half": 2, "Half": 2, "third": 3, "quarter": 4, "fifth": 5}
    return {int(number) for number in re.findall(r"\d+", text)} | {
        value for word, value in words.items() if word in text
    }


POOLS = Wordmath().pools()
ALL = [*POOLS.train, *(POOLS.test or [])]


@pytest.fixture(scope="module", autouse=True)
def drawn_anew() -> Iterator[None]:
    """Not what tests/conftest.py keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wordmath_problems, "generate", inspect.unwrap(wordmath_problems.generate))
        yield


def test_every_step_of_every_gold_solution_is_right() -> None:
    for question in ALL:
        check_solution(question)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), family=st.sampled_from(sorted(FAMILIES)), steps=st.integers(1, 4))
def test_any_seed_family_and_length_gives_a_right_solution_of_that_length(seed: int, family: str, steps: int) -> None:
    steps = max(steps, 2) if family == "average" else steps
    question = problem(Draw(seed), family, steps)
    check_solution(question)
    assert question.meta == {"family": family, "steps": steps}
    assert len((question.solution or "").split("\n")) == steps + 1


def test_every_number_of_a_solution_comes_from_the_question_or_an_earlier_line() -> None:
    for question in ALL:
        known = numbers_of(question.text)
        for line in (question.solution or "").split("\n")[:-1]:
            match = LINE.fullmatch(line)
            assert match and {int(match[1]), int(match[3])} <= known, (question.text, question.solution)
            known.add(int(match[4]))


def test_questions_are_distinct_and_the_test_pool_is_disjoint_from_the_train_pool() -> None:
    train, test = [q.id for q in POOLS.train], [q.id for q in POOLS.test or []]
    assert len(train) == 6000 and len(test) == 2000
    assert len({*train, *test}) == 8000
    assert all(question.id == question_id(question.text) for question in ALL)


def test_no_placeholder_is_left_and_sentences_are_written_as_sentences() -> None:
    for question in ALL:
        assert not set("{}") & set(question.text), question.text
        assert "  " not in question.text and question.text.endswith("?")
        assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in re.split(r"[.?] ", question.text))


def test_the_same_seed_gives_the_same_questions_in_another_process() -> None:
    code = (
        "from nsd.plugins.datasets.wordmath import Wordmath; p = Wordmath(Wordmath.Config(train=50, test=50)).pools();"
        "print(*[q.id for q in p.train + p.test])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    pools = Wordmath(Wordmath.Config(train=50, test=50)).pools()
    assert printed.split() == [q.id for q in [*pools.train, *(pools.test or [])]]


def test_another_seed_gives_other_questions() -> None:
    other = Wordmath(Wordmath.Config(seed=2, train=500, test=500)).pools()
    shared = {q.id for q in ALL} & {q.id for q in [*other.train, *(other.test or [])]}
    assert len(shared) < 20  # a short problem may come up by chance


def test_a_larger_train_pool_begins_with_the_smaller_and_leaves_the_test_pool_alone() -> None:
    small = Wordmath(Wordmath.Config(train=100, test=200)).pools()
    large = Wordmath(Wordmath.Config(train=400, test=200)).pools()
    assert large.train[:100] == small.train and large.test == small.test


def test_the_language_varies() -> None:
    # With numbers and names masked, many different texts remain: it is not one template with other numbers.
    masked = {re.sub(r"\d+", "#", question.text) for question in POOLS.train}
    assert len(masked) > 5500
    openings = Counter(" ".join(re.sub(r"[A-Z][a-z]+ ", "", question.text).split()[:2]) for question in POOLS.train)
    assert len(openings) > 50
    assert {q.meta["family"] for q in POOLS.train} == set(FAMILIES)


def test_the_mix_of_steps_is_the_configured_one() -> None:
    pools = Wordmath(Wordmath.Config(train=2000, test=0, steps=(0.0, 1.0, 0.0, 3.0))).pools()
    counts = Counter(question.meta["steps"] for question in pools.train)
    assert set(counts) == {2, 4}
    assert 0.70 < counts[4] / 2000 < 0.80


def test_there_are_more_than_twenty_thousand_questions() -> None:
    assert len({question.id for question in generate(3, 21_000, even_mix((1, 1, 1, 1)))}) == 21_000


def test_few_stories_are_begun_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0

    class Counted(Story):
        def __init__(self, draw: Draw) -> None:
            nonlocal begun
            begun += 1
            super().__init__(draw)

    monkeypatch.setattr(wordmath_problems, "Story", Counted)
    Wordmath().pools()
    assert 8000 <= begun < 3 * 8000  # pools are made again wherever they are needed


def test_importing_the_dataset_loads_nothing_heavy() -> None:
    code = (
        "import sys, nsd.plugins.datasets.wordmath as w; w.Wordmath().pools();"
        "print([m for m in ('numpy', 'torch', 'pyarrow', 'duckdb', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_registry_finds_it() -> None:
    assert find("dataset", "wordmath") is Wordmath


@pytest.mark.parametrize(
    "field", [{"train": -1}, {"steps": (1, 1, 1)}, {"steps": (0, 0, 0, 0)}, {"steps": (1, -1, 1, 1)}]
)
def test_a_wrong_config_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Wordmath.Config.model_validate(field)
