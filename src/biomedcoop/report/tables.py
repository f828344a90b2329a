"""The tables of a report, shared by the terminal and the Markdown version. Numbers are in percent."""

from __future__ import annotations

from collections.abc import Mapping

from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.metrics import CLASS_TITLES, TITLES, Metrics
from biomedcoop.report.table import Table


def percent(estimate: Estimate | None, signed: bool = False) -> str:
    """An estimate as text: ``71.2 (64.1–77.5)``, or signed ``+7.1 (−0.4 to +8.0)``; a dash for an undefined value or interval."""
    if estimate is None or estimate.value is None:
        return "–"
    value = number(estimate.value, signed)
    if estimate.low is None or estimate.high is None:
        return f"{value} (–)"
    return f"{value} ({number(estimate.low, signed)}{' to ' if signed else '–'}{number(estimate.high, signed)})"


def number(share: float, signed: bool = False) -> str:
    """Percent with one decimal and a true minus sign."""
    return f"{100 * share:{'+' if signed else ''}.1f}".replace("-", "−")


def comparison_cells(rows: Mapping[str, Metrics]) -> Table:
    """One row per method, one column per metric."""
    columns = [name for name in TITLES if any(getattr(m, name) is not None for m in rows.values())]
    cells = [[name, *(percent(getattr(m, column)) for column in columns)] for name, m in rows.items()]
    return Table(["method", *(TITLES[column] for column in columns)], cells)


def class_cells(metrics: Metrics) -> Table:
    """One row per class."""
    cells = [
        [c.name, str(c.support), *(percent(getattr(c, column)) for column in CLASS_TITLES)] for c in metrics.classes
    ]
    return Table(["class", "test images", *CLASS_TITLES.values()], cells)
