"""What is said of how the questions of two imports were paired."""

from __future__ import annotations

import pytest

from nsd.reports.judge.pairing import Pairing
from nsd.reports.judge.runs import Arm, all_runs
from toy_results import Results


@pytest.fixture
def arms() -> tuple[Arm, Arm]:
    results = Results()
    for name in "ab":
        results.add(name, [1.0, 0.0])
    runs = all_runs(results.connection)[0]
    return Arm("a", (runs["a"],)), Arm("b", (runs["b"],))


BY_FILE = (
    " knows its questions by an id of its file and the other run by their text: import it by the text (--id FIELD "
    "--id-is-text) to pair them"
)
ALONE = "pairing rests on ids alone: no question text is known of "
KINDS = "pairing rests on ids alone: a and b have texts of other kinds (texts, hashes of them)"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (None, None, ""),
        ("text", None, ""),
        ("id", None, f"a{BY_FILE}"),
        ("text", "checked", f"b{BY_FILE}"),
        ("id", "id", f"{ALONE}a and b"),
        ("checked", "id", f"{ALONE}b"),
        ("id", "hashed", f"{ALONE}a"),
        ("checked", "checked", ""),
        ("checked", "hashed", KINDS),
        ("checked", "gold", ""),
    ],
)
def test_how_a_pair_was_found(arms: tuple[Arm, Arm], a: str | None, b: str | None, said: str) -> None:
    how = {f"eval-{name}": kind for name, kind in (("a", a), ("b", b)) if kind is not None}
    assert Pairing(how, {}).note(*arms) == said


def test_questions_with_two_texts_are_counted_and_three_of_them_named(arms: tuple[Arm, Arm]) -> None:
    how = dict.fromkeys(("eval-a", "eval-b"), "checked")
    texts = {"eval-a": {f"q{i}": "x" for i in (4, 1, 3, 2)}, "eval-b": {f"q{i}": "y" for i in (1, 2, 3, 4, 5)}}
    said = "different texts of 4 questions with the same id ('q1', 'q2', 'q3')"
    assert Pairing(how, texts).apart(*arms) == said
    one = {**texts, "eval-b": {"q1": "x", "q2": "y"}}
    assert Pairing(how, one).apart(*arms) == "different texts of 1 question with the same id ('q2')"
    assert Pairing(how, {"eval-a": texts["eval-a"]}).apart(*arms) == ""
    assert Pairing({**how, "eval-b": "hashed"}, texts).apart(*arms) == ""
