"""Sums, ratios and means of weighted images for all resamples at once: the last dimension is the resample, NaN is undefined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import Floats


def sum_by(values: Floats, cell: npt.NDArray[np.int64], n_cells: int) -> Floats:
    """Sum the rows of [N, b] that share a cell: [n_cells, b].

    Example:
        >>> import numpy as np
        >>> sum_by(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 0]), 3).ravel().tolist()
        [5.0, 0.0, 2.0]
    """
    order = np.argsort(cell, kind="stable")
    present, starts = np.unique(cell[order], return_index=True)
    summed = np.zeros((n_cells, values.shape[1]))
    summed[present] = np.add.reduceat(values[order], starts, axis=0)
    return summed


def ratio(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is 0."""
    out: Floats = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    return np.divide(a, b, out=out, where=b > 0)


def mean_of_defined(values: Floats) -> Floats:
    """Mean over the first dimension, such as classes; undefined values are left out."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


def mean_over(present: npt.NDArray[np.bool_], values: Floats) -> Floats:
    """Mean over the classes that have images at all, NaN for a resample without an image of one of them.

    Over the classes of the resample alone the mean would be another quantity: without a class that nobody recognises it is higher.

    Args:
        present: [C, ...], whether a class has images.
        values: [C, ..., b], a value of each class and resample.

    Example:
        >>> import numpy as np
        >>> mean_over(np.array([True, True, False]), np.array([[1.0, 1.0], [0.0, np.nan], [np.nan, np.nan]])).tolist()
        [0.5, nan]
    """
    return ratio(np.where(present[..., None], values, 0).sum(axis=0), present.sum(axis=0)[..., None])
