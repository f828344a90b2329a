"""Figures of a run's report: intervals, ROC and precision-recall curves, reliability diagram, learning curve.

Each function draws on an empty matplotlib figure. Colours are readable on white and on dark paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.errors import UserError, nearest
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.comparison import Comparison
from biomedcoop.evaluation.curves import OperatingPoint, precision_recall_curve, reliability, roc_curve
from biomedcoop.evaluation.learning_curve import LearningCurve
from biomedcoop.evaluation.metrics import TITLES
from biomedcoop.report.figures import confusion_size, draw_confusion, drawing, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#3b82f6", "#e8710a", "#12a26f", "#c026d3", "#b58900", "#e5484d", "#0e9bb0", "#8b7355")
STYLES = ("-", "--", "-.", ":")
GUIDE = "#8a8f98"
"""Grey of lines for comparison, readable on white and on dark paper."""


Drawing = tuple[Callable[["Figure"], None], tuple[float, float]]
"""A function that draws on an empty figure, and the figure's width and height in inches."""


def drawings(comparison: Comparison, points: Sequence[OperatingPoint] = ()) -> dict[str, Drawing]:
    """The figures of a comparison by name; ``points`` are shown in the ROC curves."""
    metrics = comparison.metrics
    return {
        "intervals": (partial(draw_intervals, comparison=comparison), (6.2, 0.9 + 0.5 * len(comparison.rows))),
        "confusion": (partial(draw_confusion, metrics=metrics), confusion_size(metrics)),
        "reliability": (partial(draw_reliability, comparison=comparison), (4.6, 4.6)),
        "roc": (partial(draw_roc, comparison=comparison, points=points), (4.6, 4.9)),
        "precision-recall": (partial(draw_precision_recall, comparison=comparison), (4.6, 4.9)),
    }


def figure_of(comparison: Comparison, name: str) -> Figure:
    """A figure of :func:`drawings` with matplotlib's default settings.

    Raises:
        UserError: there is no such figure.
    """
    known = drawings(comparison)
    if name not in known:
        raise UserError(f"no figure '{name}'; {nearest(name, known)}")
    with drawing({}):
        return drawn(*known[name])


def draw_intervals(figure: Figure, comparison: Comparison) -> None:
    """The first measure of each method with its 95 % interval, the reported method on top."""
    axes = figure.add_subplot()
    rows = list(comparison.rows)[::-1]
    for place, row in enumerate(rows):
        estimate = comparison.value(row)
        own = row == comparison.method
        colour = COLOURS[0] if own else GUIDE
        if estimate.value is None:
            continue
        _whisker(axes, 100 * estimate.value, place, estimate, colour, own)
        axes.annotate(
            f"{100 * estimate.value:.1f}",
            (100 * estimate.value, place),
            (0, 7),
            textcoords="offset points",
            ha="center",
        )
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{TITLES[comparison.measure]}, % (line: 95 % interval)")
    _bare(axes, "x")


def draw_roc(figure: Figure, comparison: Comparison, points: Sequence[OperatingPoint] = ()) -> None:
    """The ROC curve of each class against the rest; dots: the classifier's answers, rings: the named specificity."""
    axes = _unit_square(figure, "1 − specificity, %", "sensitivity, %")
    axes.plot([0, 100], [0, 100], color=GUIDE, linewidth=0.8, linestyle=":")
    p = comparison.predictions
    named: dict[str, Line2D] = {}
    for k, (name, colour, style) in enumerate(_styles(comparison)):
        x, y = roc_curve(p.runs(p.method)[:, :, k], p.labels == k)
        if not len(x):
            continue
        (named[name],) = axes.plot(100 * x, 100 * y, color=colour, linestyle=style)
        found = comparison.metrics.classes[k]
        if found.specificity.value is not None and found.sensitivity.value is not None:
            axes.plot(
                100 * (1 - found.specificity.value), 100 * found.sensitivity.value, "o", color=colour, markersize=6
            )
        for point in points:
            if point.name == found.name and point.sensitivity.value is not None:
                place = 100 * (1 - point.specificity), 100 * point.sensitivity.value
                axes.plot(*place, "o", color=colour, markersize=8, fillstyle="none", markeredgewidth=1.6)
    _legend(axes, named)


