"""Results by subgroup: for each site, scanner, sex or band of age, and whether one of them is clearly worse than the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.bootstrap import FEW, LEVEL, Estimate, Floats, Groups, resampled_weights, resampling_units
from biomedcoop.evaluation.metrics import plain
from biomedcoop.evaluation.weighted import mean_over, ratio, sum_by

UNKNOWN = Estimate(None, None, None)


@dataclass(frozen=True)
class Subgroup:
    """Results on the test images with one value of a column.

    Fewer than ten images, or groups, have no results: they would say little, and could tell about single persons.
    """

    column: str
    value: str
    n_images: int
    n_groups: int | None
    """Number of groups (an image without a group counts as one), or None if images were resampled."""
    accuracy: Estimate = UNKNOWN
    balanced_accuracy: Estimate = UNKNOWN
    """Mean sensitivity of the classes with images; None with fewer than ten images, or groups, per class on average."""
    sensitivities: tuple[Estimate, ...] = ()
    """[C] the sensitivity of each class; None for a class with fewer than ten images or groups. Empty without results."""
    difference: Estimate = UNKNOWN
    """Accuracy minus that of the images with other values in the column, at equal classes; see :func:`by_subgroup`."""
    worse: bool = False
    """Whether the difference is negative beyond chance, with all subgroups that are compared taken into account."""


@dataclass(frozen=True)
class Subgroups:
    """Results by subgroup.

    Attributes:
        class_names: C names.
        rows: the subgroups of all columns.
        missing: column -> number of test images without a value; they are in no row of this column.
        confounded: columns in which each class has images of one value only.
    """

    class_names: tuple[str, ...]
    rows: tuple[Subgroup, ...]
    missing: Mapping[str, int]
    confounded: tuple[str, ...]

    def alarms(self) -> Iterator[str]:
        """A sentence for each subgroup that is clearly worse and for each column that cannot be told from the class."""
        for row in self.rows:
            accuracy, d = row.accuracy.value, row.difference
            if row.worse and not (accuracy is None or d.value is None or d.low is None or d.high is None):
                yield (
                    f"Worse for {row.column} {row.value}: right for {100 * accuracy:.1f} % of {row.n_images} test images, "
                    f"{-100 * d.value:.1f} points ({-100 * d.high:.1f} to {-100 * d.low:.1f}) below the other images of the same "
                    "classes."
                )
        for column in self.confounded:
            yield (
                f"Each class has test images of one {column} only: the results cannot tell whether the classifier recognises "
                f"the class or the {column}."
            )

    def notes(self) -> Iterator[str]:
        """The alarms, and what else a reader of the table must know, a sentence each."""
        yield from self.alarms()
        compared = sum(row.difference.value is not None for row in self.rows)
        if compared:
            yield (
                "The difference is the accuracy minus that of the images with other values in the same column. It compares "
                "images of the same class and takes the mean over the classes."
            )
            if not any(row.worse for row in self.rows):
                yield "No subgroup is marked as worse than the others; differences can still exist."
            yield (
                f"A subgroup is marked as worse if it still is beyond chance when all {compared} are compared: among many, one "
                "interval excludes zero by luck (Bonferroni)."
            )
        few = [f"{row.column} {row.value} ({row.n_images})" for row in self.rows if row.accuracy.value is None]
        if few:
            yield f"Subgroups with fewer than {FEW} images or groups have no results: {', '.join(few)}."
        for column, count in self.missing.items():
            if count:
                yield f"Test images without a value in the column {column}: {count}; they are in none of its rows."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats rounded to 6 digits."""
        values: dict[str, Any] = plain(asdict(self))
        return {**values, "notes": list(self.notes())}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Subgroups:
        """The inverse of :meth:`to_dict`."""
        read = []
        for entry in values["rows"]:
            estimates = {name: Estimate(**entry[name]) for name in ("accuracy", "balanced_accuracy", "difference")}
            sensitivities = tuple(Estimate(**one) for one in entry["sensitivities"])
            read.append(Subgroup(**{**entry, **estimates, "sensitivities": sensitivities}))
        return cls(tuple(values["class_names"]), tuple(read), values["missing"], tuple(values["confounded"]))


