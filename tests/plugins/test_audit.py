"""The audit of a verifier: sound ones pass, and each of ten broken ones fails the check that is for its fault."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from nsd.plugins.api import Dataset, Question, Score, Verifier
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.plugins.verifiers.audit import Audit, audit
from nsd.plugins.verifiers.choice import Choice
from nsd.plugins.verifiers.final_answer import FinalAnswer
from nsd.plugins.verifiers.math import Math
from nsd.plugins.verifiers.numeric import Numeric
from nsd.plugins.verifiers.steps import Steps
from nsd.plugins.verifiers.tool_calls import ToolCalls
from nsd.plugins.verifiers.trial import KEPT, Check
from nsd.plugins.verifiers.variants import as_calls, beside, written_variants, wrong_variants
from nsd.runner.cli.app import app
from nsd.runner.cli.validate import questions_of
from support import shared_data

QUESTIONS = [
    Question(
        f"q{n}",
        f"Anna has {n} shells and finds {n + 40} more. How many are there?",
        str(2 * n + 40),
        f"{n} + {n + 40} = {2 * n + 40}\n#### {2 * n + 40}",
    )
    for n in range(500, 560, 2)
]


class Lenient(Numeric):
    """Right wherever the gold answer stands anywhere in the text."""

    def score(self, completion: str, question: Question) -> Score:
        found = str(question.answer) in completion
        return Score(float(found), found, question.answer if found else None)


class Prefix(Numeric):
    """Compares the first three characters."""

    def same(self, a: str, b: str) -> bool:
        return a[:3] == b[:3]


class Empty(Numeric):
    """Calls a text without an answer right."""

    def score(self, completion: str, question: Question) -> Score:
        found = super().score(completion, question)
        return Score(1.0, True, None) if found.answer is None else found


class Unsigned(Numeric):
    """Forgets the sign."""

    def extract(self, completion: str) -> str | None:
        found = super().extract(completion)
        return None if found is None else found.lstrip("-")


class Written(Numeric):
    """Reads no comma between thousands and no decimal point."""

    def extract(self, completion: str) -> str | None:
        found = super().extract(completion.replace(",", " "))
        return None if found is None or "." in completion.rpartition(" ")[2].rstrip(".") else found


class Raising(Numeric):
    """Falls over a text without a number."""

    def extract(self, completion: str) -> str | None:
        found = super().extract(completion)
        if found is None:
            raise ValueError("no number")
        return found


class Moody(Numeric):
    """Gives another verdict now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = random.Random(1)

    def score(self, completion: str, question: Question) -> Score:
        found = super().score(completion, question)
        return replace(found, score=found.score * self.chance.choice((1.0, 0.5)))


class OneWay(Numeric):
    """Equal is what is not larger."""

    same_is_equality = False

    def same(self, a: str, b: str) -> bool:
        return float(a) <= float(b)


class Voting(Numeric):
    """Its votes join by the last digit."""

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        last = [None if one is None else one[-1] for one in answers]
        return [None if one is None else last.index(one) for one in last]


class Blind(Numeric):
    """Reads the first number of a gold solution."""

    def extract(self, completion: str) -> str | None:
        return super().extract(completion.partition(" ")[0])


class RaisesOnSolution(Numeric):
    """Falls over a text with a plus."""

    def score(self, completion: str, question: Question) -> Score:
        if " + " in completion:
            raise ValueError("plus")
        return super().score(completion, question)


class SameRaises(Numeric):
    """Cannot compare."""

    def same(self, a: str, b: str) -> bool:
        raise ValueError("same")


class NormaliseRaises(Numeric):
    """Reads no bare answer."""

    def normalise(self, answer: str) -> str | None:
        raise ValueError("normalise")


class Exits(Numeric):
    """Ends the process."""

    def score(self, completion: str, question: Question) -> Score:
        raise SystemExit(3)


class NoScore(Numeric):
    """Judges in a type of its own."""

    def score(self, completion: str, question: Question) -> Score:
        return True  # type: ignore[return-value]


class NeverJoins(Numeric):
    """Its votes have a class for every sample."""

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        return list(range(len(answers)))


