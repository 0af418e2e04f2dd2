"""The two-level t against the t test that it is without an effect of seeds."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports import stats


def test_two_level_without_seed_effect_is_close_to_the_question_level_t() -> None:
    """Two seeds with the same values: all uncertainty is in the questions."""
    generator = np.random.default_rng(0)
    a, b = generator.random(300), generator.random(300)
    both = stats.two_level(np.stack([a, a]), np.stack([b, b]))
    questions = stats.paired_t(b - a)
    assert both.standard_error == pytest.approx(questions.standard_error, rel=1e-9)
    assert both.p == pytest.approx(questions.p, rel=1e-6)