def by_subgroup(
    columns: Mapping[str, npt.NDArray[np.str_]],
    right: npt.NDArray[np.bool_] | Floats,
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    *,
    groups: Groups | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    folds: int | None = None,
) -> Subgroups | None:
    """The results of a classifier for each value of each subgroup column.

    Subgroups differ in their classes, and some classes are harder. The difference between a subgroup and the other images of a
    column is therefore taken class by class and averaged with the weights of Mantel and Haenszel (Greenland & Robins 1985,
    "Estimation of a common effect parameter from sparse follow-up data", Biometrics 41). Its interval comes from the bootstrap, in
    which both sides are resampled together. A subgroup is worse if the difference lies more standard errors below zero than the
    normal distribution allows for a family-wise error of 5 % over all comparisons (Bonferroni), one-sided.

    Args:
        columns: column -> value of each test image, str [N]; an empty string is a missing value.
        right: [N], True for images that the classifier classifies correctly; or, of several runs, the share that does, 0..1.
        labels: true classes, int64 [N], 0..C-1.
        class_names: C names.
        groups: [N] group of each image, or None; whole groups are then resampled.
        n_bootstrap: number of resamples.
        seed: random seed of the resampling.
        folds: number of folds of a cross-validation, or None for a test split.

    Returns:
        None if no column has two values on these images.

    Example:
        >>> import numpy as np
        >>> columns = {"sex": np.array(["F"] * 40 + ["M"] * 40)}
        >>> right = np.arange(80) >= 20  # the first 20 answers are wrong
        >>> found = by_subgroup(columns, right, np.array([0, 1] * 40), ("benign", "malignant"))
        >>> [(row.value, row.accuracy.value, row.worse) for row in found.rows]
        [('F', 0.5, True), ('M', 1.0, False)]
    """
    tested = _Tested(right, labels, len(class_names), groups, n_bootstrap, seed, folds)
    rows: list[tuple[Subgroup, float]] = []
    missing, confounded = {}, []
    for column, cells in columns.items():
        values = sorted(set(cells.tolist()) - {""}, key=lambda value: value.zfill(12) if value.isdecimal() else value)
        if len(values) < 2:
            continue
        place = {value: k for k, value in enumerate(values)}
        code = np.array([place.get(cell, -1) for cell in cells.tolist()], dtype=np.int64)
        found = _rows(column, values, code, tested)
        rows += found
        missing[column] = int((code < 0).sum())
        enough = {k for k, (row, _) in enumerate(found) if row.accuracy.value is not None}
        by_class = [set(code[labels == label].tolist()) & enough for label in range(len(class_names))]
        if len(enough) > 1 and all(len(values_of_class) < 2 for values_of_class in by_class):
            confounded.append(column)
    return Subgroups(tuple(class_names), _judged(rows), missing, tuple(confounded)) if missing else None


@dataclass(frozen=True)
class _Tested:
    """The arguments of :func:`by_subgroup` that are the same for all columns."""

    right: npt.NDArray[np.bool_] | Floats
    labels: npt.NDArray[np.int64]
    n_classes: int
    groups: Groups | None
    n_bootstrap: int
    seed: int
    folds: int | None


def _rows(
    column: str, values: Sequence[str], code: npt.NDArray[np.int64], tested: _Tested
) -> list[tuple[Subgroup, float]]:
    """The results of each value of a column, and the standard error of its difference.

    Args:
        code: [N] the position of each image's value, or -1.
    """
    n, labels, groups = len(code), tested.labels, tested.groups
    drawn = resampled_weights(n, tested.n_bootstrap, tested.seed, groups, tested.folds)
    blocks = [_results(tested, code, weights) for weights in drawn]
    samples = {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}
    once = _results(tested, code, np.ones((n, 1)))
    unit = resampling_units(n, groups)

    def units(of: npt.NDArray[np.bool_]) -> int:
        return len(np.unique(unit[of]))

    def estimate(name: str, *index: int, among: int) -> Estimate:
        return Estimate.of(float(once[name][index][0]), samples[name][index], among)

    rows = []
    for k, value in enumerate(values):
        own = code == k
        size, error = units(own), np.nan
        by_class = [units(own & (labels == label)) for label in range(tested.n_classes)]
        present = sum(n_units > 0 for n_units in by_class)
        row = Subgroup(column, value, int(own.sum()), None if groups is None else size)
        if size >= FEW:
            row = replace(
                row,
                accuracy=estimate("accuracy", k, among=size),
                balanced_accuracy=estimate("balanced_accuracy", k, among=size) if size >= FEW * present else UNKNOWN,
                sensitivities=tuple(
                    estimate("sensitivities", j, k, among=n_units) if n_units >= FEW else UNKNOWN
                    for j, n_units in enumerate(by_class)
                ),
            )
        if size >= FEW and units((code >= 0) & ~own) >= FEW:
            row = replace(row, difference=estimate("difference", k, among=size))
            error = np.nan if row.difference.value is None else float(np.nanstd(samples["difference"][k]))
        rows.append((row, error))
    return rows


def _results(tested: _Tested, code: npt.NDArray[np.int64], weights: Floats) -> dict[str, Floats]:
    """All results of the V values of a column for weights [N, b]; the last dimension of each is the resample."""
    with_value = code >= 0
    c, v = tested.n_classes, int(code.max()) + 1
    cell = tested.labels[with_value] * v + code[with_value]
    chosen = weights[with_value]
    images = sum_by(chosen, cell, c * v).reshape(c, v, -1)  # [C, V, b]
    hits = sum_by(chosen * tested.right[with_value, None], cell, c * v).reshape(c, v, -1)
    other_images, other_hits = (counts.sum(axis=1, keepdims=True) - counts for counts in (images, hits))
    sensitivities = ratio(hits, images)
    share = np.nan_to_num(ratio(images * other_images, images + other_images))
    gaps = np.where(share > 0, share * (sensitivities - ratio(other_hits, other_images)), 0)
    return {
        "accuracy": ratio(hits.sum(axis=0), images.sum(axis=0)),
        "balanced_accuracy": mean_over(np.bincount(cell, minlength=c * v).reshape(c, v) > 0, sensitivities),
        "sensitivities": sensitivities,
        "difference": ratio(gaps.sum(axis=0), share.sum(axis=0)),
    }


def _judged(rows: Sequence[tuple[Subgroup, float]]) -> tuple[Subgroup, ...]:
    """The subgroups, with those marked that are worse beyond chance when all are compared."""
    from scipy.stats import norm

    compared = sum(row.difference.value is not None for row, _ in rows)
    limit = float(norm.ppf(1 - (1 - LEVEL) / max(compared, 1)))

    def worse(difference: Estimate, error: float) -> bool:
        if difference.value is None or difference.high is None:
            return False
        return difference.value < -limit * error and difference.high < 0

    return tuple(replace(row, worse=worse(row.difference, error)) for row, error in rows)
