"""The table of results by subgroup."""

from __future__ import annotations

from biomedcoop.evaluation.subgroups import UNKNOWN, Subgroups
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.table import Table

MOST_CLASS_COLUMNS = 3
"""Number of classes up to which the table shows the sensitivity of each class; with more, it shows balanced accuracy."""


def subgroup_cells(subgroups: Subgroups, *, short: bool = False) -> Table:
    """One row per subgroup, in percent with 95 % intervals; a short table leaves out what depends on the classes."""
    names = subgroups.class_names
    by_class = len(names) <= MOST_CLASS_COLUMNS
    if short:
        cells = [
            [
                f"{row.column}: {row.value}",
                str(row.n_images),
                percent(row.accuracy),
                percent(row.difference, signed=True),
            ]
            for row in subgroups.rows
        ]
        return Table(["subgroup", "test images", "accuracy", "difference to the others"], cells)
    grouped = any(row.n_groups is not None for row in subgroups.rows)
    cells = []
    for row in subgroups.rows:
        shown = row.sensitivities or [UNKNOWN] * len(names) if by_class else [row.balanced_accuracy]
        counts = [str(row.n_images), *([str(row.n_groups)] if grouped else [])]
        values = [percent(estimate) for estimate in (row.accuracy, *shown)]
        cells.append([f"{row.column}: {row.value}", *counts, *values, percent(row.difference, signed=True)])
    columns = [f"sensitivity: {name}" for name in names] if by_class else ["balanced accuracy"]
    counted = ["test images", *(["groups"] if grouped else [])]
    return Table(["subgroup", *counted, "accuracy", *columns, "difference"], cells)
