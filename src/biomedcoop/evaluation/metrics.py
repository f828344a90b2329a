"""Metrics of predicted probabilities, each with a 95 % bootstrap interval.

Each metric is defined once, for weighted images: weights of one give the value, bootstrap weights give its interval.
Calibration error: Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3, with 15 equal-width bins
of the top probability, each open below and closed above. Quadratic weighted kappa: Cohen (1968), "Weighted kappa", for
classes that are grades.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.names import list_names
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import (
    Estimate,
    Floats,
    Groups,
    independent,
    resampled_weights,
    resampling_units,
)
from biomedcoop.evaluation.grades import grade_order
from biomedcoop.evaluation.intervals import wilson
from biomedcoop.evaluation.weighted import mean_of_defined, mean_over, ratio, sum_by
from biomedcoop.notebook import fragment

CALIBRATION_BINS = 15
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "quadratic_kappa": "quadratic kappa",
    "calibration_error": "calibration error",
}
CLASS_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "auroc": "AUROC",
}
"""The estimates of `Metrics` and `ClassMetrics` with their titles in tables, in order. A metric needs three entries in this file:
its title here, its field below, and its weighted form in :func:`_weighted`. A metric of single classes also needs its line in
:func:`score`, which says how many groups it is estimated from."""


SHARES = ("accuracy", "balanced_accuracy", "confusion_rates", "specificity", "precision")
"""Shares of images: at 0 or 1 all resamples are equal, which would give an interval without width."""


@dataclass(frozen=True, repr=False)
class ClassMetrics:
    """Metrics of one class against the rest; an undefined value (no test image of the class, never predicted) is None."""

    name: str
    support: int
    """Test images of this class."""
    sensitivity: Estimate
    """Share of this class's images that are predicted as this class (recall)."""
    specificity: Estimate
    """Share of the other classes' images that are not predicted as this class."""
    precision: Estimate
    """Share of the images predicted as this class that belong to it."""
    auroc: Estimate
    """Probability that an image of this class gets a higher score for it than another image; ties count half."""
    n_groups: int | None = None
    """Number of groups of this class's test images, or None if images were resampled."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{title} {getattr(self, name)}" for name, title in CLASS_TITLES.items())
        return f"ClassMetrics({self.name!r}, {self.support} images, {shown})"


@dataclass(frozen=True, repr=False)
class Metrics:
    """The metrics of one method on N test images of C classes; shares are 0..1. Of several runs, each value is the mean.

    Balanced accuracy, AUROC and macro-F1 are means over the classes with test images. Macro-F1 equals
    ``sklearn.metrics.f1_score(average="macro", labels=<the true labels that occur>)``.
    """

    n_images: int
    n_groups: int | None
    """Number of resampled groups (an image without a group counts as one), or None if images were resampled."""
    n_bootstrap: int
    seed: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    auroc: Estimate
    """Mean over classes of the one-versus-rest AUROC."""
    calibration_error: Estimate
    """Expected calibration error, 15 equal-width bins of the top probability."""
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    """[C, C] numbers of answers, summed over the runs: rows are true classes, columns are predicted classes."""
    confusion_rates: tuple[tuple[Estimate, ...], ...]
    """[C, C] the confusion matrix as shares of each row."""
    quadratic_kappa: Estimate | None = None
    """Quadratic weighted kappa of the grades, 0 for chance and 1 for perfect agreement; None if the classes are no grades."""
    grades: tuple[str, ...] = ()
    """The class names from the lowest grade to the highest; empty if they are no grades."""
    n_runs: int = 1
    """Number of runs (seeds, or divisions in a cross-validation) that answered every image."""
    n_drawn: int | None = None
    """Number of images or groups that a resample draws, if it draws fewer than there are: of a cross-validation."""

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The metrics of :data:`TITLES` that these classes have: kappa belongs to grades only."""
        return {name: estimate for name in TITLES if (estimate := getattr(self, name)) is not None}

    def __repr__(self) -> str:
        groups = "" if self.n_groups is None else f" in {self.n_groups} groups"
        rows = [f"  {TITLES[name]:<17}  {estimate}" for name, estimate in self.estimates.items()]
        runs = "" if self.n_runs == 1 else f", mean of {self.n_runs} runs"
        first = f"Metrics({self.n_images} images{groups}, {list_names(self.class_names)}{runs}; 95 % intervals)"
        return "\n".join([first, *rows])

    def _repr_html_(self) -> str:
        """The metrics and those of each class, for a notebook."""
        groups = "" if self.n_groups is None else f" in {self.n_groups} groups"
        of_all = [[TITLES[name], str(estimate)] for name, estimate in self.estimates.items()]
        of_each = [[c.name, *(str(getattr(c, name)) for name in CLASS_TITLES)] for c in self.classes]
        heading = f"{self.n_images} test images{groups}, with 95 % intervals"
        return fragment(heading, ["metric", "value"], of_all) + fragment(
            "Each class", ["class", *CLASS_TITLES.values()], of_each
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats rounded to 6 digits."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: an entry is missing or unknown.
        """
        try:
            read = dict(values)
            for name in TITLES:
                if name != "quadratic_kappa" or read.get(name) is not None:
                    read[name] = Estimate(**read[name])
            read["grades"] = tuple(read.get("grades", ()))
            read["classes"] = tuple(
                ClassMetrics(**{**entry, **{k: Estimate(**entry[k]) for k in CLASS_TITLES}})
                for entry in read["classes"]
            )
            read["confusion"] = tuple(tuple(row) for row in read["confusion"])
            read["confusion_rates"] = tuple(tuple(Estimate(**cell) for cell in row) for row in read["confusion_rates"])
            return cls(**read)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"these are not metrics of this version: {error}; evaluate again") from error


def score(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    groups: Groups | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    folds: int | None = None,
) -> Metrics:
    """Compute the metrics of predicted probabilities against true labels.

    The metrics of R runs are computed run by run and averaged; a resampled image brings its answers in all runs. A share of 0 or
    1 gets Wilson's interval, because all its resamples are equal.

    Args:
        probabilities: float32 [N, C], or [R, N, C] of R runs; rows sum to 1 (tolerance 1e-3). The predicted class is the first
            maximum.
        labels: int64 [N], 0..C-1.
        class_names: C names.
        groups: [N] group of each image (patient, lesion); intervals then resample groups instead of images. An image without
            a group is its own group.
        n_bootstrap: number of resamples for each interval.
        seed: random seed of the resampling; equal seeds give bit-identical results.
        folds: number of folds if each run is a cross-validation, which makes the intervals wider; see
            :func:`biomedcoop.evaluation.bootstrap.independent`.

    Raises:
        UserError: there are no images, shapes do not match, a label is out of range, or a row is not a probability distribution.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    runs = [_checked(p, labels, len(class_names)) for p in (given if given.ndim == 3 and len(given) else [given])]
    y = np.asarray(labels, dtype=np.int64)
    n, c = runs[0].shape
    order = grade_order(class_names)
    rank = None if order is None else np.argsort(order)
    samples: dict[str, list[Floats]] = {}
    for weights in resampled_weights(n, n_bootstrap, seed, groups, folds):
        for name, block in _mean_over_runs(runs, y, weights, rank).items():
            samples.setdefault(name, []).append(block)
    joined = {name: np.concatenate(blocks, axis=-1) for name, blocks in samples.items()}
    values = _mean_over_runs(runs, y, np.ones((n, 1)), rank)

    answers, unit = np.stack([run.argmax(axis=1) for run in runs]), resampling_units(n, groups)

    def units(of: npt.NDArray[np.bool_]) -> int:
        return len(np.unique(unit[of]))

    def estimate(name: str, *index: int, among: int) -> Estimate:
        value = float(values[name][index][0])
        if name in SHARES and value in (0.0, 1.0) and among > 1:
            return wilson(value, independent(among, folds))
        return Estimate.of(value, joined[name][index], among)

    everything = units(np.ones(n, dtype=bool))
    own, rest = ([units(of) for of in masks] for masks in zip(*((y == k, y != k) for k in range(c)), strict=True))
    # as many images in classes of one size would give balanced accuracy the same variance
    equal = min(everything, round(sum(n > 0 for n in own) ** 2 / sum(1 / n for n in own if n)))
    confusion = np.bincount((y * c + answers).ravel(), minlength=c * c).reshape(c, c)
    support = np.bincount(y, minlength=c)
    return Metrics(
        n_images=n,
        n_groups=None if groups is None else everything,
        n_bootstrap=n_bootstrap,
        seed=seed,
        **{
            name: estimate(name, among=equal if name == "balanced_accuracy" else everything)
            for name in TITLES
            if name in values
        },
        grades=tuple(str(class_names[k]) for k in order or ()),
        classes=tuple(
            ClassMetrics(
                name=str(class_names[k]),
                support=int(support[k]),
                sensitivity=estimate("confusion_rates", k, k, among=own[k]),
                specificity=estimate("specificity", k, among=rest[k]),
                precision=estimate("precision", k, among=units((answers == k).any(axis=0))),
                auroc=estimate("class_auroc", k, among=min(own[k], rest[k])),
                n_groups=None if groups is None else own[k],
            )
            for k in range(c)
        ),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        confusion_rates=tuple(
            tuple(estimate("confusion_rates", i, j, among=own[i]) for j in range(c)) for i in range(c)
        ),
        n_runs=len(runs),
        n_drawn=None if folds is None else independent(everything, folds),
    )


def values_of(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str]
) -> dict[str, float | None]:
    """The metrics of :data:`TITLES` without intervals; a metric that is not defined is None.

    Args and errors are those of :func:`score`, for one run.

    Example:
        >>> values_of([[0.9, 0.1], [0.8, 0.2]], [0, 1], ["cyst", "stone"])["balanced_accuracy"]
        0.5
    """
    p = _checked(np.asarray(probabilities, dtype=np.float64), labels, len(class_names))
    order = grade_order(class_names)
    rank = None if order is None else np.argsort(order)
    found = _weighted(p, np.asarray(labels, dtype=np.int64), np.ones((len(p), 1)), rank)
    return {name: None if np.isnan(found[name][0]) else float(found[name][0]) for name in TITLES if name in found}