class LosesVotes(Numeric):
    """Its votes have no classes."""

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        return []


class JoinsMany(Numeric):
    """From three answers on all are one."""

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        return [0] * len(answers) if len(answers) > 2 else super().group(answers)


class AnyNumber(Numeric):
    """Right where the gold answer is one of the numbers of a text."""

    def score(self, completion: str, question: Question) -> Score:
        found = question.answer in re.findall(r"\d+", completion)
        return Score(float(found), found, question.answer if found else super().extract(completion))


class AnyOfTheStatement(Numeric):
    """Right where the gold answer is one of the numbers of its last line, as a box of several answers."""

    def score(self, completion: str, question: Question) -> Score:
        found = question.answer in re.findall(r"\d+", completion.rpartition("\n")[2])
        return Score(float(found), found, question.answer if found else super().extract(completion))


class AnyStatement(Numeric):
    """Right where one of several statements is."""

    def score(self, completion: str, question: Question) -> Score:
        lines = [super(AnyStatement, self).score(line, question) for line in completion.split("\n")]
        return max(lines, key=lambda one: one.score)


class FirstOrLast(Numeric):
    """Right where the first number is, or the last."""

    def score(self, completion: str, question: Question) -> Score:
        numbers = re.findall(r"-?\d[\d,.]*", completion)
        first = super().score(numbers[0] if numbers else "", question)
        return first if first.correct else super().score(completion, question)


class LongRight(Numeric):
    """Calls a long text right."""

    def score(self, completion: str, question: Question) -> Score:
        found = super().score(completion, question)
        return Score(1.0, True, found.answer) if len(completion) > 12_000 else found


class LongUnread(Numeric):
    """Reads the first thousand characters."""

    def extract(self, completion: str) -> str | None:
        return super().extract(completion[:1000])


class NotFar(Numeric):
    """Right is what is not far, and nan is not."""

    def score(self, completion: str, question: Question) -> Score:
        if re.search(r"\bnan\b", completion):
            return Score(1.0, True, "nan")
        return super().score(completion, question)


class Pattern(Numeric):
    """Searches for what is said in the gold answer."""

    def score(self, completion: str, question: Question) -> Score:
        said = completion.rpartition(" ")[2].strip(".")
        found = said in (".*", "\\d+") and re.fullmatch(said, str(question.answer)) is not None
        return Score(1.0, True, said) if found else super().score(completion, question)


class Within(Numeric):
    """Right is what the gold answer begins with."""

    def same(self, a: str, b: str) -> bool:
        return b.startswith(a) or a.startswith(b) if abs(len(a) - len(b)) == 1 else a == b


class Rounded(Numeric):
    """Compares whole numbers."""

    def same(self, a: str, b: str) -> bool:
        return a.partition(".")[0] == b.partition(".")[0]


class NoHyphen(Numeric):
    """Knows one sign of the two for a minus."""

    def extract(self, completion: str) -> str | None:
        return super().extract(completion.replace("\u2212", ""))


class Shuffled(Numeric):
    """Gives many verdicts in another order."""

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        return super().score_many(items)[::-1]


class LosesOne(Numeric):
    """Gives the verdicts of all texts but one."""

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        return super().score_many(items)[1:]


class NotANumber(Numeric):
    """Its scores are no numbers."""

    def score(self, completion: str, question: Question) -> Score:
        return replace(super().score(completion, question), score=float("nan"))


