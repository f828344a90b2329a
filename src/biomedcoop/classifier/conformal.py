"""Prediction sets from calibration images: scores, thresholds and sets, as functions of arrays.

A set holds every class whose score is not above the threshold. If the calibration images and the new image are exchangeable, the
true class is in the set with a probability of at least 1 − α (Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random
World").

Scores of class y, for probabilities p, the mass B of the classes above y, its rank r from 1 and u uniform in [0, 1):
    LAC   1 − p_y                               Sadinle, Lei and Wasserman 2019, arXiv 1609.00451
    APS   B + u·p_y                             Romano, Sesia and Candès 2020, arXiv 2006.02544
    RAPS  B + u·p_y + λ · max(0, r − k)         Angelopoulos et al. 2021, arXiv 2009.14193
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.tasks import options

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Members = npt.NDArray[np.bool_]

PENALTY, FREE_RANKS = 0.001, 1
"""λ and k of RAPS."""

_ROUNDING = 1e-9  # (9 + 1) · (1 − 0.1) is 9, also in floating point


def set_scores(
    probabilities: Floats, score: str, u: Floats | None = None, *, penalty: float = PENALTY, free: int = FREE_RANKS
) -> Doubles:
    """The score of every class of every image; a low score makes a class a likely member of the set.

    Args:
        probabilities: [N, C]; of equal probabilities, the first class counts as more probable.
        score: "lac", "aps" or "raps".
        u: numbers in [0, 1), one for each image [N], or for each image and class [N, C]; "lac" needs none.
        penalty, free: λ and k of RAPS.

    Returns:
        Scores [N, C].

    Raises:
        UserError: there is no such score.

    Example:
        >>> p = np.array([[0.6, 0.3, 0.1]])
        >>> set_scores(p, "lac").round(3).tolist(), set_scores(p, "aps", np.array([0.5])).round(3).tolist()
        ([[0.4, 0.7, 0.9]], [[0.3, 0.75, 0.95]])
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if options.score("score", score) == "lac":
        return np.asarray(1 - p)
    assert u is not None, "aps and raps are randomised"
    order = np.argsort(-p, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")  # from 0
    falling = np.take_along_axis(p, order, axis=1)
    above = np.take_along_axis(np.cumsum(falling, axis=1) - falling, rank, axis=1)
    found = above + (u if u.ndim == 2 else u[:, None]) * p
    return np.asarray(found if score == "aps" else found + penalty * np.maximum(0, rank + 1 - free))


def position(n: int, alpha: float) -> int:
    """The rank k = ⌈(n + 1)(1 − α)⌉ of the threshold among n sorted calibration scores; there is none if k > n."""
    return math.ceil((n + 1) * (1 - alpha) - _ROUNDING)


def threshold(scores: Floats, alpha: float) -> Doubles:
    """The k-th smallest calibration score, k = ⌈(n + 1)(1 − α)⌉; infinite if k > n, which makes every set all classes.

    Taking the largest score in that case, as some programs do, gives sets of a lower coverage than 1 − α.

    Args:
        scores: scores [..., n] of the true classes of n calibration images.

    Returns:
        Thresholds [...].
    """
    n = scores.shape[-1]
    k = position(n, alpha)
    if k > n:
        return np.full(scores.shape[:-1], np.inf)
    return np.asarray(np.sort(scores, axis=-1)[..., k - 1], dtype=np.float64)


def class_thresholds(scores: Floats, labels: npt.NDArray[np.int64], classes: int, alpha: float) -> Doubles:
    """The threshold of each class from the calibration images of this class alone (Mondrian), so that each class is covered.

    Args:
        scores: [..., n].
        labels: [n], classes of the calibration images.

    Returns:
        Thresholds [..., C].
    """
    return np.stack([threshold(scores[..., labels == c], alpha) for c in range(classes)], axis=-1)


def random_numbers(features: npt.NDArray[np.float32]) -> Doubles:
    """A number in [0, 1) for each image [N], which follows from its features [N, E] alone: an image always gets the same set."""
    digests = (hashlib.sha256(np.ascontiguousarray(row, dtype="<f4").tobytes()).digest() for row in features)
    return np.array([(int.from_bytes(digest[:7], "big") >> 3) / 2.0**53 for digest in digests], dtype=np.float64)
