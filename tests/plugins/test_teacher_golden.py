"""What student and teachers read of every built-in dataset, character for character: golden/teacher_inputs/*.json.

A golden file holds the words around an example, with marks where the example's own texts go, so that none of the data
is in it. It is held against an invented example everywhere, and where the real data lies beside the checkout against
the first real row: its texts judged by the dataset's own verifier, and put in for the marks.

After a wanted change:  NSD_UPDATE_GOLDEN=1 pytest tests/plugins/test_teacher_golden.py , then read the diff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chat_models import make_chat_tokenizer
from nsd.plugins.api import Dataset, Prompt, Question, Rollout, Score, StopReason, Verifier
from nsd.plugins.chat import prompt_ids, prompt_text
from nsd.plugins.datasets.code_puzzles import CodePuzzles
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.livecodebench import LiveCodeBench
from nsd.plugins.datasets.math import MathProblems
from nsd.plugins.datasets.numinamath import NuminaMath
from nsd.plugins.datasets.sciknoweval import SciKnowEval
from nsd.plugins.datasets.tooluse import ToolUse
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.models import load_tokenizer
from nsd.plugins.registry import find
from nsd.plugins.trainers.teacher_inputs import pcsd_inputs, sdpo_inputs
from support import shared_data

GOLDEN = Path(__file__).parent / "golden" / "teacher_inputs"
MARKS = {"question": "⟨question⟩", "demonstration": "⟨demonstration⟩", "feedback": "⟨feedback⟩", "context": "⟨context⟩"}


@dataclass(frozen=True)
class Case:
    """A dataset with its prompt and verifier; `folder` is where its real rows lie, None for what is generated.

    `model` has the tokenizer of a prompt without chat.
    """

    dataset: type[Dataset]
    folder: str | None
    prompt: Prompt
    verifier: str
    model: str = "builtin:wordmath-1m"


def case(dataset: type[Dataset], folder: str | None, **changes: Any) -> Case:
    return Case(dataset, folder, **({"prompt": dataset.default_prompt, "verifier": dataset.default_verifier} | changes))


CASES = {
    "gsm8k": case(Gsm8k, "gsm8k"),
    "gsm8k_pcsd": case(  # the user message of PCSD's study
        Gsm8k,
        "gsm8k",
        prompt=Prompt(
            template='{question} Let\'s think step by step and output the final answer after "####".', chat=True
        ),
    ),
    "math": case(MathProblems, "math"),
    "numinamath": case(NuminaMath, "numinamath"),
    "sciknoweval_biology": case(SciKnowEval, "sdpo/sciknoweval/biology"),
    "sciknoweval_chemistry": case(SciKnowEval, "sdpo/sciknoweval/chemistry"),
    "sciknoweval_material": case(SciKnowEval, "sdpo/sciknoweval/material"),
    "sciknoweval_physics": case(SciKnowEval, "sdpo/sciknoweval/physics"),
    "tooluse": case(ToolUse, "sdpo/tooluse"),
    "wordmath": case(Wordmath, None, verifier="steps"),
    "code_puzzles": case(CodePuzzles, None, model="builtin:codepuzzles-1m"),
    "livecodebench": case(LiveCodeBench, None),
}


def inputs(
    of: Case, question: Question, right: tuple[str, Score], wrong: tuple[str, Score], context: str | None
) -> dict[str, str | None]:
    """What student and teachers read; each text is what its token ids say."""
    prompt, kwargs = of.prompt, {"enable_thinking": False}
    tokenizer = make_chat_tokenizer("qwen3") if prompt.chat else load_tokenizer(of.model)
    asked = prompt.render(question)
    made = [Rollout(question, 0, text, (1,), StopReason.STOP, score) for text, score in (right, wrong, wrong)]
    rewards = [one.score.score for one in made]
    found = sdpo_inputs(made, rewards, [0, 0, 1], [asked] * 3, tokenizer, chat_template_kwargs=kwargs)
    (pcsd,) = pcsd_inputs([asked], [context], tokenizer, chat_template_kwargs=kwargs)
    for one in (*found, pcsd):
        if one.ids is not None:
            assert tokenizer.decode(one.ids) == one.text
    assert tokenizer.decode(prompt_ids(tokenizer, asked, kwargs)) == prompt_text(tokenizer, asked, kwargs)
    return {
        "student": prompt_text(tokenizer, asked, kwargs),
        "sdpo, another rollout succeeded": found[1].text,
        "sdpo, feedback": found[2].text,
        "pcsd": pcsd.text,
    }


def golden(name: str) -> dict[str, str]:
    written: dict[str, list[str]] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return {what: "\n".join(lines) for what, lines in written.items()}


def put_in(text: str, texts: Mapping[str, str]) -> str:
    """A golden text with an example's own texts for its marks, each of which may hold any mark itself."""
    for what, mark in MARKS.items():
        assert text.count(mark) <= 1
        text = text.replace(mark, f"\0{what}\0")
    for what in MARKS:
        text = text.replace(f"\0{what}\0", texts.get(what, ""))
    return text


