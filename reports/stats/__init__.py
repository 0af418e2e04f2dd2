"""The tests, intervals, corrections and power formulas behind every verdict: pure functions over counts and arrays.

    from nsd.reports import stats
    stats.mcnemar(a_only=40, b_only=62).p                     # two arms, the same questions, right or wrong
    stats.wilson(successes=40, n=62)

Every difference is b - a. A function takes numbers and returns numbers: which one fits the data is decided in
`reports/stats/choose.py`. Degenerate input (nothing to compare, one row, identical arms, a constant difference) gives a
defined result with a `note`: `p` None means that no test is possible, `interval` None that no interval exists; no
function returns nan or emits a warning. Only `scipy.special` is imported on the usual path (scipy.stats costs about a
second); the tests check every function against R, scipy.stats or statsmodels.

Limits: questions (or clusters) are taken as independent draws, and values as bounded or at least of finite variance.
"""

from nsd.reports.stats.bounded import BoundedMean, exact_binomial
from nsd.reports.stats.chances import (
    Groups,
    Means,
    Model,
    Parts,
    detectable,
    least,
    sign_flip_means,
    smallest_margin,
    spanning,
    variance_factors,
)
from nsd.reports.stats.chances_of_groups import FEWEST_TOLD, GroupedMeans, GroupSizes, icc_of
from nsd.reports.stats.chances_of_shares import PairedShares, UnpairedShares
from nsd.reports.stats.clusters import (
    FEWEST_CLUSTERS,
    ClusterVariance,
    GroupedMean,
    cluster_fragile,
    cluster_limits,
    cluster_t,
    cluster_variance,
)
from nsd.reports.stats.components import Components, two_way
from nsd.reports.stats.discovery import CurvePoint, discovery_curve, sign_test
from nsd.reports.stats.intervals import (
    LEVEL,
    Interval,
    missing_bounds,
    newcombe_paired,
    newcombe_unpaired,
    rule_of_three,
    tango_interval,
    tango_score,
    wilson,
)
from nsd.reports.stats.limits import (
    FEW_QUESTIONS,
    Limits,
    Part,
    Student,
    fewest_for_t,
    interval_of,
    margin_p,
    mean_limits,
    two_sided_p,
)
from nsd.reports.stats.power import (
    seeds_count,
    seeds_needed,
    smallest_permutation_p,
)
from nsd.reports.stats.significance import (
    Result,
    adjust,
    benjamini_hochberg,
    bonferroni,
    holm,
    margin_test_paired,
    margin_test_unpaired,
    mcnemar,
    paired_t,
    sign_flip,
    two_proportion,
    welch_t,
)
from nsd.reports.stats.two_level import (
    residual_of_seeds,
    seeds_interval,
    two_level,
    two_level_limits,
)

__all__ = [
    "FEWEST_CLUSTERS",
    "FEWEST_TOLD",
    "FEW_QUESTIONS",
    "LEVEL",
    "BoundedMean",
    "ClusterVariance",
    "Components",
    "CurvePoint",
    "GroupSizes",
    "GroupedMean",
    "GroupedMeans",
    "Groups",
    "Interval",
    "Limits",
    "Means",
    "Model",
    "PairedShares",
    "Part",
    "Parts",
    "Result",
    "Student",
    "UnpairedShares",
    "adjust",
    "benjamini_hochberg",
    "bonferroni",
    "cluster_fragile",
    "cluster_limits",
    "cluster_t",
    "cluster_variance",
    "detectable",
    "discovery_curve",
    "exact_binomial",
    "fewest_for_t",
    "holm",
    "icc_of",
    "interval_of",
    "least",
    "margin_p",
    "margin_test_paired",
    "margin_test_unpaired",
    "mcnemar",
    "mean_limits",
    "missing_bounds",
    "newcombe_paired",
    "newcombe_unpaired",
    "paired_t",
    "residual_of_seeds",
    "rule_of_three",
    "seeds_count",
    "seeds_interval",
    "seeds_needed",
    "sign_flip",
    "sign_flip_means",
    "sign_test",
    "smallest_margin",
    "smallest_permutation_p",
    "spanning",
    "tango_interval",
    "tango_score",
    "two_level",
    "two_level_limits",
    "two_proportion",
    "two_sided_p",
    "two_way",
    "variance_factors",
    "welch_t",
    "wilson",
]
