"""What a result varies by: training seed, question, and both together, told apart by moments.

    two_way(values)                # [seeds, questions], or [repeats, questions]: three variances

Balanced crossed layouts with random effects, by the expected mean squares of the analysis of variance (Searle, Casella,
McCulloch 1992, Variance Components, chapter 4): each variance is a difference of two mean squares, cut at zero. With
repeats of one evaluation for rows, `rows` is what moves a whole evaluation beyond its samples: the engine.

Limits: cutting at zero makes a small variance a little too large on average; with two seeds a variance is known to a
factor of thousands (`chances.variance_factors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of one value: over `rows` (seeds, or repeats), `questions`, and a row at a question.

    `interaction` holds the noise of the samples as well.
    """

    rows: float
    questions: float
    interaction: float


def two_way(values: ArrayLike) -> Components | None:
    """Components of `values` [rows, questions]; None with fewer than two of either."""
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    count, n = x.shape
    if min(count, n) < 2:
        return None
    rows, questions, both = _mean_squares(x)
    return Components(max(0.0, (rows - both) / n), max(0.0, (questions - both) / count), both)


def _mean_squares(x: Floats) -> tuple[float, float, float]:
    """Of rows, columns and what is left, for one value a cell."""
    count, n = x.shape
    rows = n * float(x.mean(axis=1).var(ddof=1))
    columns = count * float(x.mean(axis=0).var(ddof=1))
    left = x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()
    return rows, columns, float((left**2).sum()) / ((count - 1) * (n - 1))
