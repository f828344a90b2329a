"""Curves of predicted probabilities as arrays: ROC, precision and recall, reliability, and sensitivity at a named specificity.

Each class is compared with the rest. A threshold calls the images whose score is above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import (
    Estimate,
    Floats,
    Groups,
    independent,
    resampled_weights,
    resampling_units,
)
from biomedcoop.evaluation.intervals import wilson
from biomedcoop.evaluation.metrics import CALIBRATION_BINS
from biomedcoop.evaluation.weighted import mean_of_defined, ratio

AnyFloats = npt.NDArray[np.floating[Any]]

SPECIFICITY = 0.9
"""Specificity at which a report states the sensitivities unless the user names another."""

_GRID = np.linspace(0, 1, 101)
_ROUNDING = 1e-9


def check_specificity(value: float) -> float:
    """The specificity if it lies between 0 and 1, both excluded.

    Raises:
        UserError: it does not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise UserError(f"--specificity {value!r} is not between 0 and 1; give a share, e.g. --specificity 0.9")
    return float(value)


def roc_curve(scores: AnyFloats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The ROC curve: share of the negatives and share of the positives above each threshold, from the highest to the lowest.

    Args:
        scores: [N], or [R, N] of R runs, whose curves are averaged at 101 shares of the negatives (Fawcett 2006, "An
            introduction to ROC analysis", algorithm 3).
        positive: [N], True for the images of the class.

    Returns:
        1 − specificity [K] and sensitivity [K]; both are empty unless there are positives and negatives.

    Example:
        >>> import numpy as np
        >>> false, true = roc_curve(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, False, True, False]))
        >>> false.tolist(), true.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    if positive.all() or not positive.any():
        return np.zeros(0), np.zeros(0)
    curves = []
    for of_run in np.atleast_2d(scores):
        hits, called = _called(of_run, positive)
        curves.append(((called - hits) / (~positive).sum(), hits / positive.sum()))
    if len(curves) == 1:
        return curves[0]
    return _GRID, np.mean([np.interp(_GRID, x, y) for x, y in curves], axis=0)


