"""Average ranks of the methods of a benchmark over its datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import Measure, Unit, cell
from biomedcoop.benchmark.statistics import Ranks, average_ranks

LEAST_SHARE = 0.5
"""Share of the datasets that a method needs results of; one with fewer would leave too few common datasets."""


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

    A row with results of less than half of the datasets that any row has is left out.
    """
    means = {row: {unit: cell(results, row, unit, measure).mean for unit in over} for row in rows}
    known = [unit for unit in over if any(values[unit] is not None for values in means.values())]
    enough = [
        row
        for row, values in means.items()
        if known and sum(values[unit] is not None for unit in known) >= LEAST_SHARE * len(known)
    ]
    common = [unit for unit in known if all(means[row][unit] is not None for row in enough)]
    if len(enough) < 2 or not common:
        return None
    table = np.array([[means[row][unit] for row in enough] for unit in common], dtype=np.float64)
    out = tuple(row for row in rows if row not in enough)
    return Ranking(tuple(enough), tuple(common), average_ranks(table), out)
