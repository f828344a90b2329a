"""Metrics of predicted probabilities, each with a 95 % bootstrap interval.

Each metric is defined once, for weighted images: weights of one give the value, bootstrap weights give its interval.
Calibration error: Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3, with 15 equal-width bins
of the top probability, each open below and closed above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.names import list_names
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate, Floats, Groups, resampled_weights, resampling_units

CALIBRATION_BINS = 15
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
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
    """The metrics of one method on N test images of C classes; shares are 0..1.

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
    """[C][C] numbers of images: rows are true classes, columns are predicted classes."""
    confusion_rates: tuple[tuple[Estimate, ...], ...]
    """[C][C] the confusion matrix as shares of each row."""

    def __repr__(self) -> str:
        groups = "" if self.n_groups is None else f" in {self.n_groups} groups"
        rows = [f"  {title:<17}  {getattr(self, name)}" for name, title in TITLES.items()]
        first = f"Metrics({self.n_images} images{groups}, {list_names(self.class_names)}; 95 % intervals)"
        return "\n".join([first, *rows])

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
                read[name] = Estimate(**read[name])
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
) -> Metrics:
    """Compute the metrics of predicted probabilities against true labels.

    Args:
        probabilities: float32 [N, C]; rows sum to 1 (tolerance 1e-3). The predicted class is the first maximum.
        labels: int64 [N], 0..C-1.
        class_names: C names.
        groups: [N] group of each image (patient, lesion); intervals then resample groups instead of images. An image without
            a group is its own group.
        n_bootstrap: number of resamples for each interval.
        seed: random seed of the resampling; equal seeds give bit-identical results.

    Raises:
        UserError: there are no images, shapes do not match, a label is out of range, or a row is not a probability distribution.
    """
    p, y = _checked(probabilities, labels, len(class_names))
    n, c = p.shape
    samples: dict[str, list[Floats]] = {}
    for weights in resampled_weights(n, n_bootstrap, seed, groups):
        for name, block in _weighted(p, y, weights).items():
            samples.setdefault(name, []).append(block)
    joined = {name: np.concatenate(blocks, axis=-1) for name, blocks in samples.items()}
    values = _weighted(p, y, np.ones((n, 1)))

    answer, unit = p.argmax(axis=1), resampling_units(n, groups)

    def units(of: npt.NDArray[np.bool_]) -> int:
        return len(np.unique(unit[of]))

    def estimate(name: str, *index: int, among: int) -> Estimate:
        return Estimate.of(float(values[name][index][0]), joined[name][index], among)

    everything = units(np.ones(n, dtype=bool))
    own, rest = ([units(of) for of in masks] for masks in zip(*((y == k, y != k) for k in range(c)), strict=True))
    confusion = np.bincount(y * c + answer, minlength=c * c).reshape(c, c)
    return Metrics(
        n_images=n,
        n_groups=None if groups is None else everything,
        n_bootstrap=n_bootstrap,
        seed=seed,
        **{name: estimate(name, among=everything) for name in TITLES},
        classes=tuple(
            ClassMetrics(
                name=str(class_names[k]),
                support=int(confusion[k].sum()),
                sensitivity=estimate("confusion_rates", k, k, among=own[k]),
                specificity=estimate("specificity", k, among=rest[k]),
                precision=estimate("precision", k, among=units(answer == k)),
                auroc=estimate("class_auroc", k, among=min(own[k], rest[k])),
                n_groups=None if groups is None else own[k],
            )
            for k in range(c)
        ),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        confusion_rates=tuple(
            tuple(estimate("confusion_rates", i, j, among=own[i]) for j in range(c)) for i in range(c)
        ),
    )


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


def _checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike, c: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
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
    return p, y.astype(np.int64)


def _weighted(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> dict[str, Floats]:
    """All metrics for weights [N, b]; the last dimension of each result is the resample. NaN means not defined."""
    c = p.shape[1]
    answer, top = p.argmax(axis=1), p.max(axis=1)
    total = weights.sum(axis=0)  # [b]
    confusion = _sum_by(weights, y * c + answer, c * c).reshape(c, c, -1)  # [C, C, b]
    hits = confusion[np.arange(c), np.arange(c)]  # [C, b]
    support, called = confusion.sum(axis=1), confusion.sum(axis=0)  # [C, b]
    rates = _ratio(confusion, support[:, None])
    f1 = np.where(support > 0, _ratio(2 * hits, support + called), np.nan)
    auroc = np.stack([_auroc(p[:, k], y == k, weights) for k in range(c)])  # [C, b]
    bins = np.clip(np.ceil(top * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = _sum_by(weights * ((answer == y) - top)[:, None], bins, CALIBRATION_BINS)  # [bins, b]
    return {
        "accuracy": hits.sum(axis=0) / total,
        "balanced_accuracy": _mean(rates[np.arange(c), np.arange(c)]),
        "macro_f1": _mean(f1),
        "auroc": _mean(auroc),
        "calibration_error": abs(gaps).sum(axis=0) / total,
        "specificity": _ratio(total - support - called + hits, total - support),
        "precision": _ratio(hits, called),
        "class_auroc": auroc,
        "confusion_rates": rates,
    }


def _auroc(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Weighted Mann-Whitney statistic: each positive counts the negatives with lower scores and half of those with equal scores."""
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    below, up_to = (np.searchsorted(scores[negatives], scores[positive], side=s) for s in ("left", "right"))
    summed = np.zeros((len(negatives) + 1, weights.shape[1]))
    np.cumsum(weights[negatives], axis=0, out=summed[1:])
    chosen = weights[positive]
    won = (chosen * (summed[below] + summed[up_to])).sum(axis=0) / 2
    return _ratio(won, chosen.sum(axis=0) * summed[-1])


def _sum_by(values: Floats, group: npt.NDArray[np.int64], n_groups: int) -> Floats:
    """Sum the rows of [N, b] that share a group: [n_groups, b]."""
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    summed = np.zeros((n_groups, values.shape[1]))
    summed[present] = np.add.reduceat(values[order], starts, axis=0)
    return summed


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is 0."""
    out: Floats = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    return np.divide(a, b, out=out, where=b > 0)


def _mean(values: Floats) -> Floats:
    """Mean over classes, [C, b] -> [b]; undefined values are left out."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples as JSON values, floats rounded to 6 digits."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value
