"""One verifier on trial: what shows at any text."""

from __future__ import annotations

from nsd.plugins.api import Question, Score, Verifier
from nsd.plugins.verifiers.trial import Trial

QUESTION = Question("q", "How many?", "5")


def test_scores_between_0_and_1_are_counted_and_the_highest_are_shown_first() -> None:
    class Given(Verifier):
        def score(self, completion: str, question: Question) -> Score:
            return Score(float(completion), completion == "1", completion)

    trial = Trial(Given())
    for text in ("0", "0.25", "1", "0.5", "0.125", "0"):
        trial.judge(text, QUESTION)
    partial = trial.told()[-1]
    assert (partial.tried, partial.wrong) == (6, 3)
    assert [one.said for one in partial.examples] == [
        "score 0.5, wrong, read '0.5'",
        "score 0.25, wrong, read '0.25'",
        "score 0.125, wrong, read '0.125'",
    ]


def test_the_second_verdict_of_a_text_is_told_beside_the_first() -> None:
    class Turning(Verifier):
        def __init__(self, *said: Score) -> None:
            super().__init__()
            self.said = list(said)

        def score(self, completion: str, question: Question) -> Score:
            return self.said.pop(0)

    right, wrong = Score(1.0, True, "5"), Score(0.0, False, None)
    for said, told in (
        ((right, wrong), "score 1, right, read '5', then score 0, wrong, read None"),
        ((right,), "score 1, right, read '5', then an error"),
    ):
        trial = Trial(Turning(*said))
        trial.judge("5", QUESTION)
        assert (trial.twice.tried, [one.said for one in trial.twice.examples]) == (1, [told])


def test_the_time_of_a_text_is_that_of_all_over_their_number() -> None:
    trial = Trial(Verifier())
    assert trial.seconds_each == 0.0
    for judged, each in ((1, 6.0), (3, 2.0)):
        trial.seconds, trial.judged = 6.0, judged
        assert trial.seconds_each == each
