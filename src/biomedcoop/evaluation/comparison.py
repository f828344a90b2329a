"""Several methods tested on the same images: predictions, metrics and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import FEW, Estimate, Groups, paired_difference
from biomedcoop.evaluation.metrics import Metrics, majority_probabilities, score
from biomedcoop.evaluation.subgroups import Subgroups, by_subgroup

MAJORITY = "majority class"
"""Name of the row that always predicts the largest class of the test images."""

ZERO_SHOT = "zero-shot"
"""Name of the method that every trained method is judged against."""

UNEVEN = 3
"""Ratio of the largest to the smallest class above which balanced accuracy comes first."""

Relation = Literal["better", "worse", "unclear", "same", "unknown"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one or more methods for N labelled images of C classes.

    Attributes:
        keys: N names of the images.
        labels: true classes, int64 [N], 0..C-1.
        class_names: C names.
        probabilities: method -> float32 [N, C]; the reported method first.
        groups: [N] group of each image (patient, lesion), or None.
        subgroups: column -> [N] value of each image, for results by subgroup.
    """

    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    groups: Groups | None = None
    subgroups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)

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
        changed: number of images for which the two predict different classes.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    changed: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """Metrics of each method on the same test images, and paired differences.

    Attributes:
        predictions: the predictions.
        rows: metrics by method: the reported one first, :data:`MAJORITY` last.
        differences: row name -> difference of the reported method to that row.
        subgroups: results of the reported method by subgroup, or None without columns for them.

    Example:
        >>> import numpy as np
        >>> p, q = np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 0, 1]]
        >>> tested = Comparison.of(Predictions(tuple("abcd"), np.array([0, 0, 1, 1]), ("x", "y"), {"coop": p, "zero-shot": q}))
        >>> list(tested.rows), tested.differences["zero-shot"].changed, tested.measure
        (['coop', 'zero-shot', 'majority class'], 2, 'accuracy')
    """

    predictions: Predictions
    rows: Mapping[str, Metrics]
    differences: Mapping[str, Difference]
    subgroups: Subgroups | None = None

    @classmethod
    def of(cls, predictions: Predictions, *, n_bootstrap: int = 1000, seed: int = 0) -> Comparison:
        """Compute metrics and differences; the majority class is added.

        Args:
            n_bootstrap, seed: number of resamples and random seed of the bootstrap.

        Raises:
            UserError: see :func:`biomedcoop.evaluation.metrics.score`.
        """
        y, names, groups = predictions.labels, predictions.class_names, predictions.groups
        every = {**predictions.probabilities, MAJORITY: majority_probabilities(y, len(names))}
        rows = {m: score(p, y, names, groups=groups, n_bootstrap=n_bootstrap, seed=seed) for m, p in every.items()}
        answers = {m: np.asarray(p).argmax(axis=1) for m, p in every.items()}
        own = answers.pop(predictions.method)

        def paired(other: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None) -> Estimate:
            right = own == y, other == y
            return paired_difference(*right, labels=labels, seed=seed, n_bootstrap=n_bootstrap, groups=groups)

        differences = {
            name: Difference(paired(other, None), paired(other, y), int((own != other).sum()))
            for name, other in answers.items()
        }
        subgroups = by_subgroup(
            predictions.subgroups, own == y, y, names, groups=groups, n_bootstrap=n_bootstrap, seed=seed
        )
        return cls(predictions, rows, differences, subgroups)

    @property
    def method(self) -> str:
        """Name of the reported method."""
        return self.predictions.method

    @property
    def metrics(self) -> Metrics:
        """Metrics of the reported method."""
        return self.rows[self.method]

    @property
    def others(self) -> tuple[str, ...]:
        """The methods for comparison, without :data:`MAJORITY`."""
        return tuple(name for name in self.differences if name != MAJORITY)

    @property
    def unevenness(self) -> float:
        """Test images of the largest class divided by those of the smallest; classes without test images do not count."""
        support = [c.support for c in self.metrics.classes if c.support]
        return max(support) / min(support)

    @property
    def measure(self) -> Literal["accuracy", "balanced_accuracy"]:
        """The measure that comes first: balanced accuracy if the classes differ by more than :data:`UNEVEN` to one."""
        return "balanced_accuracy" if self.unevenness > UNEVEN else "accuracy"

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
