"""What validation says of a training, on curves whose answer is plain."""

from __future__ import annotations

import json

import pytest

from nsd.reports.judge.trainings import best_notes
from nsd.reports.judge.watched import collapse_of, noise, watched
from toy_results import Results

Values = list[tuple[int, float]]


def test_noise_is_that_of_two_shares() -> None:
    # .5 and .5 of 50 questions: the root of (.25 + .25) / 50; all right and all right: of one question in 50.
    assert noise(0.5, 0.5, 50) == pytest.approx(0.1)
    assert noise(1.0, 1.0, 50) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        # .6 and .35 of 50: the error is .0966, so a fall of .25 is beyond two of them, one of .15 is not
        ([(0, 0.4), (20, 0.6), (40, 0.35), (60, 0.3)], 40),
        ([(0, 0.4), (20, 0.6), (40, 0.45), (60, 0.3)], 60),
        ([(0, 0.4), (20, 0.6), (40, 0.3), (60, 0.55)], None),  # it came back
        ([(0, 0.4), (20, 0.5), (40, 0.6)], None),
        ([(0, 0.6), (20, 0.1), (40, 0.1)], 20),  # the start was the best
    ],
)
def test_a_collapse_is_a_fall_beyond_noise_that_lasts(values: Values, step: int | None) -> None:
    assert collapse_of(values, 50) == step


RISING = [0.2 + 0.01 * step for step in range(60)]


@pytest.mark.parametrize(
    ("values", "rewards", "words"),
    [
        ([(0, 0.3), (20, 0.6)], RISING, "learned: 0.300 at the start, 0.600 at step 20"),
        (
            [(0, 0.4), (20, 0.42), (40, 0.38)],
            RISING,
            "its reward rose by 0.40 and validation did not beyond noise: it may game the reward",
        ),
        ([(0, 0.6), (20, 0.1)], RISING, "collapsed at step 20: from 0.600 to 0.100, while its reward rose by 0.40"),
        ([(0, 0.6), (20, 0.1)], [], "collapsed at step 20: from 0.600 to 0.100"),
        (
            [(0, 0.4), (20, 0.42)],
            [0.1, 0.8] * 6,
            "no change beyond the noise of so few questions",
        ),  # 12 steps say nothing
        ([(0, 0.4), (20, 0.42)], [0.3] * 40, "no change beyond the noise of so few questions"),
    ],
)
def test_a_training_that_games_its_reward_is_told_from_one_that_learns(
    values: Values, rewards: list[float], words: str
) -> None:
    assert watched("accuracy", values, 50, "best", 20, rewards).says == words


def test_the_note_on_the_best_weights_says_that_the_questions_picked_them() -> None:
    results = Results()
    results.add("s/a/seed1", [1, 0], metric="avg@16")
    kept = {"metric": "avg@16", "best": 0.75, "best_step": 20}
    results.connection.execute("UPDATE eval_info SET protocol = 'best_within'")
    results.connection.execute(
        "INSERT INTO stages(digest, kind, manifest) VALUES ('train-s/a/seed1', 'train', ?)",
        [json.dumps({"training": {"notes": {"validation": kept}}})],
    )
    (note,) = best_notes(results.connection, ["eval-s/a/seed1"]).values()
    assert "picking has flattered by +0.250 on samples" in note
    assert "picked and measured on the same questions" in note
