"""The table of results by subgroup, and where a run shows it."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.evaluation.subgroups import by_subgroup
from biomedcoop.report.subgroups import subgroup_cells


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("cyst", "stone"), ["accuracy", "sensitivity: cyst", "sensitivity: stone", "difference"]),
        (("a", "b", "c", "d"), ["accuracy", "balanced accuracy", "difference"]),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_row_per_subgroup_with_dashes_for_few_images(names, columns, grouped):
    sites = np.array(["A"] * 60 + ["B"] * 55 + ["C"] * 5)
    groups = [f"P{i}" for i in range(120)] if grouped else None
    labels, right = np.arange(120) % len(names), np.arange(120) % 3 > 0
    found = by_subgroup({"site": sites}, right, labels, names, groups=groups, n_bootstrap=50)
    table = subgroup_cells(found)
    assert table.columns == ["subgroup", "test images", *(["groups"] if grouped else []), *columns]
    assert [row[0] for row in table.rows] == ["site: A", "site: B", "site: C"]
    values = 2 + grouped
    assert table.rows[0][1:values] == ["60"] * (values - 1)
    assert table.rows[0][values].startswith("66.7 (")
    assert table.rows[0][-1][0] in "+−"
    assert set(table.rows[2][values:]) == {"–"}
