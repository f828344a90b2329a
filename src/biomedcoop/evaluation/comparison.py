"""Several methods tested on the same images: predictions, metrics and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import FEW, Estimate, Groups, paired_difference
from biomedcoop.evaluation.calibration import Calibration
from biomedcoop.evaluation.coverage import Coverage
from biomedcoop.evaluation.metrics import Metrics, majority_probabilities, score, values_of
from biomedcoop.evaluation.subgroups import Subgroups, by_subgroup
from biomedcoop.evaluation.wording import count

MAJORITY = "majority class"
"""Name of the row that always predicts the largest class of the test images."""

ZERO_SHOT = "zero-shot"
"""Name of the method that every trained method is judged against."""

UNEVEN = 3
"""Ratio of the largest to the smallest class above which balanced accuracy comes first."""

Measure = Literal["accuracy", "balanced_accuracy"]
Relation = Literal["better", "worse", "unclear", "same", "unknown"]


def unevenness(metrics: Metrics) -> float:
    """Test images of the largest class divided by those of the smallest; classes without test images do not count."""
    support = [c.support for c in metrics.classes if c.support]
    return max(support) / min(support)


def first_measure(metrics: Metrics) -> Measure:
    """The measure that comes first: balanced accuracy if the classes differ by more than :data:`UNEVEN` to one."""
    return "balanced_accuracy" if unevenness(metrics) > UNEVEN else "accuracy"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one or more methods for N labelled images of C classes, in one run or several.

    Attributes:
        keys: N names of the images.
        labels: true classes, int64 [N], 0..C-1.
        class_names: C names.
        probabilities: method -> float32 [R, N, C] of R runs, or [N, C] of one; the reported method first.
        groups: [N] group of each image (patient, lesion), or None.
        subgroups: column -> [N] value of each image, for results by subgroup.
        unlike: whether each image is unlike the training images of the reported method, bool [N]; None if that is unknown.
        seeds: seed of each run of the reported method; empty if they are not known.
        folds: number of folds if each run is a cross-validation, else None.
        temperatures: temperature of each run of the reported method; empty if they are not known.
        uncalibrated: its probabilities with a temperature of 1, float32 [R, N, C]; None if they are not known.
        alpha: share of its prediction sets that may miss the true class; None for no sets.
        members: whether each class is in the set, bool [R, N, C]; None for no sets.
        calibration: number of images that calibrate the sets, the least of the runs; None for no sets, or if it is not known.
        of_all: probabilities of the method trained also on the images that were set aside for the sets, [R, N, C], or None.
    """

    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    groups: Groups | None = None
    subgroups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    unlike: npt.NDArray[np.bool_] | None = None
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    temperatures: tuple[float, ...] = ()
    uncalibrated: npt.NDArray[np.float32] | None = None
    alpha: float | None = None
    members: npt.NDArray[np.bool_] | None = None
    calibration: int | None = None
    of_all: npt.NDArray[np.float32] | None = None

    def runs(self, method: str) -> npt.NDArray[np.float32]:
        """The probabilities of a method, float32 [R, N, C]."""
        p = np.asarray(self.probabilities[method])
        return p if p.ndim == 3 else p[None]

    @property
    def method(self) -> str:
        """Name of the reported method."""
        return next(iter(self.probabilities))


