"""The look of the figures: each method has a colour, a marker and a line of its own, so that grey print tells them apart too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.benchmark.results import TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2
"""Width of a figure that spans a page, inches."""

SMALL, NORMAL = 7.5, 9.0
"""Sizes of letters, points."""

# Okabe & Ito, "Color universal design" (2008), without yellow, which is too light on paper
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A4E9F", "#555555")
_MARKERS = "osD^vPX<>ph*"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "++")


@dataclass(frozen=True)
class Look:
    """How a row is drawn."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    hatch: str
    width: float
    front: int


def looks(rows: Sequence[TableRow], reference: str | None) -> dict[TableRow, Look]:
    """A look for each row; the reference is black, solid, thick and in front."""
    others = [row for row in rows if row.name != reference]
    found = {
        row: Look(
            colour=_COLOURS[n % len(_COLOURS)],
            marker=_MARKERS[n % len(_MARKERS)],
            line=_LINES[(n + n // len(_COLOURS)) % len(_LINES)],
            hatch=_HATCHES[(n + n // len(_COLOURS)) % len(_HATCHES)],
            width=1.2,
            front=2,
        )
        for n, row in enumerate(others)
    }
    black = Look("black", "*", "-", "", 2.0, 3)
    return {row: found.get(row, black) for row in rows}


def tidy_axes(axes: Axes, title: str = "") -> None:
    """Grid, small letters and no frame at the top and right; names are not mathematics."""
    axes.grid(color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=NORMAL, parse_math=False)