def draw_precision_recall(figure: Figure, comparison: Comparison) -> None:
    """The precision-recall curve of each class against the rest; dots: the classifier's answers."""
    axes = _unit_square(figure, "sensitivity (recall), %", "precision, %")
    p = comparison.predictions
    named: dict[str, Line2D] = {}
    for k, (name, colour, style) in enumerate(_styles(comparison)):
        x, y = precision_recall_curve(p.runs(p.method)[:, :, k], p.labels == k)
        if not len(x):
            continue
        (named[name],) = axes.plot(100 * x, 100 * y, color=colour, linestyle=style)
        found = comparison.metrics.classes[k]
        if found.precision.value is not None and found.sensitivity.value is not None:
            axes.plot(100 * found.sensitivity.value, 100 * found.precision.value, "o", color=colour, markersize=6)
    _legend(axes, named)


def draw_reliability(figure: Figure, comparison: Comparison) -> None:
    """Share of correct answers by their probability with Wilson's interval, and below it how many answers each bin has."""
    p = comparison.predictions
    diagram = reliability(p.runs(p.method), p.labels)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 100], [0, 100], color=GUIDE, linewidth=0.8, linestyle=":")
    for x, estimate in zip(100 * diagram.confidence, diagram.right, strict=True):
        if estimate.value is not None:
            _whisker(axes, 100 * estimate.value, x, estimate, COLOURS[0], True, upright=True)
    axes.set(xlim=(0, 100), ylim=(0, 102))
    axes.set_ylabel("answers that are right, %")
    width = 100 * np.diff(diagram.edges)
    below.bar(100 * diagram.edges[:-1] + width / 2, diagram.images, 0.9 * width, color=COLOURS[0])
    below.set_xlabel("probability of the answer, %")
    below.set_ylabel("images")
    for each in (axes, below):
        _bare(each, "y")


def draw_learning_curve(figure: Figure, curve: LearningCurve) -> None:
    """Balanced accuracy by training images per class: a dot per classifier, the line of the means, and its continuation."""
    axes = figure.add_subplot()
    values = curve.values()
    for x, of_size in zip(curve.shots, values, strict=True):
        axes.plot([x] * len(of_size), 100 * of_size, "o", color=GUIDE, markersize=4)
    means = [100 * float(of_size.mean()) for of_size in values]
    axes.plot(curve.shots, means, color=COLOURS[0], marker="o")
    gain, more = curve.gain(curve.more), curve.shots[-1] + curve.more
    if gain.value is not None and gain.low is not None and gain.high is not None:
        ends = [means[-1] + 100 * change for change in (gain.low, gain.value, gain.high)]
        axes.plot([curve.shots[-1], more], [means[-1], ends[1]], color=COLOURS[0], linestyle="--")
        axes.fill_between(
            [curve.shots[-1], more],
            [means[-1], max(0, ends[0])],
            [means[-1], min(100, ends[2])],
            color=COLOURS[0],
            alpha=0.2,
        )
    axes.set_xscale("log", base=2)
    ticks = [*curve.shots, more]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training images per class")
    axes.set_ylabel("balanced accuracy, %")
    _bare(axes, "y")


def _styles(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Label, colour and line style of each class."""
    colours = cycle((colour, style) for style in STYLES for colour in COLOURS)
    return [(name, *next(colours)) for name in comparison.predictions.class_names]


def _whisker(
    axes: Axes, value: float, place: float, estimate: Estimate, colour: str, own: bool, *, upright: bool = False
) -> None:
    """A value with its interval, lying at height ``place`` or upright at x ``place``."""
    if estimate.low is not None and estimate.high is not None:
        ends = [100 * estimate.low, 100 * estimate.high]
        axes.plot(*([place] * 2, ends) if upright else (ends, [place] * 2), color=colour, linewidth=2 if own else 1.5)
    axes.plot(*(place, value) if upright else (value, place), "o", color=colour, markersize=6 if own else 5)


def _unit_square(figure: Figure, x: str, y: str) -> Axes:
    axes: Axes = figure.add_subplot()
    axes.set(xlim=(-1, 101), ylim=(-1, 101), aspect="equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _bare(axes, "both")
    return axes


def _bare(axes: Axes, grid: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)


def _legend(axes: Axes, named: Mapping[str, Any]) -> None:
    """Class names below the axes; they are not mathematics."""
    longest = max(map(len, named), default=0)
    legend = axes.legend(
        list(named.values()),
        list(named),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=1 if longest > 24 else 2 if longest > 10 else 3,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
