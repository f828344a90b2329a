"""Curves: accuracy against images per class, and against the value of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.benchmark.figures.style import NORMAL, SMALL, WIDTH, looks, tidy_axes
from biomedcoop.benchmark.results import NO_SHOTS, BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import (
    Unit,
    average,
    collections,
    described,
    drawable,
    images_per_class,
    measures,
    units,
)
from biomedcoop.benchmark.sweeps import Sweep
from biomedcoop.report.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 10
"""Ratio of the largest value to the smallest above which the values of a setting are drawn at equal distances."""


def shots_figure(results: BenchmarkResults, rows: Sequence[TableRow], paths: Sequence[Path]) -> None:
    """Accuracy against images per class, a panel for the mean of each collection and for each dataset (the paper's Figure S1).

    Methods without training images stand at 0, and a thin line carries their level on. A mean that lacks datasets is not drawn.
    """
    style = looks(rows, results.reference)
    panels: list[tuple[str, Sequence[Unit]]] = [
        (f"mean of {name}", over) for name, over in collections(results).items() if len(over) > 1
    ]
    panels += [(unit.label, [unit]) for unit in units(results)]
    panels = [(title, over) for title, over in panels if any(points(results, row, over) for row in rows)]
    places = {NO_SHOTS: 0} | {shots: n for n, shots in enumerate(results.shots, start=1)}
    across = min(3, len(panels))
    down = ceil(len(panels) / across)

    def panel(axes: Axes, title: str, over: Sequence[Unit]) -> None:
        for row in rows:
            look = style[row]
            found = points(results, row, over)
            if not found:
                continue
            means = list(found.values())
            if _without_images(results, row, over):
                axes.plot(0, means[0], look.marker, color=look.colour, markersize=5, zorder=look.front, label=row.name)
                axes.axhline(means[0], color=look.colour, linestyle=look.line, linewidth=0.7, zorder=1)
                continue
            axes.plot(
                [places[shots] for shots in found],
                means,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                linewidth=look.width,
                markersize=6 if look.marker == "*" else 4,
                zorder=look.front,
                label=row.name,
            )
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.set_xlim(-0.4, len(places) - 0.6)
        tidy_axes(axes, title)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(down, across, squeeze=False)
        for axes, (title, over) in zip(grid.flat, panels, strict=False):
            panel(axes, title, over)
        for number, axes in enumerate(grid.flat):
            axes.set_visible(number < len(panels))
            if number % across == 0:
                axes.set_ylabel("accuracy, %", fontsize=NORMAL)
            if number + across >= len(panels):
                axes.set_xlabel(images_per_class(results), fontsize=NORMAL)
        _legend(figure, list(grid.flat[: len(panels)]))

    width = WIDTH if across > 1 else 4.2
    legend = 0.2 * ceil(len(rows) / 4)
    write_figure(draw, (width, (2.0 if across > 1 else 2.8) * down + 0.4 + legend), *paths)


def sweep_figure(results: BenchmarkResults, sweep: Sweep, paths: Sequence[Path]) -> None:
    """Accuracy against the value of one setting, a panel for each collection; on base-to-novel the paper's Figure S2."""
    columns = [measure for measure in measures(results) if not measure.of_means]
    panels = drawable(results, list(sweep.points.values()), columns)
    lines = [("black", "*", "-"), ("#D55E00", "o", "--"), ("#0072B2", "s", "-."), ("#009E73", "D", ":")]
    lines += [("#CC79A7", "^", "-"), ("#56B4E9", "v", "--"), ("#E69F00", "P", "-.")]

    wide = max(sweep.points) > WIDE * min(sweep.points)
    places = {x: float(number) if wide else x for number, x in enumerate(sweep.points)}

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, over) in zip(grid, panels.items(), strict=True):
            for number, measure in enumerate(reversed(columns)):
                colour, marker, line = lines[number % len(lines)]
                scores = {places[x]: average(results, row, over, measure) for x, row in sweep.points.items()}
                found = {x: s for x, s in scores.items() if s.mean is not None and s.complete}
                axes.errorbar(
                    list(found),
                    [100 * (s.mean or 0) for s in found.values()],
                    [100 * (s.std or 0) for s in found.values()],
                    color=colour,
                    marker=marker,
                    linestyle=line,
                    linewidth=1.3,
                    markersize=5,
                    capsize=2,
                    elinewidth=0.7,
                    label=described(results, measure),
                )
            axes.set_xlabel(f"{sweep.setting} of {sweep.method}", fontsize=NORMAL)
            tidy_axes(axes, f"mean of {name}" if len(over) > 1 else over[0].label)
            axes.set_xticks(list(places.values()), [f"{x:g}" for x in places])
        grid[0].set_ylabel("accuracy, %", fontsize=NORMAL)
        _legend(figure, list(grid))

    write_figure(draw, (min(WIDTH, 3.6 * len(panels)), 3.2), *paths)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        legend = figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=min(4, len(found)),
            fontsize=SMALL,
            frameon=False,
            handlelength=3,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _without_images(results: BenchmarkResults, row: TableRow, over: Sequence[Unit]) -> bool:
    runs = [run for unit in over for run in results.of(row, unit.dataset, results.shots[-1]).values()]
    return any(run.shots == NO_SHOTS for run in runs)


def points(results: BenchmarkResults, row: TableRow, over: Sequence[Unit]) -> dict[int, float]:
    """Shots -> accuracy in percent; a dataset counts whatever its seeds, the mean of several only if nothing is missing."""
    scores = {measure.shots: average(results, row, over, measure) for measure in measures(results)}
    return {
        shots: 100 * score.mean
        for shots, score in scores.items()
        if score.mean is not None and (len(over) == 1 or score.complete)
    }
