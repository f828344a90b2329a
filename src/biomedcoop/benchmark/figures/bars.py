"""Methods by backbone, and variants of a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.benchmark.figures.style import NORMAL, SMALL, WIDTH, looks, tidy_axes
from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import Measure, average, described, drawable
from biomedcoop.report.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def backbone_figure(results: BenchmarkResults, measure: Measure, paths: Sequence[Path]) -> None:
    """A group of bars for each backbone, a bar for each method, a panel for each drawable collection (the paper's Figure 2)."""
    methods = list(dict.fromkeys((row.method, row.variant) for row in results.rows))
    style = looks([TableRow("", *method) for method in methods], results.reference)
    panels = drawable(results, results.rows, [measure])
    width = 0.8 / len(methods)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, over) in zip(grid, panels.items(), strict=True):
            for number, method in enumerate(methods):
                look = style[TableRow("", *method)]
                scores = [
                    average(results, TableRow(backbone, *method), over, measure) for backbone in results.backbones
                ]
                known = [(place, s) for place, s in enumerate(scores) if s.mean is not None and s.complete]
                axes.bar(
                    [place + (number - (len(methods) - 1) / 2) * width for place, _ in known],
                    [100 * (s.mean or 0) for _, s in known],
                    width * 0.92,
                    yerr=[100 * (s.std or 0) for _, s in known],
                    color="0.35" if look.colour == "black" else look.colour,
                    hatch=look.hatch,
                    edgecolor="white",
                    linewidth=0.4,
                    error_kw={"elinewidth": 0.8, "capsize": 1.5},
                    label=TableRow("", *method).name,
                )
            axes.set_ylabel("accuracy, %", fontsize=NORMAL)
            tidy_axes(axes, f"mean of {name}, {described(results, measure)}")
            axes.grid(visible=False, axis="x")
        grid[-1].set_xticks(range(len(results.backbones)), list(results.backbones), parse_math=False)
        handles, labels = grid[0].get_legend_handles_labels()
        if handles:
            columns = min(4, len(labels))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)

    write_figure(draw, (WIDTH, 2.3 * len(panels) + 0.5 + 0.2 * (len(methods) // 4)), *paths)


def variant_figure(
    results: BenchmarkResults, rows: Sequence[TableRow], measure: Measure, paths: Sequence[Path]
) -> None:
    """A point for each variant and its method, with the standard deviation over seeds, a panel for each collection.

    Points and not bars, because the axis does not start at 0.
    """
    panels = drawable(results, rows, [measure])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (name, over) in zip(grid, panels.items(), strict=True):
            for place, row in enumerate(rows):
                score = average(results, row, over, measure)
                if score.mean is None or not score.complete:
                    continue
                mean, spread = 100 * score.mean, 100 * (score.std or 0)
                colour, marker = ("black", "*") if row.variant is None else ("#0072B2", "o")
                axes.errorbar(
                    mean, place, xerr=spread, color=colour, marker=marker, markersize=6, capsize=2, linewidth=1
                )
                axes.annotate(
                    f"{mean:.1f}",
                    (mean + spread, place),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALL,
                )
                if row.variant is None:
                    axes.axvline(mean, color="0.6", linestyle=":", linewidth=1)
            axes.margins(x=0.18)
            axes.set_xlabel("accuracy, %", fontsize=NORMAL)
            tidy_axes(axes, f"mean of {name}, {described(results, measure)}")
        grid[0].set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
        grid[0].set_ylim(len(rows) - 0.5, -0.5)

    write_figure(draw, (WIDTH, 0.26 * len(rows) + 1.0), *paths)
