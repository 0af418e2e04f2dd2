"""Both readings of a claim: these weights, and this recipe trained again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nsd.reports import stats
from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.readings import MODELS, RECIPE, WEIGHTS, reading_of
from toy_answers import BEFORE, claim, record
from toy_results import Results


def two_arms(
    seeds: int, spread: float, trained: bool = True, looks: int | None = None
) -> tuple[Answer, list[NDArray[np.float64]]]:
    """base and tuned on 120 questions; every training moves an arm's rate by `spread`."""
    generator, results, blocks = np.random.default_rng(3), Results(), []
    difficulty = generator.beta(1, 1.5, 120)
    for name, gain in (("base", 0.0), ("tuned", 0.18)):
        shift = gain + spread * np.linspace(-1, 1, seeds) if seeds > 1 else np.array([gain])
        right = (generator.random((seeds, 120)) < np.clip(difficulty + shift[:, None], 0, 1)).astype(float)
        for seed, row in enumerate(right, 1):
            results.add(f"s/{name}/seed{seed}", row.tolist(), trained=trained)
        blocks.append(right)
    record(results, BEFORE, [claim("tuned", "base")], looks=looks)
    return answer(results.connection, "s"), blocks


def test_with_seeds_the_recipe_is_judged_and_the_weights_stand_beside_it() -> None:
    found, (base, tuned) = two_arms(4, 0.2)
    (verdict,), (other,) = found.verdicts, found.other
    assert verdict.comparison is not None and other.comparison is not None
    assert reading_of(verdict.comparison) == RECIPE and reading_of(other.comparison) == WEIGHTS
    assert verdict.comparison.p == pytest.approx(stats.two_level(base, tuned).p)
    assert other.comparison.p == pytest.approx(stats.sign_flip(tuned.mean(axis=0) - base.mean(axis=0), seed=0).p)
    assert (verdict.verdict, other.verdict) == ("UNRESOLVED", "BETTER")
    assert found.headline() == (
        f"Of 1 declared claim (family of 1), for {RECIPE}: 1 is not decided (tuned > base). "
        f"For {WEIGHTS}: 1 holds (tuned > base)."
    )
    assert found.to_json()["other"][0]["verdict"] == "BETTER" and not found.not_supported


def test_one_seed_supports_the_weights_alone_and_says_what_would_do_for_the_recipe() -> None:
    found, _ = two_arms(1, 0.0)
    assert not found.other and f"for {WEIGHTS}: " in found.headline()
    assert found.headline().endswith(f"For {RECIPE}: nothing, with one trained model an arm.")
    assert "one trained model of base, tuned" in found.not_supported and "9 find a difference" in found.not_supported


def test_models_that_nobody_trained_have_one_reading() -> None:
    found, _ = two_arms(1, 0.0, trained=False)
    assert f"for {MODELS}: " in found.headline()
    assert not found.other and not found.not_supported and RECIPE not in found.headline()


def test_planned_looks_cost_the_other_reading_as_much() -> None:
    once, thrice = two_arms(4, 0.2)[0].other[0].comparison, two_arms(4, 0.2, looks=3)[0].other[0].comparison
    assert once is not None and thrice is not None and once.p_adjusted is not None
    assert thrice.p_adjusted == pytest.approx(3 * once.p_adjusted)
    assert (once.level, thrice.level) == pytest.approx((0.95, 1 - 0.05 / 3))
