"""The cells of a report's tables, shared by the terminal and the Markdown version. Numbers are in percent."""

from __future__ import annotations

from collections.abc import Mapping

from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.metrics import CLASS_COLUMNS, COLUMNS, Metrics

TITLES = {"macro_f1": "macro-F1", "auroc": "AUROC"}

Cells = tuple[list[str], list[list[str]]]
"""A header and the rows below it."""


def percent(estimate: Estimate) -> str:
    """``71.2 (64.1–77.5)``; a dash where the value, or its interval, is not defined."""
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f} (–)"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def comparison_cells(rows: Mapping[str, Metrics]) -> Cells:
    """One row per method, one column per metric."""
    header = ["method", *(_title(column) for column in COLUMNS)]
    return header, [[name, *(percent(getattr(m, column)) for column in COLUMNS)] for name, m in rows.items()]


def class_cells(metrics: Metrics) -> Cells:
    """One row per class."""
    header = ["class", "test images", *(_title(column) for column in CLASS_COLUMNS)]
    return header, [
        [c.name, str(c.support), *(percent(getattr(c, column)) for column in CLASS_COLUMNS)] for c in metrics.classes
    ]


def _title(column: str) -> str:
    return TITLES.get(column, column.replace("_", " "))
