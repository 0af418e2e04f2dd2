"""When equal results are one run's."""

from __future__ import annotations

import pytest

from nsd.runner.store.alike import unmistakable


@pytest.mark.parametrize(
    ("samples", "high", "scores", "whether"),
    [
        (13, 5, 2, True),  # 1287 ways
        (13, 8, 2, True),
        (13, 4, 2, False),  # 715
        (1000, 1, 2, False),  # exactly a thousand ways are not more
        (1001, 1, 2, True),
        (1001, 1000, 2, True),
        (10_000, 0, 2, False),
        (10_000, 10_000, 2, False),
        (5, 0, 10, False),
        (5, 0, 11, True),
    ],
)
def test_equal_results_are_one_runs_where_chance_seldom_gives_them(
    samples: int, high: int, scores: int, whether: bool
) -> None:
    assert unmistakable(samples, high, scores) is whether
