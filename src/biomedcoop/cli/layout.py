"""Layout of tables as lines of text that fit into the terminal.

Cells are wrapped at blanks. Where the longest words of the columns do not fit side by side, words are divided too: first behind a
dash, an underline or a slash inside a word ("100.0–" and "100.0"), and in a very narrow terminal anywhere. Nothing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

GAP = "  "

BREAK = re.compile(r"(?<=\w[-–_/])(?=\w)")
"""Places inside a word where it may be divided; the place behind the sign of a number is none."""

Length = Callable[[str], int]
"""Number of terminal cells of a text."""


def lay_out(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int) -> list[list[str]]:
    """Lay out rows as lines of text; returns the lines of each row.

    The columns share the width. Lines are longer than the width only if there is no room for one character of each column.

    Args:
        rows: cells of each row, including the header.
        right: True for each column that is aligned to the right.
        width: width of a line, in terminal cells.
    """
    from rich.cells import cell_len

    columns = list(zip(*rows, strict=True))
    widths = _widths(columns, width - len(GAP) * (len(columns) - 1), cell_len)

    def at_edge(line: str, column: int) -> str:
        blanks = " " * (widths[column] - cell_len(line))
        return blanks + line if right[column] else line + blanks

    laid = []
    for row in rows:
        cells = [_wrapped(cell, widths[i], cell_len) for i, cell in enumerate(row)]
        height = max(map(len, cells))
        padded = [[*lines, *[""] * (height - len(lines))] for lines in cells]
        laid.append([GAP.join(at_edge(lines[k], i) for i, lines in enumerate(padded)).rstrip() for k in range(height)])
    return laid


def _widths(columns: Sequence[Sequence[str]], room: int, cell_len: Length) -> list[int]:
    """Width of each column, so that all of them have room side by side."""

    def longest(texts: Iterable[str]) -> int:
        return max(map(cell_len, texts), default=0)

    words = [longest(word for cell in column for word in cell.split()) for column in columns]
    parts = [
        longest(part for cell in column for word in cell.split() for part in BREAK.split(word)) for column in columns
    ]
    wanted = [longest(" ".join(cell.split()) for cell in column) for column in columns]
    widths = list(words)
    for i in sorted(range(len(columns)), key=lambda i: parts[i] - words[i]):  # few columns have divided words
        widths[i] -= min(words[i] - parts[i], max(0, sum(widths) - room))
    while sum(widths) > room and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    for _ in range(room - sum(widths)):  # each spare cell goes to the narrowest column that is too narrow for its text
        if growing := [i for i, have in enumerate(widths) if have < wanted[i]]:
            widths[min(growing, key=widths.__getitem__)] += 1
    return widths


def _wrapped(cell: str, width: int, cell_len: Length) -> list[str]:
    """The lines of a cell; at least one."""
    lines: list[str] = []
    for word in cell.split():
        blank = " "
        for part in _divided(word, width, cell_len):
            if lines and cell_len(f"{lines[-1]}{blank}{part}") <= width:
                lines[-1] += f"{blank}{part}"
            else:
                lines.append(part)
            blank = ""
    return lines or [""]


def _divided(word: str, width: int, cell_len: Length) -> Iterator[str]:
    """The word, or parts of it that fit into the width."""
    if cell_len(word) <= width:
        yield word
        return
    for part in BREAK.split(word):
        piece = ""
        for character in part:
            if piece and cell_len(piece + character) > width:
                yield piece
                piece = ""
            piece += character
        yield piece
