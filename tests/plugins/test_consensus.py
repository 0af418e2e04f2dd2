"""The consensus labeler."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Completion, PseudoLabel, Question, Sampling, StopReason, question_id
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.verifiers.numeric import Numeric

QUESTION = Question(id=question_id("How many?"), text="How many?")


def label(texts: list[str], seed: int = 0, **config: object) -> PseudoLabel:
    labeler = Consensus(Consensus.Config(**{"k": len(texts), **config}))
    completions = [
        Completion(QUESTION.id, number, text, tokens=len(text.split()), stop_reason=StopReason.STOP)
        for number, text in enumerate(texts)
    ]
    return labeler.label([QUESTION], {QUESTION.id: completions}, Numeric(), seed)[0]


def test_one_number_written_three_ways_is_one_vote_class() -> None:
    found = label(["#### 5", "#### 18.", "#### 18", "#### 18.0"])
    assert (found.label, found.votes, found.confidence) == ("18", 3, 0.75)
    assert dict(found.tally) == {"5": 1, "18": 3}


def test_samples_without_an_answer_stay_in_the_denominator() -> None:
    found = label(["#### 5", "none", "none", "none"])
    assert (found.label, found.confidence, found.kept) == ("5", 0.25, True)


def test_samples_that_were_never_drawn_stay_in_the_denominator() -> None:
    assert label(["#### 5", "#### 5"], k=8).confidence == 0.25


def test_samples_beyond_k_do_not_vote() -> None:
    found = label(["#### 5", "#### 6", "#### 6", "#### 6"], k=2)
    assert (found.label, found.tally, found.confidence) == ("5", {"5": 1, "6": 1}, 0.5)


def test_the_threshold_itself_is_kept() -> None:
    texts = ["#### 5"] * 6 + ["#### 1", "#### 2"]
    assert label(texts, threshold=0.75).kept
    assert not label(texts, threshold=0.76).kept


def test_no_answer_is_no_label_even_at_threshold_zero() -> None:
    found = label(["none", "none"])
    assert (found.label, found.target, found.kept, found.confidence) == (None, None, False, 0.0)


def test_a_question_without_samples_gets_no_label() -> None:
    found = Consensus().label([QUESTION], {}, Numeric(), 0)[0]
    assert (found.label, found.kept, found.k) == (None, False, 8)


def test_target_is_a_whole_agreeing_completion() -> None:
    texts = ["wrong #### 5", "a rather long way to #### 7", "so #### 7", "it #### 7.0"]
    assert label(texts, target="first").target == texts[1]
    assert label(texts, target="shortest").target == texts[2]
    drawn = {label(texts, seed=seed, target="random").target for seed in range(40)}
    assert drawn == set(texts[1:])
    places = [texts.index(str(label(texts, seed=seed, target="random").target)) for seed in range(8)]
    assert places == [2, 2, 1, 2, 3, 1, 1, 3]  # as recorded: another draw is another training
    assert label(texts, seed=3, target="random") == label(texts, seed=3, target="random")


def test_the_random_target_is_drawn_for_each_question_anew() -> None:
    labeler = Consensus(Consensus.Config(k=4, target="random"))
    questions = [Question(id=question_id(str(number)), text=str(number)) for number in range(20)]
    drawn = [f"way {number} #### 5" for number in range(4)]
    samples = {q.id: [Completion(q.id, n, text, 1, StopReason.STOP) for n, text in enumerate(drawn)] for q in questions}
    found = [one.target for one in labeler.label(questions, samples, Numeric(), 0)]
    assert set(found) == set(drawn)


@given(st.lists(st.sampled_from(["#### 1", "#### 2", "#### 3", "none"]), min_size=1, max_size=16))
def test_confidence_is_a_share_and_the_target_agrees(texts: list[str]) -> None:
    found = label(texts)
    assert 0 <= found.confidence <= 1
    assert found.votes == max(found.tally.values(), default=0)
    assert found.target is None or Numeric().extract(found.target) == found.label


def test_threshold_alone_leaves_the_sampling_as_it_is() -> None:
    sampling = Consensus(Consensus.Config(k=3, temperature=0.2, top_p=0.8, top_k=7, max_tokens=5)).sampling()
    assert sampling == Sampling(n=3, temperature=0.2, max_tokens=5, top_p=0.8, top_k=7)
    loose, strict = (Consensus(Consensus.Config(threshold=threshold)) for threshold in (0.0, 0.9))
    assert loose.sampling() == strict.sampling()
    assert set(Consensus.sampling_fields) <= set(Consensus.Config.model_fields)


def test_a_vote_that_does_not_stop_early_asks_for_all_that_are_left() -> None:
    labeler = Consensus(Consensus.Config(k=8))
    drawn = [Completion(QUESTION.id, n, f"#### {n}", tokens=2, stop_reason=StopReason.STOP) for n in range(9)]
    assert [labeler.more(QUESTION, drawn[:n], Numeric()) for n in (0, 3, 8, 9)] == [8, 5, 0, 0]
    assert labeler.asked(QUESTION, drawn, Numeric()) == 8
