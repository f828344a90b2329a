"""Figures as PNG or PDF files whose bytes depend only on the numbers, among them the confusion matrix of a report."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.drawing import drawing, new_figure
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.evaluation.wording import mean_count
from biomedcoop.output import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
UNNAMED: Mapping[str, Mapping[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_LABEL_WIDTH, _LABEL_LINES = 20, 3
_BLUE = (0.12, 0.35, 0.72)


def write_figure(draw: Callable[[Figure], None], size: tuple[float, float], *paths: Path) -> None:
    """Draw a figure with matplotlib's default settings and write it as PNG or PDF; equal drawings give equal bytes.

    Args:
        draw: function that draws on a figure.
        size: width and height, inches.
        paths: files to write, as PDF if they end in ``.pdf``, else as PNG; existing files are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    with drawing({"pdf.fonttype": 42}):  # letters of type 42 stay text in a PDF, as journals ask for
        figure = drawn(draw, size)
        for path in paths:
            content = io.BytesIO()
            # Without date and software's name the bytes change neither with the day nor with matplotlib's version number alone.
            kind = "pdf" if path.suffix == ".pdf" else "png"
            figure.savefig(content, format=kind, dpi=DPI, bbox_inches="tight", metadata=UNNAMED[kind])
            figure.set_layout_engine("none")  # the next file has the same layout
            write_atomically(path, content.getvalue())


def drawn(draw: Callable[[Figure], None], size: tuple[float, float]) -> Figure:
    """A figure of a size in inches with the drawing of ``draw``; pyplot does not know it."""
    figure = new_figure(*size)
    draw(figure)
    return figure


def confusion_figure(metrics: Metrics, path: str | Path, title: str = "") -> None:
    """Write the confusion matrix as a PNG file; an existing file is replaced.

    Args:
        metrics: metrics of one method on C classes.
        path: PNG file to write.
        title: title above the matrix.

    Raises:
        UserError: the file cannot be written.
    """
    write_figure(lambda figure: draw_confusion(figure, metrics, title), confusion_size(metrics), Path(path))


def confusion_size(metrics: Metrics) -> tuple[float, float]:
    """Width and height of a confusion matrix, inches."""
    c = len(metrics.classes)
    return max(3.0, c * _cell(c)[0]) + 1.9, max(2.2, c * _cell(c)[0]) + 1.6


def draw_confusion(figure: Figure, metrics: Metrics, title: str = "") -> None:
    """The confusion matrix: colours show the share of each true class, cells show the (mean) number of images and percent."""
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.array(metrics.confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    c = len(counts)
    names = [_short(name) for name in metrics.class_names]
    cell, font = _cell(c)
    axes = figure.add_subplot()
    # the paper shows through where the share is small: the figure is readable on white and on dark paper
    clear = LinearSegmentedColormap.from_list("shares", [(*_BLUE, 0.04), (*_BLUE, 1.0)])
    axes.pcolormesh(shares, cmap=clear, vmin=0, vmax=1, edgecolors="none")
    for (row, column), share in np.ndenumerate(shares):
        text = f"{mean_count(counts[row, column], metrics.n_runs)}\n{100 * share:.0f} %" if counts[row, column] else "0"
        text = "–" if np.isnan(share) else text
        letters = {"color": "white"} if _needs_white(clear(share)) else {} if counts[row, column] else {"alpha": 0.6}
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=font, **letters)
    crowded = max(len(line) for name in names for line in name.splitlines()) * font / 120 > cell
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    middles = np.arange(c) + 0.5
    # Names are not mathematics: a class may be called "$5".
    axes.set_xticks(middles, names, fontsize=font, parse_math=False, **turned)
    axes.set_yticks(middles, names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(textwrap.fill(title, max(40, int(c * cell * 11))), fontsize=11, parse_math=False, pad=10)


def _needs_white(cell: tuple[float, ...]) -> bool:
    """Whether white letters have more contrast than black ones on a colour (red, green, blue, opacity) over white paper.

    The contrast is (L + 0.05) / (l + 0.05) of the relative luminances (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio): of black
    and white, the better one has at least 4.5. On dark paper, where the other letters are white too, all cells are darker.
    """
    over_white = cell[3] * np.array(cell[:3]) + 1 - cell[3]
    linear = np.where(over_white <= 0.04045, over_white / 12.92, ((over_white + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05


def _cell(classes: int) -> tuple[float, float]:
    """Edge of a cell in inches, and size of its letters in points."""
    return (0.95, 9.0) if classes <= 5 else (0.75, 7.5) if classes <= 10 else (0.6, 7.0)


def _short(name: str) -> str:
    """Wrap a class name to at most three lines; a longer name is truncated."""
    return "\n".join(textwrap.wrap(name, _LABEL_WIDTH, max_lines=_LABEL_LINES, placeholder=" …", break_long_words=True))
