"""Critical-difference diagram: average ranks, with lines over methods that are not told apart (Demšar, 2006, section 3.2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.benchmark.figures.style import NORMAL, SMALL
from biomedcoop.benchmark.ranking import Ranking
from biomedcoop.benchmark.statistics import LEAST_DATASETS
from biomedcoop.report.figures import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEP = 0.24
"""Height of a line of text, inches."""


def rank_figure(ranking: Ranking, title: str, paths: Sequence[Path]) -> None:
    """Draw the diagram: best ranks at the left, names at both sides, thick lines over cliques.

    Raises:
        ValueError: the ranking has no critical difference (too few datasets).
    """
    ranks, critical = ranking.ranks, ranking.ranks.critical_difference
    if critical is None:
        raise ValueError(f"a critical-difference diagram needs at least {LEAST_DATASETS} datasets")
    k = len(ranks.ranks)
    order = sorted(range(k), key=lambda n: ranks.ranks[n])
    left, right = order[: (k + 1) // 2], order[(k + 1) // 2 :][::-1]
    cliques = ranks.cliques()
    first_name = 0.3 + 0.12 * len(cliques)
    depth = first_name + _STEP * len(left)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_ylim(-depth, 0.75)
        axes.set_xlim(1 - 0.55 * (k - 1), k + 0.55 * (k - 1))
        axes.plot([1, k], [0, 0], color="black", linewidth=1)
        for tick in range(1, k + 1):
            axes.plot([tick, tick], [0, 0.07], color="black", linewidth=1)
            axes.text(tick, 0.1, str(tick), ha="center", va="bottom", fontsize=SMALL)
        for names, end, side in ((left, 1 - 0.08 * (k - 1), "right"), (right, k + 0.08 * (k - 1), "left")):
            for line, n in enumerate(names):
                rank, height = ranks.ranks[n], -first_name - _STEP * line
                axes.plot([rank, rank, end], [0, height, height], color="black", linewidth=0.8)
                text = (
                    f"{ranking.rows[n].name}  {rank:.2f}" if side == "right" else f"{rank:.2f}  {ranking.rows[n].name}"
                )
                gap = -0.02 * k if side == "right" else 0.02 * k
                axes.text(end + gap, height, text, ha=side, va="center", fontsize=NORMAL, parse_math=False)
        for line, (low, high) in enumerate(cliques):
            height = -0.14 - 0.12 * line
            axes.plot([low - 0.03, high + 0.03], [height, height], color="#0072B2", linewidth=4, solid_capstyle="round")
        shown = min(critical, k - 1)
        axes.plot([1, 1 + shown], [0.45, 0.45], color="black", linewidth=1.5, marker="|", markersize=7)
        more = " (beyond the axis)" if critical > shown else ""
        axes.text(
            1 + shown / 2, 0.5, f"critical difference {critical:.2f}{more}", ha="center", va="bottom", fontsize=SMALL
        )
        axes.set_title(title, fontsize=NORMAL, parse_math=False)

    write_figure(draw, (7.2, depth + 1.2), *paths)
