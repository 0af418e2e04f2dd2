"""The noise floor, worked by hand, and checked against simulated repeats."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nsd.reports.judge.noise import Noise, noise_floor, noise_sentence, repeated, sampling_floor
from toy_repeats import RUN, with_repeats


def test_three_evaluations_by_hand() -> None:
    results = with_repeats([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0])
    (one,) = noise_floor(results.connection, [RUN])
    assert (one.repeats, one.n, one.pairs) == (2, 4, 3)
    assert one.means == [0.5, 0.25, 0.75]
    assert one.mean == 0.5 and one.sd == pytest.approx(0.25)
    assert one.discordant == pytest.approx(4 / 3)  # 1, 1 and 2 questions
    assert one.floor == pytest.approx(1.959964 * math.sqrt(4 / 3) / 4, abs=1e-6)
    assert one.called_different == 0


def test_pairs_that_mcnemar_calls_different_are_counted() -> None:
    # Five questions lost and none won: mid-p is 2/32 - 1/32 = .031; four would be .0625.
    results = with_repeats([1] * 5 + [0] * 5, [0] * 10, [1] * 4 + [0] * 6)
    (one,) = noise_floor(results.connection, [RUN])
    assert one.called_different == 1 and one.pairs == 3


def test_shares_use_squared_differences_and_a_t_test() -> None:
    results = with_repeats([0.5, 0.25, 1.0], [0.75, 0.25, 0.5], metric="avg@4")
    (one,) = noise_floor(results.connection, [RUN])
    assert one.discordant is None and one.test.startswith("paired t")
    assert one.floor == pytest.approx(1.959964 * math.sqrt(0.25**2 + 0.5**2) / 3, abs=1e-6)


def test_one_repeat_is_enough_for_a_floor() -> None:
    (one,) = noise_floor(with_repeats([1, 0], [0, 1]).connection, [RUN])
    assert one.floor > 0 and one.sd == 0


def test_unfinished_repeats_and_runs_without_any_are_left_out() -> None:
    results = with_repeats([1, 0], [1, 1], None)
    with_repeats([1, 0], results=results, run="toy/other/seed1")
    with_repeats([1, 0], None, results=results, run="toy/third/seed1")
    found = noise_floor(results.connection, ["toy/other/seed1", "toy/third/seed1", RUN])
    assert [(one.run, one.repeats) for one in found] == [(RUN, 1)]
    assert noise_sentence([]) == ""


def test_only_questions_that_every_evaluation_has_count() -> None:
    (one,) = noise_floor(with_repeats([1, 0, 1], [1, 1]).connection, [RUN])
    assert one.n == 2 and one.means == [0.5, 1.0]


def test_nothing_in_common_gives_nothing() -> None:
    assert noise_floor(with_repeats([1, 0], []).connection, [RUN]) == []


def test_greedy_repeats_that_agree_say_so() -> None:
    found = noise_floor(with_repeats([1, 0], [1, 0], temperature=0.0).connection, [RUN])
    assert found[0].greedy and found[0].floor == 0
    assert "temperature 0" in found[0].note
    assert "agreed on every question" in noise_sentence(found)


def test_a_temperature_above_zero_is_not_greedy() -> None:
    found = noise_floor(with_repeats([1, 0], [1, 0], temperature=0.1).connection, [RUN])
    assert not found[0].greedy and "temperature" not in noise_sentence(found)


def test_the_sentence_names_the_noisiest_run() -> None:
    results = with_repeats([1, 1, 1, 0], [1, 1, 1, 0])
    with_repeats([1, 1, 0, 0], [0, 0, 0, 0], results=results, run="toy/loud/seed1")
    found = noise_floor(results.connection, [RUN, "toy/loud/seed1"])
    points = 1.959964 * math.sqrt(2) / 4 * 100
    assert f"below {points:.1f} points" in noise_sentence(found) and "4 questions" in noise_sentence(found)


def test_one_question_is_a_sensible_sentence() -> None:
    found = noise_floor(with_repeats([1], [0]).connection, [RUN])
    assert "nan" not in found[0].sentence() + noise_sentence(found)


def test_a_run_says_its_range_its_spread_what_differs_and_how_often_a_test_fires() -> None:
    (one,) = noise_floor(with_repeats([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]).connection, [RUN])
    assert one.sentence() == (
        "toy/base/seed1: accuracy 0.2500 to 0.7500 over 2 repeats, SD 25.00 points; 1.3 of 4 questions differ between "
        "two of them; McNemar mid-p calls 0 of 3 such pairs different at 0.05"
    )


def test_repeats_drawn_anew_that_change_no_outcome_say_so() -> None:
    (one,) = noise_floor(with_repeats([1, 0], [1, 0], temperature=1.0).connection, [RUN])
    assert one.sentence() == (
        "toy/base/seed1: accuracy 0.5000 to 0.5000 over 1 repeat, SD 0.00 points; 0.0 of 2 questions differ between "
        "two of them; McNemar mid-p calls 0 of 1 such pairs different at 0.05; no question's outcome changed"
    )


def test_greedy_repeats_tell_neither_a_spread_nor_pairs() -> None:
    (one,) = noise_floor(with_repeats([1, 0], [1, 1], temperature=0.0).connection, [RUN])
    assert one.sentence() == (
        "toy/base/seed1: accuracy 0.5000 to 1.0000 over 1 repeat; 1.0 of 2 questions differ between two of them; "
        "drawn at temperature 0, where repeats cannot differ but by float rounding"
    )


def test_shares_tell_no_count_of_questions() -> None:
    (one,) = noise_floor(with_repeats([0.5, 0.25, 1.0], [0.75, 0.25, 0.5], metric="avg@4").connection, [RUN])
    assert one.sentence() == (
        "toy/base/seed1: avg@4 0.5000 to 0.5833 over 1 repeat, SD 5.89 points; paired t on question means calls 0 of 1 "
        "such pairs different at 0.05"
    )


def test_nineteen_of_twenty_simulated_pairs_stay_below_the_floor() -> None:
    draw = np.random.default_rng(5)
    inside = trials = 0
    for _ in range(40):
        chance = draw.beta(0.6, 0.6, 500)
        floor = sampling_floor((draw.random((4, 500)) < chance).astype(float))
        fresh = (draw.random((2, 50, 500)) < chance).mean(axis=2)
        inside += int((np.abs(fresh[0] - fresh[1]) < floor).sum())
        trials += 50
    # 2,000 pairs: three standard errors of .95 are .015, and the floor itself is an estimate.
    assert abs(inside / trials - 0.95) < 0.025


def test_as_data_it_has_every_field() -> None:
    (found,) = noise_floor(with_repeats([1, 0, 1, 0], [1, 1, 0, 0]).connection, [RUN])
    assert found.to_json() == {name: getattr(found, name) for name in type(found).__dataclass_fields__}


# --------------------------------------------------------------------------- the sentence for all of them


def noise(**changed: Any) -> Noise:
    (one,) = noise_floor(with_repeats([1, 1, 0, 0], [1, 0, 1, 0]).connection, [RUN])
    return replace(one, floor=0.125, **changed) if "floor" not in changed else replace(one, **changed)


REST = (
    "points are within the noise of sampling alone on this test set (4 questions; 95 % of evaluations repeated with "
    "the same weights differ by less)."
)


@pytest.mark.parametrize(
    ("floor", "limit"), [(0.125, "12.5"), (0.001, "0.1"), (0.00094, "0.09"), (0.000123, "0.01"), (0.0151, "1.5")]
)
def test_a_floor_is_told_to_a_tenth_of_a_point_and_a_smaller_one_to_a_digit(floor: float, limit: str) -> None:
    assert noise_sentence([noise(floor=floor)]) == f"Differences below {limit} {REST}"


def test_each_metric_and_each_evaluation_is_spoken_of_apart() -> None:
    found = [noise(), noise(metric="avg@4", floor=0.05), noise(on="hard", floor=0.02), noise(floor=0.1)]
    assert noise_sentence(found) == " ".join(
        [
            f"Differences of accuracy below 12.5 {REST}",
            f"Differences of avg@4 below 5.0 {REST}",
            f"Differences of accuracy on hard below 2.0 {REST}",
        ]
    )


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ([{}], "."),
        ([{"greedy": True}], ": sampling at temperature 0 repeats itself."),
        ([{"recorded": True}], ": recorded completions are read again."),
        ([{"greedy": True}, {"recorded": True}], "."),
        ([{"greedy": True}, {}], "."),
    ],
)
def test_repeats_that_agreed_on_every_question_say_why_where_all_have_one_reason(
    of: list[dict[str, bool]], said: str
) -> None:
    found = [noise(floor=0.0, **one) for one in of]
    assert noise_sentence(found) == f"Repeated evaluations agreed on every question{said}"


def test_copies_speak_only_where_there_is_nothing_else() -> None:
    copy = noise(greedy=True, floor=0.5)
    alone = "Repeated evaluations drew nothing anew, so they show no noise of sampling."
    assert noise_sentence([copy]) == alone
    assert noise_sentence([copy, noise()]) == f"Differences below 12.5 {REST}"


def test_runs_come_once_each_in_the_order_asked_for() -> None:
    results = with_repeats([1, 0], [0, 1])
    with_repeats([1, 0], [0, 1], results=results, run="toy/other/seed1")
    found = noise_floor(results.connection, ["toy/other/seed1", RUN, "toy/other/seed1"])
    assert [one.run for one in found] == ["toy/other/seed1", RUN]


def test_values_of_what_was_drawn_again_come_by_evaluation_and_question() -> None:
    results = with_repeats([1, 0, 1], [0, 0, 1], [1, 1], temperature=0.7)
    with_repeats([1, 0], [0, 1], results=results, run="toy/greedy/seed1", temperature=0.0)
    with_repeats([1], [0], results=results, run="toy/single/seed1")
    (values,) = repeated(results.connection, [RUN, "toy/greedy/seed1", "toy/single/seed1"])
    assert values.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_the_test_of_shares_fires_on_a_difference_that_is_the_same_everywhere() -> None:
    first = [0.5, 0.25, 0.75, 0.5, 0.25, 0.5]
    shifted = [value + step for value, step in zip(first, [0.25] * 5 + [0.125], strict=True)]
    (one,) = noise_floor(with_repeats(first, shifted, metric="avg@8").connection, [RUN])
    assert (one.called_different, one.pairs) == (1, 1)
