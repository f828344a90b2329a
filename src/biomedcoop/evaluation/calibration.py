"""Calibration before and after the temperature: expected calibration error, Brier score, and the reliability diagram before.

Brier score: Brier 1950, "Verification of forecasts expressed in terms of probability": the sum over classes of the squared
difference of probability and truth, from 0 (best) to 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import Estimate, Floats, Groups, resampled_weights, resampling_units
from biomedcoop.evaluation.curves import Reliability, reliability
from biomedcoop.evaluation.metrics import calibration_error, plain


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of the reported method on test images; of several runs, the means.

    Attributes:
        temperatures: temperature of each run.
        error_before, error: expected calibration error with a temperature of 1, and with that of the run.
        brier_before, brier: Brier score, likewise.
        before: reliability diagram with a temperature of 1.
    """

    temperatures: tuple[float, ...]
    error_before: Estimate
    error: Estimate
    brier_before: Estimate
    brier: Estimate
    before: Reliability

    @classmethod
    def of(
        cls,
        uncalibrated: npt.NDArray[np.floating[Any]],
        probabilities: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.int64],
        temperatures: tuple[float, ...],
        *,
        groups: Groups | None = None,
        n_bootstrap: int = 1000,
        seed: int = 0,
        folds: int | None = None,
    ) -> Calibration:
        """From probabilities [R, N, C] before and after the temperatures [R], and labels [N]."""
        n = len(labels)
        weights = list(resampled_weights(n, n_bootstrap, seed, groups, folds))
        units = int(resampling_units(n, groups).max()) + 1

        def estimates(runs: npt.NDArray[np.floating[Any]]) -> tuple[Estimate, Estimate]:
            def values(weighted: Floats) -> Floats:
                """Both measures [2, b] for weights [N, b], means over the runs."""
                found = [
                    (calibration_error(p, labels, weighted), brier_scores(p, labels) @ weighted / weighted.sum(axis=0))
                    for p in runs.astype(np.float64)
                ]
                return np.asarray(np.mean(found, axis=0))

            value, samples = values(np.ones((n, 1)))[:, 0], np.concatenate([values(block) for block in weights], axis=1)
            error, brier = (Estimate.of(float(v), s, units) for v, s in zip(value, samples, strict=True))
            return error, brier

        (error_before, brier_before), (error, brier) = estimates(uncalibrated), estimates(probabilities)
        return cls(
            temperatures, error_before, error, brier_before, brier, reliability(uncalibrated, labels, folds=folds)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the diagram's empty bins are null."""
        values: dict[str, Any] = plain(asdict(self))
        before = values["before"]
        for name in ("edges", "images", "confidence"):
            before[name] = [None if np.isnan(x) else round(float(x), 6) for x in before[name]]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`."""
        names = ("error_before", "error", "brier_before", "brier")
        estimates = {name: Estimate(**values[name]) for name in names}
        before = values["before"]
        edges, images, confidence = (
            np.array(before[name], dtype=np.float64) for name in ("edges", "images", "confidence")
        )
        diagram = Reliability(edges, images, confidence, tuple(Estimate(**one) for one in before["right"]))
        return cls(tuple(values["temperatures"]), **estimates, before=diagram)


def brier_scores(probabilities: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """The Brier score of each image [N], from probabilities [N, C].

    Example:
        >>> brier_scores(np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1])).round(2).tolist()
        [0.08, 0.5]
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1))
