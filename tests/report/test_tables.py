"""The order of the columns in tables of methods."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.report.tables import comparison_cells
from biomedcoop.report.terminal import comparison_table


def of_sizes(sizes: tuple[int, int]) -> Metrics:
    labels = np.repeat([0, 1], sizes)
    p = np.random.default_rng(0).dirichlet([1, 1], len(labels))
    return score(p, labels, ("cyst", "stone"), n_bootstrap=40)


@pytest.mark.parametrize(("sizes", "first"), [((31, 10), "balanced accuracy"), ((30, 10), "accuracy")], ids=str)
def test_the_first_measure(sizes: tuple[int, int], first: str) -> None:
    """Balanced accuracy where classes differ by more than three to one; the values move with their titles."""
    rows = {"coop": of_sizes(sizes)}
    table = comparison_cells(rows)
    assert table.columns[1] == first
    assert sorted(table.columns[1:3]) == ["accuracy", "balanced accuracy"]
    value = getattr(rows["coop"], first.replace(" ", "_")).value
    assert str(table.rows[0][1]).startswith(f"{100 * value:.1f}")
    assert comparison_table(rows).columns[1].header == first
