"""The tables of an explanation, and their HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from biomedcoop.notebook import html_table, paragraphs


class Table(NamedTuple):
    """A table of text cells.

    Attributes:
        title: what the table shows.
        columns: names of the columns.
        rows: cells of each row, one per column.
        right: number of the last columns that hold numbers, which are aligned to the right.
        notes: sentences below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: int
    notes: tuple[str, ...] = ()


def html_of(heading: str, tables: Iterable[Table], notes: Iterable[str] = ()) -> str:
    """A fragment of HTML: a heading, paragraphs, and the tables; every text is escaped."""
    parts = [f"<h3>{escape(heading)}</h3>", paragraphs(notes)]
    for table in tables:
        parts += [html_table(table.columns, table.rows, table.right, table.title), paragraphs(table.notes)]
    return "\n".join(parts)
