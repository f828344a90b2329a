"""``train --alpha`` and ``predict``: sets in the run folder and in the table of predictions; what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_train_and_predict_write_sets(discs: Path, tmp_path: Path, cli: Callable[..., Any], parity: Path) -> None:
    run = tmp_path / "run"
    result = cli(
        *("train", "--data", discs, "--backbone", parity / "model", "--method", "tip-adapter", "--alpha", 0.2),
        *("--n-bootstrap", 40, "--out", run),
        page=True,
    )
    assert result.status == 0, result
    text = (run / "report.md").read_text()
    assert "## Calibration" in text
    assert "Brier score" in text
    assert "## Prediction sets" in text
    assert "Cost of the calibration images" in text
    assert "in 95 of 100 draws, at least " in text
    assert "Prediction sets" in (run / "report.html").read_text()
    assert "prediction sets" in result.out
    with (run / "predictions.csv").open(newline="") as file:
        tested = list(csv.DictReader(file))
    covered = np.mean([row["truth"] in row["set"].split(" | ") for row in tested])
    assert f"| all | {len(tested)} | {100 * covered:.1f} (" in text
    out = tmp_path / "sets.csv"
    assert (
        cli("predict", run, *sorted(discs.glob("test/*/00.png")), "--backbone", parity / "model", "--out", out).status
        == 0
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"blue cyst", "green tumor", "red stone"}
    for row in rows:
        inside = [name for name in row["set"].split(" | ") if name]
        assert set(inside) <= names
        assert int(row["set_size"]) == len(inside)
        assert row["abstain"] == str(int(len(inside) != 1))


@pytest.mark.parametrize("alpha", ["0", "1", "1.5", "-0.1", "much"])
def test_alpha_lies_between_0_and_1(alpha: str, discs: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    line = refused("train", "--data", discs, f"--alpha={alpha}", "--out", tmp_path / "run")
    assert f"--alpha '{alpha}' must be a number between 0 and 1, both excluded, e.g. --alpha 0.1" in line


def test_an_unknown_score_or_calibration_is_refused(discs: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    train = "train", "--data", discs, "--out", tmp_path / "run"
    assert "no score 'rap' of prediction sets" in refused(*train, "--alpha", 0.1, "--score", "rap")
    assert "--calibrate 'maybe' must be one of auto, yes, no" in refused(*train, "--calibrate", "maybe")