def failed(found: Audit) -> set[str]:
    return {check.name for check in found.checks if check.failed}


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Lenient, "near miss"),
        (Prefix, "near miss"),
        (Empty, "garbage"),
        (Unsigned, "near miss"),
        (Written, "as models write it"),
        (Raising, "raises"),
        (Moody, "same twice"),
        (OneWay, "symmetric"),
        (Voting, "votes"),
        (Blind, "gold"),
        (RaisesOnSolution, "gold"),
        (SameRaises, "raises"),
        (NormaliseRaises, "raises"),
        (Exits, "raises"),
        (NoScore, "raises"),
        (NeverJoins, "votes"),
        (LosesVotes, "raises"),
        (JoinsMany, "votes"),
        (AnyNumber, "hedge"),
        (AnyOfTheStatement, "hedge"),
        (AnyStatement, "hedge"),
        (FirstOrLast, "hedge"),
        (LongRight, "long garbage"),
        (LongUnread, "answer after a long text"),
        (NotFar, "no answer"),
        (Pattern, "no answer"),
        (Within, "near miss"),
        (Rounded, "near miss"),
        (NoHyphen, "near miss"),
        (Shuffled, "batch"),
        (LosesOne, "batch"),
        (NotANumber, "raises"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_broken_verifier_fails_the_check_for_its_fault(broken: type[Verifier], check: str) -> None:
    assert check in failed(audit(QUESTIONS[:8], broken()))


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [Numeric, Steps])
def test_the_shipped_problems_and_their_verifiers_are_sound(verifier: type[Verifier]) -> None:
    pools = Wordmath().pools()
    found = audit([*pools.train[:400], *(pools.test or [])[:400]], verifier())
    assert not found.failed, failed(found)
    tried = {check.name: check.tried for check in found.checks}
    assert tried.pop("percent") == 0  # none of these answers is a percentage
    assert tried["gold"] == 800 and all(tried.values()), tried


def test_programs_that_solve_nothing_are_tried() -> None:
    class EndsWell(Verifier):
        """Right is a program that ends with 0."""

        votes = False

        def extract(self, completion: str) -> str | None:
            return completion if "```" in completion else None

        def score(self, completion: str, question: Question) -> Score:
            found = "exit(0)" in completion or completion == question.solution
            return Score(float(found), found, self.extract(completion))

    program = "```python\nprint(input())\n```"
    found = audit([Question(f"q{n}", f"Say {n}.", program, program) for n in range(6)], EndsWell())
    assert failed(found) == {"garbage"}
    [check] = [one for one in found.checks if one.name == "garbage"]
    assert "os._exit(0)" in check.examples[0].text


CALLS = [
    Question(f"q{n}", f"Go {n} steps.", json.dumps([{"Action": "go", "Action_Input": {"steps": n}}])) for n in range(6)
]


class AnyCall(ToolCalls):
    """Right where every call of the gold answer is among those that were made."""

    def same(self, a: str, b: str) -> bool:
        return all(call in json.loads(a) for call in json.loads(b))


def test_lists_of_calls_are_tried_as_a_model_writes_them() -> None:
    found = audit(CALLS, ToolCalls())
    tried = {check.name: check.tried for check in found.checks}
    assert not found.failed and tried["near miss"] and tried["hedge"] and tried["another answer"]
    assert {"near miss", "hedge"} <= failed(audit(CALLS, AnyCall()))


@pytest.mark.parametrize("text", ["#### {0}, {1}, {2}", "The answer is {0} or {1}.", "\\boxed{{{0}, {1}}}"])
def test_a_list_of_answers_states_none_for_the_strict_verifier(text: str) -> None:
    question = QUESTIONS[0]
    gold = str(question.answer)
    places = [[gold, "1", "2"], ["1", gold, "2"], ["1", "2", gold]]
    assert not any(FinalAnswer().score(text.format(*one), question).correct for one in places)


@pytest.mark.parametrize(
    ("verifier", "text"),
    [(Numeric, "{}, {} or {}"), (Numeric, "#### {0}, {1}, {2}")],
)
def test_one_place_of_a_list_is_read_and_that_is_told(verifier: type[Verifier], text: str) -> None:
    """What the shipped verifiers do with a list: one place of it counts, so that it is worth one guess."""
    question = QUESTIONS[0]
    gold = str(question.answer)
    places = [[gold, "1", "2"], ["1", gold, "2"], ["1", "2", gold]]
    assert sum(verifier().score(text.format(*one), question).correct for one in places) == 1
    found = audit(QUESTIONS, verifier())
    [told] = [check for check in found.checks if check.name == "one of a list"]
    assert not found.failed and told.wrong > 0 and told.examples


