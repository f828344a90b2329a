"""The tables of a report, shared by the terminal and the Markdown version. Numbers are in percent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from biomedcoop.evaluation.comparison import Comparison, first_measure
from biomedcoop.evaluation.metrics import CLASS_TITLES, TITLES, Metrics
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.report.table import Table
from biomedcoop.tasks.mixture import dear_notes, mixture_line, was_compared


def comparison_cells(rows: Mapping[str, Metrics], without: Collection[str] = ()) -> Table:
    """One row per method, one column per metric except those named in ``without``; the measure of the verdict stands first."""
    metrics = next(iter(rows.values()))
    columns = _ordered(metrics.estimates, first_measure(metrics), without)
    cells = [[name, *(percent(getattr(m, column)) for column in columns)] for name, m in rows.items()]
    return Table(["method", *(TITLES[column] for column in columns)], cells)


def spread_cells(comparison: Comparison, without: Collection[str] = ()) -> Table:
    """One row per method, one column per metric except those in ``without``: mean ± standard deviation over the runs."""
    from statistics import mean, stdev

    def cell(found: Sequence[Mapping[str, float | None]], column: str) -> str:
        defined = [value for run in found if (value := run[column]) is not None]
        return f"{number(mean(defined))} ± {number(stdev(defined))}" if len(defined) > 1 else "–"

    by_run = comparison.by_run
    columns = _ordered(next(iter(by_run.values()))[0], comparison.measure, without)
    cells = [[name, *(cell(found, column) for column in columns)] for name, found in by_run.items()]
    return Table(["method", *(TITLES[column] for column in columns)], cells)


def _ordered(names: Collection[str], first: str, without: Collection[str]) -> list[str]:
    return [first, *(name for name in names if name != first and name not in without)]


def tried_cells(tried: Sequence[Mapping[str, Any]]) -> Table:
    """The mixture and each method that was tried: its share of the answer, accuracy and log-loss of held-out training images.

    Without held-out images nothing was tried: the note says so, and the one method of the answer has the only row.
    """

    def with_error(one: Mapping[str, Any], name: str, factor: int) -> str:
        if one[name] is None:
            return "–"
        digits = 1 if factor == 100 else 2
        return f"{factor * one[name]:.{digits}f} ± {factor * one[f'{name}_error']:.{digits}f}"

    cells = [
        [
            one["method"],
            "" if one["weight"] is None else number(one["weight"]),
            with_error(one, "accuracy", 100),
            with_error(one, "log_loss", 1),
        ]
        for one in tried
        if one["weight"] != 0 or was_compared(tried)
    ]
    notes = [TRIED, *dear_notes(tried)] if was_compared(tried) else [mixture_line(tried)]
    return Table(["tried", "share", "held-out accuracy", "held-out log-loss"], cells, notes=notes)


TRIED = (
    "Share of each method in the answer, in percent. Accuracy (percent) and log-loss are of training images that the method had "
    "not learned from, ± their standard error. They choose, beside what each method was worth on other datasets, which counts as "
    "some images more (setting prior); so they are no test result. The row without a share is the mixture, whose "
    "temperatures and shares were chosen anew for each part of the images, on the others; the temperature of a single method was "
    "chosen on the very images, which flatters its log-loss. A – marks what could not be measured."
)


WORDS = {"better": "worse", "worse": "better", "same": "the same", "unclear": "no clear difference", "unknown": "–"}
"""A row against the reported method, by the relation of the reported method to the row."""


def ranked_cells(comparison: Comparison) -> Table:
    """One row per method, the best first: the first measure, and the paired difference to the reported method."""
    ranked = sorted(comparison.rows, key=lambda row: -(comparison.value(row).value or 0.0))
    cells = [
        [
            row,
            percent(comparison.value(row)),
            percent(-comparison.difference(row), signed=True),
            WORDS[comparison.relation(row)],
        ]
        if row in comparison.differences
        else [row, percent(comparison.value(row)), "", "reported here"]
        for row in ranked
    ]
    return Table(
        ["method", TITLES[comparison.measure], f"difference to {comparison.method}", "in words"], cells, "lrrl"
    )


def class_cells(metrics: Metrics) -> Table:
    """One row per class."""
    cells = [
        [c.name, str(c.support), *(percent(getattr(c, column)) for column in CLASS_TITLES)] for c in metrics.classes
    ]
    return Table(["class", "test images", *CLASS_TITLES.values()], cells)
