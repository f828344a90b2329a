"""A table whose cells are scores, differences, p-values or text, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from biomedcoop.benchmark.differences import Corrected, Difference
from biomedcoop.benchmark.scores import Score
from biomedcoop.benchmark.statistics import ALPHA
from biomedcoop.benchmark.tables.latex import Escape, escape, float_table
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.report.table import Table

Cell = str | int | float | None | Score | Estimate | Corrected | Difference


class Mark(Enum):
    """How a cell stands out."""

    NONE, BEST, SECOND = range(3)


_MARKDOWN = {Mark.NONE: "{}", Mark.BEST: "**{}**", Mark.SECOND: "<ins>{}</ins>"}
_LATEX = {Mark.NONE: "{}", Mark.BEST: r"\textbf{{{}}}", Mark.SECOND: r"\underline{{{}}}"}


@dataclass(frozen=True)
class ResultTable:
    """A table of results.

    Attributes:
        name: name of its files, without ending.
        title: what it shows, as a heading.
        columns: names of the columns.
        rows: cells of each row. The best score of a column is bold, the second is underlined, and p-values below 0.05 are bold.
        notes: sentences below the table.
        texts: number of columns at the left that hold text.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    texts: int = 1

    def markdown(self) -> str:
        """The table with its notes, for ``report.md``."""
        cells = [[self._text(r, c, _MARKDOWN, r"\*") for c in range(len(self.columns))] for r in range(len(self.rows))]
        columns, cells = [_plain(name) for name in self.columns], [[_plain(text) for text in row] for row in cells]
        return Table(columns, cells, self._align(), self.notes).markdown()

    def latex(self) -> str:
        """The table as a LaTeX float; the document loads the package booktabs."""
        rows = [
            [self._text(r, c, _LATEX, "*", escape) for c in range(len(self.columns))] for r in range(len(self.rows))
        ]
        return float_table(self.name, self.title, self.columns, rows, self._align(), self.notes)

    def csv(self) -> str:
        """The table as CSV: unrounded percent, and a column each for mean, standard deviation, ends of an interval and p-value."""
        columns: list[list[object]] = []
        for place, name in enumerate(self.columns):
            cells = [row[place] for row in self.rows]
            columns += _csv_columns(name, cells)
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(zip(*columns, strict=True))
        return file.getvalue()

    def mark(self, row: int, column: int) -> Mark:
        """Best or second of the column; scores that look equal count as equal, and where all are equal none is marked."""
        score = self.rows[row][column]
        if not isinstance(score, Score) or score.mean is None or not score.complete:
            return Mark.NONE
        shown = {_rounded(cells[column]) for cells in self.rows} - {None}
        ordered = sorted((value for value in shown if value is not None), reverse=True)
        place = ordered.index(round(100 * score.mean, 2))
        return Mark.NONE if len(ordered) < 2 else (Mark.BEST, Mark.SECOND)[place] if place < 2 else Mark.NONE

    def _align(self) -> str:
        return "l" * self.texts + "r" * (len(self.columns) - self.texts)

    def _text(self, row: int, column: int, marks: dict[Mark, str], star: str, quote: Escape = lambda text: text) -> str:
        value = self.rows[row][column]
        if isinstance(value, Score):
            if value.mean is None:
                return quote(value.absent or "–")
            mean = marks[self.mark(row, column)].format(f"{100 * value.mean:.2f}")
            spread = "" if value.std is None else quote(f" ± {100 * value.std:.2f}")
            return f"{mean}{spread}{'' if value.complete else star}"
        if isinstance(value, Corrected):
            if value.holm is None:
                return quote("–")
            text = quote(f"{value.holm:.3f}" if value.holm >= 0.001 else "<0.001")
            return marks[Mark.BEST if below(value) else Mark.NONE].format(text)
        if isinstance(value, Difference):
            sure = Mark.BEST if below(value.images) else Mark.NONE
            points = marks[sure].format(quote(number(value.over_images.value or 0.0, signed=True)))
            sign = quote("†") if below(value.images) and below(value.signed_rank) else ""
            return f"{points}{sign}{'' if value.complete else star}"
        if isinstance(value, Estimate):
            return quote(percent(value, signed=True))
        if isinstance(value, float):
            return f"{value:.2f}"
        return quote("–" if value is None else f"{value:,}" if isinstance(value, int) else value)


def below(p: Corrected) -> bool:
    """Whether a corrected p-value is below 0.05."""
    return p.holm is not None and p.holm < ALPHA


def _rounded(cell: Cell) -> float | None:
    ranked = isinstance(cell, Score) and cell.mean is not None and cell.complete
    return round(100 * cell.mean, 2) if ranked else None  # type: ignore[union-attr, operator]


def _plain(text: str) -> str:
    """Text that does not end a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ")


def _csv_columns(name: str, cells: Sequence[Cell]) -> list[list[object]]:
    def column(head: str, values: Sequence[float | None], digits: int = 4, factor: int = 100) -> list[object]:
        return [head, *("" if v is None else round(factor * v, digits) for v in values)]

    if any(isinstance(cell, Score) for cell in cells):
        scores = [cell if isinstance(cell, Score) else Score(None) for cell in cells]
        return [column(name, [s.mean for s in scores]), column(f"{name} std", [s.std for s in scores])]
    if any(isinstance(cell, Difference) for cell in cells):
        cells = [cell.over_images if isinstance(cell, Difference) else None for cell in cells]
    if any(isinstance(cell, Estimate) for cell in cells):
        found = [cell if isinstance(cell, Estimate) else Estimate(None, None, None) for cell in cells]
        ends = [column(f"{name} {end}", [getattr(e, end) for e in found]) for end in ("low", "high")]
        return [column(name, [e.value for e in found]), *ends]
    if any(isinstance(cell, Corrected) for cell in cells):
        p = [cell if isinstance(cell, Corrected) else Corrected(None) for cell in cells]
        return [column(name, [c.raw for c in p], 6, 1), column(f"{name} Holm", [c.holm for c in p], 6, 1)]
    return [[name, *("" if cell is None else cell for cell in cells)]]
