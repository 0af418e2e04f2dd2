"""What validation says of a training, on curves whose answer is plain."""

from __future__ import annotations

import json

import pytest

from nsd.reports.judge.runs import Arm, condition_arms
from nsd.reports.judge.trainings import best_notes, training_notes
from nsd.reports.judge.watched import Watched, WatchedTraining, collapse_of, collect_watched, noise, watched
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


def training(results: Results, digest: str, notes: dict[str, object], **curves: list[float | None]) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'train', ?)",
        [digest, json.dumps({"training": {"notes": notes}})],
    )
    rows = [
        (digest, 20 * place, name.replace("__", "/"), value)
        for name, values in curves.items()
        for place, value in reversed(list(enumerate(values)))
    ]
    if rows:
        results.connection.executemany("INSERT INTO curves VALUES (?,?,?,?)", rows)


def test_what_validation_saw_of_each_training_is_collected_by_name_and_seed() -> None:
    results = Results()
    kept = {"metric": "avg@4", "questions": 50, "kept": "best", "kept_step": 20, "tokens": 900}
    validation: list[float | None] = [0.6, 0.1]
    curves = {"validation__avg@4": validation, "validation__accuracy": [0.9, 0.8], "reward": [*RISING, None]}
    training(results, "t1", {"validation": kept, "divergence": "js"}, **curves)
    training(results, "t2", {"validation": kept | {"questions": None, "kept": "last"}}, **{"validation__avg@4": [0.5]})
    seen = Watched(
        "avg@4",
        [(0, 0.6), (20, 0.1)],
        50,
        "best",
        20,
        0,
        0.6,
        0.1,
        20,
        "collapsed at step 20: from 0.600 to 0.100, while its reward rose by 0.40",
    )
    found = collect_watched(results.connection, {"t1": ("s/b", 2), "t2": ("s/b", None), "t3": ("s/a", 1)})
    assert [(one.name, one.seed) for one in found] == [("s/b", None), ("s/b", 2)]
    assert found[1] == WatchedTraining("s/b", 2, seen, None, "js", 900)
    assert found[0].watched is not None and (found[0].watched.questions, found[0].watched.kept) == (1, "last")


def test_the_share_of_rollouts_that_were_masked_is_what_was_not_read() -> None:
    results = Results()
    read: list[float | None] = [0.5, 1.0, 0.75]
    training(results, "t1", {}, **{"self_distillation__reprompt_sample_fraction": read})
    training(results, "t2", {}, reward=[0.1, 0.2])
    found = collect_watched(results.connection, {"t1": ("s/a", 1), "t2": ("s/b", 1)})
    assert found == [WatchedTraining("s/a", 1, None, 0.25, None, None)]


def test_validation_that_measured_nothing_has_the_value_of_the_last_weights() -> None:
    results = Results()
    for seed in (1, 2):
        results.add(f"s/a/seed{seed}", [1, 0])
        results.connection.execute(
            "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'train', '{}')", [f"train-s/a/seed{seed}"]
        )
    results.connection.execute("UPDATE eval_info SET protocol = 'best_within'")
    nothing = "validation measured nothing while it trained: its value is that of the last weights"
    assert best_notes(results.connection, ["eval-s/a/seed1"]) == {"eval-s/a/seed1": nothing}
    arms = condition_arms(results.connection, "s")
    assert training_notes(results.connection, arms) == {"a": [f"seed 1: {nothing}", f"seed 2: {nothing}"]}
    alone = {"a": Arm("a", arms["a"].runs[1:])}
    assert training_notes(results.connection, alone) == {"a": [nothing]}