@dataclass(frozen=True)
class Difference:
    """The reported method against another one on the same images.

    Attributes:
        accuracy: paired difference of accuracy, reported method minus the other.
        balanced_accuracy: the same for balanced accuracy.
        changed: number of images for which the two predict different classes; the mean over the runs.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    changed: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Metrics of each method on the same test images, and paired differences; of several runs, the means.

    Attributes:
        predictions: the predictions.
        rows: metrics by method: the reported one first, :data:`MAJORITY` last.
        differences: row name -> difference of the reported method to that row.
        subgroups: results of the reported method by subgroup, or None without columns for them.
        by_run: the metrics of each run, without intervals, of the methods that have several runs.
        calibration: calibration of the reported method before and after its temperature, or None for a temperature of 1.
        coverage: coverage of its prediction sets, or None without sets.

    Example:
        >>> import numpy as np
        >>> p, q = np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 0, 1]]
        >>> tested = Comparison.of(Predictions(tuple("abcd"), np.array([0, 0, 1, 1]), ("x", "y"), {"coop": p, "zero-shot": q}))
        >>> list(tested.rows), tested.differences["zero-shot"].changed, tested.measure
        (['coop', 'zero-shot', 'majority class'], 2.0, 'accuracy')
    """

    predictions: Predictions
    rows: Mapping[str, Metrics]
    differences: Mapping[str, Difference]
    subgroups: Subgroups | None = None
    by_run: Mapping[str, Sequence[Mapping[str, float | None]]] = field(default_factory=dict)
    calibration: Calibration | None = None
    coverage: Coverage | None = None

    @classmethod
    def of(cls, predictions: Predictions, *, n_bootstrap: int = 1000, seed: int = 0) -> Comparison:
        """Compute metrics and differences; the majority class is added.

        Args:
            n_bootstrap, seed: number of resamples and random seed of the bootstrap.

        Raises:
            UserError: see :func:`biomedcoop.evaluation.metrics.score`.
        """
        y, names = predictions.labels, predictions.class_names
        resampling: dict[str, Any] = {
            "groups": predictions.groups,
            "n_bootstrap": n_bootstrap,
            "seed": seed,
            "folds": predictions.folds,
        }
        every = {name: predictions.runs(name) for name in predictions.probabilities}
        every[MAJORITY] = majority_probabilities(y, len(names))[None]
        rows = {m: score(p, y, names, **resampling) for m, p in every.items()}
        answers = {m: p.argmax(axis=2) for m, p in every.items()}  # [R, N]
        right = {m: (found == y).mean(axis=0) for m, found in answers.items()}  # share of the runs, [N]
        own = predictions.method

        def paired(other: str, labels: npt.NDArray[np.int64] | None) -> Estimate:
            return paired_difference(right[own], right[other], labels=labels, **resampling)

        differences = {
            m: Difference(paired(m, None), paired(m, y), _changed(answers[own], answers[m])) for m in rows if m != own
        }
        subgroups = by_subgroup(predictions.subgroups, right[own], y, names, **resampling)
        by_run = {
            name: [values_of(run, y, names) for run in every[name]]
            for name in predictions.probabilities
            if len(every[name]) > 1
        }
        calibration = coverage = None
        if predictions.uncalibrated is not None and any(t != 1 for t in predictions.temperatures):
            calibration = Calibration.of(
                predictions.uncalibrated, every[own], y, predictions.temperatures, **resampling
            )
        if predictions.members is not None and predictions.alpha is not None:
            whole, cost = None, None
            if predictions.of_all is not None:
                right_of_all = (predictions.of_all.argmax(axis=2) == y).mean(axis=0)
                whole = score(predictions.of_all, y, names, **resampling).accuracy
                cost = paired_difference(right[own], right_of_all, **resampling)
            own_sets = predictions.members, y, names, predictions.alpha, predictions.calibration
            coverage = Coverage.of(*own_sets, accuracy_of_all=whole, cost=cost, **resampling)
        return cls(predictions, rows, differences, subgroups, by_run, calibration, coverage)

    @property
    def method(self) -> str:
        """Name of the reported method."""
        return self.predictions.method

    @property
    def metrics(self) -> Metrics:
        """Metrics of the reported method."""
        return self.rows[self.method]

    @property
    def runs(self) -> str:
        """Number and name of the runs: ``3 seeds``, or ``3 cross-validations``."""
        noun = "seed" if self.predictions.folds is None else "cross-validation"
        return count(max(map(len, self.by_run.values()), default=1), noun)

    @property
    def others(self) -> tuple[str, ...]:
        """The methods for comparison, without :data:`MAJORITY`."""
        return tuple(name for name in self.differences if name != MAJORITY)

    @property
    def unevenness(self) -> float:
        """Test images of the largest class divided by those of the smallest; classes without test images do not count."""
        return unevenness(self.metrics)

    @property
    def measure(self) -> Measure:
        """The measure that comes first; see :func:`first_measure`."""
        return first_measure(self.metrics)

    def value(self, name: str) -> Estimate:
        """The first measure of a row."""
        estimate: Estimate = getattr(self.rows[name], self.measure)
        return estimate

    def difference(self, name: str) -> Estimate:
        """The paired difference of the first measure, reported method minus the row."""
        estimate: Estimate = getattr(self.differences[name], self.measure)
        return estimate

    def relation(self, name: str) -> Relation:
        """Whether the reported method is better or worse than a row beyond chance.

        "better" and "worse" need an interval that excludes 0, and at least ten images or groups. "same" means that both
        classify the same images correctly, "unknown" that there is no interval.
        """
        d, m = self.difference(name), self.metrics
        if d.value is None or d.low is None or d.high is None:
            return "unknown"
        if d.value == d.low == d.high == 0:
            return "same"
        units = m.n_images if m.n_groups is None else m.n_groups
        if units < FEW or d.low <= 0 <= d.high:
            return "unclear"
        return "better" if d.value > 0 else "worse"


def _changed(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """Mean number of images with different answers over the runs of both, [R, N] and [R or 1, N]."""
    return float((a != b).sum(axis=1).mean())
