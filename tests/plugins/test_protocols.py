"""Protocols: one value per question from its samples."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nsd.plugins.api import Completion, Protocol, Question, Sampling, Scored, Search, StopReason
from nsd.plugins.protocols.accuracy import Accuracy
from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.protocols.best_within import BestWithin
from nsd.plugins.protocols.discovery import Discovery
from nsd.plugins.protocols.maj_at_k import MajAtK
from nsd.plugins.protocols.pass_at_k import PassAtK, pass_at_k
from nsd.plugins.verifiers.numeric import Numeric

VERIFIER = Numeric()
QUESTION = Question(id="q", text="q", answer="7")


def scored(*answers: str | None) -> list[Scored]:
    texts = ["nothing" if answer is None else f"#### {answer}" for answer in answers]
    return [
        Scored(Completion("q", i, text, 1, StopReason.STOP), VERIFIER.score(text, QUESTION))
        for i, text in enumerate(texts)
    ]


def test_accuracy() -> None:
    assert Accuracy().value(scored("7"), VERIFIER) == 1
    assert Accuracy().value(scored("8"), VERIFIER) == 0
    assert Accuracy().value([], VERIFIER) == 0


def test_defaults_are_the_studys_evaluation() -> None:
    sampling = Accuracy().sampling()
    assert (sampling.n, sampling.temperature, sampling.max_tokens, sampling.top_p, sampling.top_k) == (
        1,
        0.1,
        256,
        1,
        0,
    )


def test_metric_names_and_numbers_of_samples() -> None:
    protocols = [
        Accuracy(),
        AvgAtK(AvgAtK.Config(k=16)),
        PassAtK(PassAtK.Config(k=4, n=16)),
        MajAtK(MajAtK.Config(k=5)),
        MajAtK(MajAtK.Config.model_validate({"generated_tokens": 5000})),
    ]
    assert [protocol.metric() for protocol in protocols] == ["accuracy", "avg@16", "pass@4", "maj@5", "maj@tokens:5000"]
    assert [protocol.sampling().n for protocol in protocols] == [1, 16, 16, 5, 1024]


def test_the_numbers_of_samples_where_none_is_given() -> None:
    protocols = [AvgAtK(), PassAtK(), MajAtK(), BestWithin()]
    assert [protocol.sampling().n for protocol in protocols] == [8, 8, 8, 16]


def test_avg_at_k_counts_a_missing_sample_as_wrong() -> None:
    protocol = AvgAtK(AvgAtK.Config(k=4))
    assert protocol.value(scored("7", "8", "7", None), VERIFIER) == 0.5
    assert protocol.value(scored("7"), VERIFIER) == 0.25


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_correct_one(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    subsets = list(combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == float(Fraction(sum(map(any, subsets)), len(subsets)))


def test_pass_at_k_is_exact_where_a_product_of_floats_is_not() -> None:
    assert pass_at_k(10_000, 1, 100) == 0.01
    assert pass_at_k(10_000, 10_000, 100) == 1
    assert pass_at_k(10_000, 0, 100) == 0


def test_a_protocol_takes_a_completion_at_least_and_no_temperature_below_0() -> None:
    for config in (PassAtK.Config, AvgAtK.Config, MajAtK.Config, BestWithin.Config):
        with pytest.raises(ValidationError, match=r"k\n  Input should be greater than or equal to 1"):
            config(k=0)
        with pytest.raises(ValidationError, match=r"temperature\n  Input should be greater than or equal to 0"):
            config(temperature=-0.1)
    with pytest.raises(ValidationError, match=r"n\n  Input should be greater than or equal to 1"):
        PassAtK.Config(n=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "training"}, "by: training needs a 'trainer'"),
        ({"trainer": {"use": "sdpo"}}, "'trainer' has no effect with by: sampling"),
        ({"by": "multi_turn", "trainer": {"use": "sdpo"}}, "'trainer' has no effect with by: multi_turn"),
        ({"samples": 12}, "samples 12 is no multiple of batch 8"),
        ({"top_k": 1}, "at 'top_k' 1 all 64 samples of a question are the same"),
        ({"feedback_tokens": 5}, "'feedback_tokens' has no effect with by: sampling"),
    ],
)
def test_fields_of_a_search_that_cannot_go_together_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Discovery.Config.model_validate(given)


def test_a_search_is_as_configured_and_scores_the_budget_that_is_left() -> None:
    sampled = Discovery(Discovery.Config(samples=4, batch=2))
    assert (sampled.metric(), sampled.sampling().n, sampled.trainer()) == ("discovery@4", 4, None)
    assert sampled.search() == Search("sampling", 4, 2, 0)
    turns = Discovery(Discovery.Config(by="multi_turn", samples=5, feedback_tokens=9))
    assert turns.search() == Search("multi_turn", 5, 1, 9)
    assert Discovery(Discovery.Config(samples=1, batch=1, top_k=1)).sampling().n == 1
    assert sampled.value(scored("8", "7", "7"), VERIFIER) == 0.75
    assert sampled.value(scored("8", "8", "8", "8", "7"), VERIFIER) == sampled.value([], VERIFIER) == 0.0


def test_pass_at_k_value() -> None:
    assert PassAtK(PassAtK.Config(k=2)).value(scored("8", "7"), VERIFIER) == 1
    assert PassAtK(PassAtK.Config(k=1, n=4)).value(scored("8", "7", "8", "8"), VERIFIER) == 0.25


def test_pass_at_k_needs_k_samples() -> None:
    with pytest.raises(ValidationError, match="at least 8 completions"):
        PassAtK.Config(k=8, n=4)


def test_maj_at_k() -> None:
    protocol = MajAtK(MajAtK.Config(k=5))
    assert protocol.value(scored("8", "7", "7.0", "9", None), VERIFIER) == 1
    assert protocol.value(scored("8", "8", "7"), VERIFIER) == 0
    assert protocol.value(scored(None, None), VERIFIER) == 0


def test_maj_at_k_tie_goes_to_the_first_seen() -> None:
    protocol = MajAtK(MajAtK.Config(k=2))
    assert protocol.value(scored("7", "8"), VERIFIER) == 1
    assert protocol.value(scored("8", "7"), VERIFIER) == 0


class Loose(Numeric):
    """Takes numbers one apart for equal, in votes and against the gold."""

    def same(self, a: str, b: str) -> bool:
        return abs(int(a) - int(b)) <= 1


@pytest.mark.parametrize("order", [("8", "9", "9"), ("9", "8", "9"), ("9", "9", "8")])
def test_maj_at_k_judges_the_answer_that_won_whichever_of_its_class_came_first(order: tuple[str, ...]) -> None:
    # 8 and 9 vote together for 9; the gold answer 7 is the same as 8 alone.
    completions = [Completion("q", i, f"#### {answer}", 1, StopReason.STOP) for i, answer in enumerate(order)]
    judged = [Scored.judge(one, QUESTION, Loose()) for one in completions]
    assert MajAtK(MajAtK.Config(k=3)).value(judged, Loose()) == 0


@pytest.mark.parametrize(
    ("protocol", "n"),
    [
        (Accuracy, {}),
        (AvgAtK, {"k": 3}),
        (MajAtK, {"k": 3}),
        (PassAtK, {"k": 2, "n": 3}),
    ],
)
def test_every_sampling_field_of_a_protocol_is_asked_for(protocol: type[Protocol], n: dict[str, int]) -> None:
    config = protocol.Config.model_validate({"temperature": 0.9, "top_p": 0.7, "top_k": 4, "max_tokens": 6, **n})
    expected = Sampling(n=3 if n else 1, temperature=0.9, max_tokens=6, top_p=0.7, top_k=4)
    assert protocol(config).sampling() == expected


def test_samples_beyond_k_count_for_nothing() -> None:
    assert MajAtK(MajAtK.Config(k=1)).value(scored("7", "8", "8"), VERIFIER) == 1
    assert AvgAtK(AvgAtK.Config(k=2)).value(scored("7", "7", "8"), VERIFIER) == 1
    assert PassAtK(PassAtK.Config(k=1, n=2)).value(scored("8", "8", "7"), VERIFIER) == 0


def test_the_value_of_a_search_is_the_share_of_its_budget_that_was_left() -> None:
    search = Discovery(Discovery.Config(samples=4, batch=2))
    assert search.value(scored("1", "7", "7"), VERIFIER) == 0.75
    assert search.value(scored("7"), VERIFIER) == 1.0
    assert search.value(scored("1", None, "2", "7"), VERIFIER) == 0.25
    assert search.value(scored("1", None, "2", "3", "4", "7"), VERIFIER) == 0.0
