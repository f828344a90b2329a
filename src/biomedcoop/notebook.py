"""HTML fragments of values for a notebook; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def fragment(heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]], sentences: Iterable[str] = ()) -> str:
    """A heading, paragraphs and a table; the first column is aligned to the left, the others to the right."""
    return f"<h3>{escape(heading)}</h3>{paragraphs(sentences)}{html_table(columns, rows, len(columns) - 1)}"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: int, title: str = "") -> str:
    """A table.

    Args:
        right: number of the last columns that are aligned to the right.
        title: a caption, if there is one.
    """
    sides = ["left"] * (len(columns) - right) + ["right"] * right

    def row(tag: str, cells: Sequence[str]) -> str:
        shown = zip(sides, cells, strict=True)
        made = [f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in shown]
        return f"<tr>{''.join(made)}</tr>"

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(row("td", cells) for cells in rows)
    return f"<table>{caption}<thead>{row('th', columns)}</thead><tbody>{body}</tbody></table>"


def paragraphs(sentences: Iterable[str]) -> str:
    """A paragraph for each sentence."""
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
