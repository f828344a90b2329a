"""Layout of tables as lines of text. Cells are wrapped at blanks; words are never divided and never cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

GAP = "  "


def lay_out(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int) -> list[list[str]]:
    """Lay out rows as lines of text; returns the lines of each row.

    The columns share the width. Lines are longer than the width if the longest words of the columns need more room.

    Args:
        rows: cells of each row, including the header.
        right: True for each column that is aligned to the right.
        width: width of a line, in terminal cells.
    """
    from rich.cells import cell_len

    columns = list(zip(*rows, strict=True))
    widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    wanted = [max(cell_len(" ".join(cell.split())) for cell in column) for column in columns]
    free = width - sum(widths) - len(GAP) * (len(columns) - 1)
    for _ in range(free):  # each spare cell goes to the narrowest column that is too narrow for its text
        if growing := [i for i, have in enumerate(widths) if have < wanted[i]]:
            widths[min(growing, key=widths.__getitem__)] += 1

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


def _wrapped(cell: str, width: int, cell_len: Callable[[str], int]) -> list[str]:
    lines: list[str] = []
    for word in cell.split():
        if lines and cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]