def precision_recall_curve(scores: AnyFloats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The precision-recall curve: sensitivity (recall) and precision at each threshold, from the highest to the lowest.

    Args:
        scores: [N], or [R, N] of R runs, whose precisions are averaged at 101 sensitivities.
        positive: [N], True for the images of the class.

    Returns:
        Sensitivity [K] and precision [K]; both are empty without positives.

    Example:
        >>> import numpy as np
        >>> recall, precision = precision_recall_curve(np.array([0.9, 0.6, 0.4]), np.array([True, False, True]))
        >>> recall.tolist(), precision.round(3).tolist()
        ([0.5, 0.5, 1.0], [1.0, 0.5, 0.667])
    """
    if not positive.any():
        return np.zeros(0), np.zeros(0)
    curves = []
    for of_run in np.atleast_2d(scores):
        hits, called = _called(of_run, positive)
        curves.append((hits[1:] / positive.sum(), hits[1:] / called[1:]))
    if len(curves) == 1:
        return curves[0]
    return _GRID, np.mean([np.interp(_GRID, x, y) for x, y in curves], axis=0)


def _called(scores: AnyFloats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Positives and images above each threshold, from none to all; images of one score pass a threshold together."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last image of each score
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    return np.append(0.0, hits), np.append(0.0, last + 1.0)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: answers by their probability, in equal bins as those of the calibration error.

    Attributes:
        edges: edges of the B bins, [B + 1].
        images: (mean) number of answers in each bin, [B].
        confidence: mean probability of the answers, [B]; NaN for an empty bin.
        right: share of correct answers with Wilson's interval, B estimates; None for an empty bin.
    """

    edges: Floats
    images: Floats
    confidence: Floats
    right: tuple[Estimate, ...]


def reliability(
    probabilities: AnyFloats, labels: npt.NDArray[np.int64], bins: int = CALIBRATION_BINS, folds: int | None = None
) -> Reliability:
    """The reliability diagram of probabilities [R, N, C] against labels [N]; of a cross-validation with a number of folds.

    Example:
        >>> import numpy as np
        >>> diagram = reliability(np.array([[[0.8, 0.2], [0.7, 0.3]]]), np.array([0, 1]), bins=2)
        >>> diagram.confidence.tolist(), diagram.right[1].value
        ([nan, 0.75], 0.5)
    """
    top, right = probabilities.max(axis=2), probabilities.argmax(axis=2) == labels  # [R, N]
    place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    images, claimed, hits = (
        np.asarray(np.bincount(place.ravel(), weights=w.ravel(), minlength=bins), dtype=np.float64)
        for w in (np.ones_like(top), top, right)
    )
    confidence, share = ratio(claimed, images), ratio(hits, images)
    images = images / len(top)
    found = [
        wilson(float(s), independent(max(1, round(n)), folds)) if n else Estimate(None, None, None)
        for s, n in zip(share, images, strict=True)
    ]
    return Reliability(np.linspace(0, 1, bins + 1), images, confidence, tuple(found))


@dataclass(frozen=True)
class OperatingPoint:
    """The sensitivity of one class at a specificity.

    Attributes:
        name: name of the class.
        threshold: score above which the class is called; the mean over the runs.
        sensitivity: share of the class's images above the threshold.
        specificity: share of the other images that are not above it; at least the one asked for.
        others: number of test images of other classes.
    """

    name: str
    threshold: float
    sensitivity: Estimate
    specificity: float
    others: int


def sensitivities_at(
    specificity: float,
    probabilities: AnyFloats,
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    *,
    groups: Groups | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    folds: int | None = None,
) -> list[OperatingPoint]:
    """The sensitivity of each class at the lowest threshold that keeps a specificity, on the test images themselves.

    Each resample chooses its own threshold, so that the interval covers this choice.

    Args:
        specificity: between 0 and 1, both excluded.
        probabilities: [R, N, C] of R runs; values of several runs are averaged.
        labels, groups, n_bootstrap, seed, folds: see :func:`biomedcoop.evaluation.metrics.score`.

    Raises:
        UserError: the specificity is out of range.

    Example:
        >>> import numpy as np
        >>> p = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
        >>> points = sensitivities_at(0.5, p[None], np.array([0, 0, 1, 1]), ("cyst", "stone"), n_bootstrap=40)
        >>> [(point.name, point.sensitivity.value, point.threshold) for point in points]
        [('cyst', 1.0, 0.2), ('stone', 1.0, 0.1)]
    """
    check_specificity(specificity)
    n, c = probabilities.shape[1:]
    ones, unit = np.ones((n, 1)), resampling_units(n, groups)
    weights = list(resampled_weights(n, n_bootstrap, seed, groups, folds))
    points = []
    for k in range(c):
        positive, scores = labels == k, probabilities[:, :, k].astype(np.float64)
        value, spared, thresholds = _at(specificity, scores, positive, ones)
        samples = np.concatenate([_at(specificity, scores, positive, block)[0] for block in weights])
        own = len(np.unique(unit[positive]))
        estimate = Estimate.of(float(value[0]), samples, own)
        if estimate.value in (0.0, 1.0) and own > 1:
            estimate = wilson(estimate.value, independent(own, folds))
        points.append(
            OperatingPoint(
                str(class_names[k]), float(thresholds[0]), estimate, float(spared[0]), int((~positive).sum())
            )
        )
    return points


def _at(
    specificity: float, scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Sensitivity, specificity and threshold [b] for weights [N, b], means over the runs of ``scores`` [R, N]."""
    found = []
    for of_run in scores:
        order = np.argsort(-of_run[~positive], kind="stable")
        negatives, above = of_run[~positive][order], weights[~positive][order]
        total = above.sum(axis=0)
        spent = np.cumsum(above, axis=0) <= (1 - specificity) * total + _ROUNDING
        # the first negative that may not be called; a threshold at its score calls none of this score
        threshold = np.append(negatives, -np.inf)[spent.sum(axis=0)]
        hits = (weights[positive] * (of_run[positive][:, None] > threshold)).sum(axis=0)
        false = (above * (negatives[:, None] > threshold)).sum(axis=0)
        found.append((ratio(hits, weights[positive].sum(axis=0)), 1 - ratio(false, total), threshold))
    sensitivity, spared, threshold = (np.stack(values) for values in zip(*found, strict=True))
    return mean_of_defined(sensitivity), mean_of_defined(spared), threshold.mean(axis=0)
