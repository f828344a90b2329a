"""The tables of a study, from answers counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.results import Results
from biomedcoop.report.studies import dataset_table, difference_table, mean_table

RIGHT = {
    ("x", "a"): [[1, 1, 1, 1]],
    ("y", "a"): [[1, 1, 0, 0]],
    ("x", "b"): [[0, 0, 0, 1]],
    ("y", "b"): [[0, 0, 0, 1]],
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    cells = [Cell(name, key, f"{name}-{key}") for name, key in RIGHT]
    for cell in cells:
        cell.file(tmp_path).write_text(json.dumps(RIGHT[cell.dataset, str(cell.key)]))
    groups = {name: np.array(list("abcd")) for name in ("x", "y")}
    return Results(groups, tmp_path, cells, {"seen": ("x", "y"), "unseen": ("y", "z")})


def test_datasets_and_the_means_of_complete_collections(results: Results) -> None:
    table = dataset_table(results, {"A": "a", "B": "b"})
    assert table.columns == ["group", "dataset", "A", "B"]
    assert table.rows == [
        ["seen", "x", "100.0", "25.0"],
        ["seen", "y", "50.0", "25.0"],
        ["seen", "**mean**", "**75.0**", "**25.0**"],
        ["unseen", "y", "50.0", "25.0"],
    ]


def test_differences_have_both_intervals(results: Results) -> None:
    table = difference_table(results, {"b − a": (["b"], ["a"])})
    assert table.columns == ["", "seen: points (over images)", "seen: over datasets"]
    (name, images, datasets), *_ = table.rows
    assert name == "b − a"
    assert str(images).startswith("−50.0 (")
    assert str(datasets) == "−367.7 to +267.7"  # −50 ± 12.706 · 35.36 / √2


def test_a_variant_that_a_row_lacks_gets_a_dash(results: Results) -> None:
    table = mean_table(results, "method", {"one": {"1": "a", "4": "b"}, "two": {"1": "b"}})
    assert table.columns == ["method", "seen, 1", "seen, 4"]
    assert table.rows == [["one", "75.0", "25.0"], ["two", "25.0", "–"]]
