"""The verifier that takes the last stated answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Question
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.verifiers.audit import audit
from nsd.plugins.verifiers.final_answer import FinalAnswer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 13 = 18\n#### 18", "18"),
        ("#### 5 + 13 = 18", "18"),
        ("So \\boxed{18} it is.", "18"),
        ("<answer> 18 </answer>", "18"),
        ("The answer is 18.", "18"),
        ("The answer is: **18**", "18"),
        ("Final answer: $18", "18"),
        ("the final answer should be 18 apples.", "18"),
        ("The answer is 18. Wait, it is 20.", "20"),
        ("The answer is 18. Scratch that: 19.", "19"),
        ("The answer is 18. Hmm, 19.", "19"),
        ("The answer is 18 (2 boxes of 9).", "18"),
        ("The answer is 18% of the total.", "18"),
        ("The answer is 18, 5 more than 13.", "18"),
        ("The answer is 18 in total", "18"),
        ("#### 18\nActually, that should be 20.", "20"),
        ("The answer is 18. The answer is 20.", "20"),
        ("#### 18\nThis answer is right.", "18"),
        ("The answer is 1,234.", "1234"),
        ("The answer is 1 234 567 kg", "1234567"),
        ("#### 1_000", "1000"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22125", "-5"),
        ("The answer is 0.75", "3/4"),
        ("The answer is 3/4 of the cake.", "3/4"),
        ("\\boxed{\\frac{3}{4}}", "3/4"),
        ("\\boxed{1\\frac{1}{2}}", "3/2"),
        ("The answer is 1 1/2 hours.", "3/2"),
        ("The answer is 18%.", "18"),
        ("The answer is 1.5e3", "1500"),
        ("The answer is 18.0", "18"),
        ("answer: .5", "1/2"),
        ("The answer is $18$.", "18"),
        ("The answer is 18, where x = 3.", "18"),
        ("The answer is 20 (not 6 * 3 = 18).", "20"),
        ("The answer is 18 (= 6*3).", "18"),
        ("the answer is 12 since 3 * 4 = 12 and a = 7", "12"),
        ("#### x = 18", "18"),
        ("The answer is 6 \\times 3 = 18.", "18"),
        ("#### 18 thousand", "18000"),
        ("The answer is 18 Million", "18000000"),
        ("The answer is 18K", "18000"),
        ("The answer is 3 Dozen eggs", "36"),
        ("The answer is 3 hundred million", "300000000"),
        ("The answer is $2 billion", "2000000000"),
        ("The answer is 2 trillion", "2000000000000"),
        ("The answer is $5k", "5000"),
        ("The answer is $5 M", "5000000"),
        ("The answer is $5 mn", "5000000"),
        ("The answer is $5b", "5000000000"),
        ("The answer is $5 bn", "5000000000"),
        ("The answer is 1.8 million dollars.", "1800000"),
        ("The answer is 18 hundred thousand.", "1800000"),
        ("The answer is 18k", "18000"),
        ("The answer is $18M.", "18000000"),
        ("\\boxed{18 \\text{ million}}", "18000000"),
        ("The answer is 18 dozen eggs.", "216"),
        ("#### 18 km", "18"),
        ("#### 18 m", "18"),
        ("The answer is 18 quarters.", "18"),
        ("The answer is 18 times as many.", "18"),
        ("The answer is 18 meters squared.", "18"),
        ("The answer is 18!", "18"),
        ("#### 18, no, 19", "19"),
        ("#### 18; no, 19", "19"),
        ("#### 18 (wrong, it is 19)", "19"),
        ("The answer is 18. No, 19.", "19"),
        ("The answer is 18, no doubt.", "18"),
        ("The answer is 18 rather than 19.", "18"),
        ("The answer is 18. Wait, 3 apples were lost.", "18"),
        ("The answer is 2. There are no others, and it is 1 solution.", "2"),
    ],
)
def test_the_last_statement_counts(text: str, answer: str) -> None:
    assert FinalAnswer().extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "He has 5 and 13, which makes 18.",
        "5 + 13 = 18",
        "The answer is unclear.",
        "The answer is 3 x 4",
        "The answer is 5-3",
        "The answer is 3/0",
        "The answer is 18 and a half.",
        "#### 10**2",
        "The answer is 18π",
        "The answer is 18 pi.",
        "\\boxed{18\\pi}",
        "The answer is 18√2",
        "The answer is 18x",
        "\\boxed{18+x}",
        "The answer is (18)(2)",
        "The answer is 18 ± 1",
        "The answer is 18–20",
        "The answer is 18 percent of 50",
        "The answer is 18 less than 20",
        "The answer is 18 in base 8",
        "The answer is 18 or 19.",
        "\\boxed{18 \\text{ or } 19}",
        "\\boxed{18, 19}",
        "The answer is 18, 19, 20.",
        "\\boxed{18} and then \\boxed{}",
        "The answer is 18 and 1/2.",
        "The answer is 18 squared",
        "The answer is 18 minus 3",
        "The answer is 18 times two",
        "The answer is 18 mod 5",
        "The answer is 18 hundredths",
        "\\boxed{18!}",
        "#### 17\n#### 18 (wrong)",
        "Is it 18? No, 19.",
        "#### none",
        "The answer is 12:30",
        f"#### {'9' * 500}",
        "#### 1e999",
    ],
)
def test_what_states_no_number_has_no_answer(text: str) -> None:
    assert FinalAnswer().extract(text) is None


@pytest.mark.parametrize(
    ("gold", "normal"),
    [
        ("18", "18"),
        ("1,234", "1234"),
        ("18 apples", "18"),
        ("3/4", "3/4"),
        ("5 1/2", "11/2"),
        ("$18", "18"),
        ("18%", "18"),
        ("-5", "-5"),
        ("1, 2", None),
        ("12,5", None),
        ("blue", None),
        ("", None),
        ("3x+1", None),
    ],
)
def test_a_bare_answer_is_wholly_one_number(gold: str, normal: str | None) -> None:
    assert FinalAnswer().normalise(gold) == normal


@given(st.text(alphabet="0123456789.,-+/ #$\\boxed{}answeri=:%e\n", max_size=300))
def test_no_text_raises_and_a_normal_form_is_its_own(text: str) -> None:
    found = FinalAnswer().extract(text)
    assert found is None or FinalAnswer().normalise(found) == found


@given(st.integers(-(10**9), 10**9), st.integers(1, 1000))
def test_a_fraction_is_the_same_however_it_is_written(above: int, below: int) -> None:
    sign, size = ("-", -above) if above < 0 else ("", above)
    written = {f"{sign}{size}/{below}", f"{sign}\\frac{{{size}}}{{{below}}}"}
    assert len({FinalAnswer().extract(f"The answer is {one}") for one in written}) == 1


def test_a_number_that_happens_to_stand_last_earns_nothing() -> None:
    score = FinalAnswer().score("He ate 3 of them and then had 18", Question("q", "How many?", "18"))
    assert not score.correct and score.answer is None


@pytest.mark.slow
def test_it_is_sound_on_the_shipped_problems() -> None:
    found = audit(Wordmath().pools().train[:400], FinalAnswer())
    repeated = next(check for check in found.checks if check.name == "question repeated")
    assert not found.failed and repeated.wrong == 0, [check for check in found.checks if check.failed]
