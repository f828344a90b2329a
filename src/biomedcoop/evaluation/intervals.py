"""Intervals of shares and of means: Wilson's, Student's t over datasets, and the bootstrap of several columns at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from biomedcoop.evaluation.bootstrap import LEVEL, Estimate, Floats, Groups, resampled_weights, resampling_units

N_BOOTSTRAP = 1000


def wilson(share: float, n: int) -> Estimate:
    """Share of n independent images with its 95 % interval, which has a width even where all or none are right.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        share: of the images that are right, 0..1; rounded to whole images.
        n: images.
    """
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(LEVEL, method="wilson")
    return Estimate(share, min(float(found.low), share), max(float(found.high), share))


def student(values: Sequence[float]) -> Estimate:
    """Mean of independent values with the 95 % interval of Student's t; one value alone has none."""
    from scipy.stats import t

    middle, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(middle, None, None)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / n**0.5)
    return Estimate(middle, middle - half, middle + half)


def bootstrap_means(
    scores: Mapping[str, Floats], seed: int, groups: Groups | None = None
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """Mean of each column with its 95 % bootstrap interval; all columns see the same resamples.

    Args:
        scores: values of N images by the name of the column, [N].
        seed: of the resampling.
        groups: [N] group of each image; whole groups are then resampled.

    Returns:
        The estimates, and the resampled means behind each interval, [N_BOOTSTRAP].
    """
    table = np.stack(list(scores.values()), axis=1)  # [N, K]
    blocks = [w.T @ table / w.sum(0)[:, None] for w in resampled_weights(len(table), N_BOOTSTRAP, seed, groups)]
    samples = dict(zip(scores, np.concatenate(blocks).T, strict=True))
    return {name: Estimate.of(float(values.mean()), samples[name]) for name, values in scores.items()}, samples


def share_or_bootstrap(estimate: Estimate, n: int, groups: Groups | None = None) -> Estimate:
    """The estimate of a share, with Wilson's interval where all or none of n images are right.

    Every resample is the same there. Groups count in place of images.
    """
    units = int(resampling_units(n, groups).max()) + 1
    return wilson(estimate.value, units) if estimate.value in (0.0, 1.0) else estimate


def mean_of(values: Sequence[float], samples: Sequence[Floats]) -> Estimate:
    """Mean of several datasets' values; the interval from the mean of their resamples, which are independent."""
    return Estimate.of(float(np.mean(values)), np.mean(samples, axis=0))
