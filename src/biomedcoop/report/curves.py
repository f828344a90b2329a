"""Figures of a run's report: intervals, ROC and precision-recall curves, reliability diagram, learning curve.

Each function draws on an empty matplotlib figure. Colours are readable on white and on dark paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.drawing import drawing
from biomedcoop.errors import UserError, nearest
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.comparison import Comparison
from biomedcoop.evaluation.curves import OperatingPoint, Reliability, precision_recall_curve, reliability, roc_curve
from biomedcoop.evaluation.learning_curve import LearningCurve
from biomedcoop.evaluation.metrics import TITLES, ClassMetrics
from biomedcoop.report.figures import confusion_size, draw_confusion, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#3b82f6", "#e8710a", "#12a26f", "#c026d3", "#b58900", "#e5484d")
TOGETHER, SQUARES = len(COLOURS), 4
"""Most classes whose curves share one square, and squares in a row if there are more."""

GUIDE = "#8a8f98"
"""Grey of lines for comparison, readable on white and on dark paper."""


Floats = npt.NDArray[np.floating[Any]]

Drawing = tuple[Callable[["Figure"], None], tuple[float, float]]
"""A function that draws on an empty figure, and the figure's width and height in inches."""


def drawings(comparison: Comparison, points: Sequence[OperatingPoint] = ()) -> dict[str, Drawing]:
    """The figures of a comparison by name; ``points`` are shown in the ROC curves."""
    metrics, classes = comparison.metrics, len(comparison.metrics.classes)
    found: dict[str, Drawing] = {
        "intervals": (partial(draw_intervals, comparison=comparison), (6.2, 0.9 + 0.5 * len(comparison.rows))),
        "confusion": (partial(draw_confusion, metrics=metrics), confusion_size(metrics)),
        "reliability": (partial(draw_reliability, comparison=comparison), (4.6, 4.6)),
        "roc": (partial(draw_roc, comparison=comparison, points=points), curves_size(classes)),
        "precision-recall": (partial(draw_precision_recall, comparison=comparison), curves_size(classes)),
    }
    if comparison.calibration is not None:
        found["reliability-before"] = partial(draw_diagram, diagram=comparison.calibration.before), (4.6, 4.6)
    return found


def figure_of(comparison: Comparison, name: str) -> Figure:
    """A figure of :func:`drawings` with matplotlib's default settings.

    Raises:
        UserError: there is no such figure.
    """
    known = drawings(comparison)
    if name not in known:
        raise UserError(f"no figure '{name}'; {nearest(name, known)}")
    with drawing():
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
    curves = []
    for found, scores, labels in _by_class(comparison):
        dots = [(1 - _value(found.specificity), _value(found.sensitivity))]
        rings = [(1 - one.specificity, _value(one.sensitivity)) for one in points if one.name == found.name]
        curves.append(Curve(found.name, *roc_curve(scores, labels), dots, rings))
    _draw_curves(figure, curves, "1 − specificity, %", "sensitivity, %", diagonal=True)


def draw_precision_recall(figure: Figure, comparison: Comparison) -> None:
    """The precision-recall curve of each class against the rest; dots: the classifier's answers."""
    curves = []
    for found, scores, labels in _by_class(comparison):
        dots = [(_value(found.sensitivity), _value(found.precision))]
        curves.append(Curve(found.name, *precision_recall_curve(scores, labels), dots))
    _draw_curves(figure, curves, "sensitivity (recall), %", "precision, %")


def draw_reliability(figure: Figure, comparison: Comparison) -> None:
    """Share of correct answers by their probability with Wilson's interval, and below it how many answers each bin has."""
    p = comparison.predictions
    draw_diagram(figure, reliability(p.runs(p.method), p.labels, folds=p.folds))


def draw_diagram(figure: Figure, diagram: Reliability) -> None:
    """A reliability diagram, and below it how many answers each bin has."""
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


class Curve(NamedTuple):
    """A curve of one class in a unit square, with places to mark; a place with nan is not shown.

    Attributes:
        name: class name.
        x, y: shares, [n]; empty if the curve is not defined.
        dots, rings: (x, y) of filled and of open marks.
    """

    name: str
    x: Floats
    y: Floats
    dots: Sequence[tuple[float, float]]
    rings: Sequence[tuple[float, float]] = ()


def _by_class(comparison: Comparison) -> Iterator[tuple[ClassMetrics, Floats, npt.NDArray[np.bool_]]]:
    """Of each class: its metrics, its probabilities [runs, N], and which images have it [N]."""
    p = comparison.predictions
    probabilities = p.runs(p.method)
    for k, found in enumerate(comparison.metrics.classes):
        yield found, probabilities[:, :, k], p.labels == k


def _value(estimate: Estimate) -> float:
    """The value of an estimate; nan if it has none."""
    return float("nan") if estimate.value is None else estimate.value


def curves_size(classes: int) -> tuple[float, float]:
    """Width and height of a figure of curves, inches: one square, or small ones in rows for many classes."""
    if classes <= TOGETHER:
        return 4.6, 4.9
    return 2.1 * SQUARES + 0.4, 2.35 * -(-classes // SQUARES) + 0.4


def _draw_curves(figure: Figure, curves: Sequence[Curve], x: str, y: str, *, diagonal: bool = False) -> None:
    """Curves in one square; of many classes, each in a square of its own with the others in grey behind it."""
    together = len(curves) <= TOGETHER
    columns = 1 if together else SQUARES
    squares = figure.subplots(1 if together else -(-len(curves) // columns), columns, squeeze=False).ravel()
    for axes in squares:
        axes.set(xlim=(-1, 101), ylim=(-1, 101), aspect="equal")
        _bare(axes, "both")
        if diagonal:
            axes.plot([0, 100], [0, 100], color=GUIDE, linewidth=0.8, linestyle=":")
    if together:
        axes = squares[0]
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        named = {}
        for curve, colour in zip(curves, COLOURS, strict=False):
            if len(curve.x):
                named[curve.name] = _draw_curve(axes, curve, colour)
        _legend(axes, named)
        return
    figure.supxlabel(x, fontsize="medium")
    figure.supylabel(y, fontsize="medium")
    for axes, curve in zip(squares, curves, strict=False):
        for other in curves:
            axes.plot(100 * other.x, 100 * other.y, color=GUIDE, linewidth=0.6, alpha=0.45)
        _draw_curve(axes, curve, COLOURS[0])
        axes.set_title(textwrap.fill(curve.name, 24, max_lines=2, placeholder=" …"), fontsize=9, parse_math=False)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.tick_params(labelsize=8)
    for axes in squares[len(curves) :]:
        axes.remove()


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> Line2D:
    (line,) = axes.plot(100 * curve.x, 100 * curve.y, color=colour)
    for place in curve.dots:
        axes.plot(100 * place[0], 100 * place[1], "o", color=colour, markersize=6)
    for place in curve.rings:
        axes.plot(
            100 * place[0], 100 * place[1], "o", color=colour, markersize=8, fillstyle="none", markeredgewidth=1.6
        )
    return line


def _whisker(
    axes: Axes, value: float, place: float, estimate: Estimate, colour: str, own: bool, *, upright: bool = False
) -> None:
    """A value with its interval, lying at height ``place`` or upright at x ``place``."""
    if estimate.low is not None and estimate.high is not None:
        ends = [100 * estimate.low, 100 * estimate.high]
        axes.plot(*([place] * 2, ends) if upright else (ends, [place] * 2), color=colour, linewidth=2 if own else 1.5)
    axes.plot(*(place, value) if upright else (value, place), "o", color=colour, markersize=6 if own else 5)


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
