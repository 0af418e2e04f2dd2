"""What a teacher reads: which demonstration and feedback, in which words, and what goes where it is too long."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from chat_models import make_chat_tokenizer
from nsd.plugins.api import Example, Prompt, Question, Rollout, Score, StopReason
from nsd.plugins.chat import prompt_ids
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers.teacher_inputs import (
    Reprompting,
    TeacherInput,
    Templates,
    pcsd_inputs,
    privileged_text,
    sdpo_inputs,
    without_thinking,
)

CHAT = Prompt(chat=True, system="Be brief.").render(Question("q", "Add: 1+7?"))
SOLVED = "\nCorrect solution:\n\n"
TOLD = "\nThe following is feedback from your unsuccessful earlier attempt:\n\n"
REQUEST = "\n\nCorrectly solve the original question."


class Characters:
    """A tokenizer of a token for each character, so that lengths can be counted by eye."""

    is_fast = False

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


def rollout(text: str, feedback: str | None = None) -> Rollout:
    return Rollout(Question("q", "q"), 0, text, (1,), StopReason.STOP, Score(0.0, False, None, feedback))


def read(
    texts: list[str],
    rewards: list[float],
    feedback: list[str | None] | None = None,
    groups: list[int] | None = None,
    **how: Any,
) -> list[TeacherInput]:
    """Inputs of rollouts of the plain prompt `Q`."""
    made = [rollout(text, told) for text, told in zip(texts, feedback or [None] * len(texts), strict=True)]
    return sdpo_inputs(made, rewards, groups or [0] * len(texts), ["Q"] * len(texts), Characters(), Reprompting(**how))


def texts(found: list[TeacherInput]) -> list[str | None]:
    return [one.text for one in found]


@pytest.fixture(scope="module")
def qwen3() -> Any:
    return make_chat_tokenizer("qwen3")


# --------------------------------------------------------------------------- words


def test_the_templates_are_the_readmes_and_none_ends_in_a_line_end() -> None:
    assert Templates().model_dump() == {
        "reprompt": "{prompt}{solution}{feedback}" + REQUEST,
        "solution": SOLVED + "{successful_previous_attempt}",
        "feedback": TOLD + "{feedback_raw}",
    }


def test_the_options_are_the_readmes() -> None:
    assert Reprompting() == Reprompting(1.0, True, True, True, True, 10240, "right", Templates())


def test_a_demonstration_stands_behind_the_prompt_and_before_the_request() -> None:
    assert texts(read(["right", "wrong"], [1, 0])) == [None, f"Q{SOLVED}right{REQUEST}"]


def test_feedback_stands_behind_the_prompt_and_before_the_request() -> None:
    assert texts(read(["wrong"], [0], ["why"])) == [f"Q{TOLD}why{REQUEST}"]


def test_what_is_tokenized_is_the_text() -> None:
    (found,) = read(["wrong"], [0], ["why"])
    assert found.ids == [ord(one) for one in str(found.text)]


def test_braces_in_question_demonstration_and_feedback_stay_as_they_are() -> None:
    prompt = "Set {solution} {feedback} {0} {{x}}"
    made = [rollout("{prompt} {feedback_raw}"), rollout("no", "{successful_previous_attempt} {solution} %s \\1")]
    how = Reprompting(environment_feedback_only_without_solution=False)
    found = sdpo_inputs(made, [1, 0], [0, 0], [prompt] * 2, Characters(), how)[1].text
    assert found == (
        f"{prompt}{SOLVED}{{prompt}} {{feedback_raw}}{TOLD}{{successful_previous_attempt}} {{solution}} %s \\1{REQUEST}"
    )


def test_templates_of_ones_own_are_used() -> None:
    words = Templates(
        reprompt="{feedback}|{prompt}|{solution}|{x}",
        solution="s {successful_previous_attempt}",
        feedback="{feedback_raw}",
    )
    assert texts(read(["right", "wrong"], [1, 0], templates=words))[1] == "|Q|s right|{x}"


@pytest.mark.parametrize(
    "words",
    [
        {"reprompt": "{solution}{feedback}"},
        {"reprompt": "{prompt}{prompt}{solution}{feedback}"},
        {"solution": "{solution}"},
        {"feedback": ""},
    ],
)
def test_a_template_that_loses_something_is_refused(words: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=rf"{next(iter(words))} should have .* once"):
        Templates(**words)


# --------------------------------------------------------------------------- whose demonstration


def test_a_rollout_is_no_demonstration_for_itself() -> None:
    found = read(["first", "second", "third"], [1, 1, 0])
    assert texts(found) == [f"Q{SOLVED}second{REQUEST}", f"Q{SOLVED}first{REQUEST}", f"Q{SOLVED}first{REQUEST}"]


def test_where_it_may_be_the_first_success_is_everybodys() -> None:
    found = read(["wrong", "first", "second"], [0, 1, 1], dont_reprompt_on_self_success=False)
    assert texts(found) == [f"Q{SOLVED}first{REQUEST}"] * 3


def test_another_questions_success_is_not_used() -> None:
    assert texts(read(["right", "wrong"], [1, 0], groups=[0, 1])) == [None, None]


def test_groups_need_not_stand_together() -> None:
    found = read(["a", "b", "c", "d"], [1, 1, 0, 0], groups=[0, 1, 0, 1])
    assert texts(found)[2:] == [f"Q{SOLVED}a{REQUEST}", f"Q{SOLVED}b{REQUEST}"]


@pytest.mark.parametrize(("threshold", "used"), [(1.0, False), (0.5, True)])
def test_a_demonstration_reaches_the_threshold(threshold: float, used: bool) -> None:
    found = read(["half", "wrong"], [0.5, 0], success_reward_threshold=threshold)
    assert (found[1].ids is not None) is used


def test_a_sample_with_neither_is_masked() -> None:
    assert read(["wrong", "wrong"], [0, 0], [None, " \n"]) == [TeacherInput(None), TeacherInput(None)]


# --------------------------------------------------------------------------- feedback


def test_feedback_comes_from_the_same_rollouts_verdict() -> None:
    found = read(["a", "b", "c"], [0, 0, 0], ["of a", None, "of c"])
    assert texts(found) == [f"Q{TOLD}of a{REQUEST}", None, f"Q{TOLD}of c{REQUEST}"]


def test_feedback_is_used_only_where_there_is_no_demonstration() -> None:
    found = read(["right", "wrong"], [1, 0], [None, "why"])[1]
    assert (found.text, found.has_solution, found.has_feedback) == (f"Q{SOLVED}right{REQUEST}", True, False)


def test_feedback_can_stand_beside_a_demonstration() -> None:
    found = read(["right", "wrong"], [1, 0], [None, "why"], environment_feedback_only_without_solution=False)[1]
    assert (found.text, found.has_solution, found.has_feedback) == (
        f"Q{SOLVED}right{TOLD}why{REQUEST}",
        True,
        True,
    )


def test_feedback_can_be_left_out() -> None:
    assert texts(read(["wrong"], [0], ["why"], include_environment_feedback=False)) == [None]


# --------------------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("four", "four"),
        ("<think>2 + 2</think>\n\nfour", "four"),
        ("<think>a</think>two <think>b\nc</think> three", "two three"),
        ("2 + 2 is\n</think>\n\nfour", "four"),  # the generation prompt began it
        ("four <think>or is it", "four "),
        ("<think>four", ""),
        ("a </think> b <think>c</think> d <think>e", "b d "),
    ],
)
def test_thoughts_are_taken_out(text: str, left: str) -> None:
    assert without_thinking(text) == left


def test_a_thought_alone_demonstrates_nothing_and_the_next_success_is_taken() -> None:
    found = read(["<think>42", "<think>no</think>42", "wrong"], [1, 1, 0])
    assert texts(found) == [f"Q{SOLVED}42{REQUEST}", None, f"Q{SOLVED}42{REQUEST}"]


def test_thoughts_can_stay() -> None:
    found = read(["<think>x</think>42", "wrong"], [1, 0], remove_thinking_from_demonstration=False)
    assert texts(found)[1] == f"Q{SOLVED}<think>x</think>42{REQUEST}"


# --------------------------------------------------------------------------- chats


def test_system_and_user_turn_and_generation_prompt_are_the_students_own(qwen3: Any) -> None:
    made = [rollout("right"), rollout("wrong")]
    found = sdpo_inputs(made, [1, 0], [0, 0], [CHAT, CHAT], qwen3)[1]
    assert found.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\nAdd: 1+7?{SOLVED}right{REQUEST}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert qwen3.decode(found.ids) == found.text


def test_the_templates_values_are_the_students(qwen3: Any) -> None:
    closed, made = {"enable_thinking": False}, [rollout("wrong", "why")]
    (sdpo,) = sdpo_inputs(made, [0], [0], [CHAT], qwen3, chat_template_kwargs=closed)
    (pcsd,) = pcsd_inputs([CHAT], ["8"], qwen3, chat_template_kwargs=closed)
    for found in (sdpo, pcsd):
        assert str(found.text).endswith("assistant\n<think>\n\n</think>\n\n")


def test_the_prompt_of_the_student_stays_as_it_is(qwen3: Any) -> None:
    before = [dict(turn) for turn in CHAT if isinstance(turn, dict)]
    sdpo_inputs([rollout("wrong", "why")], [0], [0], [CHAT], qwen3)
    assert before == CHAT


def test_a_chat_needs_a_template(qwen3: Any) -> None:
    plain = make_chat_tokenizer("qwen3")
    plain.chat_template = None
    with pytest.raises(InputError, match=r"no chat template: set prompt\.chat to false"):
        pcsd_inputs([CHAT], ["8"], plain)


def test_what_begins_a_text_begins_the_teachers_too() -> None:
    # A tokenizer that puts a token in front of a plain text, and a template that writes it itself.
    llama3 = make_chat_tokenizer("llama3")
    start = llama3.bos_token_id
    for found in pcsd_inputs(["Add: 1+7?", CHAT], ["8", "8"], llama3):
        assert found.ids is not None and found.ids[0] == start and found.ids.count(start) == 1


# --------------------------------------------------------------------------- pcsd


@pytest.mark.parametrize("context", [None, "", " \n"])
def test_without_a_context_the_teacher_reads_what_the_student_reads(qwen3: Any, context: str | None) -> None:
    for prompt in ("Add: 1+7?\n", CHAT):
        (found,) = pcsd_inputs([prompt], [context], qwen3)
        assert (found.ids, found.has_solution) == (prompt_ids(qwen3, prompt), False)


def test_the_context_stands_behind_the_user_turn_and_a_line_end(qwen3: Any) -> None:
    (found,) = pcsd_inputs([CHAT], ["1+7 is 8\n#### 8"], qwen3)
    assert found.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nAdd: 1+7?\n1+7 is 8\n#### 8<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_context_stands_behind_a_plain_prompt() -> None:
    assert texts(pcsd_inputs(["Q\nSolution:"], ["8 {prompt}"], Characters())) == ["Q\nSolution:\n8 {prompt}"]


def test_a_context_cut_to_nothing_leaves_the_students_input() -> None:
    (found,) = pcsd_inputs(["Question"], ["12345"], Characters(), max_len=4)
    assert (found.text, found.has_solution, found.cut) == ("Question", False, True)


@pytest.mark.parametrize(("truncation", "text"), [("right", "Q\n123"), ("left", "Q\n345")])
def test_a_long_context_is_cut(truncation: Any, text: str) -> None:
    assert texts(pcsd_inputs(["Q"], ["12345"], Characters(), 5, truncation)) == [text]


# --------------------------------------------------------------------------- length

WORDS = len(f"Q{SOLVED}{REQUEST}")  # what stands around a demonstration, in tokens of a character


@pytest.mark.parametrize(("truncation", "left"), [("right", "012"), ("left", "789")])
def test_a_long_demonstration_loses_its_end_or_its_beginning(truncation: str, left: str) -> None:
    found = read(["0123456789", "wrong"], [1, 0], max_reprompt_len=WORDS + 3, reprompt_truncation=truncation)[1]
    assert (found.text, found.cut) == (f"Q{SOLVED}{left}{REQUEST}", True)


def test_what_just_fits_is_not_cut() -> None:
    found = read(["0123456789", "wrong"], [1, 0], max_reprompt_len=WORDS + 10)[1]
    assert (found.text, found.cut) == (f"Q{SOLVED}0123456789{REQUEST}", False)


@pytest.mark.parametrize(
    ("truncation", "room", "solution", "feedback"),
    [
        ("right", 3, "0123", f"{TOLD}abc"),  # the feedback stands last
        ("right", -len(TOLD) - 2, "01", ""),
        ("left", 4 - 1, "123", f"{TOLD}abcd"),
        ("left", -len(SOLVED) + 2, None, f"{TOLD}cd"),
    ],
)
def test_of_both_goes_what_stands_outermost_and_its_words_go_with_it(
    truncation: str, room: int, solution: str | None, feedback: str
) -> None:
    base = len(f"Q{SOLVED}{TOLD}{REQUEST}") + 4  # with one of the two whole
    shown = "" if solution is None else SOLVED + solution
    found = read(
        ["0123", "wrong"],
        [1, 0],
        [None, "abcd"],
        environment_feedback_only_without_solution=False,
        max_reprompt_len=base + room if solution is not None else base - 4 + room,
        reprompt_truncation=truncation,
    )[1]
    assert found.text == f"Q{shown}{feedback}{REQUEST}"
    assert (found.has_solution, found.has_feedback) == (solution is not None, bool(feedback))


@pytest.mark.parametrize("length", [WORDS, len("Q") - 1])
def test_where_nothing_of_it_fits_the_sample_is_masked(length: int) -> None:
    found = read(["0123456789", "wrong"], [1, 0], max_reprompt_len=length)
    assert found[1] == TeacherInput(None, cut=True)


def test_too_long_can_be_an_error_that_names_the_field() -> None:
    asked: dict[str, Any] = {"reprompt_truncation": "error", "max_reprompt_len": WORDS + 9}
    with pytest.raises(StageFailed, match=rf"has {WORDS + 10} tokens and trainer.max_reprompt_len is {WORDS + 9}"):
        read(["0123456789", "wrong"], [1, 0], **asked)
    assert read(["012345678", "wrong"], [1, 0], **asked)[1].text is not None


@pytest.mark.parametrize("truncation", ["right", "left"])
def test_a_long_reprompt_keeps_the_question_and_the_generation_prompt(qwen3: Any, truncation: Any) -> None:
    # At every length: what is left of the demonstration is its beginning or its end, whole characters, and it fits.
    shown = "ünïcödé, 1 + 7 makes 8: 🍏🍏. The answer is 42.\n\n#### 18"
    whole = sdpo_inputs([rollout(shown), rollout("no")], [1, 0], [0, 0], [CHAT, CHAT], qwen3)[1]
    assert whole.ids is not None and whole.text is not None
    head, tail = whole.text.split(shown)
    room = []
    for length in range(len(whole.ids), 40, -1):
        how = Reprompting(max_reprompt_len=length, reprompt_truncation=truncation)
        found = sdpo_inputs([rollout(shown), rollout("no")], [1, 0], [0, 0], [CHAT, CHAT], qwen3, how)[1]
        if found.ids is None:
            break
        assert found.text is not None and found.text.startswith(head) and found.text.endswith(tail)
        left = found.text[len(head) : -len(tail)]
        assert left and (shown.startswith(left) if truncation == "right" else shown.endswith(left))
        room.append(length - len(found.ids))
    assert len(room) > 40
    assert min(room) == 0 and max(room) <= 3, "a character of four tokens goes as a whole, and no more does"


# --------------------------------------------------------------------------- privileged text


def example(name: str, target: str | None, source: str = "labeled") -> Example:
    return Example(Question(name, name), name, "8", target, source)


def test_a_solution_is_the_target_of_those_who_have_one() -> None:
    given = [
        example("a", "gold"),
        example("b", "voted", "pseudo"),
        example("c", None, "pseudo"),
        example("d", " ", "labeled"),
        example("e", "hidden", "questions"),
        example("f", "hidden", "test_questions"),
    ]
    assert privileged_text(given, "solution", 1) == ["gold", "voted", None, None, None, None]


def test_hidden_truth_in_the_question_is_not_read() -> None:
    question = Question("q", "q", answer="8", solution="true", context="true")
    assert privileged_text([Example(question, "q", "7", "voted", "pseudo")], "solution", 1) == ["voted"]
    assert privileged_text([Example(question, "q", None, None, "questions")], "solution", 1) == [None]


@pytest.mark.parametrize("seed", range(20))
def test_another_questions_solution_is_a_permutation_without_fixed_points(seed: int) -> None:
    names = [f"q{number}" for number in range(7)]
    found = privileged_text([example(name, name) for name in names], "other_question", seed)
    assert sorted(map(str, found)) == names
    assert all(one != other for one, other in zip(found, names, strict=True))


def test_the_seed_says_which_question_and_the_order_does_not() -> None:
    given = [example(f"q{number}", f"t{number}") for number in range(7)]
    drawn = {tuple(privileged_text(given, "other_question", seed)) for seed in range(10)}
    assert len(drawn) > 5
    there = privileged_text(given, "other_question", 3)
    assert privileged_text(given[::-1], "other_question", 3) == there[::-1]


def test_a_question_that_occurs_twice_never_gets_its_own() -> None:
    given = [example("a", "t"), example("b", "u"), example("a", "v", "pseudo")]
    assert privileged_text(given, "other_question", 1) == ["u", "t", "u"]


def test_the_control_has_a_text_where_the_solution_has_one() -> None:
    given = [example("a", "t"), example("b", None), example("c", "u")]
    assert privileged_text(given, "other_question", 1) == ["u", None, "t"]


def test_another_question_needs_two_with_a_solution() -> None:
    with pytest.raises(InputError, match=r"trainer.privileged: other_question needs two .* there are 1"):
        privileged_text([example("a", "t"), example("b", None)], "other_question", 1)


# --------------------------------------------------------------------------- light


def test_the_text_side_needs_no_torch() -> None:
    code = "import sys, nsd.plugins.trainers.teacher_inputs; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
