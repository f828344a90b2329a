"""A table that is open for reading, whatever its file: named columns, a row at a time, every cell as text."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.data.names import fold
from biomedcoop.errors import UserError

Row = tuple[str, tuple[str, ...]]
"""Where a row is in its file ("line 4", in Parquet "row 3") and the cells of the columns that were asked for."""

EDGES = (
    "".join(filter(str.isspace, map(chr, range(0x3001))))
    + "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
)
"""Characters that are dropped at both ends of a cell: blanks, and marks that nobody sees."""


@dataclass(frozen=True)
class Table:
    """A table that is open for reading: its columns are known, its rows come one by one, as often as they are asked for.

    Attributes:
        file: where it is.
        columns: names in the order of the header; a column without a name has "".
    """

    file: Path
    columns: tuple[str, ...]
    _rows: Callable[[Sequence[int]], Iterator[Row]]

    def find(self, name: str) -> int | None:
        """Position of the column that goes by ``name`` (case, blanks, ``_`` and hyphens make no difference), if there is one.

        Raises:
            UserError: there are two.
        """
        found = [position for position, column in enumerate(self.columns) if column_key(column) == column_key(name)]
        if len(found) > 1:
            names = " and ".join(repr(self.columns[position]) for position in found[:2])
            raise UserError(f"{self.file}: a column name appears twice ({names}); rename one")
        return found[0] if found else None

    def require(self, name: str, expected: str, other_names: Sequence[str] = ()) -> int:
        """Position of the column ``name``.

        Args:
            expected: the columns that such a table has, for the message.
            other_names: what people often call this column; one that is there is suggested, never taken.

        Raises:
            UserError: there is no such column, or two.
        """
        position = self.find(name)
        if position is not None:
            return position
        there = {column_key(column): column for column in self.columns if column}
        near = [column_key(other) for other in other_names if column_key(other) in there]
        near += difflib.get_close_matches(column_key(name), list(there), n=1, cutoff=0.65)
        meant = f"; if {there[near[0]]!r} is meant, rename it to {name}" if near else ""
        named = ", ".join(there.values()) or "nothing"
        named = named if len(named) <= 160 else named[:160].rsplit(" ", 1)[0] + " …"
        raise UserError(f"{self.file}: no column {name!r} (it has {named}){meant}; expected {expected}")

    def rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """The rows, with the cells of the columns at ``positions``; memory does not grow with the table.

        Raises:
            UserError: a row that cannot be read; the line names it.
        """
        return self._rows(positions)


def check_one_line(file: Path, place: str, column: str, cell: str) -> None:
    """Raise if a cell goes over several lines, which a forgotten quote makes of several rows."""
    if "\n" in cell or "\r" in cell:
        raise UserError(f"{file}: {place} has a line break in its {column}; close the quote, or remove the line break")


def same_column(one: str, other: str) -> bool:
    """Whether two names are those of one column; case, blanks, ``_`` and hyphens make no difference."""
    return column_key(one) == column_key(other)


def column_key(column: str) -> str:
    """What the spellings of one column's name have in common."""
    return fold(column).replace(" ", "")
