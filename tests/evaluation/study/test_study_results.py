"""Means and paired differences of cells, with both intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.results import Results

RIGHT = {
    ("x", "mine"): [[1, 1, 1, 1]] * 3,
    ("y", "mine"): [[1, 1, 1, 1]] * 3,
    ("x", "other"): [[1, 1, 0, 0]] * 3,
    ("y", "other"): [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]],
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    cells = [Cell(name, key, f"{name}-{key}") for name, key in RIGHT]
    for cell in cells:
        cell.file(tmp_path).write_text(json.dumps(RIGHT[cell.dataset, str(cell.key)]))
    related = {name: np.array(list("abcd")) for name in ("x", "y")}
    return Results(related, tmp_path, cells, {"seen": ("x", "y"), "unseen": ("y", "z"), "none": ("z",)})


def test_a_difference_is_paired(results: Results) -> None:
    """By hand: 5 of 8 answers less in the mean of three seeds."""
    found = results.mean(("x", "y"), ["other"], ["mine"])
    images, datasets = found.over_images, found.over_datasets
    assert found.value == images.value == datasets.value == pytest.approx((-0.5 - 0.75) / 2)
    assert images.low < images.value < images.high
    half = t.ppf(0.975, 1) * np.array([-0.5, -0.75]).std(ddof=1) / 2**0.5
    assert (datasets.low, datasets.high) == pytest.approx((-0.625 - half, -0.625 + half))


def test_one_dataset_has_no_interval_over_datasets(results: Results) -> None:
    assert results.mean(("x",), ["other"]).over_datasets.low is None


def test_several_keys_are_averaged(results: Results) -> None:
    assert results.mean(("x", "y"), ["other", "mine"], ["mine"]).value == pytest.approx(-0.625 / 2)


def test_a_collection_with_a_missing_dataset_is_not_complete(results: Results) -> None:
    assert results.complete == {"seen": ["x", "y"]}
    assert results.collections == {"seen": ["x", "y"], "unseen": ["y"]}
