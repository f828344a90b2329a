"""Variants that change one number, such as the threshold of the sentence selection: the points of a curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from biomedcoop.benchmark.results import BenchmarkResults, TableRow

FEWEST = 3
"""Number of values from which a curve is drawn instead of bars."""


@dataclass(frozen=True)
class Sweep:
    """Rows of one method that differ in one number.

    Attributes:
        setting: name of the setting, e.g. "threshold".
        points: value -> row, by value.
    """

    backbone: str
    method: str
    setting: str
    points: Mapping[float, TableRow]


def sweeps(results: BenchmarkResults) -> list[Sweep]:
    """The curves among the variants, each of at least three values."""
    found: dict[tuple[str, str, str], dict[float, TableRow]] = {}
    for row in results.rows:
        settings = results.settings(row)
        if len(settings) == 1:
            ((name, value),) = settings.items()
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault((row.backbone, row.method, name), {})[float(value)] = row
    return [Sweep(*key, dict(sorted(points.items()))) for key, points in found.items() if len(points) >= FEWEST]
