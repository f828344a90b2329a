"""Does a map show what the decision rests on? Deletion and insertion curves (Petsiuk et al. 2018, "RISE", arXiv 1806.07421).

Deletion replaces pixels by a baseline, those of the largest saliency first; the class's probability of a true map falls early.
Insertion starts from the baseline and puts the pixels back in the same order; the probability of a true map rises early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]

Probabilities = Callable[[Crops], Floats]
"""Crops uint8 [n, S, S, 3] -> probabilities [n, C]."""

STEPS = 16
BASELINES = ("mean", "blur")


@dataclass(frozen=True, eq=False)
class Curve:
    """The probability of a class while pixels change.

    Attributes:
        shares: share of changed pixels at each point, [T + 1], from 0 to 1.
        probabilities: probability of the class for each of N images, [N, T + 1].
        baseline: what stands in place of a deleted pixel.
    """

    shares: Floats
    probabilities: Floats
    baseline: str

    @property
    def auc(self) -> Floats:
        """Area under the curve of each image by the trapezoidal rule, [N], 0..1."""
        width = np.diff(self.shares)
        heights = (self.probabilities[:, 1:] + self.probabilities[:, :-1]) / 2
        return np.asarray((heights * width).sum(axis=1), dtype=np.float32)


def deletion(
    crops: Crops,
    maps: Floats,
    classes: npt.NDArray[np.int64],
    predict: Probabilities,
    steps: int = STEPS,
    baseline: str = "mean",
) -> Curve:
    """The probability of a class while the most salient pixels are deleted; a small area is good.

    Args:
        crops: uint8 [N, S, S, 3].
        maps: saliency of each crop, [N, S, S]; of equal values, the upper left pixel goes first.
        classes: class whose probability is followed, int64 [N].
        predict: see :data:`Probabilities`; it is called once for each image.
        steps: number T of equal parts of the pixels.
        baseline: "mean" (the crop's mean colour) or "blur" (the crop blurred, σ = S / 20).

    Raises:
        ValueError: an unknown baseline, or fewer than one step.

    Example:
        >>> import numpy as np
        >>> from biomedcoop.explain.faithfulness import deletion
        >>> crop = np.zeros((1, 2, 2, 3), dtype=np.uint8)
        >>> crop[0, 0, 0] = 200  # the class is as probable as the first pixel is bright
        >>> def predict(crops):
        ...     return crops[:, 0, 0, :1].astype(np.float32) / 200
        >>> deletion(crop, np.array([[[4, 3], [2, 1]]]), np.array([0]), predict, steps=4).probabilities
        array([[1.  , 0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    return _curve(crops, maps, classes, predict, steps, baseline, start=crops, end=_baseline(crops, baseline))


def insertion(
    crops: Crops,
    maps: Floats,
    classes: npt.NDArray[np.int64],
    predict: Probabilities,
    steps: int = STEPS,
    baseline: str = "blur",
) -> Curve:
    """The probability of a class while the most salient pixels are put into a baseline; a large area is good.

    Arguments and errors are those of :func:`deletion`.
    """
    return _curve(crops, maps, classes, predict, steps, baseline, start=_baseline(crops, baseline), end=crops)


def _curve(
    crops: Crops,
    maps: Floats,
    classes: npt.NDArray[np.int64],
    predict: Probabilities,
    steps: int,
    baseline: str,
    *,
    start: Crops,
    end: Crops,
) -> Curve:
    if steps < 1:
        raise ValueError(f"steps={steps}; a curve needs at least one step")
    pixels = maps[0].size if len(maps) else 0
    counts = np.linspace(0, pixels, steps + 1).round().astype(np.int64)
    rows = []
    for values, before, after, label in zip(maps, start, end, classes, strict=True):
        rank = np.empty(pixels, dtype=np.int64)
        rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(pixels)
        changed = rank.reshape(values.shape)[None] < counts[:, None, None]  # [T + 1, S, S]
        rows.append(predict(np.where(changed[..., None], after, before))[:, label])
    return Curve((counts / max(pixels, 1)).astype(np.float32), np.stack(rows).astype(np.float32), baseline)


def _baseline(crops: Crops, baseline: str) -> Crops:
    if baseline == "mean":
        return np.broadcast_to(crops.mean(axis=(1, 2), keepdims=True).round(), crops.shape).astype(np.uint8)
    if baseline == "blur":
        from scipy.ndimage import gaussian_filter

        sigma = crops.shape[1] / 20
        return np.asarray(gaussian_filter(crops.astype(np.float32), (0, sigma, sigma, 0)).round(), dtype=np.uint8)
    raise ValueError(f"no baseline {baseline!r}; there are: {', '.join(BASELINES)}")
