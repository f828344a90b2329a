"""Tables of a run for the terminal; the command line does their layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from biomedcoop.evaluation.calibration import Calibration
from biomedcoop.evaluation.comparison import Comparison
from biomedcoop.evaluation.coverage import Coverage
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.evaluation.subgroups import Subgroups
from biomedcoop.report import table as cells
from biomedcoop.report.subgroups import subgroup_cells
from biomedcoop.report.tables import class_cells, comparison_cells, ranked_cells, spread_cells, tried_cells
from biomedcoop.report.trust import calibration_cells, coverage_cells

if TYPE_CHECKING:
    from rich.table import Table


def comparison_table(rows: Mapping[str, Metrics], title: str = "") -> Table:
    """One row per method, the reported method first and in bold; percent with 95 % intervals."""
    method, metrics = next(iter(rows.items()))
    return _table(comparison_cells(rows, _left_out(metrics)), title, bold=method)


def spread_table(comparison: Comparison, title: str = "") -> Table:
    """One row per method with several runs: mean ± standard deviation, in percent."""
    return _table(spread_cells(comparison, _left_out(comparison.metrics)), title, caption="in %")


def ranked_table(comparison: Comparison, title: str = "") -> Table:
    """One row per method, the best first, with the paired difference to the reported method."""
    return _table(ranked_cells(comparison), title, bold=comparison.method)


def class_table(metrics: Metrics, title: str = "") -> Table:
    """One row per class: test images, sensitivity, specificity, precision, AUROC; percent with 95 % intervals."""
    return _table(class_cells(metrics), title)


def tried_table(tried: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """The mixture and each method that was tried: its share, and accuracy and log-loss of held-out training images."""
    content = tried_cells(tried)
    return _table(content, title, caption=content.notes[0])


def subgroup_table(subgroups: Subgroups, title: str = "") -> Table:
    """One row per subgroup: accuracy, and the difference to the other images of the same classes."""
    return _table(subgroup_cells(subgroups, short=True), title)


def calibration_table(found: Calibration, title: str = "") -> Table:
    """Temperature, calibration error and Brier score, before and after."""
    return _table(calibration_cells(found), title, caption="with 95 % intervals")


def coverage_table(found: Coverage, title: str = "") -> Table:
    """Coverage and size of the prediction sets, over all and by class."""
    cells_of_sets = coverage_cells(found)
    return _table(cells_of_sets, title, caption=" ".join(cells_of_sets.notes))


def _left_out(metrics: Metrics) -> tuple[str, ...]:
    """Metrics that the terminal does not show: with kappa, all of them do not fit into 80 columns."""
    return ("macro_f1",) if metrics.grades else ()


INTERVALS = "in %, with 95 % intervals; –: not defined on these images"


def _table(content: cells.Table, title: str, bold: str = "", caption: str = INTERVALS) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, caption=caption)
    sides = content.align or "l" + "r" * (len(content.columns) - 1)
    for name, side in zip(content.columns, sides, strict=True):
        table.add_column(name, justify="right" if side == "r" else "left")
    for row in content.rows:
        # As Text: a class called "[benign]" is a name, not markup.
        table.add_row(*(Text(str(cell)) for cell in row), style="bold" if row[0] == bold else None)
    return table