def nothing_said() -> Score:
    return Score(0.0, False, None)


@pytest.mark.parametrize("name", CASES)
def test_words_around_an_example(name: str) -> None:
    question = Question("q", MARKS["question"])
    right = (MARKS["demonstration"], Score(1.0, True, "8"))
    wrong = ("wrong", replace(nothing_said(), feedback=MARKS["feedback"]))
    found = inputs(CASES[name], question, right, wrong, MARKS["context"])
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        lines = {what: str(text).split("\n") for what, text in found.items()}
        (GOLDEN / f"{name}.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == golden(name)


@pytest.mark.parametrize("name", [name for name in CASES if name != "livecodebench"])  # no right program is known
def test_a_real_example_stands_in_the_same_words(name: str) -> None:
    here = CASES[name]
    given: dict[str, Any] = {} if here.folder is None else {"path": str(shared_data(here.folder))}
    pools = here.dataset(here.dataset.Config(**given)).pools()
    question = (pools.train or pools.test or [])[0]
    verifier = find("verifier", here.verifier)()
    assert isinstance(verifier, Verifier)
    right = right_answer(name, question)
    wrong = "9 + 9 = 19\n#### 19\nAction: none\n"
    verdicts = [verifier.score(text, question) for text in (right, wrong)]
    assert [one.correct for one in verdicts] == [True, False]
    found = inputs(here, question, (right, verdicts[0]), (wrong, verdicts[1]), question.solution)
    own = {
        "question": question.text,
        "demonstration": right,
        "feedback": str(verdicts[1].feedback),
        "context": str(question.solution),
    }
    expected: dict[str, str | None] = {what: put_in(text, own) for what, text in golden(name).items()}
    if verdicts[1].feedback is None:
        assert here.verifier not in ("steps", "tool_calls", "code"), "these tell what is wrong"
        expected["sdpo, feedback"] = None
    if question.solution is None:
        expected["pcsd"] = expected["student"]
    assert found == expected


def right_answer(name: str, question: Question) -> str:
    """A response that the dataset's verifier takes for right."""
    if question.solution is not None:
        return question.solution
    if name == "tooluse":
        calls = json.loads(str(question.answer))
        return "\n".join(f"Action: {call['Action']}\nAction Input: {call['Action_Input']}" for call in calls)
    return f"<reasoning>\nIt is so.\n</reasoning>\n<answer>\n{question.answer}\n</answer>"


def test_marks_in_an_examples_own_texts_stay_as_they_are() -> None:
    kept = golden("wordmath")
    assert put_in(kept["sdpo, feedback"], {"question": "Q {feedback} ⟨feedback⟩", "feedback": "F"}) == (
        "Q {feedback} ⟨feedback⟩\n\nThe following is feedback from your unsuccessful earlier attempt:\n\nF"
        "\n\nCorrectly solve the original question."
    )
