"""The generated programming tasks: sound tests, distinct tasks, the same for the same seed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.api import Question, question_id, without_truth
from nsd.plugins.datasets import code_puzzles_tasks
from nsd.plugins.datasets.code_puzzles import CodePuzzles
from nsd.plugins.datasets.code_puzzles_operations import BY_NAME, OPERATIONS, Step
from nsd.plugins.datasets.code_puzzles_tasks import HIDDEN, PUBLIC, agrees, generate, puzzle, source
from nsd.plugins.datasets.wordmath_stories import Draw
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find

POOLS = CodePuzzles().pools()
ALL = [*POOLS.train, *(POOLS.test or [])]


def called(program: str, given: list[Any]) -> Any:
    """What the function of a program gives; the program is ours."""
    names: dict[str, Any] = {}
    exec(program, names)
    return names["f"](*given)


def program_of(question: Question) -> str:
    return str(question.solution).removeprefix("```python\n").removesuffix("\n```")


def test_every_gold_program_passes_every_test_of_its_task() -> None:
    for question in ALL:
        program = program_of(question)
        assert question.answer == question.solution and question.meta["function"] == "f"
        for test in question.meta["tests"]:
            assert test["kind"] == "functional" and called(program, test["input"]) == test["output"]


def test_three_tests_are_public_and_three_are_hidden_and_all_inputs_differ() -> None:
    for question in ALL:
        tests = question.meta["tests"]
        assert [test.get("public", False) for test in tests] == [True] * PUBLIC + [False] * HIDDEN
        assert len({repr(test["input"]) for test in tests}) == len(tests)
        assert len({repr(test["output"]) for test in tests}) > 1  # no constant passes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), level=st.integers(1, 3))
def test_no_step_is_in_vain(seed: int, level: int) -> None:
    made = puzzle(Draw(seed), level, 0.5)
    assert len(made.steps) == level
    for place in range(level):
        shorter = made.steps[:place] + made.steps[place + 1 :]
        assert sum(not agrees(shorter, test) for test in made.tests) >= 2


def test_few_programs_with_one_other_step_pass() -> None:
    draw, passed, tried = Draw(3), 0, 0
    for _ in range(200):
        made = puzzle(draw, 2, 1.0)
        for place, step in enumerate(made.steps):
            for other in OPERATIONS:
                if (other.takes, other.gives) == (step.operation.takes, step.operation.gives) and other is not (
                    step.operation
                ):
                    tried += 1
                    wrong = (*made.steps[:place], Step(other, step.k, step.letter), *made.steps[place + 1 :])
                    passed += all(agrees(wrong, test) for test in made.tests)
    assert tried > 3000 and passed / tried < 0.02


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("add", [1, 5], [4, 8]),
        ("odd", [1, 2, 3], [1, 3]),
        ("above", [2, 3, 4], [4]),
        ("falling", [1, 3, 2], [3, 2, 1]),
        ("tail", [1, 2, 3, 4], [2, 3, 4]),
        ("distinct", [3, 1, 3], [1, 3]),
        ("spread", [4, 9], 5),
        ("frequency", [3, 1, 3], 2),
        ("rest", 11, 2),
        ("over", 11, 3),
        ("repeat", "ab", "ababab"),
        ("without", "abca", "bc"),
        ("letters", "abca", 2),
    ],
)
def test_an_operation_does_what_it_says_with_3_and_a(name: str, given: Any, expected: Any) -> None:
    assert Step(BY_NAME[name], 3, "a")(given) == expected


def test_a_task_and_its_program_by_hand() -> None:
    steps = (Step(BY_NAME["even"], 2, "a"), Step(BY_NAME["add"], 3, "a", wording=1), Step(BY_NAME["sum"], 2, "a"))
    made = puzzle(Draw(1), 1, 1.0)
    text = type(made)("numbers", steps, made.tests).text
    assert text == (
        "Write a function f(x) for a list of numbers x. First keep the even numbers. "
        "Then make each number larger by 3. Then add up the numbers."
    )
    assert source(steps) == (
        "def f(x):\n    x = [n for n in x if n % 2 == 0]\n    x = [n + 3 for n in x]\n    x = sum(x)\n    return x"
    )


def test_no_wording_belongs_to_two_operations_of_one_type() -> None:
    said = Counter((one.takes, words) for one in OPERATIONS for words in one.said)
    assert max(said.values()) == 1


def test_questions_are_distinct_and_the_test_pool_is_disjoint_from_the_train_pool() -> None:
    assert (len(POOLS.train), len(POOLS.test or [])) == (1500, 500)
    assert len({question.id for question in ALL}) == 2000
    assert all(question.id == question_id(question.text) for question in ALL)


def test_the_same_seed_gives_the_same_tasks_and_tests_in_another_process() -> None:
    code = (
        "from nsd.plugins.datasets.code_puzzles import CodePuzzles as C\n"
        "from nsd.plugins.datasets.split import data_hash\n"
        "p = C(C.Config(train=50, test=50)).pools(); print(data_hash(p.train + p.test))"
    )
    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1] and len(printed[0]) == 65


def test_another_seed_gives_other_tasks() -> None:
    other = CodePuzzles(CodePuzzles.Config(seed=2)).pools()
    shared = {one.id for one in ALL if one.meta["level"] > 1} & {
        one.id for one in [*other.train, *(other.test or [])] if one.meta["level"] > 1
    }
    assert len(shared) < 300  # a task of two steps may come up by chance


def test_a_larger_train_pool_begins_with_the_smaller_and_leaves_the_test_pool_alone() -> None:
    small = CodePuzzles(CodePuzzles.Config(train=100, test=200)).pools()
    large = CodePuzzles(CodePuzzles.Config(train=400, test=200)).pools()
    assert large.train[:100] == small.train and large.test == small.test


def test_levels_and_wordings_are_the_configured_ones() -> None:
    made = CodePuzzles(CodePuzzles.Config(train=600, test=0, levels=(0.0, 1.0, 3.0), plain=1.0)).pools().train
    counts = Counter(question.meta["level"] for question in made)
    assert set(counts) == {2, 3} and 0.7 < counts[3] / 600 < 0.8
    assert all(question.meta["plain"] for question in made)
    mixed = generate(1, 600, {2: 1.0}, plain=0.7)
    assert 0.42 < sum(question.meta["plain"] for question in mixed) / 600 < 0.56  # 0.7 squared


def test_examples_are_the_first_public_tests() -> None:
    (question,) = generate(1, 1, {2: 1.0}, plain=1.0, examples=2)
    (plain,) = generate(1, 1, {2: 1.0}, plain=1.0)
    first, second = plain.meta["tests"][:2]

    def said(value: Any) -> str:
        return f'"{value}"' if isinstance(value, str) else str(value)

    assert question.text == plain.text + "".join(
        f" f({said(test['input'][0])}) is {said(test['output'])}." for test in (first, second)
    )


def test_tests_stay_with_a_task_whose_answer_is_hidden() -> None:
    left = without_truth(ALL[0], CodePuzzles().shown())
    assert set(left.meta) == {"tests", "function"} and left.answer is None and left.solution is None


@pytest.mark.parametrize(
    "field", [{"train": -1}, {"levels": (1, 1)}, {"levels": (1, 0, 0)}, {"levels": (-1, 1, 1)}, {"plain": 1.5}]
)
def test_fields_out_of_range_are_errors(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        CodePuzzles.Config.model_validate(field)


def test_importing_the_dataset_loads_nothing_heavy() -> None:
    code = (
        "import sys; from nsd.plugins.datasets.code_puzzles import CodePuzzles as C;"
        "C(C.Config(train=9, test=9)).pools();"
        "print([m for m in ('numpy', 'torch', 'pyarrow', 'duckdb', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_registry_finds_it() -> None:
    assert find("dataset", "code_puzzles") is CodePuzzles


def test_more_tasks_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_puzzles_tasks, "MOST_REPEATS", 300)
    with pytest.raises(InputError, match="in a row were there already"):
        generate(1, 2_000, {1: 1.0}, 1.0)