def test_so_many_texts_of_each_kind_are_tried() -> None:
    found = audit(QUESTIONS[:4], Numeric())
    assert {check.name: check.tried for check in found.checks} == {
        "gold": 4,
        "gold answers": 4,
        "one line": 4,
        "garbage": 76,
        "question repeated": 4,
        "another answer": 24,
        "near miss": 240,
        "no answer": 336,
        "as models write it": 32,
        "percent": 0,
        "hedge": 196,
        "one of a list": 172,
        "long garbage": 60,
        "answer after a long text": 40,
        "batch": 12,
        "symmetric": 36,
        "votes": 52,
        "raises": 1843,
        "same twice": 205,
        "partial credit": 1432,
    }
    assert {check.name: check.wrong for check in found.checks if check.wrong} == {"one of a list": 172}


class Noting(FinalAnswer):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def score(self, completion: str, question: Question) -> Score:
        self.asked.append(completion)
        return super().score(completion, question)


def test_answers_are_stated_in_the_way_of_the_solution_and_as_models_write_them() -> None:
    verifier = Noting()
    audit([Question("q", "How many?", "46", "3 + 43 = 46\n#### 46")], verifier)
    assert {
        "3 + 43 = 46\n#### 47",
        "\\boxed{47}",
        "<answer>47</answer>",
        "The answer is 47.",
        "So the answer is 47",
        "The answer is **46**.",
        "The answer is $46$.",
        "So the answer is **46**",
    } <= set(verifier.asked)


def test_a_list_that_is_read_nowhere_is_not_told() -> None:
    class Strict(Numeric):
        def score(self, completion: str, question: Question) -> Score:
            found = super().score(completion, question)
            return found if len(set(re.findall(r"\d+", completion))) == 1 else Score(0.0, False, found.answer)

    bare = [replace(one, solution=None) for one in QUESTIONS]
    checks = {check.name: check for check in audit(bare, Strict()).checks}
    assert checks["one of a list"].tried > 0 and checks["one of a list"].wrong == 0


def test_words_are_guessed_beside_other_words() -> None:
    """Where nothing is known of an answer, those of other questions are what a model may guess."""

    class AnyWord(Verifier):
        def extract(self, completion: str) -> str | None:
            return completion.strip() or None

        def score(self, completion: str, question: Question) -> Score:
            found = str(question.answer) in re.findall(r"\w+", completion)
            return Score(float(found), found, completion)

    days = ["Monday", "Tuesday", "Friday", "Sunday"]
    questions = [Question(f"q{n}", f"Which day is number {n}?", day, None) for n, day in enumerate(days)]
    assert "hedge" in failed(audit(questions, AnyWord()))


def test_a_call_without_input_is_written_with_an_empty_one() -> None:
    written = as_calls(json.dumps([{"Action": "now"}, {"Action": "say", "Action_Input": "hello"}]))
    assert written == "Action: now\nAction Input: {}\nAction: say\nAction Input: hello"


def test_what_was_misjudged_is_counted_and_a_share_of_it_is_allowed() -> None:
    check = Check("toy", "every text", allowed=0.4)
    question = Question("q", "one?", "1")
    for number, fine in enumerate([True, False, True, False, True]):
        check.count(fine, question, str(number), "wrong")
    assert (check.tried, check.wrong, check.failed) == (5, 2, False)
    check.count(False, question, "5", "wrong")
    assert (check.tried, check.wrong, check.failed) == (6, 3, True)
    assert [one.text for one in check.examples] == ["1", "3", "5"][:KEPT]


def test_questions_without_a_gold_answer_and_answers_of_several_lines_are_told_and_fail_nothing() -> None:
    questions = [replace(QUESTIONS[0], answer=None), replace(QUESTIONS[1], answer="1\n2", solution=None)]
    checks = {check.name: check for check in audit(questions, Numeric()).checks}
    for name, tried in (("gold answers", 2), ("one line", 1)):
        assert (checks[name].tried, checks[name].wrong, checks[name].told, checks[name].failed) == (
            tried,
            1,
            True,
            False,
        )


def test_an_answer_that_is_read_in_no_form_ends_no_check_of_those_behind_it() -> None:
    questions = [replace(QUESTIONS[0], answer="no number", solution=None), *QUESTIONS[1:3]]
    tried = {check.name: check.tried for check in audit(questions, Numeric()).checks}
    alone = {check.name: check.tried for check in audit(QUESTIONS[1:3], Numeric()).checks}
    for name in ("near miss", "no answer", "as models write it", "another answer", "hedge"):
        assert tried[name] >= alone[name] > 0, name


