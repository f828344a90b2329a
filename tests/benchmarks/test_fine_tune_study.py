"""The study of fine-tuning: a cell is measured on the test split, what is missing is a dash, or left out."""

from __future__ import annotations

from pathlib import Path

import pytest

import biomedcoop as bc
from benchmarks.figures import fine_tune_figure
from benchmarks.studies import fine_tune
from biomedcoop.backbones.base import Backbone


def test_a_cell_and_the_tables(discs: Path, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bc.load_dataset(discs)
    monkeypatch.setattr(bc, "load_dataset", lambda name: data)
    found = fine_tune.compute("busi", 2, fine_tune.Row("fine-tune", settings={"epochs": 1}), tiny)
    classifier = bc.fit(data, "fine-tune", tiny, 2, settings={"epochs": 1})
    assert found["accuracy"] == pytest.approx(100 * bc.evaluate(classifier, data, "test").accuracy.value)
    assert found["low"] <= found["accuracy"] <= found["high"]
    made = fine_tune.tables({("busi", 4, "fine-tune"): found, ("bccd_cells", 16, "clip-svd"): found})
    table, shown = made["accuracy"], f"{found['accuracy']:.1f} ({found['low']:.0f}–{found['high']:.0f})"
    assert list(table.columns) == ["group", "dataset", "images per class", "fine-tune", "clip-svd"]
    assert [list(row) for row in table.rows] == [
        ["unseen", "busi", 4, shown, "–"],
        ["seen", "bccd_cells", 16, "–", shown],
    ]
    fine_tune_figure(made, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
