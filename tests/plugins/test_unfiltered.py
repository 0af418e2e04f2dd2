"""The labeler that takes a model's own samples as they come."""

from __future__ import annotations

from nsd.plugins.api import Completion, PseudoLabel, Question, Sampling, StopReason, question_id
from nsd.plugins.labelers.unfiltered import Unfiltered
from nsd.plugins.verifiers.numeric import Numeric

QUESTION = Question(id=question_id("How many?"), text="How many?")


def label(*samples: tuple[str, StopReason]) -> PseudoLabel:
    drawn = [
        Completion(QUESTION.id, number, text, tokens=len(text.split()), stop_reason=stop)
        for number, (text, stop) in enumerate(samples)
    ]
    return Unfiltered().label([QUESTION], {QUESTION.id: drawn}, Numeric(), 0)[0]


def test_a_sample_that_can_be_read_is_label_and_target() -> None:
    found = label(("It is 18. #### 18.", StopReason.STOP))
    assert (found.label, found.target, found.kept, found.confidence) == ("18", "It is 18. #### 18.", True, 1.0)


def test_one_that_nobody_can_read_is_a_target_all_the_same() -> None:
    found = label(("I do not know", StopReason.STOP))
    assert (found.label, found.target, found.kept, found.confidence) == (None, "I do not know", True, 0.0)


def test_one_that_was_cut_is_a_target_too() -> None:
    found = label(("#### 18 and", StopReason.LENGTH))
    assert (found.target, found.kept) == ("#### 18 and", True)


def test_one_that_failed_is_left_out() -> None:
    found = label(("#### 18", StopReason.ERROR))
    assert (found.label, found.target, found.kept) == (None, None, False)


def test_a_question_without_a_sample_gets_no_label() -> None:
    assert not label().kept


def test_it_asks_for_one_sample() -> None:
    labeler = Unfiltered(Unfiltered.Config(temperature=0.5, max_tokens=9, stop=["Q:"]))
    assert labeler.sampling() == Sampling(n=1, temperature=0.5, max_tokens=9, stop=("Q:",))
