"""A table open for reading, in any file format: named columns, one row at a time, every cell as text."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.data.names import fold
from biomedcoop.errors import UserError

Row = tuple[str, tuple[str, ...]]
"""Place of a row in its file ("line 4", in Parquet "row 3") and the cells of the requested columns."""

EDGES = (
    "".join(filter(str.isspace, map(chr, range(0x3001))))
    + "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
)
"""Characters that are removed at both ends of a cell: blanks and invisible marks."""


@dataclass(frozen=True)
class Table:
    """A table open for reading: its columns are known, and its rows can be read one by one, any number of times.

    Attributes:
        file: path of the table.
        columns: names in the order of the header; a column without a name has "".
    """

    file: Path
    columns: tuple[str, ...]
    _rows: Callable[[Sequence[int]], Iterator[Row]]

    def find(self, name: str) -> int | None:
        """Position of the column called ``name``, or None; case, blanks, ``_`` and hyphens make no difference.

        Raises:
            UserError: two columns have this name.
        """
        found = [position for position, column in enumerate(self.columns) if column_key(column) == column_key(name)]
        if len(found) > 1:
            names = " and ".join(repr(self.columns[position]) for position in found[:2])
            raise UserError(f"{self.file}: a column name appears twice ({names}); rename one")
        return found[0] if found else None

    def require(self, name: str, expected: str, other_names: Sequence[str] = ()) -> int:
        """Position of the column ``name``.

        Args:
            expected: columns of such a table, for the message.
            other_names: common other names of this column; the message suggests one that the table has.

        Raises:
            UserError: no column or two columns have this name.
        """
        position = self.find(name)
        if position is not None:
            return position
        present = {column_key(column): column for column in self.columns if column}
        similar = [column_key(other) for other in other_names if column_key(other) in present]
        similar += difflib.get_close_matches(column_key(name), list(present), n=1, cutoff=0.65)
        hint = f"; if {present[similar[0]]!r} is meant, rename it to {name}" if similar else ""
        named = ", ".join(present.values()) or "nothing"
        named = named if len(named) <= 160 else named[:160].rsplit(" ", 1)[0] + " …"
        raise UserError(f"{self.file}: no column {name!r} (it has {named}){hint}; expected {expected}")

    def rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """The rows, with the cells of the columns at ``positions``; memory does not grow with the table.

        Raises:
            UserError: a row cannot be read; the message names the row.
        """
        return self._rows(positions)


def check_one_line(file: Path, place: str, column: str, cell: str) -> None:
    """Raise if a cell has several lines: a missing quote joins several rows into one cell."""
    if "\n" in cell or "\r" in cell:
        raise UserError(f"{file}: {place} has a line break in its {column}; close the quote, or remove the line break")


def same_column(one: str, other: str) -> bool:
    """Whether two names mean the same column; case, blanks, ``_`` and hyphens make no difference."""
    return column_key(one) == column_key(other)


def column_key(column: str) -> str:
    """The comparison key of a column name: two spellings of one name have the same key."""
    return fold(column).replace(" ", "")
