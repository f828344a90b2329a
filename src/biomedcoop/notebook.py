"""HTML fragments of values for a notebook; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def fragment(heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]], sentences: Iterable[str] = ()) -> str:
    """A heading, paragraphs and a table; the first column is aligned to the left, the others to the right."""

    def row(tag: str, cells: Sequence[str]) -> str:
        sides = ["left", *["right"] * (len(cells) - 1)]
        shown = zip(sides, cells, strict=True)
        made = [f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in shown]
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f"<h3>{escape(heading)}</h3>{words}<table><thead>{row('th', columns)}</thead><tbody>{body}</tbody></table>"
