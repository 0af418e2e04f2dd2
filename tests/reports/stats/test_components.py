"""Variances of seeds and questions: a table worked by hand, and a simulation whose variances are known."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports.stats.components import two_way


def test_two_seeds_and_three_questions_by_hand() -> None:
    # Rows (1, 2, 6) and (3, 6, 9): means 3 and 6; columns 2, 4, 7.5; grand mean 4.5.
    # Rows: 3 * (1.5^2 + 1.5^2) = 13.5. Columns: 2 * (6.25 + .25 + 9) / 2 = 15.5.
    # Left: (.5, -.5, 0) and its opposite: 1.0 over 2 degrees of freedom = .5.
    found = two_way([[1, 2, 6], [3, 6, 9]])
    assert found is not None
    assert (found.rows, found.questions, found.interaction) == pytest.approx((13 / 3, 7.5, 0.5))


def test_one_seed_or_one_question_says_nothing() -> None:
    assert two_way([[1.0, 2.0]]) is None and two_way([[1.0], [2.0]]) is None


def test_known_variances_are_found() -> None:
    generator, trials = np.random.default_rng(7), 400
    seeds, n = 4, 60
    sizes = {"rows": 0.04, "questions": 0.25, "interaction": 0.09}
    found = []
    for _ in range(trials):
        values = (
            generator.normal(0, sizes["rows"] ** 0.5, size=(seeds, 1))
            + generator.normal(0, sizes["questions"] ** 0.5, size=(1, n))
            + generator.normal(0, sizes["interaction"] ** 0.5, size=(seeds, n))
        )
        one = two_way(values)
        assert one is not None
        found.append((one.rows, one.questions, one.interaction))
    means, errors = np.mean(found, axis=0), np.std(found, axis=0) / trials**0.5
    assert np.all(np.abs(means - list(sizes.values())) < 4 * errors)
