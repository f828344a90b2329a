"""Percentile bootstrap over test images, or over groups of them (patients).

Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. A resampled test set is kept as weights (how
often each image was drawn), so that every metric is a weighted sum and all resamples are computed at once. The cluster
bootstrap draws whole groups instead of images, because images of one patient are not independent. Of a cross-validation, a
resample draws fewer images than there are (Bickel, Götze & van Zwet 1997, "Resampling fewer than n observations"), because its
folds share training images: see :func:`independent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from biomedcoop.errors import UserError
from biomedcoop.tasks import options

Floats = npt.NDArray[np.float64]
Groups = Sequence[str | None] | npt.NDArray[np.str_] | npt.NDArray[np.int64]
"""The group of each image; an empty or missing value means that the image belongs to no group."""

LEVEL = 0.95
FEW = 10
"""Number of images, or of groups, below which a percentile interval is too narrow to be trusted."""

_BLOCK_BYTES = 16 * 2**20  # one block of weights; a metric needs a few copies of it at a time


@dataclass(frozen=True, repr=False)
class Estimate:
    """A value with its 95 % interval.

    All three are None if the value is not defined (a class without images). Only ``low`` and ``high`` are None if the value comes
    from one image or one group: resampling a single unit says nothing about other units; or if most resamples leave it undefined.
    """

    value: float | None
    low: float | None
    high: float | None

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def __str__(self) -> str:
        """ "0.933 (0.867–1.000)"; a value that is not defined is "–"."""
        if self.value is None:
            return "–"
        return f"{self.value:.3f}" + ("" if self.low is None else f" ({self.low:.3f}–{self.high:.3f})")

    def __neg__(self) -> Estimate:
        """The estimate of the opposite difference."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Estimate(None if self.value is None else -self.value, low, high)

    @classmethod
    def of(cls, value: float, samples: Floats, units: int | None = None) -> Estimate:
        """``value`` with the percentile interval of its resampled values.

        Resamples in which the value is not defined (NaN) are left out; a value that is not defined in most of them, such as one of
        a class with a single image, has no interval. The interval is widened to contain the value if
        needed. This happens with the calibration error: repeated images add noise, and noise can only increase this error.

        Args:
            value: value on the original images, or NaN.
            samples: float [n_bootstrap], value on each resample, or NaN.
            units: number of images or groups behind the value; a value of one unit has no interval.
        """
        defined = samples[~np.isnan(samples)]
        if np.isnan(value) or not len(defined):
            return cls(None, None, None)
        if units == 1 or 2 * len(defined) < len(samples):
            return cls(float(value), None, None)
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(value), min(float(low), float(value)), max(float(high), float(value)))


