"""The tables of an explanation, and their HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple


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
    parts = [f"<h3>{escape(heading)}</h3>", *_paragraphs(notes)]
    for table in tables:
        rows = [_row("th", table.columns, table.right), *(_row("td", row, table.right) for row in table.rows)]
        parts += [f"<table><caption>{escape(table.title)}</caption>", *rows, "</table>", *_paragraphs(table.notes)]
    return "\n".join(parts)


def _row(tag: str, cells: tuple[str, ...], right: int) -> str:
    sides = ["left"] * (len(cells) - right) + ["right"] * right
    return "<tr>{}</tr>".format(
        "".join(
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, cells, strict=True)
        )
    )


def _paragraphs(texts: Iterable[str]) -> list[str]:
    return [f"<p>{escape(text)}</p>" for text in texts]
