"""Coverage and size of prediction sets on test images, over all and by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import (
    Estimate,
    Floats,
    Groups,
    independent,
    resampled_weights,
    resampling_units,
)
from biomedcoop.evaluation.intervals import wilson
from biomedcoop.evaluation.metrics import plain


@dataclass(frozen=True)
class ClassCoverage:
    """Coverage and mean size of the sets of one class's test images."""

    name: str
    support: int
    coverage: Estimate
    size: Estimate


@dataclass(frozen=True)
class Coverage:
    """The prediction sets of the reported method on test images; of several runs, the means.

    Attributes:
        alpha: share of the sets that may miss the true class.
        coverage: share of the sets that hold it.
        size: mean number of classes in a set.
        single: share of the sets of one class, for which the classifier does not abstain.
        right: share of these single classes that are right.
        whole: share of the sets of all classes.
        classes: the same by class.
        calibration: number of images that calibrate them; of the class with the fewest where each has its own promise. None if it
            is not known.
        accuracy_of_all: accuracy of the method trained on all images, also those set aside; None where none were.
        cost: accuracy minus that.
    """

    alpha: float
    coverage: Estimate
    size: Estimate
    single: Estimate
    right: Estimate
    whole: Estimate
    classes: tuple[ClassCoverage, ...]
    calibration: int | None = None
    accuracy_of_all: Estimate | None = None
    cost: Estimate | None = None

    @classmethod
    def of(
        cls,
        members: npt.NDArray[np.bool_],
        labels: npt.NDArray[np.int64],
        class_names: tuple[str, ...],
        alpha: float,
        calibration: int | None = None,
        *,
        accuracy_of_all: Estimate | None = None,
        cost: Estimate | None = None,
        groups: Groups | None = None,
        n_bootstrap: int = 1000,
        seed: int = 0,
        folds: int | None = None,
    ) -> Coverage:
        """From which classes are in the sets, bool [R, N, C], and labels [N]."""
        n, c = len(labels), len(class_names)
        sizes = members.sum(axis=2)  # [R, N]
        covered, single = members[:, np.arange(n), labels], sizes == 1
        kinds = {"covered": covered, "size": sizes, "single": single, "right": covered & single, "whole": sizes == c}
        of_image = {name: values.mean(axis=0) for name, values in kinds.items()}  # means over the runs, [N]
        weights, unit = list(resampled_weights(n, n_bootstrap, seed, groups, folds)), resampling_units(n, groups)

        def estimate(name: str, among: npt.NDArray[np.bool_], over: Floats | None = None) -> Estimate:
            own, below = of_image[name][among], np.ones(among.sum()) if over is None else over[among]
            units = len(np.unique(unit[among][below > 0]))
            if not units:
                return Estimate(None, None, None)
            value = float(own.sum() / below.sum())
            if value in (0.0, 1.0) and name != "size":  # a share, of which all resamples are equal
                return wilson(value, independent(units, folds))
            with np.errstate(invalid="ignore"):
                samples = np.concatenate([own @ block[among] / (below @ block[among]) for block in weights])
            return Estimate.of(value, samples, units)

        every = np.ones(n, dtype=bool)
        return cls(
            alpha,
            estimate("covered", every),
            estimate("size", every),
            estimate("single", every),
            estimate("right", every, of_image["single"]),
            estimate("whole", every),
            tuple(
                ClassCoverage(
                    name, int((labels == k).sum()), estimate("covered", labels == k), estimate("size", labels == k)
                )
                for k, name in enumerate(class_names)
            ),
            calibration,
            accuracy_of_all,
            cost,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Coverage:
        """The inverse of :meth:`to_dict`."""
        read = dict(values)
        for name in ("coverage", "size", "single", "right", "whole", "accuracy_of_all", "cost"):
            read[name] = None if read[name] is None else Estimate(**read[name])
        read["classes"] = tuple(
            ClassCoverage(**{**one, "coverage": Estimate(**one["coverage"]), "size": Estimate(**one["size"])})
            for one in read["classes"]
        )
        return cls(**read)


def least_coverage_of_draws(calibration: int, alpha: float) -> float | None:
    """What the sets of 95 of 100 draws of calibration images cover at least; None for too few images, whose sets are whole.

    With n calibration images whose scores all differ, the share of new images that a draw's threshold covers has the distribution
    Beta(k, n + 1 − k), k = ⌈(n + 1)(1 − α)⌉ (Vovk 2012, arXiv 1209.2673). Sets also hold the predicted class, so they cover
    that much or more.

    Example:
        >>> round(least_coverage_of_draws(99, 0.1), 3)
        0.847
        >>> least_coverage_of_draws(8, 0.1) is None
        True
    """
    from scipy.special import betaincinv

    from biomedcoop.classifier.conformal import position

    k = position(calibration, alpha)
    if k > calibration:
        return None
    return float(betaincinv(k, calibration + 1 - k, 0.05))
