"""Means and standard deviations of a benchmark: of one dataset over seeds, and of a collection of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from biomedcoop.benchmark.results import NO_SHOTS, BenchmarkResults, Run, TableRow
from biomedcoop.evaluation.bootstrap import Floats
from biomedcoop.evaluation.wording import count

LEAST_SHARE = 0.5
"""Share of the datasets that a method needs results of; one with fewer would leave too few common datasets."""


class Unit(NamedTuple):
    """A dataset trained on, and the dataset tested on; they differ in the cross-dataset protocol only."""

    dataset: str
    tested: str

    @property
    def label(self) -> str:
        return self.dataset if self.dataset == self.tested else f"{self.dataset} → {self.tested}"


@dataclass(frozen=True)
class Measure:
    """A column of results.

    Attributes:
        name: header of the column.
        shots: images per class.
        subsets: subsets of the test images, "" for all of them; the harmonic mean is taken of two.
        of_means: over datasets, take the harmonic mean of the means and not the mean of the harmonic means.
    """

    name: str
    shots: int
    subsets: tuple[str, ...] = ("",)
    of_means: bool = False

    def tests(self, unit: Unit) -> list[str]:
        """Names of the scored sets that the measure combines."""
        return [f"{unit.tested} {subset}".strip() for subset in self.subsets]


@dataclass(frozen=True)
class Score:
    """A mean, 0..1, with the standard deviation over seeds.

    Attributes:
        mean: None if there is no value yet.
        std: sample standard deviation (n − 1); None with one seed.
        complete: every planned seed and dataset is in it.
        absent: why there is no value: "failed", "skipped", or "" for not yet run.
    """

    mean: float | None
    std: float | None = None
    complete: bool = True
    absent: str = ""


def combine(parts: Sequence[Floats] | Floats) -> Floats:
    """The harmonic mean of base and novel, elementwise; a single part stays as it is.

    Args:
        parts: one or two arrays of one shape.

    Example:
        >>> combine([np.array([0.7626]), np.array([0.7392])]).round(4)
        array([0.7507])
    """
    if len(parts) == 1:
        return np.asarray(parts[0], dtype=np.float64)
    first, second = (np.asarray(part, dtype=np.float64) for part in parts)
    total = first + second
    mean: Floats = np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)
    return mean


def measures(results: BenchmarkResults) -> list[Measure]:
    """The columns of a protocol: images per class, or base, novel and both harmonic means."""
    if results.kind != "base-to-novel":
        return [Measure(str(shots), shots) for shots in results.shots]
    columns = []
    for shots in results.shots:
        prefix = f"{shots} shots: " if len(results.shots) > 1 else ""
        columns += [
            Measure(f"{prefix}base", shots, ("base",)),
            Measure(f"{prefix}novel", shots, ("novel",)),
            Measure(f"{prefix}HM", shots, ("base", "novel")),
            Measure(f"{prefix}HM of means", shots, ("base", "novel"), of_means=True),
        ]
    return columns


def collections(results: BenchmarkResults) -> dict[str, tuple[Unit, ...]]:
    """What is averaged: of each planned collection the units that no compared row lacks, or all where none is left."""
    has = {row: {unit for unit in _planned_units(results) if _has(results, row, unit)} for row in results.rows}
    return {name: common(has, over)[1] or over for name, over in planned_collections(results).items()}


def common(
    has: Mapping[TableRow, AbstractSet[Unit]], over: Sequence[Unit]
) -> tuple[tuple[TableRow, ...], tuple[Unit, ...]]:
    """The rows that can be compared, and the units that all of them have.

    A row with less than half of the units that any row has is not compared: it would leave too few in common.

    Args:
        has: row -> the units that it has results of.
        over: the units to choose from.
    """
    known = [unit for unit in over if any(unit in units for units in has.values())]
    rows = tuple(row for row, units in has.items() if known and len(units & set(known)) >= LEAST_SHARE * len(known))
    return rows, tuple(unit for unit in known if all(unit in has[row] for row in rows))


def planned_collections(results: BenchmarkResults) -> dict[str, tuple[Unit, ...]]:
    """The groups of the protocol, or pairs of datasets in the cross-dataset protocol."""
    if results.kind != "cross-dataset":
        return {name: tuple(Unit(d, d) for d in datasets) for name, datasets in results.groups.items()}
    pairs = [Unit(trained, tested) for trained in results.datasets for tested in tested_on(results, trained)]
    own = tuple(pair for pair in pairs if pair.dataset == pair.tested)
    other = tuple(pair for pair in pairs if pair.dataset != pair.tested)
    return {name: units for name, units in {"same dataset": own, "other datasets": other}.items() if units}


def tested_on(results: BenchmarkResults, dataset: str) -> list[str]:
    """The datasets that a dataset's classifiers are tested on, itself first if it is one of them."""
    tests = {results.name_of(trained): others for trained, others in results.protocol.get("tests", {}).items()}
    planned = map(results.name_of, tests.get(dataset, ()))
    scored = [test for run in results.runs if run.dataset == dataset for test in run.tests]
    return sorted(dict.fromkeys([*planned, *scored]), key=lambda name: name != dataset)