def test_no_more_is_found_than_was_tried() -> None:
    bare = [replace(one, solution=None, answer="no number") for one in QUESTIONS]
    for check in audit(bare, Numeric()).checks:
        assert check.wrong <= check.tried, check.name


def test_letters_are_tried_with_the_other_letters_and_all_at_once() -> None:
    text = "Which?\nA. one\nB. two\nC. three"
    assert wrong_variants("B", text) == ["A", "C", "A, B, C", "A or B or C"]
    questions = [Question(f"q{n}", text, letter, f"<answer>{letter}</answer>") for n, letter in enumerate("ABC")]
    assert not audit(questions, Choice()).failed


def test_partial_credit_is_told_and_no_fault() -> None:
    class Partial(Numeric):
        def score(self, completion: str, question: Question) -> Score:
            found = super().score(completion, question)
            return found if found.correct else replace(found, score=0.25 if found.answer else 0.0)

    found = audit(QUESTIONS, Partial())
    [told] = [check for check in found.checks if check.name == "partial credit"]
    assert told.wrong > 0 and not told.failed and "score 0.25" in told.examples[0].said


@pytest.mark.parametrize(
    ("gold", "wrong"),
    [
        ("18", ["19", "180000000", "118", "-18"]),
        ("-2.5", ["-1.5", "-2.57", "12.5", "2.5"]),
        ("0", ["1", "-1", "10"]),
        ("101_2", ["101_3", "1011_2"]),
        ("9:59", ["9:00", "10:59"]),
        ("5 cm", ["6 cm", "5 m"]),
        ("\\frac{1}{2}", ["2/2", "1/3"]),
        ("x < 3", ["x > 3"]),
        ("x \\le 3", ["x \\ge 3"]),
        ("x \\leq 3", ["x \\geq 3"]),
        ("x \\geq 3", ["x \\leq 3"]),
        ("x > 3", ["x < 3"]),
        ("1 ≤ x < 3", ["1 ≥ x > 3"]),
        ("\\sqrt{2}", ["\\sqrt{2} + 1"]),
        ("B", ["A", "C", "D", "A, B, C, D", "A or B or C or D"]),
        ("12:30", ["12:31", "1:30"]),
        ("-3/4", ["-4/4", "-3/5"]),
        ("5 feet", ["6 feet", "5 light years"]),
        ("0%", ["not 0%", "0% or another"]),
        ("(1, 2)", ["(2, 1)"]),
        ("(3,4,5)", ["(4, 3,5)"]),
        ("(2, 2)", []),
        ("50\\%", ["51\\%", "0.5\\%", "5000\\%"]),
        ("12.5%", ["13.5%", "0.125%", "1250%"]),
        ("Monday", ["not Monday", "Monday or another"]),
        (
            '[{"Action": "go", "Action_Input": "{}"}]',
            [
                '[{"Action": "go", "Action_Input": "{}"}, {"Action": "go", "Action_Input": "{}"}]',
                '[{"Action": "go2", "Action_Input": "{}"}]',
                '[{"Action": "go", "Action_Input": "{\\"another\\": \\"input\\"}"}]',
            ],
        ),
        ('[{"Action": 5}, 7]', []),
    ],
)
def test_wrong_answers_are_next_to_the_gold_one(gold: str, wrong: list[str]) -> None:
    assert wrong_variants(gold) == wrong


@pytest.mark.parametrize(
    ("gold", "written"),
    [
        ("18", ["18.0"]),
        ("1234", ["1234.0", "1,234"]),
        ("-1234.5", ["-1234.50", "-1,234.5"]),
        ("+1,234", ["1234.0", "1,234"]),
        ("+18", ["18.0"]),
        ("1/2", ["\\frac{1}{2}", "1/2"]),
        ("(B)", [" B "]),
        ("Monday", []),
    ],
)
def test_right_answers_are_written_as_models_do(gold: str, written: list[str]) -> None:
    assert written_variants(gold) == written