def resampling_units(n: int, groups: Groups | None = None) -> npt.NDArray[np.int64]:
    """The resampling unit of each image: its group, or the image itself if it has no group.

    Args:
        n: number N of images.
        groups: [N] group of each image, or None.

    Returns:
        int64 [N], 0..units-1.

    Raises:
        UserError: the number of groups differs from the number of images.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise UserError(f"{len(groups)} groups for {n} images; give one group per image")
    names = ["" if group is None else str(group) for group in groups]
    number = {name: i for i, name in enumerate(sorted(set(names) - {""}))}
    alone = count(len(number))
    return np.array([number[name] if name else next(alone) for name in names], dtype=np.int64)


def independent(units: int, folds: int | None = None) -> int:
    """Number of independent images or groups that say as much as ``units`` of them: fewer than half in a cross-validation.

    Its folds share training images, which multiplies the variance of a mean by 1 + k/(k − 1) for k folds: Nadeau and Bengio 2003,
    "Inference for the generalization error", Machine Learning 52, equation 8, with J = k and n₂/n₁ = 1/(k − 1).

    Args:
        units: number of images or groups.
        folds: number of folds of a cross-validation, or None for a test split.

    Example:
        >>> independent(90), independent(90, folds=5)
        (90, 40)
    """
    return units if folds is None else max(1, round(units / (1 + folds / (folds - 1))))


def check_bootstrap(n_bootstrap: object, seed: object = 0) -> None:
    """Check the arguments of a bootstrap before long work.

    Raises:
        UserError: one is not a whole number within its limits; fewer than 40 resamples give no 95 % interval.
    """
    options.resamples("n_bootstrap", n_bootstrap)
    options.seed("seed", seed)


def resampled_weights(
    n: int, n_bootstrap: int, seed: int, groups: Groups | None = None, folds: int | None = None
) -> Iterator[Floats]:
    """Draw ``n_bootstrap`` test sets with replacement, in blocks that bound the memory.

    Args:
        n: number N of images.
        n_bootstrap: number of resamples.
        seed: random seed of a generator local to this call.
        groups: [N] group of each image; a resample then draws as many whole groups as there are. An image without a group
            is its own group.
        folds: number of folds of a cross-validation; a resample then draws :func:`independent` units of them.

    Yields:
        float64 [N, b], count of each image in each of b resamples; the b of all blocks sum to ``n_bootstrap``.

    Raises:
        UserError: see :func:`check_bootstrap`; or the number of groups differs from the number of images.
    """
    check_bootstrap(n_bootstrap, seed)
    unit = resampling_units(n, groups)
    units = int(unit.max()) + 1
    size = independent(units, folds)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_BYTES // (8 * max(n, units)))
    for start in range(0, n_bootstrap, block):
        b = min(block, n_bootstrap - start)
        drawn = rng.integers(units, size=(b, size))
        cells = drawn * b + np.arange(b)[:, None]
        counts = np.bincount(cells.ravel(), minlength=units * b).reshape(units, b)  # [units, b]
        yield counts[unit].astype(np.float64)


def paired_difference(
    correct_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
    groups: Groups | None = None,
    folds: int | None = None,
) -> Estimate:
    """Accuracy of method a minus that of method b on the same images, resampled together.

    A hard image is often hard for both methods, so the paired interval is narrower and fairer than a comparison of the two
    separate intervals.

    Args:
        correct_a: [N], True for images that method a classifies correctly; or, of several runs, the share that does, 0..1.
        correct_b: [N], the same for method b, in the same order.
        labels: int64 [N], classes of the images; the difference is then that of balanced accuracy, the mean over the classes
            with images.
        seed: random seed of the resampling.
        n_bootstrap: number of resamples.
        groups: [N] group of each image, for a cluster bootstrap.
        folds: number of folds of a cross-validation, or None for a test split.

    Returns:
        The difference, -1..1, positive if a is better. One image or one group gives no interval.

    Raises:
        UserError: there are no images, or the arguments differ in length.

    Example:
        >>> paired_difference([True, True, True, False], [True, False, False, True], labels=[0, 0, 0, 1]).value
        -0.16666666666666669
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UserError(f"cannot pair answers of shapes {a.shape} and {b.shape}; give one per image, in the same order")
    of = np.zeros(len(a), dtype=np.int64) if labels is None else np.asarray(labels)
    if of.shape != a.shape:
        raise UserError(f"{len(of)} labels for {len(a)} answers; give one per image, in the same order")
    members = (of == np.unique(of)[:, None]).astype(np.float64)  # [classes, N]
    difference = a - b

    def mean(weights: Floats) -> Floats:
        """Mean over the classes, [N, b] -> [b]; NaN for a resample without an image of one of them."""
        total, summed = members @ weights, (members * difference) @ weights  # [classes, b]
        means: Floats = np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0).mean(axis=0)
        return means

    samples = np.concatenate([mean(weights) for weights in resampled_weights(len(a), n_bootstrap, seed, groups, folds)])
    units = int(resampling_units(len(a), groups).max()) + 1
    return Estimate.of(float(mean(np.ones((len(a), 1)))[0]), samples, units)
