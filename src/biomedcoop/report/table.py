"""A table of text cells and its Markdown form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARKS = {"l": "---", "r": "---:", "c": ":---:"}


@dataclass(frozen=True)
class Table:
    """A table with a header, rows and notes below.

    Attributes:
        columns: names of the columns.
        rows: cells of each row, one per column; ``str`` turns them into text.
        align: "l", "r" or "c" for each column; by default the first column is left-aligned, the others right-aligned.
        notes: sentences below the table.
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
