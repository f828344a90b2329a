"""The study of fine-tuning: a cell is measured on the test split, and what is missing is a dash."""

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
    made = fine_tune.tables({("busi", 4, "fine-tune"): found})
    first = made["accuracy"].rows[0]
    assert list(first[:3]) == ["unseen", "busi", 4]
    assert str(first[5]).startswith(f"{found['accuracy']:.1f} (")
    assert [cell for row in made["accuracy"].rows for cell in row[3:]].count("–") == 6 * len(fine_tune.ROWS) - 1
    fine_tune_figure(made, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
