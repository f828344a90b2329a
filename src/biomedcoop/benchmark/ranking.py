"""Average ranks of the methods of a benchmark over its datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import Measure, Unit, cell, common
from biomedcoop.benchmark.statistics import LEAST_DATASETS, Ranks, average_ranks


@dataclass(frozen=True)
class Ranking:
    """Ranks of the rows that have results of all compared datasets.

    Attributes:
        rows: in the order of ``ranks.ranks``.
        units: the datasets that all rows have results of.
        left_out: rows with results of too few datasets.
    """

    rows: tuple[TableRow, ...]
    units: tuple[Unit, ...]
    ranks: Ranks
    left_out: tuple[TableRow, ...]


def rank(results: BenchmarkResults, rows: Sequence[TableRow], over: Sequence[Unit], measure: Measure) -> Ranking | None:
    """Rank rows on the datasets that all of them have results of; None for fewer than two rows or no common dataset.

    A row with results of less than half of the datasets that any row has is left out. Fewer than :data:`LEAST_DATASETS` datasets
    are ranked without a test.
    """
    means = {row: {unit: cell(results, row, unit, measure).mean for unit in over} for row in rows}
    has = {row: {unit for unit, mean in values.items() if mean is not None} for row, values in means.items()}
    enough, shared = common(has, over)
    if len(enough) < 2 or not shared:
        return None
    table = np.array([[means[row][unit] for row in enough] for unit in shared], dtype=np.float64)
    out = tuple(row for row in rows if row not in enough)
    ranks = average_ranks(table)
    if len(shared) < LEAST_DATASETS:
        ranks = replace(ranks, friedman_p=None, critical_difference=None)
    return Ranking(enough, shared, ranks, out)
