"""The results of a run on the terminal: the verdict, then the tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.cli.console import print_table, print_verdict

if TYPE_CHECKING:
    from biomedcoop.report.run import RunReport


def print_run_report(report: RunReport) -> None:
    """Print the results of a training or an evaluation on stdout."""
    from biomedcoop.report.terminal import (
        calibration_table,
        class_table,
        comparison_table,
        coverage_table,
        ranked_table,
        spread_table,
        subgroup_table,
        tried_table,
    )

    print_verdict(report.verdict)
    simulated = " (simulated images)" if report.dataset.simulated else ""
    n = report.metrics.n_images
    which = f"all {n} images" if report.split == "all" else f"{n} {report.split} images"
    print_table(comparison_table(report.rows, f"{report.dataset.name}{simulated}: {which}"))
    if len(report.comparison.others) > 1:
        print_table(ranked_table(report.comparison, "the same methods, the best first"))
    if report.comparison.by_run:
        print_table(spread_table(report.comparison, f"mean ± standard deviation over the {report.comparison.runs}"))
    if report.tried:
        print_table(tried_table(report.tried, f"what {report.who_tried}"))
    print_table(class_table(report.metrics, f"{report.method}, by class"))
    if report.comparison.calibration is not None:
        print_table(calibration_table(report.comparison.calibration, f"{report.method}, calibration"))
    if report.comparison.coverage is not None:
        print_table(coverage_table(report.comparison.coverage, f"{report.method}, prediction sets"))
    if report.comparison.subgroups is not None:
        print_table(subgroup_table(report.comparison.subgroups, f"{report.method}, by subgroup"))


def print_place(folder: Path) -> None:
    """Print where the report of a folder is: the page, or the summary where there is none."""
    page = folder / "report.html"
    print(f"report: {page if page.is_file() else folder / 'report.md'}")
