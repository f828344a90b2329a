"""Bars: methods by backbone, and variants of a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.benchmark.figures.style import NORMAL, SMALL, WIDTH, looks, tidy_axes
from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import Measure, average, collections
from biomedcoop.report.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def backbone_figure(results: BenchmarkResults, measure: Measure, paths: Sequence[Path]) -> None:
    """A group of bars for each backbone, a bar for each method, a panel for each collection (the paper's Figure 2)."""
    methods = list(dict.fromkeys((row.method, row.variant) for row in results.rows))
    style = looks([TableRow("", *method) for method in methods], results.reference)
    panels = collections(results)
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
            tidy_axes(axes, f"mean of {name}, {_what(results, measure)}")
            axes.grid(visible=False, axis="x")
        grid[-1].set_xticks(range(len(results.backbones)), list(results.backbones), parse_math=False)
        handles, labels = grid[0].get_legend_handles_labels()
        if handles:
            columns = min(4, len(labels))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)

    for path in paths:
        write_figure(draw, (WIDTH, 2.3 * len(panels) + 0.5 + 0.2 * (len(methods) // 4)), path)


def variant_figure(
    results: BenchmarkResults, rows: Sequence[TableRow], measure: Measure, paths: Sequence[Path]
) -> None:
    """A horizontal bar for each variant and its method, with the standard deviation over seeds, a panel for each collection."""
    panels = collections(results)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (name, over) in zip(grid, panels.items(), strict=True):
            scores = [average(results, row, over, measure) for row in rows]
            known = [(place, s) for place, s in enumerate(scores) if s.mean is not None and s.complete]
            means = [100 * (s.mean or 0) for _, s in known]
            colours = ["0.25" if rows[place].variant is None else "#56B4E9" for place, _ in known]
            spread = [100 * (s.std or 0) for _, s in known]
            bars = {"ecolor": "0.5", "error_kw": {"elinewidth": 0.8, "capsize": 2}}
            axes.barh([place for place, _ in known], means, 0.7, xerr=spread, color=colours, **bars)
            for (place, _), mean, std in zip(known, means, spread, strict=True):
                axes.text(mean + std, place, f" {mean:.1f}", va="center", fontsize=SMALL)
            if means:
                low, high = min(means), max(m + s for m, s in zip(means, spread, strict=True))
                margin = max(1.0, high - low)
                axes.set_xlim(max(0.0, low - margin), high + 0.35 * margin)
            axes.set_xlabel("accuracy, %", fontsize=NORMAL)
            tidy_axes(axes, f"mean of {name}, {_what(results, measure)}")
            axes.grid(visible=False, axis="y")
        grid[0].set_yticks(range(len(rows)), [row.variant or row.method for row in rows], parse_math=False)
        grid[0].set_ylim(len(rows) - 0.5, -0.5)

    for path in paths:
        write_figure(draw, (WIDTH, 0.26 * len(rows) + 1.0), path)


def _what(results: BenchmarkResults, measure: Measure) -> str:
    return measure.name if results.kind == "base-to-novel" else f"{measure.shots} images per class"
