"""Paired differences of every row to the reference method, over resamples of the images and across datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import Measure, Unit, combine
from biomedcoop.benchmark.statistics import LEAST_DATASETS, bootstrap_p, holm, paired_t, wilcoxon
from biomedcoop.evaluation.bootstrap import Estimate, Floats
from biomedcoop.evaluation.intervals import bootstrap_means, mean_of, student

N_BOOTSTRAP = 10_000
"""Resamples of the images: enough for p-values that stay below 0.05 after the correction for a hundred comparisons."""


@dataclass(frozen=True)
class Corrected:
    """A p-value, and the same corrected for the number of comparisons; None where the test is not possible."""

    raw: float | None
    holm: float | None = None


@dataclass(frozen=True)
class Difference:
    """A row minus the reference, in accuracy, 0..1.

    Attributes:
        datasets: number of datasets that both have results of; ``complete``: these are all.
        over_images: difference with its interval over images.
        over_datasets: the same with Student's interval over datasets.
        images, signed_rank, t: p-values of the bootstrap over images, of Wilcoxon's and of Student's test across datasets; the
            last two of at least :data:`LEAST_DATASETS` datasets.
    """

    row: TableRow
    measure: Measure
    datasets: int
    complete: bool
    over_images: Estimate
    over_datasets: Estimate
    images: Corrected
    signed_rank: Corrected
    t: Corrected


class Resampled:
    """The accuracies of all rows on all scored sets, and on common resamples of their images.

    Args:
        n_bootstrap: number B of resamples; whole groups of related images are drawn.
    """

    def __init__(self, results: BenchmarkResults, n_bootstrap: int = N_BOOTSTRAP) -> None:
        answers: dict[str, dict[tuple[TableRow, str, int], list[Floats]]] = {}
        for run in results.runs:
            for test in run.tests:
                answers.setdefault(test, {}).setdefault((run.row, run.dataset, run.shots), []).append(run.right(test))
        self._results = results
        self._values: dict[str, dict[tuple[TableRow, str, int], float]] = {}
        self._samples: dict[str, dict[tuple[TableRow, str, int], Floats]] = {}
        for number, test in enumerate(sorted(answers)):
            scores = {key: np.mean(every, axis=0) for key, every in answers[test].items()}
            _, self._samples[test] = bootstrap_means(scores, number, results.tests[test].groups, n_bootstrap)
            self._values[test] = {key: float(score.mean()) for key, score in scores.items()}

    def of(self, row: TableRow, unit: Unit, measure: Measure) -> tuple[Floats, Floats] | None:
        """Value and resampled values of each scored set of a measure, [tests] and [tests, B]; None without results."""
        runs = self._results.of(row, unit.dataset, measure.shots)
        tests = measure.tests(unit)
        keys = {(row, unit.dataset, run.shots) for run in runs.values() if all(test in run.tests for test in tests)}
        if not keys:
            return None
        key = keys.pop()
        return np.array([self._values[t][key] for t in tests]), np.stack([self._samples[t][key] for t in tests])


def compare(
    results: BenchmarkResults, resampled: Resampled, over: Sequence[Unit], columns: Sequence[Measure], backbone: str
) -> list[Difference]:
    """Differences of every other row of a backbone to the reference, on the datasets that both have results of.

    Args:
        over: the datasets to average, each with the same weight.
        columns: measures to compare; the p-values are corrected for the comparisons by one measure.

    Returns:
        The differences by measure and row; none if the reference has no result.
    """
    rows = {row.name: row for row in results.rows if row.backbone == backbone}
    reference = rows.pop(results.reference or "", None)
    if reference is None:
        return []
    found = []
    for row in rows.values():
        for measure in columns:
            pairs = [(resampled.of(row, unit, measure), resampled.of(reference, unit, measure)) for unit in over]
            both = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
            if both:
                complete = len(both) == len(over)
                found.append(_difference(row, measure, complete, [a for a, _ in both], [b for _, b in both]))
    families = [[difference for difference in found if difference.measure == measure] for measure in columns]
    return [difference for family in families if family for difference in _corrected(family)]


def _corrected(family: Sequence[Difference]) -> list[Difference]:
    images, ranks, t = (
        [Corrected(p, corrected) for p, corrected in zip(raw, holm(raw), strict=True)]
        for raw in zip(*((d.images.raw, d.signed_rank.raw, d.t.raw) for d in family), strict=True)
    )
    return [replace(d, images=images[n], signed_rank=ranks[n], t=t[n]) for n, d in enumerate(family)]


def _difference(
    row: TableRow,
    measure: Measure,
    complete: bool,
    ours: Sequence[tuple[Floats, Floats]],
    theirs: Sequence[tuple[Floats, Floats]],
) -> Difference:
    values = [
        float((combine(a[:, None]) - combine(b[:, None]))[0]) for (a, _), (b, _) in zip(ours, theirs, strict=True)
    ]
    samples = [combine(a) - combine(b) for (_, a), (_, b) in zip(ours, theirs, strict=True)]
    over_images, tested = mean_of(values, samples), len(values) >= LEAST_DATASETS
    return Difference(
        *(row, measure, len(values), complete, over_images, student(values)),
        images=Corrected(bootstrap_p(np.mean(samples, axis=0).round(12))),
        signed_rank=Corrected(wilcoxon(values) if tested else None),
        t=Corrected(paired_t(values) if tested else None),
    )
