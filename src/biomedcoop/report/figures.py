"""Figures as PNG or PDF files whose bytes depend only on the numbers, among them the confusion matrix of a report."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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


def write_figure(draw: Callable[[Figure], None], size: tuple[float, float], *paths: Path) -> None:
    """Draw a figure with matplotlib's default settings and write it as PNG or PDF; equal drawings give equal bytes.

    Args:
        draw: function that draws on a figure.
        size: width and height, inches.
        paths: files to write, as PDF if they end in ``.pdf``, else as PNG; existing files are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The object interface with default settings: neither a user's matplotlibrc nor pyplot's state is read or changed.
    # Letters of type 42 stay text in a PDF, as journals ask for.
    with matplotlib.style.context(["default", {"pdf.fonttype": 42}]), warnings.catch_warnings():
        # the figure shows a box for a letter that the font lacks; a warning for each letter and file tells no more
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="compressed")
        FigureCanvasAgg(figure)
        draw(figure)
        for path in paths:
            content = io.BytesIO()
            # Without date and software's name the bytes change neither with the day nor with matplotlib's version number alone.
            kind = "pdf" if path.suffix == ".pdf" else "png"
            figure.savefig(content, format=kind, dpi=DPI, bbox_inches="tight", metadata=UNNAMED[kind])
            figure.set_layout_engine("none")  # the next file has the same layout
            write_atomically(path, content.getvalue())


def confusion_figure(metrics: Metrics, path: str | Path, title: str = "") -> None:
    """Draw the confusion matrix: colours show the share of each true class, cells show the (mean) number of images and percent.

    Args:
        metrics: metrics of one method on C classes.
        path: PNG file to write; an existing file is replaced.
        title: title above the matrix.

    Raises:
        UserError: the file cannot be written.
    """
    counts = np.array(metrics.confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    c = len(counts)
    names = [_short(name) for name in metrics.class_names]
    cell, font = (0.95, 9.0) if c <= 5 else (0.75, 7.5) if c <= 10 else (0.6, 7.0)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_facecolor("0.9")  # rows without test images
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            text = (
                f"{mean_count(counts[row, column], metrics.n_runs)}\n{100 * share:.0f} %"
                if counts[row, column]
                else "0"
            )
            text = "–" if np.isnan(share) else text
            colour = "white" if share > 0.62 else "black" if counts[row, column] else "0.6"
            axes.text(column, row, text, ha="center", va="center", fontsize=font, color=colour)
        crowded = max(len(line) for name in names for line in name.splitlines()) * font / 120 > cell
        # Names are not mathematics: a class may be called "$5".
        axes.set_xticks(
            range(c),
            names,
            rotation=45 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor" if crowded else "default",
            fontsize=font,
            parse_math=False,
        )
        axes.set_yticks(range(c), names, fontsize=font, parse_math=False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.set_xticks(np.arange(c + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(c + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        if title:
            axes.set_title(textwrap.fill(title, max(40, int(c * cell * 11))), fontsize=11, parse_math=False, pad=10)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / (c * cell)), aspect=20)
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
        bar.set_label("% of the true class")
        bar.outline.set_visible(False)

    write_figure(draw, (max(3.0, c * cell) + 2.6, max(2.2, c * cell) + 1.9), Path(path))


def _short(name: str) -> str:
    """Wrap a class name to at most three lines; a longer name is truncated."""
    return "\n".join(textwrap.wrap(name, _LABEL_WIDTH, max_lines=_LABEL_LINES, placeholder=" …", break_long_words=True))
