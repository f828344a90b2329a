"""Tests of differences between methods: over resamples of the images, and across datasets.

Demšar, "Statistical comparisons of classifiers over multiple data sets", Journal of Machine Learning Research 7 (2006): signed
ranks, average ranks and critical differences. Holm, "A simple sequentially rejective multiple test procedure" (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedcoop.evaluation.bootstrap import LEVEL, Floats

ALPHA = 1 - LEVEL

LEAST_DATASETS = 6
"""Datasets from which on a report tests across them: with five, the signed-rank test cannot fall below p = 2 / 2⁵ = 0.06."""


def bootstrap_p(samples: Floats) -> float:
    """Two-sided p-value of a difference from its resampled values: the level at which the percentile interval reaches 0.

    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 15.4. With B resamples it is at least 2 / (B + 1).

    Args:
        samples: float [B], resampled differences.

    Example:
        >>> bootstrap_p(np.array([0.1, 0.2, 0.3]))
        0.5
    """
    least = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(samples) + 1))


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Exact two-sided p-value of Wilcoxon's signed-rank test; differences of zero are left out, ties share their mean rank.

    Args:
        differences: one for each dataset.

    Returns:
        The p-value, 1 if all differences are zero, None for fewer than two datasets.

    Example:
        >>> wilcoxon([1, 2, 3, 4, 5, 6])
        0.03125
    """
    from scipy.stats import rankdata

    if len(differences) < 2:
        return None
    values = np.array([value for value in differences if value], dtype=np.float64)
    if not len(values):
        return 1.0
    ranks = np.rint(2 * rankdata(np.abs(values).round(12))).astype(np.int64)  # twice the rank is whole also for ties
    ways = np.zeros(int(ranks.sum()) + 1)  # share of the sign patterns with each sum of positive ranks
    ways[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    positive = int(ranks[values > 0].sum())
    smaller = min(positive, int(ranks.sum()) - positive)
    return float(min(1.0, 2 * ways[: smaller + 1].sum()))


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's paired t-test; None for fewer than two datasets.

    Args:
        differences: one for each dataset.
    """
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return None
    mean, std = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if std <= 1e-12:  # equal differences: no variance to judge by, except that all may be zero
        return 1.0 if abs(mean) <= 1e-12 else None
    return float(2 * t.sf(abs(mean) / (std / n**0.5), n - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number by Holm's procedure; missing ones are not counted.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for number, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - number)))
        corrected[place] = largest
    return corrected


@dataclass(frozen=True)
class Ranks:
    """Average ranks of k methods over N datasets.

    Attributes:
        ranks: [k], 1 is best.
        friedman_p: p-value of Friedman's test that all methods are equal; None for fewer than three methods or two datasets.
        critical_difference: Nemenyi's; two methods whose average ranks differ by less are not told apart. None for one dataset.
        datasets: number N.
    """

    ranks: tuple[float, ...]
    friedman_p: float | None
    critical_difference: float | None
    datasets: int

    def cliques(self) -> list[tuple[float, float]]:
        """Best and worst rank of each largest set of methods that are not told apart, from the best on."""
        if self.critical_difference is None:
            return []
        ordered = sorted(self.ranks)
        longest: list[tuple[float, float]] = []
        for low in ordered:
            members = [rank for rank in ordered if 0 <= rank - low <= self.critical_difference + 1e-9]
            if len(members) > 1 and (not longest or members[-1] > longest[-1][1]):
                longest.append((low, members[-1]))
        return longest


def average_ranks(values: Floats) -> Ranks:
    """Average ranks of methods over datasets, with Friedman's test and Nemenyi's critical difference at 95 %.

    Args:
        values: [N datasets, k methods], higher is better; equal values, to nine decimals, share their mean rank.

    Example:
        >>> average_ranks(np.array([[0.9, 0.8, 0.7], [0.8, 0.9, 0.7]])).ranks
        (1.5, 1.5, 3.0)
    """
    from scipy.stats import friedmanchisquare, rankdata

    values = np.round(values, 9)
    n, k = values.shape
    ranks = rankdata(-values, axis=1).mean(axis=0)
    p = None
    if n > 1 and k > 2:
        differ = bool((values != values[:, :1]).any())
        p = float(friedmanchisquare(*values.T).pvalue) if differ else 1.0
    critical = critical_difference(k, n) if n > 1 and k > 1 else None
    return Ranks(tuple(float(rank) for rank in ranks), p, critical, n)


def critical_difference(k: int, n: int) -> float:
    """Nemenyi's critical difference of average ranks at 95 %, Demšar (2006), section 3.2.2.

    Args:
        k: number of methods.
        n: number of datasets.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(LEVEL, k, np.inf)) / 2**0.5
    return float(q * (k * (k + 1) / (6 * n)) ** 0.5)
