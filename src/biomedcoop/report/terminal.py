"""Tables of a run for the terminal; the command line does their layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.report import table as cells
from biomedcoop.report.tables import class_cells, comparison_cells, spread_cells

if TYPE_CHECKING:
    from rich.table import Table


def comparison_table(rows: Mapping[str, Metrics], title: str = "") -> Table:
    """One row per method, the reported method first and in bold; percent with 95 % intervals."""
    return _table(comparison_cells(rows), title, bold_first=True)


def spread_table(by_seed: Mapping[str, Sequence[Metrics]], title: str = "") -> Table:
    """One row per method: mean ± standard deviation over the seeds, in percent."""
    return _table(spread_cells(by_seed), title, caption="in %")


def class_table(metrics: Metrics, title: str = "") -> Table:
    """One row per class: test images, sensitivity, specificity, precision, AUROC; percent with 95 % intervals."""
    return _table(class_cells(metrics), title)


INTERVALS = "in %, with 95 % bootstrap intervals; –: not defined on these images"


def _table(content: cells.Table, title: str, bold_first: bool = False, caption: str = INTERVALS) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, caption=caption)
    for number, name in enumerate(content.columns):
        table.add_column(name, justify="right" if number else "left")
    for number, row in enumerate(content.rows):
        # As Text: a class called "[benign]" is a name, not markup.
        table.add_row(*(Text(str(cell)) for cell in row), style="bold" if bold_first and number == 0 else None)
    return table
