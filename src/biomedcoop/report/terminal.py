"""A run's tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.report.tables import Cells, class_cells, comparison_cells

if TYPE_CHECKING:
    from rich.table import Table


def comparison_table(rows: Mapping[str, Metrics], title: str = "") -> Table:
    """Methods side by side, the first one (the reported) in bold; percent with 95 % intervals."""
    return _table(comparison_cells(rows), title, bold_first=True)


def class_table(metrics: Metrics, title: str = "") -> Table:
    """One row per class: test images, sensitivity, specificity, precision, AUROC; percent with 95 % intervals."""
    return _table(class_cells(metrics), title)


def _table(cells: Cells, title: str, bold_first: bool = False) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    header, rows = cells
    table = Table(
        title=Text(title) if title else None,
        caption="in %, with 95 % bootstrap intervals",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for number, name in enumerate(header):
        # In a narrow terminal a number and its interval stand below each other, but are never broken.
        widest = max(len(word) for cell in (name, *(row[number] for row in rows)) for word in cell.split())
        if number:
            table.add_column(name, justify="right", min_width=widest)
        else:
            table.add_column(name, overflow="fold", min_width=min(widest, 24))
    for number, row in enumerate(rows):
        # As Text: a class called "[benign]" is a name, not markup.
        table.add_row(*(Text(cell) for cell in row), style="bold" if bold_first and number == 0 else None)
    return table