def units(results: BenchmarkResults) -> list[Unit]:
    """All units, each once: those of the planned collections, then datasets of none."""
    found = _planned_units(results)
    if results.kind != "cross-dataset":
        found += [Unit(dataset, dataset) for dataset in results.datasets]
    return list(dict.fromkeys(found))


def by_seed(
    results: BenchmarkResults, row: TableRow, unit: Unit, measure: Measure, metric: str = "accuracy"
) -> dict[int, list[float]]:
    """Seed -> the metric on each scored set of the measure, of the finished runs.

    Args:
        metric: "accuracy", "balanced_accuracy" or "macro_f1".
    """
    tests = measure.tests(unit)
    return {
        seed: [float(run.tests[test][metric]) for test in tests]
        for seed, run in sorted(results.of(row, unit.dataset, measure.shots).items())
        if all(run.tests.get(test, {}).get(metric) is not None for test in tests)
    }


def cell(results: BenchmarkResults, row: TableRow, unit: Unit, measure: Measure, metric: str = "accuracy") -> Score:
    """The score of a row on one dataset.

    The harmonic mean is that of the means over seeds; its standard deviation is that of the seeds' harmonic means.
    """
    runs = results.of(row, unit.dataset, measure.shots)
    found, tests = by_seed(results, row, unit, measure, metric), measure.tests(unit)
    if not found:
        return Score(None, complete=False, absent=next(filter(None, (_absent(r, tests) for r in runs.values())), ""))
    values = np.array(list(found.values())).T  # [tests, seeds]
    mean = combine([part[None] for part in values.mean(axis=1)])[0]
    return Score(float(mean), _std(combine(values)), len(found) >= _planned(results, row, unit, measure))


def average(
    results: BenchmarkResults, row: TableRow, over: Sequence[Unit], measure: Measure, metric: str = "accuracy"
) -> Score:
    """The score of a row over a collection of datasets, each with the same weight.

    The standard deviation is that of the seeds' averages. Datasets without a value are left out, and the score is not complete.
    """
    found = {unit: by_seed(results, row, unit, measure, metric) for unit in over}
    done = {unit: seeds for unit, seeds in found.items() if seeds}
    if not done:
        return Score(None, complete=False)
    means = np.array([np.mean(list(seeds.values()), axis=0) for seeds in done.values()]).T  # [tests, units]
    common = sorted(set.intersection(*(set(seeds) for seeds in done.values())))
    of_seeds = [_over_units(np.array([seeds[seed] for seeds in done.values()]).T, measure.of_means) for seed in common]
    complete = len(done) == len(over) and all(
        len(seeds) >= _planned(results, row, unit, measure) for unit, seeds in done.items()
    )
    return Score(_over_units(means, measure.of_means), _std(of_seeds), complete)


def drawable(
    results: BenchmarkResults, rows: Sequence[TableRow], columns: Sequence[Measure]
) -> dict[str, tuple[Unit, ...]]:
    """The collections of which a row has a complete mean: a figure has something to show of them."""
    return {
        name: over
        for name, over in collections(results).items()
        if any(average(results, row, over, measure).complete for row in rows for measure in columns)
    }


def images_per_class(results: BenchmarkResults) -> str:
    """What the shots count; a realistic draw has this number of each class only on average."""
    return "images per class on average" if results.kind == "realistic" else "images per class"


def described(results: BenchmarkResults, measure: Measure) -> str:
    """A measure in a title: "HM", or "4 images per class"."""
    if results.kind == "base-to-novel":
        return measure.name
    return images_per_class(results).replace("images", count(measure.shots, "image"))


def _planned_units(results: BenchmarkResults) -> list[Unit]:
    return [unit for every in planned_collections(results).values() for unit in every]


def _has(results: BenchmarkResults, row: TableRow, unit: Unit) -> bool:
    return any(by_seed(results, row, unit, measure) for measure in measures(results))


def _absent(run: Run, tests: Sequence[str]) -> str:
    return "skipped" if any(test in run.untested for test in tests) else "" if run.status == "done" else run.status


def _over_units(values: Floats, of_means: bool) -> float:
    """Average of [tests, units] over the units."""
    if of_means:
        return float(combine([part[None] for part in values.mean(axis=1)])[0])
    return float(combine(values).mean())


def _planned(results: BenchmarkResults, row: TableRow, unit: Unit, measure: Measure) -> int:
    runs = results.of(row, unit.dataset, measure.shots)
    return 1 if any(run.shots == NO_SHOTS for run in runs.values()) else len(results.seeds)


def _std(values: Sequence[float] | Floats) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
