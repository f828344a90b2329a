"""The tables of a report, shared by the terminal and the Markdown version. Numbers are in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    cells = [[name, *(percent(getattr(m, column)) for column in TITLES)] for name, m in rows.items()]
    return Table(["method", *TITLES.values()], cells)


def spread_cells(by_seed: Mapping[str, Sequence[Metrics]]) -> Table:
    """One row per method, one column per metric: mean ± standard deviation over the seeds."""
    from statistics import mean, stdev

    def cell(found: Sequence[Metrics], column: str) -> str:
        values = [estimate.value for m in found if (estimate := getattr(m, column)) is not None]
        defined = [value for value in values if value is not None]
        return f"{number(mean(defined))} ± {number(stdev(defined))}" if len(defined) > 1 else "–"

    cells = [[name, *(cell(found, column) for column in TITLES)] for name, found in by_seed.items()]
    return Table(["method", *TITLES.values()], cells)


def class_cells(metrics: Metrics) -> Table:
    """One row per class."""
    cells = [
        [c.name, str(c.support), *(percent(getattr(c, column)) for column in CLASS_TITLES)] for c in metrics.classes
    ]
    return Table(["class", "test images", *CLASS_TITLES.values()], cells)
