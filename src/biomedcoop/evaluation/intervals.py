"""Intervals of shares and means: Wilson, Student's t over datasets, and the bootstrap of several columns together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from biomedcoop.evaluation.bootstrap import LEVEL, Estimate, Floats, Groups, resampled_weights, resampling_units

N_BOOTSTRAP = 1000

Column = TypeVar("Column", bound=Hashable)


@lru_cache(maxsize=4096)
def wilson(share: float, n: int) -> Estimate:
    """Share of n independent images with its 95 % interval; the interval has a width even for a share of 0 or 1.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        share: share of correct images, 0..1; rounded to whole images.
        n: number of images.
    """
    from scipy.special import ndtri  # scipy.stats takes a second to import

    z2, hits = float(ndtri((1 + LEVEL) / 2)) ** 2, round(share * n)
    middle = (hits + z2 / 2) / (n + z2)
    half = (z2 * (hits * (n - hits) / n + z2 / 4)) ** 0.5 / (n + z2)
    return Estimate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share))


def student(values: Sequence[float]) -> Estimate:
    """Mean of independent values with the 95 % interval of Student's t; a single value has no interval."""
    from scipy.stats import t

    middle, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(middle, None, None)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / n**0.5)
    return Estimate(middle, middle - half, middle + half)


def bootstrap_means(
    scores: Mapping[Column, Floats], seed: int, groups: Groups | None = None, n_bootstrap: int = N_BOOTSTRAP
) -> tuple[dict[Column, Estimate], dict[Column, Floats]]:
    """Mean of each column with its 95 % bootstrap interval; all columns use the same resamples.

    Args:
        scores: column name -> values of N images, [N].
        seed: random seed of the resampling.
        groups: [N] group of each image; whole groups are then resampled.
        n_bootstrap: number B of resamples.

    Returns:
        The estimates, and the resampled means of each column, [B].
    """
    table = np.stack(list(scores.values()), axis=1)  # [N, K]
    blocks = [w.T @ table / w.sum(0)[:, None] for w in resampled_weights(len(table), n_bootstrap, seed, groups)]
    samples = dict(zip(scores, np.concatenate(blocks).T, strict=True))
    return {name: Estimate.of(float(values.mean()), samples[name]) for name, values in scores.items()}, samples


def share_or_bootstrap(estimate: Estimate, n: int, groups: Groups | None = None) -> Estimate:
    """The estimate of a share, with Wilson's interval if the share is 0 or 1, because then all resamples are equal.

    Args:
        estimate: share with its bootstrap interval.
        n: number of images.
        groups: group of each image; Wilson's interval then counts groups instead of images.
    """
    units = int(resampling_units(n, groups).max()) + 1
    return wilson(estimate.value, units) if estimate.value in (0.0, 1.0) else estimate


def mean_of(values: Sequence[float], samples: Sequence[Floats]) -> Estimate:
    """Mean over datasets; its interval comes from the means of the datasets' independent resamples."""
    return Estimate.of(float(np.mean(values)), np.mean(samples, axis=0))
