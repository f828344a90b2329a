"""A table of text cells, and how Markdown shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARKS = {"l": "---", "r": "---:", "c": ":---:"}


@dataclass(frozen=True)
class Table:
    """A header, the rows below it, and lines of text behind them.

    Attributes:
        columns: names of the columns.
        rows: cells, as many as columns in each row; text, or what ``str`` shows.
        align: "l", "r" or "c" for each column; by default the first is on the left, numbers are on the right.
        notes: sentences that belong to the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str = ""
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table with its notes, without a line break at the end."""
        marks = [MARKS[side] for side in self.align or "l" + "r" * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(map(str, row))} |" for row in (self.columns, marks, *self.rows)]
        return "\n".join(lines + [line for note in self.notes for line in ("", note)])