def majority_probabilities(labels: npt.ArrayLike, n_classes: int) -> npt.NDArray[np.float32]:
    """Probabilities of the baseline that always predicts the largest class of the *test* split.

    A few-shot sample has equally many images of each class, so it cannot name the largest class. The largest test class gives
    the best accuracy of any constant prediction, hence the hardest such baseline. The first class wins a tie.

    Args:
        labels: int64 [N], labels of the test images.
        n_classes: number C of classes.

    Returns:
        float32 [N, C], one-hot, the same in each row.
    """
    y = np.asarray(labels, dtype=np.int64)
    constant = np.zeros((len(y), n_classes), dtype=np.float32)
    constant[:, np.bincount(y, minlength=n_classes).argmax()] = 1
    return constant


def _checked(p: Floats, labels: npt.ArrayLike, c: int) -> Floats:
    y = np.asarray(labels)
    if p.ndim != 2 or p.shape[1] != c:
        raise UserError(f"probabilities of shape {list(p.shape)} for {c} class names; expected [images, {c}]")
    if not len(p):
        raise UserError("no images to evaluate; the split is empty")
    if y.shape != (len(p),) or not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"labels of shape {list(y.shape)} and type {y.dtype}; expected {len(p)} integers")
    for wrong, what in (
        (~np.isfinite(p).all(axis=1), "are not finite"),
        ((p < 0).any(axis=1), "are negative"),
        (abs(p.sum(axis=1) - 1) > 1e-3, "do not sum to 1"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(f"probabilities of image {row} {what}: {p[row, :8].tolist()}; give a softmax's output")
    if y.min() < 0 or y.max() >= c:
        raise UserError(f"label {y.min() if y.min() < 0 else y.max()} is out of range for {c} classes (0..{c - 1})")
    return p


def _mean_over_runs(
    runs: Sequence[Floats], y: npt.NDArray[np.int64], weights: Floats, rank: npt.NDArray[np.int64] | None
) -> dict[str, Floats]:
    """Mean of :func:`_weighted` over the runs in which a metric is defined."""
    found = [_weighted(p, y, weights, rank) for p in runs]
    return {name: mean_of_defined(np.stack([one[name] for one in found])) for name in found[0]}


def _weighted(
    p: Floats, y: npt.NDArray[np.int64], weights: Floats, rank: npt.NDArray[np.int64] | None
) -> dict[str, Floats]:
    """All metrics for weights [N, b]; the last dimension of each result is the resample. NaN means not defined.

    Args:
        rank: [C] the grade of each class, or None if the classes are no grades.
    """
    c = p.shape[1]
    answer = p.argmax(axis=1)
    total = weights.sum(axis=0)  # [b]
    confusion = sum_by(weights, y * c + answer, c * c).reshape(c, c, -1)  # [C, C, b]
    hits = confusion[np.arange(c), np.arange(c)]  # [C, b]
    support, called = confusion.sum(axis=1), confusion.sum(axis=0)  # [C, b]
    rates = ratio(confusion, support[:, None])
    f1 = np.where(support > 0, ratio(2 * hits, support + called), np.nan)
    auroc = np.stack([_auroc(p[:, k], y == k, weights) for k in range(c)])  # [C, b]
    present = np.bincount(y, minlength=c) > 0
    kappa = {} if rank is None else {"quadratic_kappa": _quadratic_kappa(confusion, rank)}
    return {
        **kappa,
        "accuracy": hits.sum(axis=0) / total,
        "balanced_accuracy": mean_over(present, rates[np.arange(c), np.arange(c)]),
        "macro_f1": mean_over(present, f1),
        "auroc": mean_over(present & (present.sum() > 1), auroc),
        "calibration_error": calibration_error(p, y, weights),
        "specificity": ratio(total - support - called + hits, total - support),
        "precision": ratio(hits, called),
        "class_auroc": auroc,
        "confusion_rates": rates,
    }


def calibration_error(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> Floats:
    """The expected calibration error [b] of probabilities [N, C] for weights [N, b]."""
    answer, top = p.argmax(axis=1), p.max(axis=1)
    bins = np.clip(np.ceil(top * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = sum_by(weights * ((answer == y) - top)[:, None], bins, CALIBRATION_BINS)  # [bins, b]
    error: Floats = abs(gaps).sum(axis=0) / weights.sum(axis=0)
    return error


def _quadratic_kappa(confusion: Floats, rank: npt.NDArray[np.int64]) -> Floats:
    """One minus the mean squared distance in grades over that of chance, from [C, C, b]; NaN if chance makes no error."""
    distance = (rank[:, None] - rank) ** 2.0  # [C, C]
    by_chance = confusion.sum(axis=1)[:, None] * confusion.sum(axis=0) / confusion.sum(axis=(0, 1))
    observed, expected = (np.einsum("ij,ijb->b", distance, counts) for counts in (confusion, by_chance))
    return 1 - ratio(observed, expected)


def _auroc(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Weighted Mann-Whitney statistic: each positive counts the negatives with lower scores and half of those with equal scores."""
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    below, up_to = (np.searchsorted(scores[negatives], scores[positive], side=s) for s in ("left", "right"))
    summed = np.zeros((len(negatives) + 1, weights.shape[1]))
    np.cumsum(weights[negatives], axis=0, out=summed[1:])
    chosen = weights[positive]
    won = (chosen * (summed[below] + summed[up_to])).sum(axis=0) / 2
    return ratio(won, chosen.sum(axis=0) * summed[-1])


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples as JSON values, floats rounded to 6 digits."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value