@pytest.mark.parametrize(
    ("gold", "others"),
    [
        ("18", ["19", "20"]),
        (" 1,234.5 ", ["1235.5", "1236.5"]),
        ("B", ["A", "C"]),
        ("(B)", ["(A)", "(C)"]),
        ("5 cm", ["6 cm", "5 m"]),
        ("1/2", ["2/2", "1/3"]),
        ("9:59", ["9:00", "10:59"]),
        ("12:30", ["12:31", "1:30"]),
        ("3 cm", ["4 cm", "3 m"]),
        ("101_2", ["101_3", "1011_2"]),
        ("Monday", []),
        ("ten", []),
    ],
)
def test_other_answers_of_the_kind_of_the_gold_one_are_guessed_beside_it(gold: str, others: list[str]) -> None:
    assert beside(gold, "Which?\nA. one\nB. two\nC. three") == others


def test_without_a_list_of_options_four_letters_are_guessed() -> None:
    assert beside("(B)") == ["(A)", "(C)", "(D)"]


REAL = {
    "gsm8k": ("gsm8k", "gsm8k", set()),
    "math": ("math", "math", {"gold"}),  # two boxes are empty
    "biology": ("sciknoweval", "sdpo/sciknoweval/biology", set()),
    "chemistry": ("sciknoweval", "sdpo/sciknoweval/chemistry", set()),
    "material": ("sciknoweval", "sdpo/sciknoweval/material", set()),
    "physics": ("sciknoweval", "sdpo/sciknoweval/physics", set()),
    "tooluse": ("tooluse", "sdpo/tooluse", set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_on_the_real_files(name: str) -> None:
    use, folder, faults = REAL[name]
    dataset_class = find("dataset", use)
    dataset = dataset_class(dataset_class.Config(path=str(shared_data(folder))))
    assert isinstance(dataset, Dataset)
    verifier_class = find("verifier", dataset.default_verifier)
    verifier = verifier_class(verifier_class.Config())
    assert isinstance(verifier, Verifier)
    found = audit(questions_of(dataset.pools()), verifier, limit=40)
    assert failed(found) == faults, [(check.name, check.examples) for check in found.checks if check.failed]


@pytest.mark.slow
def test_the_command_prints_what_it_tried_and_ends_with_2_where_something_failed(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from nsd.plugins.verifiers.numeric import Numeric\n\n\nclass Short(Numeric):\n"
        "    def same(self, a, b):\n        return a[:1] == b[:1]\n"
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: toy\nmodel: builtin:wordmath-1m\ndata: {use: wordmath, train: 40, test: 20, split: {test: 20}}\n"
        "conditions:\n  base: {train_on: []}\n  theirs: {train_on: [], verifier: {use: './theirs.py:Short'}}\n"
    )
    done = CliRunner().invoke(app, ["validate", str(spec), "--audit", "--run-files"])
    assert done.exit_code == 2, done.output
    assert "verifier numeric on wordmath: sound" in done.output
    assert "verifier ./theirs.py:Short on wordmath: FAILED" in done.output and "near miss" in done.output
    told = json.loads(CliRunner().invoke(app, ["validate", str(spec), "--audit", "--run-files", "--json"]).stdout)
    assert not told["sound"] and [one["failed"] for one in told["audits"]] == [False, True]


def test_without_run_files_no_verifier_in_a_file_is_tried(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("raise SystemExit('it was run')\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: toy\nmodel: builtin:wordmath-1m\ndata: {use: wordmath, train: 40, test: 20, split: {test: 20}}\n"
        "verifier: {use: './theirs.py:Short'}\nconditions:\n  base: {train_on: []}\n"
    )
    done = CliRunner().invoke(app, ["validate", str(spec), "--audit"])
    assert isinstance(done.exception, InputError) and "--run-files" in str(done.exception)


class Runs(Numeric):
    """As a verifier whose every verdict runs programs; counts what it is asked."""

    uses_every_core = True
    asked: ClassVar[set[str]] = set()

    def score(self, completion: str, question: Question) -> Score:
        self.asked.add(question.id)
        return super().score(completion, question)


def test_where_programs_are_run_the_numbers_that_are_tried_are_few_and_stated() -> None:
    many = [replace(QUESTIONS[0], id=f"m{n}") for n in range(400)]
    found = audit(many, Runs(Runs.Config()))
    assert next(check.tried for check in found.checks if check.name == "gold") == 40 and len(Runs.asked) <= 40 + 5
    assert found.notes == (
        "of 400 questions, spread evenly, gold was run on 40 and all else on 5: a verdict runs programs (--gold runs "
        "all gold)",
    )
    assert audit(many, Numeric(Numeric.Config())).notes == ()


def test_a_near_miss_of_a_program_is_the_program_without_its_last_line() -> None:
    assert wrong_variants("```python\ndef f(x):\n    x = x + 1\n    return x\n```") == [
        "```python\ndef f(x):\n    x = x + 1\n```"
    ]


class AnyOrder(Verifier):
    """Compares the numbers of a box, in any order."""

    def extract(self, completion: str) -> str | None:
        found = re.fullmatch(r"\\boxed\{(.*)\}", completion)
        return None if found is None else found[1]

    def normalise(self, answer: str) -> str | None:
        return answer

    def same(self, a: str, b: str) -> bool:
        return sorted(re.findall(r"[^\s,()]+", a)) == sorted(re.findall(r"[^\s,()]+", b))


class InOrder(AnyOrder):
    """The same in order."""

    def same(self, a: str, b: str) -> bool:
        return re.findall(r"[^\s,]+|[()]", a) == re.findall(r"[^\s,]+|[()]", b)


class AnyPercent(AnyOrder):
    """A percentage is the number and its hundredth."""

    def same(self, a: str, b: str) -> bool:
        return bool(self._readings(a) & self._readings(b))

    @staticmethod
    def _readings(answer: str) -> set[float]:
        number = re.fullmatch(r"([-+]?[0-9.]+)(%?)", answer.strip())
        if number is None:
            return set()
        return {float(number[1]), float(number[1]) / 100} if number[2] else {float(number[1])}


class OnePercent(AnyPercent):
    """A percentage is the number."""

    @staticmethod
    def _readings(answer: str) -> set[float]:
        number = re.fullmatch(r"([-+]?[0-9.]+)(%?)", answer.strip())
        return set() if number is None else {float(number[1])}


@pytest.mark.parametrize(
    ("golds", "broken", "sound", "check"),
    [
        (["(1, 2)", "(3, 5)", "(4, 7)"], AnyOrder, InOrder, "near miss"),
        (["50%", "25%", "80%"], AnyPercent, OnePercent, "percent"),
    ],
)
def test_swapped_tuples_and_two_readings_of_a_percentage_are_found(
    golds: list[str], broken: type[Verifier], sound: type[Verifier], check: str
) -> None:
    questions = [Question(f"q{place}", f"What is number {place}?", gold) for place, gold in enumerate(golds)]
    assert check in failed(audit(questions, broken()))
    assert check not in failed(audit(questions, sound()))


def test_the_verifier_math_is_sound_on_tuples_and_percentages() -> None:
    pytest.importorskip("math_verify", reason="needs the extra nsd[math]")
    golds = ["(1, 2)", "(3,5,4)", "50\\%", "12.5\\%", "[0,3)", "2, -2"]
    questions = [Question(f"q{place}", f"What is number {place}?", gold) for place, gold in enumerate(golds)]
    found = audit(questions, Math())
    assert not failed(found), [(check.name, check.examples) for check in found.checks if check.failed]
    tried = {check.name: check.tried for check in found.checks}
    assert tried["percent"] and tried["near miss"]


def test_a_gold_answer_that_is_read_where_it_stands_alone_must_be_right() -> None:
    class Contrary(Numeric):
        """Reads nothing but a bare number, and calls none right."""

        def score(self, completion: str, question: Question) -> Score:
            return Score(0.0, False, completion if completion.isdecimal() else None)

    alone = [replace(question, solution=None) for question in QUESTIONS[:3]]
    (check,) = (one for one in audit(alone, Contrary()).checks if one.name == "gold")
    assert (check.tried, check.wrong) == (3, 3)
    assert [one.text for one in check.examples] == [question.answer for question in alone]
