"""The columns of one dataset from real work on simulated scans, and the trained ones from what was kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from benchmarks.mini.accuracy import COLUMNS, Row, measure
from benchmarks.mini.kept import kept
from benchmarks.mini.learned import LEARNED, WAYS, learned, learned_table
from biomedcoop.backbones.base import Backbone
from biomedcoop.evaluation.evaluate import evaluate


def test_what_was_kept_is_read_and_anything_else_made_anew(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"number": len(calls)}

    folder = tmp_path / "new"
    assert [kept(folder, "one", ["a", 1], compute)["number"] for _ in range(2)] == [1, 1]
    assert kept(folder, "two", ["a", 1], compute)["number"] == 2
    assert kept(folder, "one", ["a", 2], compute)["number"] == 3
    assert [kept(None, "one", ["a", 2], compute)["number"] for _ in range(2)] == [4, 5]


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch, tiny: Backbone) -> Row:
    """Simulated scans in place of the real dataset of that name."""
    data = replace(bc.load_dataset("simulated:breast-ultrasound?train=16&val=2&test=8"), name="busi")
    for module in ("biomedcoop", "benchmarks.mini.accuracy"):
        monkeypatch.setattr(f"{module}.load_dataset", lambda name: data)
    monkeypatch.setattr("benchmarks.mini.probe.C_GRID", (0.1, 1.0))
    return measure(tiny, "busi", "unseen", "test", None, {})[0]


def test_columns_and_trained_columns_of_a_dataset(
    row: Row, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(COLUMNS) <= set(row.scores)
    recall = [row.scores["class_names"][row.held.labels == c].mean() for c in range(3)]
    assert row.estimates["balanced"].value == pytest.approx(np.mean(recall))
    wrong = row.scores["sentences"] - row.scores["dealt"]
    assert row.estimates["gain_dealt"].value == pytest.approx(wrong.mean())

    monkeypatch.delitem(WAYS, "general")  # takes a minute
    monkeypatch.delitem(LEARNED, "general")
    clock: dict[str, float] = {}
    (found,) = learned(tiny, [row], "test", tmp_path, clock)
    assert list(found.estimates) == list(LEARNED) == ["largest", "class_names", "ensemble", "fast"]
    data = bc.load_dataset("busi")
    fitted = bc.fit_runs(data, "biomedcoop", tiny, 16, [1, 2, 3], recipe="fast")
    accuracies = [evaluate(c, data, "test", n_bootstrap=40).accuracy.value for c in fitted]
    assert found.draws["fast"] == pytest.approx(accuracies)
    assert found.estimates["fast"].value == pytest.approx(np.mean(accuracies))
    assert found.estimates["class_names"] == row.estimates["class_names"]

    monkeypatch.setattr("biomedcoop.fit_runs", lambda *_, **__: pytest.fail("trained again"))
    again: dict[str, float] = {}
    table = learned_table(learned(tiny, [row], "test", tmp_path, again), tiny, "test")
    assert again == clock, "seconds of what was kept"
    assert list(table.rows[0]) == list(learned_table([found], tiny, "test").rows[0])
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        learned(tiny, [row], "val", tmp_path, {})
